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
#include "catalog/heap.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "breaks.h"
#include "compat.h"
#include "conflict_log.h"
#include "sweep.h"

/* Is the row of an entry not older than `limit`? NULL: of any entry. */
static bool
sweep_spares(MmrVersions *versions, MmrKey *key, TupleTableSlot *slot, const MmrVersion *limit,
			 StringInfo buf)
{
	MmrState	state;

	resetStringInfo(buf);
	mmr_key_encode(key, slot, buf);
	if (!mmr_versions_lookup(versions, key, mmr_key_hash(key, buf->data, buf->len),
							 buf->data, buf->len, &state))
		return false;
#ifdef MMR_BREAK_TRUNCATE_SPARE
	return limit == NULL;
#endif
	return limit == NULL || mmr_version_compare(&state.version, limit) > 0;
}

/* Deletes row by row what is not spared; how many were. */
static int64
sweep_delete(MmrMerge *m, MmrMergeTable *table, Snapshot snapshot, const MmrVersion *limit)
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
		if (sweep_spares(m->versions, table->key, slot, limit, &key))
			spared++;
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
	Oid			user;
	int			sec_context;

	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(rel->rd_rel->relowner, sec_context | SECURITY_RESTRICTED_OPERATION);
	mmr_truncate_guts(list_make1(rel), list_make1_oid(RelationGetRelid(rel)));
	SetUserIdAndSecContext(user, sec_context);
}

static void
sweep_log(MmrMerge *m, MmrMergeTable *table, const MmrChange *change, const MmrVersion *local)
{
	MmrConflictRecord c = {0};

	m->counts.conflicts++;
	c.sync_id = m->sync->id;
	c.rel = table->rel;
	c.conflict = MMR_CONFLICT_TRUNCATE;
	c.resolution = MMR_APPLY_REMOTE;
	c.local_known = true;
	c.local_version = *local;
	c.remote_version = change->version;
	mmr_conflict_log_write(&c);
}

void
mmr_sweep_truncate(MmrMerge *m, MmrMergeTable *table, const MmrChange *change)
{
	Oid			relid = RelationGetRelid(table->rel);
	MmrState	state;
	MmrVersion	newest;
	Snapshot	snapshot;

	mmr_merge_see(m, change->version.ts);
	LockRelationOid(relid, AccessExclusiveLock);
	snapshot = mmr_merge_snapshot(m);
	if (mmr_versions_truncated(m->versions, relid, &state) &&
		mmr_version_compare(&state.version, &change->version) >= 0)
	{
		PopActiveSnapshot();
		return;
	}
	if (mmr_versions_newest_of_table(m->versions, relid, &newest) &&
		mmr_version_compare(&newest, &change->version) > 0)
	{
		if (sweep_delete(m, table, snapshot, &change->version) > 0)
			sweep_log(m, table, change, &newest);
	}
	else if (heap_truncate_find_FKs(list_make1_oid(relid)) != NIL)
		(void) sweep_delete(m, table, snapshot, &change->version);
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

	(void) sweep_delete(m, table, snapshot, NULL);
	PopActiveSnapshot();
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
		result = !sweep_spares(versions, key, slot, NULL, &buf);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return result;
}
