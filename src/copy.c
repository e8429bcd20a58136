/*-------------------------------------------------------------------------
 * copy.c
 *	  The initial copy of a sync to a peer.
 *
 * Floor 8.  Reads user tables.  Runs in pushers.
 *
 * Copied rows carry no version: any entry at the other side is newer (I2).
 * Writes go on here and there meanwhile.  The stream that follows begins with
 * everything in the log, also what the copy's snapshot has seen: so a
 * change of the same key made here before the copy and one made there meet by
 * their versions, and not by which of them the copy happened to show.
 *
 * Invariant: all tables are locked before the snapshot is taken (B2), and all
 * of it is one transaction at the peer.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "capture.h"
#include "clock.h"
#include "copy.h"
#include "errors.h"
#include "guc.h"
#include "outgoing.h"
#include "setaside.h"

typedef struct CopyState
{
	MmrFrameSink sink;
	MmrCopyReport report;
	void	   *arg;
	Snapshot	snapshot;
	StringInfoData frame;
	StringInfoData key;
	MemoryContext row_cxt;
	int			tables;
	int			tables_done;
	int64		rows;
	int64		rows_total;
	int64		bytes;
	int64		bytes_total;
} CopyState;

static bool
copy_skips(List *skip, MmrMember *m)
{
	for (int i = 0; i + 1 < list_length(skip); i += 2)
		if (strcmp(list_nth(skip, i), m->nspname) == 0 &&
			strcmp(list_nth(skip, i + 1), m->relname) == 0)
			return true;
	return false;
}

static void
copy_frame_start(CopyState *c)
{
	resetStringInfo(&c->frame);
	appendStringInfoChar(&c->frame, MMR_FRAME_MAGIC);
	appendStringInfoChar(&c->frame, MMR_PROTOCOL_VERSION);
}

static void
copy_report(CopyState *c, MmrMember *m)
{
	if (c->report != NULL)
		c->report(c->arg, m ? m->nspname : "", m ? m->relname : "", c->tables_done, c->tables,
				  c->rows, Max(c->rows_total, c->rows), c->bytes, Max(c->bytes_total, c->bytes));
}

static void
copy_send(CopyState *c, MmrMember *m, bool last)
{
	c->bytes += c->frame.len;
	c->sink(c->arg, &c->frame, last);
	copy_frame_start(c);
	copy_report(c, m);
}

/* Locks what is to be copied; how much it is, as the planner knows. */
static List *
copy_lock_tables(CopyState *c, MmrSync *sync, List *skip)
{
	List	   *members = NIL;
	ListCell   *lc;

	foreach(lc, sync->tables)
	{
		MmrMember  *m = lfirst(lc);
		Relation	rel;

		if (!OidIsValid(m->relid) || copy_skips(skip, m) ||
			(rel = try_table_open(m->relid, AccessShareLock)) == NULL)
			continue;
		members = lappend(members, m);
		c->tables++;
		c->rows_total += Max((int64) rel->rd_rel->reltuples, 0);
		c->bytes_total += (int64) RelationGetNumberOfBlocks(rel) * BLCKSZ;
		table_close(rel, NoLock);
	}
	return members;
}

static void
copy_table(CopyState *c, MmrMember *m, bool clear)
{
	MmrOutgoing out = {0};
	TableScanDesc scan;
	TupleTableSlot *slot;
	MemoryContext old;

	out.relid = m->relid;
	out.parent = CurrentMemoryContext;
	/* it was locked before the snapshot: its storage is the one the snapshot knows */
	if (!mmr_outgoing_open(&out, m, c->snapshot))
		elog(ERROR, "storage of table \"%s.%s\" has changed under its lock", m->nspname, m->relname);
	mmr_outgoing_describe(&out, c->tables_done + 1, &c->frame);
	if (clear)
	{
		appendStringInfoChar(&c->frame, MMR_REC_COPY_TABLE);
		mmr_append_varint(&c->frame, out.number);
	}
	slot = table_slot_create(out.rel, NULL);
	scan = table_beginscan(out.rel, c->snapshot, 0, NULL);
	old = MemoryContextSwitchTo(c->row_cxt);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		mmr_outgoing_row(&out, slot, &c->key, &c->frame);
		c->rows++;
		MemoryContextReset(c->row_cxt);
		if (c->frame.len >= mmr_guc_frame_size * 1024)
			copy_send(c, m, false);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	mmr_outgoing_close(&out);
	if (out.cxt != NULL)
		MemoryContextDelete(out.cxt);
	c->tables_done++;
	copy_report(c, m);
}

/*
 * First record: a copy has no position, and tells no context.  Rows come
 * without versions, but whoever writes them from now on has seen them: what he
 * writes is newer than all that the snapshot has seen.
 */
static void
copy_head(CopyState *c, MmrSync *sync, int32 my_node)
{
	copy_frame_start(c);
	appendStringInfoChar(&c->frame, MMR_REC_BATCH);
	mmr_append_varint(&c->frame, MMR_BATCH_COPY);
	mmr_append_varint(&c->frame, sync->id);
	mmr_append_varint(&c->frame, my_node);
	mmr_append_position(&c->frame, NULL);
	mmr_append_position(&c->frame, NULL);
	mmr_append_context(&c->frame, NULL);
	mmr_append_varint(&c->frame, mmr_clock_last());
}

/*
 * Of a key that stands aside here the newest state is not here, and nobody
 * else would send it to who gets this copy.
 */
static void
copy_check_complete(MmrSync *sync)
{
	mmr_setaside_refresh(sync);
	if (mmr_setaside_none())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_MMR_STOPPED),
			 errmsg("the initial copy waits: %d rows that this db should have cannot be applied here",
					mmr_setaside_count()),
			 errhint("See the view mmrepl.apply_error: remove the causes, or give the rows up with mmrepl.discard_apply_error().")));
}

void
mmr_copy_run(MmrSync *sync, int32 my_node, bool clear, List *skip,
			 MmrFrameSink sink, MmrCopyReport report, void *arg)
{
	CopyState	c = {0};
	List	   *members;
	ListCell   *lc;

	copy_check_complete(sync);
	c.sink = sink;
	c.report = report;
	c.arg = arg;
	c.row_cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl copy", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&c.frame);
	initStringInfo(&c.key);
	members = copy_lock_tables(&c, sync, skip);

	mmr_capture_prepare_clock();
	PushActiveSnapshot(GetLatestSnapshot());
	c.snapshot = GetActiveSnapshot();
	mmr_outgoing_flush_wal();
	copy_head(&c, sync, my_node);
	foreach(lc, members)
		copy_table(&c, lfirst(lc), clear);
	appendStringInfoChar(&c.frame, MMR_REC_END);
	copy_send(&c, NULL, true);
	PopActiveSnapshot();
	MemoryContextDelete(c.row_cxt);
}
