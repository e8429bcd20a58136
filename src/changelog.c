/*-------------------------------------------------------------------------
 * changelog.c
 *	  The change log: packed runs of changes, appended to segment tables.
 *
 * Floor 2.  Writes mmrepl.log_N; reads MmrDatabase.current_segment.  Runs in
 * client backends (capture) and apply backends (record).
 *
 * A run: format version, flags, node (varint), if recorded the sync by which it came (varint), time of the first change (8
 * bytes); then per change an op byte, the table's oid unless it is that of
 * the change before, the time as a difference to the one before, dot and
 * version node where flags say so, length of the key, key.  Runs are kept
 * below the size at which a tuple would be toasted or compressed.
 *
 * Invariant: after the lock on a segment is held it is still the current
 * one, or the append goes elsewhere: so a segment that is not current and that
 * nobody has locked gets no more entries.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/heapam.h"
#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "changelog.h"
#include "errors.h"
#include "shared.h"

#define RUN_FORMAT			1
#define RUN_RECORDED		0x01
#define RUN_HAS_TRUNCATE	0x02

#define CHANGE_OP_MASK		0x07
#define CHANGE_SAME_TABLE	0x08
#define CHANGE_RANK			0x10
#define CHANGE_RESOLUTION	0x20

/* Payload of a run: with tuple header, xid and varlena header below TOAST_TUPLE_THRESHOLD. */
#define RUN_BYTES			1960
/* A run is built where the log's row will have it: behind the tuple's header and its first column. */
#define RUN_COLUMN			(MAXALIGN(SizeofHeapTupleHeader) + sizeof(uint64))
#define RUN_PAYLOAD			(RUN_COLUMN + VARHDRSZ)
/* What is kept for the next; a key that is larger gets it for one run. */
#define RUN_KEPT			(RUN_PAYLOAD + RUN_BYTES + MMR_VARINT_MAX)
/* Room a change may take besides its key. */
#define CHANGE_OVERHEAD		(7 * MMR_VARINT_MAX + 2)
/* Runs written by one multi-insert. */
#define RUNS_PER_INSERT		32

struct MmrAppender
{
	int32		node;
	bool		recorded;
	int32		via;
	uint64		xid;
	Relation	rel;
	int			segment;
	StringInfoData run;			/* run under construction: the log's row */
	int			nruns;
	int64		last_ts;
	Oid			last_relid;
	bool		empty;
};

/* Kept for the backend's life: one appender is open at a time, and most transactions write one run. */
static MmrAppender appender;
static MemoryContext write_cxt = NULL;	/* what the heap allocates for one write */
static TupleTableSlot *slots[RUNS_PER_INSERT];	/* runs that wait to be written together; made when there are two */
static int	slots_used = 0;		/* from the first: those that may hold a tuple */

static void
append_init(void)
{
	if (write_cxt == NULL)
		write_cxt = AllocSetContextCreate(TopMemoryContext, "mmrepl append write", ALLOCSET_DEFAULT_SIZES);
	if (appender.run.maxlen > RUN_KEPT)
	{
		pfree(appender.run.data);
		appender.run.data = NULL;
	}
	if (appender.run.data == NULL)
	{
		appender.run.data = MemoryContextAlloc(TopMemoryContext, RUN_KEPT);
		appender.run.maxlen = RUN_KEPT;
	}
}

static void
append_make_slots(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	TupleDesc	desc = CreateTemplateTupleDesc(2);

	TupleDescInitEntry(desc, 1, "xid", XID8OID, -1, 0);
	TupleDescInitEntry(desc, 2, "changes", BYTEAOID, -1, 0);
	for (int i = 0; i < RUNS_PER_INSERT; i++)
		slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	MemoryContextSwitchTo(old);
}

/* A segment's table: once a transaction, so it is not looked up each time. */
static struct
{
	Oid			relid;
	uint64		changes;
}			known[MMR_SEGMENTS];

