/*-------------------------------------------------------------------------
 * merge.c
 *	  What came of one table meets what is here.
 *
 * Floor 7.  Reads and writes user tables through target, the log through
 * versions and changelog, the history through conflict_log.  Runs in apply
 * backends.
 *
 * A group of items is looked at under one snapshot that shows rows and
 * versions alike (A3).  What has changed since is noticed when the row is
 * written, and the item is looked at again under a later snapshot.  A key
 * that was absent is looked up once more after its row is in: somebody may
 * have inserted and deleted it meanwhile.  Where new rows come by the hundreds and
 * none was there, the next ones are not looked up before: the index tells,
 * when they are entered, as of those that somebody else puts in meanwhile.  What is absent cannot be locked:
 * whether another peer's session has inserted what was deleted here, or the other
 * way round, is looked for before the commit (mmr_merge_before_commit, crossing).
 *
 * The clock is raised above all that came before the snapshot is taken: so
 * a local write that is not visible to it either is found by its row,
 * or has a newer version than what came.
 *
 * Invariant: at commit, for every item the row here is that of the newer of
 * the two versions.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "breaks.h"
#include "bulk.h"
#include "clock.h"
#include "collide.h"
#include "conflict_log.h"
#include "decide.h"
#include "errors.h"
#include "guc.h"
#include "merge.h"
#include "target.h"

/* So many items before one is looked at, what is known of its key is asked for. */
#define AHEAD	8

/* A look at items, all under one snapshot. */
typedef struct MergePass
{
	MmrMerge   *m;
	MmrMergeTable *table;
	MmrTarget  *t;
	MmrBulk    *bulk;
	MmrMergeItem **left;		/* to be looked at again */
	int			nleft;
	MmrMergeItem **inserted;	/* for keys that were absent */
	int			ninserted;
} MergePass;

/* What a look at an item comes to. */
typedef enum MergeOutcome
{
	MERGE_DONE,
	MERGE_AGAIN,				/* it has changed meanwhile */
	MERGE_WAITS					/* a new row, to be written with others */
} MergeOutcome;

static void
merge_log(MmrMerge *m, MmrMergeTable *table, MmrTarget *t, MmrMergeItem *item, const Datum *key,
		  bool found, const MmrMeeting *meeting, const MmrVerdict *verdict,
		  const MmrDecision *decision)
{
	MmrConflictRecord c = {0};

	if (decision->quiet)
		return;

	m->counts.conflicts++;
	c.sync_id = m->sync->id;
	c.rel = table->rel;
	c.key = table->key;
	c.key_values = key;
	c.conflict = verdict->conflict;
	c.resolution = verdict->resolution;
	c.local = found ? t->found : NULL;
	c.remote = item->row != NULL ? t->row : NULL;
	c.local_known = meeting->local_known;
	c.local_version = meeting->local;
	c.remote_version = meeting->remote;
	c.error = decision->error;
	mmr_conflict_log_write(&c);
	if (decision->error == NULL || table->told)
		return;
	table->told = true;
	ereport(LOG_SERVER_ONLY,
			(errmsg("a conflict of table \"%s\" was settled by the newest, because its strategy failed: %s",
					RelationGetRelationName(table->rel), decision->error)));
}

/* What is known here of the item's key. */
static void
merge_meet(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *item, bool found, MmrMeeting *meeting)
{
	MmrState	state;

	meeting->op = item->change.op;
	meeting->remote_row = item->row != NULL;
	meeting->remote = item->change.version;
	meeting->remote_settled = item->change.settled;
	meeting->local_row = found;
	meeting->local_known = mmr_versions_lookup(m->versions, table->key, item->hash,
											   item->change.key, item->change.keylen, &state);
	if (meeting->local_known && item->again && mmr_version_compare(&state.version, &item->change.version) == 0)
		meeting->local_known = false;
	meeting->local = meeting->local_known ? state.version : MMR_VERSION_NONE;
	meeting->local_settled = meeting->local_known ? state.settled : MMR_SETTLED_NONE;
	meeting->local_truncate = meeting->local_known && state.op == MMR_OP_TRUNCATE;
	meeting->local_seen = meeting->local_known &&
		(mmr_position_covers(mmr_context_position(m->context, state.dot.node), state.dot.xid) ||
		 state.dot.node == m->source_node);
}

