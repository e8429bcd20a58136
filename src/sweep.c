/*-------------------------------------------------------------------------
 * sweep.c
 *	  Rows of a whole table go.
 *
 * Floor 6.  Reads and writes user tables, the log, the conflict history.  Runs
 * in apply backends.
 *
 * Invariant: a row whose key has a newer entry than what sweeps is spared.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "breaks.h"
#include "compat.h"
#include "conflict_log.h"
#include "session.h"
#include "sweep.h"

/* Readers of a table of that many pages are waited for, for so long. */
#define SMALL_TABLE			128
#define SWEEP_PATIENCE_MS	1000

/* Is the row of an entry not older than `limit`? NULL: of any entry. copied: nor one without an entry. */
static bool
sweep_spares(MmrVersions *versions, MmrKey *key, TupleTableSlot *slot, const MmrVersion *limit,
			 bool copied, StringInfo buf)
{
	MmrState	state;

	resetStringInfo(buf);
	mmr_key_encode(key, slot, buf);
	if (!mmr_versions_lookup(versions, key, mmr_key_hash(key, buf->data, buf->len),
							 buf->data, buf->len, &state))
		return copied;
	if (copied && state.op == MMR_OP_TRUNCATE)
		return true;
#ifdef MMR_BREAK_TRUNCATE_SPARE
	return limit == NULL;
#endif
	return limit == NULL || mmr_version_compare(&state.version, limit) > 0;
}

/*
 * A row that is spared goes on with the TRUNCATE that spared it (M4): who gets
 * that may hold the row as known to all, and lose it.  As an entry of ours it is
 * sent also to who wrote it.
 */
static void
sweep_record_again(MmrMerge *m, MmrMergeTable *table, StringInfo key)
{
	uint64		hash = mmr_key_hash(table->key, key->data, key->len);
	MmrChange	change = {0};
	MmrState	state;

	if (!mmr_versions_lookup(m->versions, table->key, hash, key->data, key->len, &state))
		return;
	change.op = state.op;
	change.relid = table->key->relid;
	change.version = state.version;
	change.settled = state.settled;
	change.dot.node = m->my_node;
	change.dot.xid = U64FromFullTransactionId(GetTopFullTransactionId());
	change.key = key->data;
	change.keylen = key->len;
	mmr_merge_record(m, table, &change, hash);
}

/* Deletes row by row what is not spared; how many were. */
static int64
sweep_delete(MmrMerge *m, MmrMergeTable *table, Snapshot snapshot, const MmrVersion *limit,
			 bool copied)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl sweep",
											  ALLOCSET_DEFAULT_SIZES);
	MmrTarget  *t = mmr_target_open(table->rel, table->key, cxt);
	TupleTableSlot *slot = table_slot_create(table->rel, NULL);
	TableScanDesc scan = table_beginscan(table->rel, snapshot, 0, NULL);
	MemoryContext old;
	StringInfoData key;
	int64		spared = 0;

	initStringInfo(&key);
	mmr_target_begin(t, snapshot);
	old = MemoryContextSwitchTo(t->cxt);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		if (sweep_spares(m->versions, table->key, slot, limit, copied, &key))
		{
			spared++;
#ifndef MMR_BREAK_SPARED
			if (limit != NULL && table->goes_on)
				sweep_record_again(m, table, &key);
#endif
		}
		else
		{
			ExecCopySlot(t->found, slot);
			t->found->tts_tid = slot->tts_tid;
			/* changed since: then it has an entry by now, newer than what sweeps */
			if (mmr_target_delete(t) == MMR_WRITE_RETRY)
				spared++;
		}
		ResetPerTupleExprContext(t->estate);
		MemoryContextReset(t->cxt);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	mmr_target_end(t);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	mmr_target_close(t);
	MemoryContextDelete(cxt);
	return spared;
}

/* The server's own TRUNCATE, as the table's owner. */
static void
sweep_truncate_table(Relation rel)
{
	MmrSession	save;

	mmr_session_begin_foreign(&save, rel->rd_rel->relowner);
	mmr_truncate_guts(list_make1(rel), list_make1_oid(RelationGetRelid(rel)));
	mmr_session_end_foreign(&save);
}

/* A TRUNCATE has met something: a row (in t->found) that goes, or, t being NULL, rows that stay. */
static void
sweep_log(MmrMerge *m, MmrMergeTable *table, const MmrChange *change, const MmrVersion *local,
		  MmrTarget *t, const Datum *key)
{
	MmrConflictRecord c = {0};

	m->counts.conflicts++;
	c.sync_id = m->sync->id;
	c.rel = table->rel;
	c.key = table->key;
	c.key_values = key;
	c.conflict = MMR_CONFLICT_TRUNCATE;
	c.resolution = MMR_APPLY_REMOTE;
	c.local = t ? t->found : NULL;
	c.local_known = true;
	c.local_version = *local;
	c.remote_version = change->version;
	mmr_conflict_log_write(&c);
}

