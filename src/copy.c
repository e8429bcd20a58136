/*-------------------------------------------------------------------------
 * copy.c
 *	  The initial copy of a sync to a peer.
 *
 * Floor 8.  Reads user tables, the log, progress.  Runs in pushers.
 *
 * Copied rows carry no version: any entry at the other side is newer (I2).
 * Those of keys that the log holds, whoever wrote them, go with their versions
 * and dots, and so do keys whose row is gone, and TRUNCATEs: the peer's log
 * holds afterwards what ours does.  Writes go on here and there meanwhile.
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
#include "topology.h"
#include "versions.h"

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
	MmrSync    *sync;
	int32		my_node;
	MmrVersions *versions;		/* of what the log holds */
	List	   *outs;			/* CopyTable */
	int			described;
	int64		ts;				/* of the last item in the frame */
} CopyState;

typedef struct CopyTable
{
	MmrMember  *member;
	MmrOutgoing out;
} CopyTable;

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
	c->ts = 0;
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

/* Locks all tables; how much there is to copy, as the planner knows. */
static void
copy_lock_tables(CopyState *c, MmrSync *sync, List *skip)
{
	ListCell   *lc;

	foreach(lc, sync->tables)
	{
		MmrMember  *m = lfirst(lc);
		Relation	rel;

		CopyTable  *t;

		if (!OidIsValid(m->relid) || !OidIsValid(m->key_index) ||
			(rel = try_table_open(m->relid, AccessShareLock)) == NULL)
			continue;
		t = palloc0(sizeof(CopyTable));
		t->member = m;
		t->out.relid = m->relid;
		t->out.parent = CurrentMemoryContext;
		c->outs = lappend(c->outs, t);
		if (!copy_skips(skip, m))
		{
			c->tables++;
			c->rows_total += Max((int64) rel->rd_rel->reltuples, 0);
			c->bytes_total += (int64) RelationGetNumberOfBlocks(rel) * BLCKSZ;
		}
		table_close(rel, NoLock);
	}
}

static CopyTable *
copy_find(CopyState *c, Oid relid)
{
	ListCell   *lc;

	foreach(lc, c->outs)
	{
		CopyTable  *t = lfirst(lc);

		if (t->out.relid == relid)
			return t;
	}
	return NULL;
}

static MmrKey *
copy_find_key(void *arg, Oid relid)
{
	CopyTable  *t = copy_find(arg, relid);
	Relation	rel;
	MmrKey	   *key;

	if (t == NULL)
		return NULL;
	rel = table_open(relid, AccessShareLock);
	key = mmr_key_get(rel, t->member->key_index);
	table_close(rel, AccessShareLock);
	return key;
}

static void
copy_open(CopyState *c, CopyTable *t)
{
	/* it was locked before the snapshot: its storage is the one the snapshot knows */
	if (!mmr_outgoing_open(&t->out, t->member, c->snapshot))
		elog(ERROR, "storage of table \"%s.%s\" has changed under its lock", t->member->nspname,
			 t->member->relname);
	if (t->out.number == 0)
		mmr_outgoing_describe(&t->out, ++c->described, &c->frame);
}

/* Newest entry of that very key; false: the log has none. */
static bool
copy_lookup(CopyState *c, MmrKey *key, const char *data, int len, MmrState *state)
{
	return mmr_versions_lookup(c->versions, key, mmr_key_hash(key, data, len), data, len, state) &&
		state->op != MMR_OP_TRUNCATE;
}

static void
copy_rows(CopyState *c, CopyTable *t, bool clear)
{
	TableScanDesc scan;
	TupleTableSlot *slot;
	MemoryContext old;

	copy_open(c, t);
	if (clear)
	{
		appendStringInfoChar(&c->frame, MMR_REC_COPY_TABLE);
		mmr_append_varint(&c->frame, t->out.number);
	}
	slot = table_slot_create(t->out.rel, NULL);
	scan = table_beginscan(t->out.rel, c->snapshot, 0, NULL);
	old = MemoryContextSwitchTo(c->row_cxt);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MmrState	state;

		resetStringInfo(&c->key);
		mmr_key_encode(t->out.key, slot, &c->key);
		if (mmr_versions_is_empty(c->versions) ||
			!copy_lookup(c, t->out.key, c->key.data, c->key.len, &state))
			mmr_outgoing_row(&t->out, slot, &c->key, &c->ts, &c->frame);
		c->rows++;
		MemoryContextReset(c->row_cxt);
		if (c->frame.len >= mmr_guc_frame_size * 1024)
			copy_send(c, t->member, false);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	mmr_outgoing_close(&t->out);
	c->tables_done++;
	copy_report(c, t->member);
}