/* The key is to have no row, and has none that can be seen. */
static MmrWrite
merge_absent(MmrMerge *m, MmrTarget *t, const Datum *key)
{
	m->absent = true;
	return mmr_target_wait(t, key) ? MMR_WRITE_RETRY : MMR_WRITE_DONE;
}

static MmrWrite
merge_write(MmrMerge *m, MmrTarget *t, MmrMergeItem *item, const Datum *key, bool found)
{
	MmrWrite	result;

	if (item->row == NULL)
	{
		if (!found)
			return merge_absent(m, t, key);
		result = mmr_target_delete(t);
		m->counts.deleted += result == MMR_WRITE_DONE;
	}
	else if (found)
	{
		/* an older write may be under way on it, which must not come out on top */
		if (mmr_target_same(t))
			return mmr_target_keep(t);
		result = mmr_target_update(t);
		m->counts.updated += result == MMR_WRITE_DONE;
	}
	else
	{
		result = mmr_target_insert(t);
		if (result == MMR_WRITE_RETRY)
			(void) mmr_target_wait(t, key);
		item->inserted = result == MMR_WRITE_DONE;
		item->tid = t->row->tts_tid;
		m->counts.inserted += result == MMR_WRITE_DONE;
	}
	return result;
}

/* The row that stood here is put back: what was written over it collided with another one. */
static void
merge_put_back(MmrTarget *t)
{
	TupleTableSlot *row = t->row;

	t->row = MakeSingleTupleTableSlot(RelationGetDescr(t->rel), &TTSOpsVirtual);
	ExecCopySlot(t->row, t->found);
	CommandCounterIncrement();
	t->estate->es_output_cid = GetCurrentCommandId(true);
	if (mmr_target_insert(t) != MMR_WRITE_DONE)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a row of table \"%s\" changed while a conflict of it was settled",
						RelationGetRelationName(t->rel))));
	t->found->tts_tid = t->row->tts_tid;
	ExecDropSingleTupleTableSlot(t->row);
	t->row = row;
	CommandCounterIncrement();
	t->estate->es_output_cid = GetCurrentCommandId(true);
}

/*
 * What the strategy wants is written as a write of our own (A6).  Its time
 * is taken before the row is written or found to be as it should: who comes
 * later has a later one.  DONE: item->change is that write now.
 */
static MmrWrite
merge_write_decided(MmrMerge *m, MmrTarget *t, MmrMergeItem *item, const Datum *key, bool found,
					const MmrDecision *decision)
{
	MmrChange	change = item->change;
	TupleTableSlot *row = t->row;
	MmrWrite	result;

	change.version = (MmrVersion) {mmr_clock_tick(), m->my_node, 0};
	change.dot.node = m->my_node;
	change.dot.xid = U64FromFullTransactionId(GetTopFullTransactionId());
	change.settled = decision->settled;
	if (decision->want == MMR_WANT_LOCAL)
	{
		change.op = found ? MMR_OP_UPDATE : MMR_OP_DELETE;
		if (found)
			result = mmr_target_lock(t);
		else
			result = merge_absent(m, t, key);
	}
	else
	{
		if (decision->merged != NULL)
			t->row = decision->merged;
		result = merge_write(m, t, item, key, found);
		t->row = row;
	}
	if (result == MMR_WRITE_DONE)
		item->change = change;
	else if (result == MMR_WRITE_COLLISION && found)
		merge_put_back(t);
	return result;
}

