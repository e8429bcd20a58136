/*-------------------------------------------------------------------------
 * apply.c
 *	  A batch from a peer, in one transaction of this backend.
 *
 * Floor 9.  Reads and writes user tables, the log, progress, through merge,
 * sweep and collide.  Runs in a backend that a peer's pusher has opened here; it
 * is called once per frame, by a role that may have no other right.
 *
 * What a frame holds is hostile until it is checked: a table must be a member
 * of the sync, the sync and the source those of the handshake, a batch must
 * start at the position stored here (A1).
 *
 * Invariant: rows, recorded entries, counters and the new position are of one
 * transaction (A8).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "alarm.h"
#include "apply.h"
#include "capture.h"
#include "careful.h"
#include "errors.h"
#include "guc.h"
#include "incoming.h"
#include "join.h"
#include "progress.h"
#include "seqcopy.h"
#include "setaside.h"
#include "shared.h"
#include "sweep.h"
#include "target.h"
#include "topology.h"
#include "wire.h"

PG_FUNCTION_INFO_V1(mmrepl_apply);

/* A batch under way: lives in TopTransactionContext. */
typedef struct ApplyBatch
{
	MmrMerge	merge;
	int			kind;			/* MMR_BATCH_* */
	MmrPosition *to;
	MmrContext *context;
	MmrProgress *progress;
	List	   *tables;			/* MmrMergeTable */
	MmrMergeTable *table;		/* looked at last, for messages */
	bool		changes;		/* told of changes, whatever came of them */
	bool		ended;
} ApplyBatch;

/* For the life of the backend. */
static struct
{
	int32		sync_id;		/* 0: no handshake yet */
	int32		source_node;
	bool		bequest;		/* who has departed: a target gives it */
	MmrSync    *sync;			/* valid until membership is refreshed */
	MmrVersions *versions;
	bool		versions_lost;	/* they hold what was rolled back */
	bool		careful;		/* the next batch may hold what cannot be applied */
	ApplyBatch *batch;
	bool		callback;
	TimeoutId	recheck;		/* while a frame is applied */
} session;

/* Not what a pusher does. */
static void
apply_refuse(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_MMR_PROTOCOL),
			 errmsg("%s", what)));
}

static void
apply_xact(XactEvent event, void *arg)
{
	MmrDatabase *db;

	if (session.batch == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_ABORT:
			/* versions recorded by this transaction never were; nothing is allocated here */
			session.versions_lost = true;
			session.batch = NULL;
			break;
		case XACT_EVENT_PRE_COMMIT:
			/* B7 */
			if (!session.batch->ended)
				apply_refuse("cannot commit a part of a batch");
			mmr_merge_before_commit(&session.batch->merge);
			break;
		case XACT_EVENT_COMMIT:
			db = mmr_shared_database();
			if (session.batch->kind == MMR_BATCH_CHANGES)
				session.careful = false;
			if (db != NULL && session.batch->ended)
			{
				pg_atomic_fetch_add_u64(&db->contexts, 1);
				if (session.batch->kind == MMR_BATCH_COPY)
					pg_atomic_fetch_add_u64(&db->copies, 1);
				/* also when nothing had to be done: the sender waits to hear that we know */
				if (session.batch->changes)
					pg_atomic_fetch_add_u64(&db->applied, 1);
				if (session.batch->merge.authored)
					mmr_alarm_committed(0);
				else
					mmr_alarm_applied();
			}
			session.batch = NULL;
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot prepare a transaction that applies a batch")));
			break;
		default:
			break;
	}
}

/* For the versions table: the key of a member of the session's sync. */
static MmrKey *
apply_find_key(void *arg, Oid relid)
{
	MmrMember  *member = mmr_membership_table(session.sync, relid);
	Relation	rel;
	MmrKey	   *key;

	if (member == NULL || (rel = try_table_open(relid, AccessShareLock)) == NULL)
		return NULL;
	key = mmr_key_get(rel, member->key_index);
	table_close(rel, AccessShareLock);
	return key;
}

