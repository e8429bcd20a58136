/*-------------------------------------------------------------------------
 * mergestate.c
 *	  One batch under way: what all who merge share.
 *
 * Floor 5.  Reads the log through versions, writes it through changelog.  Runs
 * in apply backends.
 *
 * Invariant: a version that came is known to the clock before anything is
 * looked up because of it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "breaks.h"
#include "catalog.h"
#include "clock.h"
#include "errors.h"
#include "guc.h"
#include "mergestate.h"
#include "rowerror.h"
#include "shared.h"
#include "topology.h"

/* Each look waits for whoever was in the way: more are needed only if it never ends. */
#define MAX_LOOKS	1000

void
mmr_merge_look_again(MmrMergeTable *table, int *looks)
{
	if (++*looks > MAX_LOOKS)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("rows of table \"%s\" keep changing while changes of a peer are applied",
						RelationGetRelationName(table->rel)),
				 errhint("If nobody writes them: does a trigger that is enabled for replicas change the key?")));
}

void
mmr_merge_settle_recording(MmrSync *sync, MmrMergeTable *table)
{
	table->goes_on = mmr_topology_goes_on(sync, table->relid);
	table->record_all = table->goes_on || mmr_topology_has_third(table->relid);
#ifdef MMR_BREAK_RECORD
	table->record_all = false;
#endif
}

bool
mmr_merge_hold_members(MmrMerge *m, List *tables)
{
	MmrSync    *old = m->sync;
	MmrSync    *now;
	bool		same;
	ListCell   *lc;

	LockRelationOid(mmr_catalog_table("known_member"), RowShareLock);
	/* what was there before is kept for one time */
	if (!mmr_membership_refresh())
		return false;
	now = mmr_membership_sync(old->id);
	same = now != NULL && now->my_role == old->my_role && !now->joining &&
		(m->bequest || mmr_topology_links(now, m->source_node, m->my_node));
	/* nor has somebody departed whose changes were recorded as his */
	foreach(lc, old->nodes)
	{
		MmrSyncNode *was = lfirst(lc);

		same = same && (was->role != MMR_ROLE_SOURCE || was->node->id == m->my_node ||
						(mmr_membership_is_source(now, was->node->id) &&
						 mmr_membership_sync_node(now, was->node->id)->since == was->since));
	}
	foreach(lc, tables)
	{
		MmrMergeTable *t = lfirst(lc);

		MmrMergeTable wanted = *t;

		mmr_merge_settle_recording(now, &wanted);
		same = same && (t->record_all || !wanted.record_all) && (t->goes_on || !wanted.goes_on);
	}
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the configuration has changed while a batch was applied")));
	m->sync = now;
	return true;
}

void
mmr_merge_hold_ends(bool alone)
{
	LockDatabaseObject(mmr_catalog_table("progress"), InvalidOid, 0, alone ? ExclusiveLock : ShareLock);
}

void
mmr_merge_before_commit(MmrMerge *m)
{
	if (!m->recorded)
		return;
	mmr_merge_hold_ends(m->absent);
	(void) mmr_merge_snapshot(m);
	PopActiveSnapshot();
	if (m->crossed || mmr_versions_crossing(m->versions)->met > 0 ||
		(m->absent && pg_atomic_read_u64(&mmr_shared_database()->copies) != m->copies))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("another peer's changes of the same keys have been applied meanwhile")));
}

void
mmr_merge_see(MmrMerge *m, int64 ts)
{
	TimestampTz now;

	if (ts <= m->max_ts)
		return;
	now = GetCurrentTimestamp();
	if (ts > now + (int64) mmr_guc_max_clock_skew * 1000)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_CLOCK_SKEW),
				 errmsg("changes from a peer are %.3f seconds ahead of the clock here",
						(ts - now) / 1000000.0),
				 errdetail("They are held back until the clock here has come within mmrepl.max_clock_skew."),
				 errhint("Set the clocks of both servers right, or raise mmrepl.max_clock_skew here.")));
	m->max_ts = ts;
	mmr_clock_raise(ts);
}

Snapshot
mmr_merge_snapshot(MmrMerge *m)
{
	Snapshot	snapshot;
	MmrPosition *pos;

	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	snapshot = GetActiveSnapshot();
	pos = mmr_position_active();
	m->feeding = true;
	mmr_versions_feed(m->versions, snapshot, pos);
	m->feeding = false;
	pfree(pos);
	return snapshot;
}

/* An entry to be recorded when the work under guard has come to its end. */
typedef struct HeldRecord
{
	MmrMergeTable *table;
	MmrChange	change;
	uint64		hash;
	MmrVersion	known;			/* newest of the key then */
} HeldRecord;