/* Under a strategy other than latest; true: there is nothing more to do about the item, *result says why. */
static bool
merge_by_strategy(MmrMerge *m, MmrMergeTable *table, MmrTarget *t, MmrMergeItem *item,
				  const Datum *key, const MmrMeeting *meeting, MmrVerdict *verdict,
				  MmrDecision *decision, MmrWrite *result)
{
	MmrVerdict	wanted = *verdict;

	mmr_decide(m, table, t, item, meeting, verdict, decision);
	if (decision->abort)
		wanted.resolution = MMR_ABORT;
	else if (decision->want == MMR_WANT_LATEST)
		return false;
	else
	{
		*result = merge_write_decided(m, t, item, key, meeting->local_row, decision);
		if (*result == MMR_WRITE_RETRY)
			return true;
		/* another row, or a trigger, stands in the way of it: then the newest */
		if (*result != MMR_WRITE_DONE)
			return false;
		wanted.resolution = decision->want == MMR_WANT_LOCAL ? MMR_KEEP_LOCAL :
			decision->want == MMR_WANT_REMOTE ? MMR_APPLY_REMOTE : MMR_MERGE;
	}
	merge_log(m, table, t, item, key, meeting->local_row, meeting, &wanted, decision);
	mmr_merge_record(m, table, &item->change, item->hash);
	item->recorded = true;
	return true;
}

/* A4; a copied row has no version worth keeping */
static void
merge_record(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *item)
{
	if (mmr_version_is_none(&item->change.version))
		return;
	mmr_merge_record(m, table, &item->change, item->hash);
	item->recorded = true;
}

/* The newest stands. */
static MmrWrite
merge_by_version(MmrMerge *m, MmrMergeTable *table, MmrTarget *t, MmrMergeItem *item,
				 const Datum *key, const MmrMeeting *meeting, const MmrVerdict *verdict,
				 const MmrDecision *decision)
{
	MmrWrite	result = MMR_WRITE_DONE;

	if (verdict->resolution == MMR_APPLY_REMOTE)
		result = merge_write(m, t, item, key, meeting->local_row);
	if (result == MMR_WRITE_RETRY)
		return result;
	if (verdict->conflict != MMR_CONFLICT_NONE)
		merge_log(m, table, t, item, key, meeting->local_row, meeting, verdict, decision);
	if (result == MMR_WRITE_COLLISION)
		mmr_collide_put_aside(m, table, t, item, meeting->local_row);
	else if (verdict->resolution == MMR_APPLY_REMOTE && (table->record_all || meeting->local_known))
		merge_record(m, table, item);
	return result;
}

/* A new row that waited for others has been written, or not. */
static void
merge_written(void *arg, void *item_arg, MmrWrite result)
{
	MergePass  *pass = arg;
	MmrMergeItem *item = item_arg;
	Datum		key[INDEX_MAX_KEYS];

	switch (result)
	{
		case MMR_WRITE_RETRY:
			pass->table->absent = 0;
			mmr_key_decode(pass->table->key, item->change.key, item->change.keylen, key);
			(void) mmr_target_wait(pass->t, key);
			pass->left[pass->nleft++] = item;
			break;
		case MMR_WRITE_COLLISION:
			mmr_collide_put_aside(pass->m, pass->table, pass->t, item, false);
			break;
		default:
			item->inserted = true;
			item->tid = pass->t->row->tts_tid;
			pass->m->counts.inserted++;
			if (pass->table->record_all)
				merge_record(pass->m, pass->table, item);
			pass->inserted[pass->ninserted++] = item;
	}
}

/* So many new rows of a table, one after the other, were not there... */
#define BLIND_AFTER		128

/*
 * ...that this one is written without a look for it.  What is not seen to be
 * there is found when its key is entered, and the item looked at again (RETRY); what
 * has gone since the snapshot, by its entry in the log (merge_recheck).  So
 * A3 does not depend on the look; a row written in vain is left behind as a dead one.
 */
static bool
merge_is_blind(MergePass *pass, MmrMergeItem *item)
{
	return pass->table->absent >= BLIND_AFTER && item->change.op == MMR_OP_INSERT &&
		item->row != NULL && !item->again && !pass->m->careful && pass->t->defaults_ready &&
		mmr_bulk_allowed(pass->bulk);
}

/* What is known here of the item; true if it is there. */
static bool
merge_look(MergePass *pass, MmrMergeItem *item, Datum *key, MmrMeeting *meeting)
{
	bool		found;

	mmr_key_decode(pass->table->key, item->change.key, item->change.keylen, key);
	if (merge_is_blind(pass, item))
	{
		merge_meet(pass->m, pass->table, item, false, meeting);
		if (!meeting->local_known)
			return false;
	}
	found = mmr_target_find(pass->t, key);
	merge_meet(pass->m, pass->table, item, found, meeting);
	if (found || meeting->local_known)
		pass->table->absent = 0;
	else if (pass->table->absent < BLIND_AFTER)
		pass->table->absent++;
	return found;
}