/* A change that outlives its run, with its key behind it. */
static MmrChange *
sweep_keep(const MmrChange *change)
{
	MmrChange  *copy = palloc(sizeof(MmrChange) + change->keylen);

	*copy = *change;
	copy->key = (char *) (copy + 1);
	if (change->keylen > 0)
		memcpy(copy + 1, change->key, change->keylen);
	return copy;
}

/* Writes of a table that who truncates it has not seen. */
typedef struct Unseen
{
	MmrMerge   *m;
	Oid			relid;
	const MmrVersion *limit;
	List	   *changes;		/* MmrChange with its key behind it */
} Unseen;

static bool
is_seen(MmrMerge *m, const MmrDot *dot)
{
	return dot->node == m->source_node ||
		mmr_position_covers(mmr_context_position(m->context, dot->node), dot->xid);
}

static void
unseen_run(void *arg, int segment, uint64 xid, const char *data, int len)
{
	Unseen	   *u = arg;
	MmrRun		run;
	MmrChange	change;

	mmr_changelog_open_run(&run, xid, data, len);
	while (mmr_changelog_next(&run, &change))
	{
		/* of a run that was written here all changes are of one transaction */
		if (!run.recorded && is_seen(u->m, &change.dot))
			return;
		if (change.relid != u->relid || change.op == MMR_OP_TRUNCATE || change.op == MMR_OP_DELETE ||
			mmr_version_compare(&change.version, u->limit) > 0 || is_seen(u->m, &change.dot))
			continue;
		u->changes = lappend(u->changes, sweep_keep(&change));
	}
}

/* Rows that go and that the other side did not know: kept in the history, as after a delete. */
static void
sweep_log_unseen(MmrMerge *m, MmrMergeTable *table, Snapshot snapshot, const MmrChange *truncate)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl unseen",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Unseen		u = {m, table->relid, &truncate->version, NIL};
	MmrTarget  *t;
	ListCell   *lc;

	mmr_logreader_scan(mmr_logreader_create(cxt), snapshot, mmr_position_active(), unseen_run,
					   NULL, &u);
	if (u.changes != NIL)
	{
		t = mmr_target_open(table->rel, table->key, cxt);
		mmr_target_begin(t, snapshot);
		MemoryContextSwitchTo(t->cxt);
		foreach(lc, u.changes)
		{
			MmrChange  *change = lfirst(lc);
			Datum		key[INDEX_MAX_KEYS];
			MmrState	state;

			/* of several writes of a key the last one made the row */
			mmr_key_decode(table->key, change->key, change->keylen, key);
			if (mmr_versions_lookup(m->versions, table->key,
									mmr_key_hash(table->key, change->key, change->keylen),
									change->key, change->keylen, &state) &&
				mmr_version_compare(&state.version, &change->version) == 0 &&
				mmr_target_find(t, key))
				sweep_log(m, table, truncate, &change->version, t, key);
			ExecClearTuple(t->found);
			MemoryContextReset(t->cxt);
			CHECK_FOR_INTERRUPTS();
		}
		MemoryContextSwitchTo(cxt);
		mmr_target_end(t);
		mmr_target_close(t);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/*
 * May the storage be thrown away?  Writers are kept out by now, readers are
 * not: pushers of ours, perhaps, that send a large batch and wait for their
 * peer, which waits for us in just this way.  So they are not waited for to the
 * end: if they do not leave, rows are deleted one by one.
 */
static bool
sweep_alone(Relation rel)
{
	TimestampTz start = GetCurrentTimestamp();
	int			wait_ms = RelationGetNumberOfBlocks(rel) < SMALL_TABLE ? 0 : SWEEP_PATIENCE_MS;

	while (!ConditionalLockRelationOid(RelationGetRelid(rel), AccessExclusiveLock))
	{
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), wait_ms))
			return false;
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1, PG_WAIT_EXTENSION);
	}
	return true;
}