static void
record_hold(MmrMerge *m, MmrMergeTable *table, const MmrChange *change, uint64 hash)
{
	MemoryContext old = MemoryContextSwitchTo(m->batch_cxt);
	HeldRecord *h = palloc(sizeof(HeldRecord));
	char	   *key = palloc(change->keylen + 1);
	MmrState	state;

	if (change->keylen > 0)
		memcpy(key, change->key, change->keylen);
	h->table = table;
	h->change = *change;
	h->change.key = key;
	h->hash = hash;
	h->known = change->op != MMR_OP_TRUNCATE &&
		mmr_versions_lookup(m->versions, table->key, hash, key, change->keylen, &state) ?
		state.version : MMR_VERSION_NONE;
	m->held = lappend(m->held, h);
	MemoryContextSwitchTo(old);
}

void
mmr_merge_record(MmrMerge *m, MmrMergeTable *table, const MmrChange *change, uint64 hash)
{
	MmrChange	own;

	m->authored |= change->dot.node == m->my_node || table->goes_on;
	if (m->guarded)
	{
		record_hold(m, table, change, hash);
		return;
	}
	/* what a departed source has written, and comes round a corner, is passed on from here (departed.h) */
	if (change->dot.node != m->my_node && m->sync->my_role == MMR_ROLE_SOURCE &&
		!mmr_membership_is_source(m->sync, change->dot.node) &&
		!mmr_topology_reaches(mmr_topology_ways(table->relid), change->dot.node, m->my_node))
	{
		own = *change;
		own.dot.node = m->my_node;
		own.dot.xid = U64FromFullTransactionId(GetTopFullTransactionId());
		change = &own;
		m->authored = true;
	}
	if (m->appender == NULL)
	{
		m->appender = mmr_changelog_begin(m->my_node, true);
		mmr_changelog_via(m->appender, m->sync->id);
	}
	m->recorded |= table->record_all;
	mmr_changelog_add(m->appender, change);
	mmr_versions_add(m->versions, table->key, hash, change);
}

void
mmr_merge_open_table(MmrMergeTable *table)
{
	if (table->rel != NULL)
		return;
	/* who writes takes more: to find that a TRUNCATE follows must not be in the way of another one */
	table->rel = table_open(table->relid, AccessShareLock);
	table->key = mmr_key_get(table->rel, table->key_index);
	if (table->key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_SCHEMA),
				 errmsg("table \"%s\" has lost its key index",
						RelationGetRelationName(table->rel))));
}

void
mmr_merge_flush(MmrMerge *m)
{
	if (m->appender != NULL)
		mmr_changelog_end(m->appender);
	m->appender = NULL;
}

/* Has somebody's change of the key become visible since, that this one has not met? */
static bool
held_crosses(MmrMerge *m, HeldRecord *h)
{
	MmrState	now;

	return h->change.op != MMR_OP_TRUNCATE &&
		mmr_versions_lookup(m->versions, h->table->key, h->hash, h->change.key, h->change.keylen, &now) &&
		mmr_version_compare(&now.version, &h->known) != 0 &&
		mmr_crossing_matters(h->change.op, &h->change.version, now.op, &now.version);
}

/* What was recorded under guard takes effect, or never was. */
static void
guard_end(MmrMerge *m, bool done)
{
	ListCell   *lc;

	m->guarded = false;
	foreach(lc, m->held)
		m->crossed |= done && held_crosses(m, lfirst(lc));
	foreach(lc, m->held)
	{
		HeldRecord *h = lfirst(lc);

		if (done)
			mmr_merge_record(m, h->table, &h->change, h->hash);
		pfree(unconstify(char *, h->change.key));
		pfree(h);
	}
	list_free(m->held);
	m->held = NIL;
}

/*
 * Neither the log nor the versions of this session can follow a subtransaction
 * that is rolled back, so what is to be recorded waits for its end.
 */
ErrorData *
mmr_merge_guard(MmrMerge *m, void (*work) (MmrMerge *m, void *arg), void *arg)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext cxt = AllocSetContextCreate(old, "mmrepl guard", ALLOCSET_DEFAULT_SIZES);
	ResourceOwner owner = CurrentResourceOwner;
	MmrMergeCounts counts = m->counts;
	int			naside = list_length(m->aside);
	ErrorData  *volatile error = NULL;

	Assert(!m->guarded);
	m->guarded = true;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		work(m, arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		/* versions that were fed by half are of no use to anybody */
		if (m->feeding || !mmr_rowerror_is(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		m->counts = counts;
		m->aside = list_truncate(m->aside, naside);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
	MemoryContextDelete(cxt);
	guard_end(m, error == NULL);
	return error;
}

bool
mmr_merge_sent(void *arg, AttrNumber attnum)
{
	return mmr_row_sends(arg, attnum);
}

void
mmr_merge_fill(MmrMergeTable *table, MmrTarget *t, MmrMergeItem *item, bool found)
{
	ExecClearTuple(t->row);
	mmr_row_decode(table->format, item->row, item->rowlen, t->row);
	mmr_target_complete(t, mmr_merge_sent, table->format, found);
	ExecStoreVirtualTuple(t->row);
}