static MergeOutcome
merge_item(MergePass *pass, MmrMergeItem *item)
{
	MmrMerge   *m = pass->m;
	MmrMergeTable *table = pass->table;
	MmrTarget  *t = pass->t;
	Datum		key[INDEX_MAX_KEYS];
	bool		found;
	MmrMeeting	meeting;
	MmrVerdict	verdict;
	MmrDecision decision = {0};
	MmrWrite	result;

	item->inserted = item->recorded = false;
	found = merge_look(pass, item, key, &meeting);
	verdict = mmr_resolve(&meeting);
	if (verdict.equal)
		return MERGE_DONE;
	if (item->row != NULL && (verdict.resolution == MMR_APPLY_REMOTE ||
							  verdict.conflict != MMR_CONFLICT_NONE))
		mmr_merge_fill(table, t, item, found);
	if (item->row != NULL && !found && !meeting.local_known && verdict.conflict == MMR_CONFLICT_NONE &&
		verdict.resolution == MMR_APPLY_REMOTE && mmr_bulk_allowed(pass->bulk))
	{
		mmr_bulk_add(pass->bulk, item, item->rowlen);
		return MERGE_WAITS;
	}
	if (verdict.conflict == MMR_CONFLICT_NONE || table->strategy == NULL ||
		!merge_by_strategy(m, table, t, item, key, &meeting, &verdict, &decision, &result))
		result = merge_by_version(m, table, t, item, key, &meeting, &verdict, &decision);
	if (decision.merged != NULL)
		ExecDropSingleTupleTableSlot(decision.merged);
	return result == MMR_WRITE_RETRY ? MERGE_AGAIN : MERGE_DONE;
}