void
mmr_sweep_truncate(MmrMerge *m, MmrMergeTable *table, const MmrChange *change, bool copied)
{
	Oid			relid = RelationGetRelid(table->rel);
	MmrState	state;
	MmrVersion	newest;
	Snapshot	snapshot;

	mmr_merge_see(m, change->version.ts);
	/* no writer is half done, none comes: what they have written is in the log */
	LockRelationOid(relid, ExclusiveLock);
	snapshot = mmr_merge_snapshot(m);
	if (mmr_versions_truncated(m->versions, relid, &state) &&
		mmr_version_compare(&state.version, &change->version) >= 0)
	{
		PopActiveSnapshot();
		return;
	}
	newest = MMR_VERSION_NONE;
	if (mmr_versions_newest_of_table(m->versions, relid, &newest))
		sweep_log_unseen(m, table, snapshot, change);
	if (copied)
		(void) sweep_delete(m, table, snapshot, &change->version, true);
	else if (mmr_version_compare(&newest, &change->version) > 0)
	{
		if (sweep_delete(m, table, snapshot, &change->version, false) > 0)
			sweep_log(m, table, change, &newest, NULL, NULL);
	}
	else if (heap_truncate_find_FKs(list_make1_oid(relid)) != NIL || !sweep_alone(table->rel))
		(void) sweep_delete(m, table, snapshot, &change->version, false);
	else
		sweep_truncate_table(table->rel);
	PopActiveSnapshot();
	m->counts.truncated++;
	mmr_merge_record(m, table, change, 0);
}

void
mmr_sweep_clear(MmrMerge *m, MmrMergeTable *table)
{
	Snapshot	snapshot = mmr_merge_snapshot(m);

	(void) sweep_delete(m, table, snapshot, NULL, false);
	PopActiveSnapshot();
}

void
mmr_sweep_begin_copy(MmrMerge *m)
{
	MemoryContext old = MemoryContextSwitchTo(m->batch_cxt);

	(void) mmr_merge_snapshot(m);
	m->began = mmr_position_active();
	PopActiveSnapshot();
	MemoryContextSwitchTo(old);
}

/* Deletes that a copy has not seen from its beginning. */
typedef struct Crossed
{
	MmrMerge   *m;
	List	   *changes;		/* MmrChange with its key behind it */
} Crossed;

static void
crossed_run(void *arg, int segment, uint64 xid, const char *data, int len)
{
	Crossed    *c = arg;
	MmrRun		run;
	MmrChange	change;

	if (mmr_position_covers(c->m->began, xid))
		return;
	mmr_changelog_open_run(&run, xid, data, len);
	while (mmr_changelog_next(&run, &change))
		if (change.op == MMR_OP_DELETE)
			c->changes = lappend(c->changes, sweep_keep(&change));
}

/* Those of one table, if they are the newest of their keys. */
static void
crossed_delete(MmrMerge *m, MmrMergeTable *table, Snapshot snapshot, List *changes)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl crossed",
											  ALLOCSET_DEFAULT_SIZES);
	MmrTarget  *t = NULL;
	ListCell   *lc;

	foreach(lc, changes)
	{
		MmrChange  *change = lfirst(lc);
		Datum		values[INDEX_MAX_KEYS];
		MmrState	state;
		MemoryContext old;

		if (change->relid != table->relid)
			continue;
		if (t == NULL)
		{
			mmr_merge_open_table(table);
			t = mmr_target_open(table->rel, table->key, cxt);
			mmr_target_begin(t, snapshot);
		}
		if (!mmr_versions_lookup(m->versions, table->key,
								 mmr_key_hash(table->key, change->key, change->keylen),
								 change->key, change->keylen, &state) ||
			mmr_version_compare(&state.version, &change->version) != 0)
			continue;
		old = MemoryContextSwitchTo(t->cxt);
		mmr_key_decode(table->key, change->key, change->keylen, values);
		/* nobody else has written it: he would have waited for the delete, or be in the log */
		if (mmr_target_find(t, values) && mmr_target_delete(t) == MMR_WRITE_DONE)
			m->counts.inserted--;
		ExecClearTuple(t->found);
		ResetPerTupleExprContext(t->estate);
		MemoryContextSwitchTo(old);
		MemoryContextReset(t->cxt);
		CHECK_FOR_INTERRUPTS();
	}
	if (t != NULL)
	{
		mmr_target_end(t);
		mmr_target_close(t);
	}
	MemoryContextDelete(cxt);
}

void
mmr_sweep_crossed(MmrMerge *m, List *tables)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl crossed",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	Crossed		c = {m, NIL};
	Snapshot	snapshot;
	ListCell   *lc;

	mmr_merge_hold_ends(true);
	snapshot = mmr_merge_snapshot(m);
	old = MemoryContextSwitchTo(cxt);
	mmr_logreader_scan(mmr_logreader_create(cxt), snapshot, mmr_position_active(), crossed_run,
					   NULL, &c);
	MemoryContextSwitchTo(old);
	if (c.changes != NIL)
		foreach(lc, tables)
			crossed_delete(m, lfirst(lc), snapshot, c.changes);
	PopActiveSnapshot();
	MemoryContextDelete(cxt);
}

bool
mmr_sweep_has_rows(MmrVersions *versions, Relation rel, MmrKey *key)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	StringInfoData buf;
	bool		result = false;

	initStringInfo(&buf);
	while (!result && table_scan_getnextslot(scan, ForwardScanDirection, slot))
		result = !sweep_spares(versions, key, slot, NULL, false, &buf);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return result;
}