static inline bool
segment_is_known(int segment)
{
	return OidIsValid(known[segment].relid) && known[segment].changes == mmr_catalog_changes();
}

static Oid
segment_relid(int segment)
{
	if (unlikely(!segment_is_known(segment)))
	{
		char		name[16];

		snprintf(name, sizeof(name), "log_%d", segment);
		known[segment].relid = mmr_catalog_table(name);
		known[segment].changes = mmr_catalog_changes();
	}
	return known[segment].relid;
}

bool
mmr_changelog_is_gone(void)
{
	for (int segment = 0; segment < MMR_SEGMENTS; segment++)
		if (segment_is_known(segment))
			return false;
	return !OidIsValid(get_relname_relid("log_0", mmr_catalog_schema())) && !mmr_catalog_present();
}

Relation
mmr_changelog_open_segment(int segment, LOCKMODE lockmode)
{
	return try_table_open(segment_relid(segment), lockmode);
}

bool
mmr_changelog_segment_used(int segment)
{
	MmrDatabase *db = mmr_shared_database();

	return db == NULL || pg_atomic_read_u32(&db->segment_used[segment]) != 0;
}

pg_atomic_uint32 *
mmr_changelog_mark(int segment, BlockNumber block)
{
	MmrDatabase *db = mmr_shared_database();

	/* neighbours, and the beginnings of segments, apart from each other */
	return db ? &db->marks[(segment * 61 + block / MMR_STRETCH) % MMR_MARKS] : NULL;
}

/*
 * As mmr_changelog_open_segment, for a writer: without asking the catalog cache
 * whether the table is still there.  Whoever gets the lock has heard of all that was
 * committed under it, and the relation cache has no table that is gone.
 */
static Relation
append_open_segment(int segment)
{
	Oid			relid = segment_relid(segment);
	Relation	rel;

	LockRelationOid(relid, RowExclusiveLock);
	rel = RelationIdGetRelation(relid);
	if (rel != NULL)
		pgstat_init_relation(rel);
	return rel;
}

/* Opens and locks the segment to append to; the lock is held to the end of the transaction. */
static Relation
append_open(int *where)
{
	for (;;)
	{
		MmrDatabase *db = mmr_shared_database();
		int			segment = db ? pg_atomic_read_u32(&db->current_segment) % MMR_SEGMENTS : 0;
		Relation	rel = append_open_segment(segment);

		if (rel == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("change log segment %d does not exist", segment),
					 errhint("Drop the extension mmrepl and create it again.")));
		*where = segment;
		/* without an entry nobody rotates; there may be one by now, and a janitor */
		if (db == NULL && (db = mmr_shared_database()) == NULL)
			return rel;
		/* the lock is a barrier: see the invariant above */
		if (pg_atomic_read_u32(&db->current_segment) % MMR_SEGMENTS == segment)
		{
			pg_atomic_write_u32(&db->segment_used[segment], 1);
			return rel;
		}
		table_close(rel, RowExclusiveLock);
	}
}

MmrAppender *
mmr_changelog_begin(int32 node, bool recorded)
{
	MmrAppender *a = &appender;

	append_init();
	/* one that ended in an ERROR may have left tuples in the slots */
	for (; slots_used > 0; slots_used--)
		ExecClearTuple(slots[slots_used - 1]);
	a->node = node;
	a->recorded = recorded;
	a->via = 0;
	a->xid = U64FromFullTransactionId(GetTopFullTransactionId());
	a->nruns = 0;
	a->empty = true;
	a->rel = append_open(&a->segment);
	return a;
}

/* Readers have to look at the page again. */
static void
append_mark(MmrAppender *a, BlockNumber block)
{
	pg_atomic_uint32 *mark = mmr_changelog_mark(a->segment, block);

	if (mark != NULL)
		pg_atomic_fetch_add_u32(mark, 1);
}

/*
 * At commit there is none.  It is needed where something goes to the segment's
 * TOAST table, which a small transaction need not pay for; but a server
 * with assertions wants one for every table that might have to.
 */