/* One look at the first n of pass->left; those that have to be looked at again are there then. */
static void
merge_pass(MergePass *pass, int n)
{
	MmrTarget  *t = pass->t;
	MemoryContext old;

	pass->nleft = 0;
	mmr_target_begin(t, mmr_merge_snapshot(pass->m));
	old = MemoryContextSwitchTo(t->cxt);
	for (int i = 0; i < n; i++)
	{
		MmrMergeItem *item = pass->left[i];
		MergeOutcome outcome;

		if (i + AHEAD < n)
			mmr_versions_prefetch(pass->m->versions, pass->left[i + AHEAD]->hash);
		outcome = merge_item(pass, item);

		/* one that waits may join those left later, but not before it has been passed here */
		if (outcome == MERGE_AGAIN)
			pass->left[pass->nleft++] = item;
		else if (outcome == MERGE_DONE && item->inserted)
			pass->inserted[pass->ninserted++] = item;
		if (mmr_bulk_full(pass->bulk) || i == n - 1)
			mmr_bulk_write(pass->bulk, pass);
		ExecClearTuple(t->found);
		if (mmr_bulk_waiting(pass->bulk) == 0)
		{
			ResetPerTupleExprContext(t->estate);
			MemoryContextReset(t->cxt);
		}
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	mmr_target_end(t);
	PopActiveSnapshot();
}

/* A row that has just been put in goes again: its key was written and deleted here in between. */
static void
merge_late(MmrMerge *m, MmrMergeTable *table, MmrTarget *t, MmrMergeItem *item,
		   MmrMeeting *meeting)
{
	Datum		key[INDEX_MAX_KEYS];
	MmrDecision decision = {0};
	MmrVerdict	verdict;

	mmr_target_remove_tid(t, &item->tid);
	m->counts.inserted--;
	meeting->local_row = false;
	verdict = mmr_resolve(meeting);
	if (verdict.conflict == MMR_CONFLICT_NONE)
		return;
	mmr_key_decode(table->key, item->change.key, item->change.keylen, key);
	mmr_merge_fill(table, t, item, false);
	merge_log(m, table, t, item, key, false, meeting, &verdict, &decision);
}

/*
 * Rows inserted for absent keys: has the key got a newer version meanwhile
 * (inserted and deleted here)?  Then ours is late, and goes.
 */
static void
merge_recheck(MmrMerge *m, MmrMergeTable *table, MmrTarget *t, MmrMergeItem **inserted, int n,
			  uint64 fed)
{
	Snapshot	snapshot = mmr_merge_snapshot(m);

	if (mmr_versions_fed(m->versions) != fed)
	{
		mmr_target_begin(t, snapshot);
		for (int i = 0; i < n; i++)
		{
			MmrMergeItem *item = inserted[i];
			MmrMeeting	meeting;

			merge_meet(m, table, item, true, &meeting);
			if (!meeting.local_known ||
				mmr_version_compare(&meeting.local, &item->change.version) == 0)
				continue;
			if (mmr_version_compare(&meeting.local, &item->change.version) > 0)
			{
				merge_late(m, table, t, item, &meeting);
				if (item->recorded && !m->guarded)
					mmr_crossing_settled(mmr_versions_crossing(m->versions));
			}
			else if (!item->recorded && !mmr_version_is_none(&item->change.version))
				mmr_merge_record(m, table, &item->change, item->hash);
		}
		mmr_target_end(t);
	}
	PopActiveSnapshot();
}

/* Items, no key twice. */
static void
merge_keys(MmrMerge *m, MmrMergeTable *table, MmrTarget *t, MmrMergeItem *items, int nitems)
{
	MergePass	pass = {m, table, t};
	uint64		fed = 0;
	bool		first = true;
	int			looks = 0;

	pass.bulk = mmr_bulk_create(t, nitems, merge_written);
	pass.left = palloc(sizeof(MmrMergeItem *) * nitems);
	pass.inserted = palloc(sizeof(MmrMergeItem *) * nitems);
	pass.nleft = nitems;
	for (int i = 0; i < nitems; i++)
		pass.left[i] = &items[i];
	while (pass.nleft > 0)
	{
		mmr_merge_look_again(table, &looks);
		merge_pass(&pass, pass.nleft);
		if (first)
			fed = mmr_versions_fed(m->versions);
		first = false;
	}
	if (pass.ninserted > 0)
		merge_recheck(m, table, t, pass.inserted, pass.ninserted, fed);
	mmr_bulk_end(pass.bulk);
	pfree(pass.left);
	pfree(pass.inserted);
}

/*
 * How many of the items, from the first, have each a key of its own: a pass
 * does not see what it has written.  (Sender's chunks meet inside a frame.)
 */
static int
merge_distinct(MmrMergeTable *table, MmrMergeItem *items, int nitems, int16 *slots, int nslots)
{
	memset(slots, 0xff, sizeof(int16) * nslots);
	for (int i = 0; i < nitems; i++)
	{
		int			slot = items[i].hash & (nslots - 1);

		for (; slots[slot] >= 0; slot = (slot + 1) & (nslots - 1))
		{
			MmrMergeItem *other = &items[slots[slot]];

			if (other->hash == items[i].hash &&
				mmr_key_equal(table->key, other->change.key, other->change.keylen,
							  items[i].change.key, items[i].change.keylen))
				return i;
		}
		slots[slot] = i;
	}
	return nitems;
}

void
mmr_merge_items(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *items, int nitems)
{
	MmrTarget  *t;
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl merge",
											  ALLOCSET_DEFAULT_SIZES);
	int			nslots = pg_nextpower2_32(2 * nitems);
	int16	   *slots = MemoryContextAlloc(cxt, sizeof(int16) * nslots);

	Assert(nitems <= PG_INT16_MAX);
	for (int i = 0; i < nitems; i++)
	{
		mmr_merge_see(m, items[i].change.version.ts);
		items[i].hash = mmr_key_hash(table->key, items[i].change.key, items[i].change.keylen);
	}
	t = mmr_target_open(table->rel, table->key, cxt);
	while (nitems > 0)
	{
		int			n = merge_distinct(table, items, nitems, slots, nslots);

#ifdef MMR_BREAK_DEFER
		merge_keys(m, table, t, items, n = 1);
		mmr_collide_settle(m, NULL);
#else
		merge_keys(m, table, t, items, n);
#endif
		items += n;
		nitems -= n;
	}
	mmr_target_close(t);
	MemoryContextDelete(cxt);
}