/* Versions of what was rolled back are forgotten. */
static void
apply_regain_versions(void)
{
	if (session.versions_lost)
		mmr_versions_reset(session.versions);
	session.versions_lost = false;
}

void
mmr_apply_open(int32 sync_id, int32 source_node, bool bequest)
{
	if (session.batch != NULL)
		apply_refuse("handshake inside a batch");
	if (!session.callback)
	{
		session.recheck = RegisterTimeout(USER_TIMEOUT, CheckDeadLockAlert);
		RegisterXactCallback(apply_xact, NULL);
		session.callback = true;
		session.versions = mmr_versions_create(TopMemoryContext, apply_find_key, NULL, NULL);
	}
	session.sync_id = sync_id;
	session.source_node = source_node;
	session.bequest = bequest;
	session.careful = false;
	mmr_versions_reset(session.versions);
}

void
mmr_apply_be_careful(void)
{
	session.careful = true;
}

int32
mmr_apply_source(void)
{
	return session.source_node;
}

MmrVersions *
mmr_apply_versions(MmrSync *sync)
{
	if (session.sync_id != sync->id || session.batch != NULL)
		apply_refuse("there was no handshake for this sync");
	apply_regain_versions();
	session.sync = sync;
	PushActiveSnapshot(GetLatestSnapshot());
	mmr_versions_feed(session.versions, GetActiveSnapshot(), mmr_position_active());
	return session.versions;
}

/* The sync of the handshake, if it may be applied now. */
static MmrSync *
apply_sync(int32 sync_id, int32 source)
{
	MmrSync    *sync;

	if (sync_id != session.sync_id || source != session.source_node)
		mmr_wire_corrupt("batch is not of the sync and source of the handshake");
	/* tables may have come or gone: versions of others were not kept */
	if (mmr_membership_refresh())
		session.versions_lost = true;
	apply_regain_versions();
	sync = mmr_membership_sync(sync_id);
	if (sync == NULL || (!session.bequest && !mmr_topology_links(sync, source, mmr_membership_my_id())))
		ereport(ERROR,
				(errcode(ERRCODE_MMR_CONFIG),
				 errmsg("sync %d does not replicate from node %d to here", sync_id, source)));
	if (mmr_membership_stopped() || sync->paused || sync->joining)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_STOPPED),
				 errmsg("sync \"%s\" is %s", sync->name,
						sync->paused ? "paused" : sync->joining ? "not joined yet" : "stopped at the receiver")));
	return sync;
}

static void
apply_begin(MmrReader *r)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	ApplyBatch *b = palloc0(sizeof(ApplyBatch));
	int			sync_id;
	int			source;
	MmrPosition *from;

	if (session.batch != NULL)
		mmr_wire_corrupt("batch begins inside a batch");
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("a batch must be applied in a READ COMMITTED transaction")));
	b->kind = (int) mmr_get_bounded(r, MMR_BATCH_BEQUEST, "unknown kind of batch");
	if ((b->kind == MMR_BATCH_BEQUEST) != session.bequest)
		mmr_wire_corrupt("kind of batch is not what was asked for");
	sync_id = (int) mmr_get_bounded(r, PG_INT32_MAX, "sync is out of range");
	source = (int) mmr_get_bounded(r, PG_INT32_MAX, "node is out of range");
	from = mmr_get_position(r);
	b->to = mmr_get_position(r);
	b->context = mmr_get_context(r);

	b->merge.sync = session.sync = apply_sync(sync_id, source);
	mmr_capture_prepare_clock();
	b->merge.my_node = mmr_membership_my_id();
	b->merge.copies = pg_atomic_read_u64(&mmr_shared_database()->copies);
	b->merge.source_node = source;
	b->merge.context = b->context;
	b->merge.versions = session.versions;
	b->merge.copy = b->kind == MMR_BATCH_COPY;
	b->merge.bequest = b->kind == MMR_BATCH_BEQUEST;
	b->merge.careful = session.careful;
	mmr_setaside_refresh(b->merge.sync);
	b->merge.batch_cxt = AllocSetContextCreate(TopTransactionContext, "mmrepl batch",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(b->merge.batch_cxt);
	b->progress = mmr_progress_claim(sync_id, source);
	MemoryContextSwitchTo(old);
	if (b->kind == MMR_BATCH_CHANGES && !mmr_position_equal(from, b->progress->position))
		ereport(ERROR,
				(errcode(ERRCODE_MMR_POSITION),
				 errmsg("batch does not start where the last one ended")));
	if (b->kind == MMR_BATCH_COPY)
	{
		mmr_merge_see(&b->merge, (int64) mmr_get_bounded(r, PG_INT64_MAX, "time is out of range"));
		mmr_sweep_begin_copy(&b->merge);
	}
	mmr_target_defer_nothing();
	session.batch = b;
}