static bool
append_push_snapshot(bool toasts)
{
#ifndef USE_ASSERT_CHECKING
	if (!toasts)
		return false;
#endif
	if (HaveRegisteredOrActiveSnapshot())
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
}

/*
 * Always at the heap's end: what room is left in pages before is not worth
 * that readers look at all of them again.
 */
static void
append_tuple(MmrAppender *a, HeapTuple tuple, CommandId cid)
{
	heap_insert(a->rel, tuple, cid, HEAP_INSERT_SKIP_FSM | TABLE_INSERT_NO_LOGICAL, NULL);
	append_mark(a, ItemPointerGetBlockNumber(&tuple->t_self));
}

/* All in one. */
static void
append_multi(MmrAppender *a, CommandId cid)
{
	BlockNumber last = InvalidBlockNumber;

	heap_multi_insert(a->rel, slots, a->nruns, cid, HEAP_INSERT_SKIP_FSM, NULL);
	for (int i = 0; i < a->nruns; i++)
	{
		BlockNumber block = ItemPointerGetBlockNumber(&slots[i]->tts_tid);

		if (block != last)
			append_mark(a, block);
		last = block;
	}
}

/* Hands the runs gathered so far to the heap, or that one. */
static void
append_write(MmrAppender *a, HeapTuple one)
{
	CommandId	cid = GetCurrentCommandId(true);
	bool		toasts = one != NULL && one->t_len > TOAST_TUPLE_THRESHOLD;
	bool		pushed;
	MemoryContext old;

	for (int i = 0; i < a->nruns; i++)
		toasts |= ExecFetchSlotHeapTuple(slots[i], true, NULL)->t_len > TOAST_TUPLE_THRESHOLD;
	pushed = append_push_snapshot(toasts);
	old = MemoryContextSwitchTo(write_cxt);
	if (one != NULL)
		append_tuple(a, one, cid);
	/* a multi-insert cannot be kept from logical decoding */
	else if (a->nruns > 1 && !RelationIsLogicallyLogged(a->rel))
		append_multi(a, cid);
	else
		for (int i = 0; i < a->nruns; i++)
			append_tuple(a, ExecFetchSlotHeapTuple(slots[i], true, NULL), cid);
	MemoryContextSwitchTo(old);
	MemoryContextReset(write_cxt);
	if (pushed)
		PopActiveSnapshot();
	for (int i = 0; i < a->nruns; i++)
		ExecClearTuple(slots[i]);
	a->nruns = 0;
}

/* The run under construction as a tuple, in place: what heap_form_tuple would make of the log's two columns. */
static void
append_form(MmrAppender *a, HeapTuple tuple)
{
	char	   *data = a->run.data;
	int			len = a->run.len - RUN_PAYLOAD;
	HeapTupleHeader header = (HeapTupleHeader) data;

	memset(header, 0, MAXALIGN(SizeofHeapTupleHeader));
	ItemPointerSetInvalid(&header->t_ctid);
	header->t_infomask = HEAP_HASVARWIDTH;
	header->t_hoff = MAXALIGN(SizeofHeapTupleHeader);
	HeapTupleHeaderSetNatts(header, 2);
	memcpy(data + header->t_hoff, &a->xid, sizeof(uint64));
	if (len + VARHDRSZ_SHORT <= VARATT_SHORT_MAX)
	{
		memmove(data + RUN_COLUMN + VARHDRSZ_SHORT, data + RUN_PAYLOAD, len);
		SET_VARSIZE_SHORT(data + RUN_COLUMN, len + VARHDRSZ_SHORT);
		tuple->t_len = RUN_COLUMN + VARHDRSZ_SHORT + len;
	}
	else
	{
		SET_VARSIZE(data + RUN_COLUMN, len + VARHDRSZ);
		tuple->t_len = a->run.len;
	}
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = InvalidOid;
	tuple->t_data = header;
	a->empty = true;
}