/* A run of the log: keys whose newest entry is in it, with their rows. */
static void
copy_run(void *arg, int segment, uint64 xid, const char *data, int len)
{
	CopyState  *c = arg;
	CopyTable  *t = NULL;
	MmrRun		run;
	MmrChange	change;

	(void) segment;
	mmr_changelog_open_run(&run, xid, data, len);
	while (mmr_changelog_next(&run, &change))
	{
		MmrState	state;
		MemoryContext old;

		if (t == NULL || t->out.relid != change.relid)
		{
			if (t != NULL)
				mmr_outgoing_close(&t->out);
			if ((t = copy_find(c, change.relid)) != NULL)
				copy_open(c, t);
		}
		if (t == NULL || change.op == MMR_OP_TRUNCATE)
			continue;
		old = MemoryContextSwitchTo(c->row_cxt);
		if (copy_lookup(c, t->out.key, change.key, change.keylen, &state) &&
			mmr_version_compare(&state.version, &change.version) == 0)
			mmr_outgoing_item(&t->out, &change, c->my_node, &c->ts, &c->frame);
		MemoryContextSwitchTo(old);
		MemoryContextReset(c->row_cxt);
		if (c->frame.len >= mmr_guc_frame_size * 1024)
			copy_send(c, t->member, false);
		CHECK_FOR_INTERRUPTS();
	}
	if (t != NULL)
		mmr_outgoing_close(&t->out);
}

/* What the log holds: keys, and behind all rows TRUNCATEs, which the rows here have met already. */
static void
copy_log(CopyState *c, const MmrPosition *pos)
{
	ListCell   *lc;

	if (mmr_versions_is_empty(c->versions))
		return;
	mmr_logreader_scan(mmr_logreader_create(CurrentMemoryContext), c->snapshot, pos, copy_run, NULL, c);
	foreach(lc, c->outs)
	{
		CopyTable  *t = lfirst(lc);
		MmrState	state;

		if (!mmr_versions_truncated(c->versions, t->out.relid, &state))
			continue;
		copy_open(c, t);
		mmr_outgoing_close(&t->out);
		mmr_outgoing_truncate(&t->out, &state.version, &state.dot, &c->frame);
	}
}

/*
 * First record.  Rows come without versions, but whoever writes them from now
 * on has seen them: what he writes is newer than all that the snapshot has
 * seen.
 */
static void
copy_head(CopyState *c, const MmrPosition *pos)
{
	MmrContext *ctx = mmr_topology_context(c->sync);

	mmr_context_add(ctx, c->my_node, pos, false);
	copy_frame_start(c);
	appendStringInfoChar(&c->frame, MMR_REC_BATCH);
	mmr_append_varint(&c->frame, MMR_BATCH_COPY);
	mmr_append_varint(&c->frame, c->sync->id);
	mmr_append_varint(&c->frame, c->my_node);
	mmr_append_position(&c->frame, NULL);
	mmr_append_position(&c->frame, pos);
	mmr_append_context(&c->frame, ctx);
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
mmr_copy_run(MmrSync *sync, int32 my_node, int kind, List *skip,
			 MmrFrameSink sink, MmrCopyReport report, void *arg)
{
	CopyState	c = {0};
	MmrPosition *pos;
	ListCell   *lc;

	copy_check_complete(sync);
	c.sink = sink;
	c.report = report;
	c.arg = arg;
	c.sync = sync;
	c.my_node = my_node;
	c.row_cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl copy", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&c.frame);
	initStringInfo(&c.key);
	copy_lock_tables(&c, sync, skip);

	mmr_capture_prepare_clock();
	PushActiveSnapshot(GetLatestSnapshot());
	c.snapshot = GetActiveSnapshot();
	/* a member that has come since would not be copied, and what was written to it be taken for copied */
	if (!mmr_membership_is_current())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the configuration has changed while an initial copy was to begin")));
	pos = mmr_position_active();
	mmr_outgoing_flush_wal();
	c.versions = mmr_versions_create(CurrentMemoryContext, copy_find_key, NULL, &c);
	mmr_versions_feed(c.versions, c.snapshot, pos);
	copy_head(&c, pos);
	foreach(lc, c.outs)
	{
		CopyTable  *t = lfirst(lc);

		if (kind != 0 && !copy_skips(skip, t->member))
			copy_rows(&c, t, kind == 1);
	}
	copy_log(&c, pos);
	appendStringInfoChar(&c.frame, MMR_REC_END);
	copy_send(&c, NULL, true);
	PopActiveSnapshot();
	MemoryContextDelete(c.row_cxt);
}
