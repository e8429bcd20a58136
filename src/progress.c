/*-------------------------------------------------------------------------
 * progress.c
 *	  Per sync and source: what of it has been applied here.
 *
 * Floor 2.  Reads and writes mmrepl.progress and mmrepl.clock.  Runs in apply
 * backends (write), pushers (read) and the janitor.
 *
 * Invariant: the row changes only in the transaction that applied what it
 * speaks of; who finds it changed since he read it has applied a batch that
 * somebody else applied too, and must roll back.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "errors.h"
#include "progress.h"
#include "wire.h"

/* Columns of mmrepl.progress, as src/schema/10_catalog.sql makes them. */
enum
{
	COL_SYNC_ID = 1,
	COL_SOURCE_NODE,
	COL_POSITION,
	COL_CONTEXT,
	COL_MAX_TS,
	COL_BATCHES,
	COL_INSERTED,
	COL_UPDATED,
	COL_DELETED,
	COL_TRUNCATED,
	COL_CONFLICTS,
	COL_LAST_GOOD,
	COL_LAST_CHANGES,
	COL_LAST_INSERTED,
	COL_LAST_UPDATED,
	COL_LAST_DELETED,
	NCOLS = COL_LAST_DELETED
};

/* Columns of mmrepl.clock. */
enum
{
	COL_CLOCK_SINGLETON = 1,
	COL_CLOCK_TS,
	NCLOCK = COL_CLOCK_TS
};

static MmrProgress *
progress_from_tuple(HeapTuple tuple, TupleDesc desc)
{
	MmrProgress *p = palloc0(sizeof(MmrProgress));
	Datum		v[NCOLS];
	bool		n[NCOLS];

	heap_deform_tuple(tuple, desc, v, n);
	p->sync_id = DatumGetInt32(v[COL_SYNC_ID - 1]);
	p->source_node = DatumGetInt32(v[COL_SOURCE_NODE - 1]);
	if (!n[COL_POSITION - 1])
		p->position = mmr_position_from_datum(v[COL_POSITION - 1]);
	if (!n[COL_CONTEXT - 1])
	{
		bytea	   *b = DatumGetByteaPP(v[COL_CONTEXT - 1]);
		MmrReader	r = {VARDATA_ANY(b), VARDATA_ANY(b) + VARSIZE_ANY_EXHDR(b)};

		p->context = mmr_get_context(&r);
	}
	p->max_ts = DatumGetInt64(v[COL_MAX_TS - 1]);
	p->batches = DatumGetInt64(v[COL_BATCHES - 1]);
	p->inserted = DatumGetInt64(v[COL_INSERTED - 1]);
	p->updated = DatumGetInt64(v[COL_UPDATED - 1]);
	p->deleted = DatumGetInt64(v[COL_DELETED - 1]);
	p->truncated = DatumGetInt64(v[COL_TRUNCATED - 1]);
	p->conflicts = DatumGetInt64(v[COL_CONFLICTS - 1]);
	p->last_inserted = DatumGetInt64(v[COL_LAST_INSERTED - 1]);
	p->last_updated = DatumGetInt64(v[COL_LAST_UPDATED - 1]);
	p->last_deleted = DatumGetInt64(v[COL_LAST_DELETED - 1]);
	p->tid = tuple->t_self;
	return p;
}