/* Puts the run under construction to those that wait. */
static void
append_finish_run(MmrAppender *a)
{
	HeapTupleData tuple;
	MemoryContext old;

	if (a->empty)
		return;
	if (slots[RUNS_PER_INSERT - 1] == NULL)
		append_make_slots();
	append_form(a, &tuple);
	slots_used = Max(slots_used, a->nruns + 1);
	/* where the slot is: the caller's context may go before the slot is cleared */
	old = MemoryContextSwitchTo(TopMemoryContext);
	ExecStoreHeapTuple(heap_copytuple(&tuple), slots[a->nruns], true);
	MemoryContextSwitchTo(old);
	a->nruns++;
	if (a->nruns == RUNS_PER_INSERT)
		append_write(a, NULL);
}

static void
append_start_run(MmrAppender *a, int64 ts)
{
	char	   *p = a->run.data + RUN_PAYLOAD;

	*p++ = RUN_FORMAT;
	*p++ = a->recorded ? RUN_RECORDED : 0;
	p = mmr_put_varint(p, a->node);
	if (a->recorded)
		p = mmr_put_varint(p, a->via);
	memcpy(p, &ts, sizeof(int64));
	p += sizeof(int64);
	a->run.len = p - a->run.data;
	a->last_ts = ts;
	a->last_relid = InvalidOid;
	a->empty = false;
}

void
mmr_changelog_via(MmrAppender *a, int32 sync_id)
{
	a->via = sync_id;
}

void
mmr_changelog_add(MmrAppender *a, const MmrChange *change)
{
	int			flags = change->op;
	char	   *p;

	if (!a->empty && a->run.len + CHANGE_OVERHEAD + change->keylen > RUN_COLUMN + RUN_BYTES)
		append_finish_run(a);
	if (a->empty)
		append_start_run(a, change->version.ts);
	if (unlikely(a->run.len + CHANGE_OVERHEAD + change->keylen >= a->run.maxlen))
		enlargeStringInfo(&a->run, CHANGE_OVERHEAD + change->keylen);

	if (change->op == MMR_OP_TRUNCATE)
		a->run.data[RUN_PAYLOAD + 1] |= RUN_HAS_TRUNCATE;
	if (change->relid == a->last_relid)
		flags |= CHANGE_SAME_TABLE;
	if (change->version.rank != 0)
		flags |= CHANGE_RANK;
	if (change->settled.level > 0)
		flags |= CHANGE_RESOLUTION;

	p = a->run.data + a->run.len;
	*p++ = (char) flags;
	if (change->relid != a->last_relid)
		p = mmr_put_varint(p, change->relid);
	p = mmr_put_varint(p, mmr_zigzag(change->version.ts - a->last_ts));
	if (a->recorded)
	{
		p = mmr_put_varint(p, change->version.node);
		p = mmr_put_varint(p, change->dot.node);
		p = mmr_put_varint(p, change->dot.xid);
	}
	if (change->settled.level > 0)
	{
		*p++ = (char) change->settled.level;
		p = mmr_put_varint(p, change->settled.node);
	}
	if (change->op != MMR_OP_TRUNCATE)
	{
		p = mmr_put_varint(p, change->keylen);
		memcpy(p, change->key, change->keylen);
		p += change->keylen;
	}
	a->run.len = p - a->run.data;
	a->last_ts = change->version.ts;
	a->last_relid = change->relid;
}

void
mmr_changelog_end(MmrAppender *a)
{
	HeapTupleData only;

	if (a->nruns > 0)
	{
		append_finish_run(a);
		append_write(a, NULL);
	}
	else if (!a->empty)
	{
		append_form(a, &only);
		append_write(a, &only);
	}
	table_close(a->rel, NoLock);
}