/* A table of the batch by the sender's number, open. */
static MmrMergeTable *
apply_table(ApplyBatch *b, MmrReader *r)
{
	uint32		number = (uint32) mmr_get_bounded(r, PG_UINT32_MAX, "table is out of range");
	MmrMergeTable *t;

	if (number == 0 || number > (uint32) list_length(b->tables))
		mmr_wire_corrupt("unknown table");
	t = list_nth(b->tables, number - 1);
	mmr_merge_open_table(t);
	b->table = t;
	return t;
}

/* A description: the table must be a member here. */
static void
apply_relation(ApplyBatch *b, MmrReader *r)
{
	MemoryContext old = MemoryContextSwitchTo(b->merge.batch_cxt);
	MmrRowDescription *d = mmr_row_read_description(r);
	MmrMember  *member = NULL;
	MmrMergeTable *t;
	MmrReader	self;
	char		number[MMR_VARINT_MAX];
	ListCell   *lc;

	foreach(lc, b->merge.sync->tables)
	{
		MmrMember  *m = lfirst(lc);

		if (strcmp(m->nspname, d->nspname) == 0 && strcmp(m->relname, d->relname) == 0)
			member = m;
	}
	if (member == NULL || !OidIsValid(member->relid) || !OidIsValid(member->key_index))
		ereport(ERROR,
				(errcode(ERRCODE_MMR_SCHEMA),
				 errmsg("table \"%s.%s\" comes from a peer but %s here", d->nspname, d->relname,
						member == NULL ? "is not a member of the sync" :
						OidIsValid(member->relid) ? "has no usable key" : "does not exist")));
	if (d->number != (uint32) list_length(b->tables) + 1)
		mmr_wire_corrupt("tables are out of order");
	t = palloc0(sizeof(MmrMergeTable));
	t->number = d->number;
	t->relid = member->relid;
	t->key_index = member->key_index;
	mmr_merge_settle_recording(b->merge.sync, t);
	/* what the giver of a copy keeps in his log is kept here, too; what is left goes to all */
	t->record_all |= b->kind != MMR_BATCH_CHANGES;
	/* a target writes nothing that others get: it takes what the sources decide */
	t->strategy = b->merge.sync->my_role == MMR_ROLE_SOURCE ? member->strategy : NULL;
	b->tables = lappend(b->tables, t);
	self.ptr = number;
	self.end = mmr_put_varint(number, t->number);
	(void) apply_table(b, &self);
	mmr_careful_bind(&b->merge, t, d);
	MemoryContextSwitchTo(old);
}

#define ITEMS_AT_ONCE	1024

/* Items of one table, as many as follow each other; the first one's record byte is read. */
static void
apply_items(ApplyBatch *b, MmrReader *r, int64 *ts)
{
	MmrMergeItem *items = palloc(sizeof(MmrMergeItem) * ITEMS_AT_ONCE);
	uint8		flags = mmr_get_byte(r);
	MmrMergeTable *t = apply_table(b, r);
	int			n = 0;

	for (;;)
	{
		MmrReader	next;
		MmrMergeTable *other;

		mmr_incoming_item(r, t, flags, session.source_node, b->merge.copy, ts, &items[n++]);
		if (n == ITEMS_AT_ONCE || mmr_reader_done(r) || *r->ptr != MMR_REC_ITEM)
			break;
		next = *r;
		(void) mmr_get_byte(&next);
		flags = mmr_get_byte(&next);
		other = apply_table(b, &next);
		if (other != t)
			break;
		*r = next;
	}
	b->changes = true;
	mmr_careful_items(&b->merge, t, items, n);
	pfree(items);
}