MmrProgress *
mmr_progress_read(int32 sync_id, int32 source_node)
{
	Relation	rel = table_open(mmr_catalog_table("progress"), AccessShareLock);
	Oid			index = RelationGetPrimaryKeyIndex(rel);
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	MmrProgress *p;

	ScanKeyInit(&key[0], COL_SYNC_ID, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(sync_id));
	ScanKeyInit(&key[1], COL_SOURCE_NODE, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(source_node));
	scan = systable_beginscan(rel, index, OidIsValid(index), GetActiveSnapshot(), 2, key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		p = progress_from_tuple(tuple, RelationGetDescr(rel));
	else
	{
		p = palloc0(sizeof(MmrProgress));
		p->sync_id = sync_id;
		p->source_node = source_node;
		ItemPointerSetInvalid(&p->tid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return p;
}

MmrProgress *
mmr_progress_claim(int32 sync_id, int32 source_node)
{
	MmrProgress *p;

	LockDatabaseObject(mmr_catalog_table("progress"), sync_id, (uint16) source_node, ExclusiveLock);
	PushActiveSnapshot(GetLatestSnapshot());
	p = mmr_progress_read(sync_id, source_node);
	PopActiveSnapshot();
	return p;
}

List *
mmr_progress_list(int32 sync_id)
{
	Relation	rel = table_open(mmr_catalog_table("progress"), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, GetActiveSnapshot(), 0, NULL);
	HeapTuple	tuple;
	List	   *result = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		MmrProgress *p = progress_from_tuple(tuple, RelationGetDescr(rel));

		if (sync_id == 0 || p->sync_id == sync_id)
			result = lappend(result, p);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

static HeapTuple
progress_to_tuple(MmrProgress *p, TupleDesc desc, bool had_changes)
{
	Datum		v[NCOLS];
	bool		n[NCOLS] = {0};
	TimestampTz now = GetCurrentTimestamp();
	StringInfoData ctx;

	v[COL_SYNC_ID - 1] = Int32GetDatum(p->sync_id);
	v[COL_SOURCE_NODE - 1] = Int32GetDatum(p->source_node);
	n[COL_POSITION - 1] = p->position == NULL;
	if (p->position != NULL)
		v[COL_POSITION - 1] = mmr_position_to_datum(p->position);
	n[COL_CONTEXT - 1] = p->context == NULL;
	if (p->context != NULL)
	{
		initStringInfo(&ctx);
		mmr_append_context(&ctx, p->context);
		v[COL_CONTEXT - 1] = PointerGetDatum(cstring_to_text_with_len(ctx.data, ctx.len));
	}
	v[COL_MAX_TS - 1] = Int64GetDatum(p->max_ts);
	v[COL_BATCHES - 1] = Int64GetDatum(p->batches);
	v[COL_INSERTED - 1] = Int64GetDatum(p->inserted);
	v[COL_UPDATED - 1] = Int64GetDatum(p->updated);
	v[COL_DELETED - 1] = Int64GetDatum(p->deleted);
	v[COL_TRUNCATED - 1] = Int64GetDatum(p->truncated);
	v[COL_CONFLICTS - 1] = Int64GetDatum(p->conflicts);
	v[COL_LAST_GOOD - 1] = TimestampTzGetDatum(now);
	v[COL_LAST_CHANGES - 1] = TimestampTzGetDatum(now);
	n[COL_LAST_CHANGES - 1] = !had_changes; /* an update leaves it as it is then */
	v[COL_LAST_INSERTED - 1] = Int64GetDatum(p->last_inserted);
	v[COL_LAST_UPDATED - 1] = Int64GetDatum(p->last_updated);
	v[COL_LAST_DELETED - 1] = Int64GetDatum(p->last_deleted);
	return heap_form_tuple(desc, v, n);
}

/* Replaces the row read before; the server raises an ERROR if it has changed since. */
static void
progress_update(Relation rel, MmrProgress *p, HeapTuple tuple, bool had_changes)
{
	HeapTupleData old;
	Buffer		buffer;
	int			cols[1] = {COL_LAST_CHANGES};
	Datum		v[1];
	bool		n[1];

	old.t_self = p->tid;
	if (!heap_fetch(rel, GetActiveSnapshot(), &old, &buffer, false))
		ereport(ERROR,
				(errcode(ERRCODE_MMR_POSITION),
				 errmsg("replication progress has changed meanwhile"),
				 errdetail("Another connection has applied a batch of the same node.")));
	if (!had_changes)
	{
		v[0] = heap_getattr(&old, COL_LAST_CHANGES, RelationGetDescr(rel), &n[0]);
		tuple = heap_modify_tuple_by_cols(tuple, RelationGetDescr(rel), 1, cols, v, n);
	}
	ReleaseBuffer(buffer);
	CatalogTupleUpdate(rel, &p->tid, tuple);
	p->tid = tuple->t_self;
}

void
mmr_progress_write(MmrProgress *p, bool had_changes)
{
	Relation	rel = table_open(mmr_catalog_table("progress"), RowExclusiveLock);
	HeapTuple	tuple = progress_to_tuple(p, RelationGetDescr(rel), had_changes);

	if (ItemPointerIsValid(&p->tid))
		progress_update(rel, p, tuple, had_changes);
	else
		CatalogTupleInsert(rel, tuple);
	table_close(rel, NoLock);
}

/* The row of mmrepl.clock; NULL if it was deleted. */
static HeapTuple
clock_row(SysScanDesc scan, TupleDesc desc, int64 *ts)
{
	HeapTuple	tuple = systable_getnext(scan);
	bool		isnull;

	if (HeapTupleIsValid(tuple))
		*ts = DatumGetInt64(heap_getattr(tuple, COL_CLOCK_TS, desc, &isnull));
	return tuple;
}

bool
mmr_progress_note_ts(int64 ts)
{
	Oid			relid = mmr_catalog_table("clock");
	Relation	rel;
	SysScanDesc scan;
	int64		before = 0;
	HeapTuple	tuple;
	Datum		v[NCLOCK] = {BoolGetDatum(true), Int64GetDatum(ts)};
	bool		n[NCLOCK] = {false, false};

	/* a change of the configuration writes here too: who comes second would find the row changed */
	if (!ConditionalLockRelationOid(relid, ShareRowExclusiveLock))
		return false;
	rel = table_open(relid, NoLock);
	PushActiveSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, GetActiveSnapshot(), 0, NULL);
	tuple = clock_row(scan, RelationGetDescr(rel), &before);
	if (!HeapTupleIsValid(tuple))
		CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), v, n));
	else if (before < ts)
		CatalogTupleUpdate(rel, &tuple->t_self, heap_form_tuple(RelationGetDescr(rel), v, n));
	systable_endscan(scan);
	PopActiveSnapshot();
	table_close(rel, NoLock);
	return true;
}

static int64
clock_max_ts(void)
{
	Relation	rel = table_open(mmr_catalog_table("clock"), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, GetActiveSnapshot(), 0, NULL);
	int64		ts = 0;

	(void) clock_row(scan, RelationGetDescr(rel), &ts);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return ts;
}

int64
mmr_progress_max_ts(void)
{
	List	   *list;
	ListCell   *lc;
	int64		max = 0;

	PushActiveSnapshot(GetLatestSnapshot());
	list = mmr_progress_list(0);
	max = clock_max_ts();
	PopActiveSnapshot();
	foreach(lc, list)
		max = Max(max, ((MmrProgress *) lfirst(lc))->max_ts);
	return max;
}

MmrContext *
mmr_progress_context(int32 sync_id)
{
	MmrContext *ctx = palloc0(sizeof(MmrContext));
	ListCell   *lc;

	foreach(lc, mmr_progress_list(sync_id))
	{
		MmrProgress *p = lfirst(lc);

		mmr_context_add(ctx, p->source_node, p->position, false);
	}
	return ctx;
}