void
mmr_changelog_open_run(MmrRun *run, uint64 xid, const char *data, int len)
{
	uint8		flags;

	run->r.ptr = data;
	run->r.end = data + len;
	if (mmr_get_byte(&run->r) != RUN_FORMAT)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_CORRUPT),
				 errmsg("change log has a run of an unknown format"),
				 errhint("It was written by a newer version of mmrepl.")));
	flags = mmr_get_byte(&run->r);
	run->xid = xid;
	run->recorded = (flags & RUN_RECORDED) != 0;
	run->has_truncate = (flags & RUN_HAS_TRUNCATE) != 0;
	run->node = (int32) mmr_get_bounded(&run->r, PG_INT32_MAX, "node id is out of range");
	run->via = run->recorded ? (int32) mmr_get_bounded(&run->r, PG_INT32_MAX, "sync is out of range") : 0;
	memcpy(&run->ts, mmr_get_bytes(&run->r, sizeof(int64)), sizeof(int64));
	run->relid = InvalidOid;
}

bool
mmr_changelog_next(MmrRun *run, MmrChange *change)
{
	uint8		flags;

	if (mmr_reader_done(&run->r))
		return false;
	flags = mmr_get_byte(&run->r);
	change->op = flags & CHANGE_OP_MASK;
	change->settled = MMR_SETTLED_NONE;
	if (!(flags & CHANGE_SAME_TABLE))
		run->relid = (Oid) mmr_get_bounded(&run->r, OID_MAX, "table is out of range");
	run->ts += mmr_get_zigzag(&run->r);
	change->relid = run->relid;
	change->version.ts = run->ts;
	change->version.rank = (flags & CHANGE_RANK) ? 1 : 0;
	if (run->recorded)
	{
		change->version.node = (int32) mmr_get_bounded(&run->r, PG_INT32_MAX, "node id is out of range");
		change->dot.node = (int32) mmr_get_bounded(&run->r, PG_INT32_MAX, "node id is out of range");
		change->dot.xid = mmr_get_varint(&run->r);
	}
	else
	{
		change->version.node = run->node;
		change->dot.node = run->node;
		change->dot.xid = run->xid;
	}
	if (flags & CHANGE_RESOLUTION)
	{
		change->settled.level = mmr_get_byte(&run->r);
		change->settled.node = (int32) mmr_get_bounded(&run->r, PG_INT32_MAX, "node id is out of range");
	}
	change->key = NULL;
	change->keylen = 0;
	if (change->op != MMR_OP_TRUNCATE)
	{
		change->keylen = (int) mmr_get_bounded(&run->r, run->r.end - run->r.ptr, "key is cut off");
		change->key = mmr_get_bytes(&run->r, change->keylen);
	}
	return true;
}

/* Highest time in one tuple of the log. */
static int64
tuple_max_ts(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	uint64		xid = DatumGetUInt64(heap_getattr(tuple, 1, desc, &isnull));
	Datum		changes = heap_getattr(tuple, 2, desc, &isnull);
	struct varlena *v = PG_DETOAST_DATUM_PACKED(changes);
	MmrRun		run;
	MmrChange	change;
	int64		max = 0;

	mmr_changelog_open_run(&run, xid, VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
	while (mmr_changelog_next(&run, &change))
		max = Max(max, change.version.ts);
	if ((Pointer) v != DatumGetPointer(changes))
		pfree(v);
	return max;
}

int64
mmr_changelog_max_ts(void)
{
	int64		max = 0;
	SnapshotData dirty;

	/* uncommitted ones count: a prepared transaction may commit yet */
	InitDirtySnapshot(dirty);
	for (int segment = 0; segment < MMR_SEGMENTS; segment++)
	{
		Relation	rel;
		TableScanDesc scan;
		HeapTuple	tuple;

		if (!mmr_changelog_segment_used(segment))
			continue;
		rel = mmr_changelog_open_segment(segment, AccessShareLock);
		if (rel == NULL)
			continue;
		scan = table_beginscan(rel, &dirty, 0, NULL);
		while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
		{
			max = Max(max, tuple_max_ts(tuple, RelationGetDescr(rel)));
			CHECK_FOR_INTERRUPTS();
		}
		table_endscan(scan);
		table_close(rel, AccessShareLock);
	}
	return max;
}