static void
apply_truncate(ApplyBatch *b, MmrReader *r)
{
	MmrMergeTable *t = apply_table(b, r);
	MmrChange	change = {0};

	change.op = MMR_OP_TRUNCATE;
	change.relid = t->relid;
	change.version.ts = (int64) mmr_get_bounded(r, PG_INT64_MAX, "time is out of range");
	change.version.node = (int32) mmr_get_bounded(r, PG_INT32_MAX, "node is out of range");
	change.dot.node = (int32) mmr_get_bounded(r, PG_INT32_MAX, "node is out of range");
	change.dot.xid = mmr_get_varint(r);
	b->changes = true;
	mmr_sweep_truncate(&b->merge, t, &change, b->kind == MMR_BATCH_COPY);
}

static void
apply_sequence(ApplyBatch *b, MmrReader *r)
{
	char	   *nspname = mmr_get_string(r);
	char	   *relname = mmr_get_string(r);
	int64		value = mmr_get_zigzag(r);
	bool		is_called = mmr_get_byte(r) != 0;

	(void) mmr_seqcopy_advance(b->merge.sync->id, nspname, relname, value, is_called);
}

static void
apply_end(ApplyBatch *b)
{
	MmrProgress *p = b->progress;
	MmrMergeCounts *c = &b->merge.counts;
	bool		changed;

	mmr_careful_end(&b->merge);
	mmr_merge_flush(&b->merge);
	if (mmr_merge_hold_members(&b->merge, b->tables))
		session.versions_lost = true;
	session.sync = b->merge.sync;
	if (b->kind == MMR_BATCH_COPY)
		mmr_sweep_crossed(&b->merge, b->tables);
	changed = c->inserted + c->updated + c->deleted + c->truncated > 0;
	if (b->kind == MMR_BATCH_CHANGES || (b->kind == MMR_BATCH_COPY &&
										 mmr_join_copied(b->merge.sync, b->merge.source_node, b->context)))
	{
		p->position = b->to;
		p->context = b->context;
	}
	p->max_ts = Max(p->max_ts, b->merge.max_ts);
	p->batches++;
	p->inserted += c->inserted;
	p->updated += c->updated;
	p->deleted += c->deleted;
	p->truncated += c->truncated;
	p->conflicts += c->conflicts;
	if (changed)
	{
		p->last_inserted = c->inserted;
		p->last_updated = c->updated;
		p->last_deleted = c->deleted;
	}
	PushActiveSnapshot(GetLatestSnapshot());
	mmr_progress_write(p, changed);
	PopActiveSnapshot();
	b->ended = true;
}

static void
apply_frame(MmrReader *r)
{
	int64		ts = 0;

	if (mmr_get_byte(r) != MMR_FRAME_MAGIC)
		mmr_wire_corrupt("not a frame");
	if (mmr_get_byte(r) != MMR_PROTOCOL_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_PROTOCOL),
				 errmsg("frame is of another protocol version")));
	while (!mmr_reader_done(r))
	{
		uint8		record = mmr_get_byte(r);

		if ((record == MMR_REC_BATCH) != (session.batch == NULL))
			mmr_wire_corrupt("record is out of order");
		if (session.batch != NULL && session.batch->ended)
			mmr_wire_corrupt("record behind the end");
		switch (record)
		{
			case MMR_REC_BATCH:
				apply_begin(r);
				break;
			case MMR_REC_RELATION:
				apply_relation(session.batch, r);
				break;
			case MMR_REC_TRUNCATE:
				apply_truncate(session.batch, r);
				break;
			case MMR_REC_ITEM:
				apply_items(session.batch, r, &ts);
				break;
			case MMR_REC_COPY_TABLE:
				mmr_sweep_clear(&session.batch->merge, apply_table(session.batch, r));
				break;
			case MMR_REC_SEQUENCE:
				apply_sequence(session.batch, r);
				break;
			case MMR_REC_END:
				apply_end(session.batch);
				break;
			default:
				mmr_wire_corrupt("unknown record");
		}
	}
	if (session.batch == NULL)
		mmr_wire_corrupt("frame is empty");
}

/* References to relations belong to the statement: none outlives the call. */
static void
apply_close_tables(void)
{
	ListCell   *lc;

	foreach(lc, session.batch->tables)
	{
		MmrMergeTable *t = lfirst(lc);

		if (t->rel != NULL)
			table_close(t->rel, NoLock);
		t->rel = NULL;
	}
}

static Datum
apply_counts(ApplyBatch *b)
{
	MmrMergeCounts *c = &b->merge.counts;
	Datum		v[6];

	v[0] = Int64GetDatum(c->inserted);
	v[1] = Int64GetDatum(c->updated);
	v[2] = Int64GetDatum(c->deleted);
	v[3] = Int64GetDatum(c->truncated);
	v[4] = Int64GetDatum(c->conflicts);
	v[5] = Int64GetDatum(list_length(mmr_setaside_of(b->merge.sync, session.source_node)));
	return PointerGetDatum(construct_array(v, 6, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

/* Says whose changes these are, with every message of the server's log. */
static void
apply_context(void *arg)
{
	ApplyBatch *b = session.batch;

	if (b == NULL)
		return;
	if (b->table != NULL && b->table->rel != NULL)
		errcontext("applying changes of table \"%s\" from node %d, sync \"%s\"",
				   RelationGetRelationName(b->table->rel), session.source_node, b->merge.sync->name);
	else
		errcontext("applying changes from node %d, sync \"%s\"", session.source_node,
				   b->merge.sync->name);
}

/*
 * mmrepl._apply(frame bytea) returns int8[]: rows inserted, updated, deleted,
 * truncates, conflicts, keys of this source that stand aside, with the last
 * frame of a batch; NULL before.
 */
Datum
mmrepl_apply(PG_FUNCTION_ARGS)
{
	bytea	   *frame = PG_GETARG_BYTEA_PP(0);
	MmrReader	r = {VARDATA_ANY(frame), VARDATA_ANY(frame) + VARSIZE_ANY_EXHDR(frame)};
	int			role = SessionReplicationRole;
	int			lock_timeout = LockTimeout;
	int			deadlock_timeout = DeadlockTimeout;
	ErrorContextCallback callback;

	if (session.sync_id == 0)
		mmr_wire_corrupt("batch without a handshake");
	/* its rollback would leave a batch half done */
	if (GetCurrentTransactionNestLevel() > 1)
		apply_refuse("cannot apply a batch inside a subtransaction");

	callback.callback = apply_context;
	callback.arg = NULL;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	/*
	 * As the settings would be, without what setting them costs (all cached
	 * plans).  A10: waits are bounded, and in a deadlock with a user it is
	 * apply that notices first: the server looks for a deadlock once in a wait,
	 * which is too early when the user comes later, so apply looks again and
	 * again, each time well within the time that the user waits before he
	 * looks.
	 */
	SessionReplicationRole = SESSION_REPLICATION_ROLE_REPLICA;
	LockTimeout = mmr_guc_lock_timeout;
	DeadlockTimeout = Min(DeadlockTimeout, Max(10, DeadlockTimeout / 10));
	enable_timeout_every(session.recheck, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DeadlockTimeout),
						 DeadlockTimeout);
	PG_TRY();
	{
		apply_frame(&r);
		mmr_merge_flush(&session.batch->merge);
		apply_close_tables();
	}
	PG_FINALLY();
	{
		disable_timeout(session.recheck, false);
		SessionReplicationRole = role;
		LockTimeout = lock_timeout;
		DeadlockTimeout = deadlock_timeout;
	}
	PG_END_TRY();
	error_context_stack = callback.previous;

	if (!session.batch->ended)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(apply_counts(session.batch));
}
