/*-------------------------------------------------------------------------
 * capture.c
 *	  Capture: what the triggers on user tables do, and when a transaction's
 *	  changes go to the log.
 *
 * Floor 4.  Reads mmrepl.local_node; writes the log through buffer.  Runs in
 * client backends, inside the user's transaction: nothing here may fail it
 * but a lack of memory or disk (C5).
 *
 * Invariant: the clock ticks after the top-level xid was assigned and while
 * the row is locked (C1); nothing is captured twice, because the triggers are
 * silent under session_replication_role = replica.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "access/table.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "breaks.h"
#include "alarm.h"
#include "buffer.h"
#include "capture.h"
#include "catalog.h"
#include "changelog.h"
#include "clock.h"
#include "key.h"
#include "keyindex.h"
#include "progress.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(mmrepl_capture);
PG_FUNCTION_INFO_V1(mmrepl_capture_truncate);

/* Keys of the tables captured lately, by oid. */
#define RECENT_TABLES	256

static struct
{
	Oid			relid;
	uint64		generation;
	MmrKey	   *key;
}			recent[RECENT_TABLES];

/* Keys of the row at hand; made with the first. */
static StringInfoData key_now = {0};
static StringInfoData key_before = {0};

static int32 my_node = 0;
static uint64 my_node_generation = 0;
static LocalTransactionId my_node_lxid = InvalidLocalTransactionId;

/* This node's id as the catalog has it, 0 if it has none. */
static int32
read_node_id(void)
{
	Relation	rel = table_open(mmr_catalog_table("local_node"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple = systable_getnext(scan);
	int32		result = 0;

	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		d = heap_getattr(tuple, 2, RelationGetDescr(rel), &isnull);

		if (!isnull)
			result = DatumGetInt32(d);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return result;
}

static int32
capture_node(void)
{
	MmrDatabase *db = mmr_shared_database();
	uint64		generation = db ? pg_atomic_read_u64(&db->config_generation) + 1 : 0;

	/* without an entry nobody tells of changes: good for this transaction */
	if (my_node != 0 && generation == my_node_generation &&
		(generation != 0 || my_node_lxid == MyProc->lxid))
		return my_node;
	my_node = read_node_id();
	my_node_generation = generation;
	my_node_lxid = MyProc->lxid;
	return my_node;
}

void
mmr_capture_prepare_clock(void)
{
	if (mmr_clock_is_ready())
		return;
#ifndef MMR_BREAK_CLOCK_FLOOR
	mmr_clock_raise(mmr_changelog_max_ts());
	mmr_clock_raise(mmr_progress_max_ts());
#endif
	mmr_clock_set_ready();
}

/* The key of the trigger's table; NULL (and a WARNING) if its index is gone. */
static pg_noinline MmrKey *
capture_find_key(TriggerData *td)
{
	Relation	rel = td->tg_relation;
	Oid			relid = RelationGetRelid(rel);
	int			i = relid % RECENT_TABLES;
	char	  **args = td->tg_trigger->tgargs;
	const char *name;
	MmrKey	   *key;

	name = td->tg_trigger->tgnargs > 0 && args[0][0] != '\0' ? args[0] : NULL;
	key = mmr_key_get(rel, mmr_keyindex_find(relid, name));
	recent[i].relid = relid;
	recent[i].generation = mmr_key_generation();
	recent[i].key = key;
	if (key == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("changes of table \"%s\" are not replicated: its key index is gone",
						RelationGetRelationName(rel)),
				 errhint("Restore the index, or take the table out with mmrepl.remove_table and add it again.")));
	return key;
}

static inline MmrKey *
capture_key(TriggerData *td)
{
	Oid			relid = RelationGetRelid(td->tg_relation);
	int			i = relid % RECENT_TABLES;

	if (likely(recent[i].relid == relid && recent[i].generation == mmr_key_generation()))
		return recent[i].key;
	return capture_find_key(td);
}

/* Same bytes: an UPDATE that changed nothing (C2). */
static bool
same_tuple(HeapTuple a, HeapTuple b)
{
	HeapTupleHeader ha = a->t_data;
	HeapTupleHeader hb = b->t_data;

	return a->t_len == b->t_len && ha->t_hoff == hb->t_hoff &&
		HeapTupleHeaderGetNatts(ha) == HeapTupleHeaderGetNatts(hb) &&
		(ha->t_infomask & HEAP_HASNULL) == (hb->t_infomask & HEAP_HASNULL) &&
		memcmp((char *) ha + SizeofHeapTupleHeader, (char *) hb + SizeofHeapTupleHeader,
			   a->t_len - SizeofHeapTupleHeader) == 0;
}

static void
capture_change(int32 node, MmrOp op, Oid relid, const char *key, int keylen)
{
	MmrChange	change;

	change.op = op;
	change.relid = relid;
	change.version.ts = mmr_clock_tick();
	change.key = key;
	change.keylen = keylen;
	mmr_buffer_add(node, &change);
}

/* Values of the key's columns, straight from the tuple: a slot would take apart all before the last of them. */
static void
capture_values(TriggerData *td, MmrKey *key, HeapTuple tuple, Datum *values)
{
	TupleDesc	desc = RelationGetDescr(td->tg_relation);
	HeapTupleHeader header = tuple->t_data;

	for (int i = 0; i < key->ncolumns; i++)
	{
		AttrNumber	attnum = key->columns[i].attnum;
		bool		isnull = HeapTupleHasNulls(tuple) && att_isnull(0, header->t_bits);

		/* the usual key is the first column, whatever of the others is null */
		if (attnum == 1 && HeapTupleHeaderGetNatts(header) > 0 && !isnull)
			values[i] = fetchatt(TupleDescAttr(desc, 0), (char *) header + header->t_hoff);
		else
			values[i] = heap_getattr(tuple, attnum, desc, &isnull);
		if (unlikely(isnull))
			elog(ERROR, "key column \"%s\" is null", NameStr(key->columns[i].name));
	}
}

/* True if the key is the same for certain, because the row has the same in it; false: look closer. */
static bool
same_values(const MmrKey *key, const Datum *a, const Datum *b)
{
	for (int i = 0; i < key->ncolumns; i++)
	{
		const MmrKeyColumn *col = &key->columns[i];
		bool		same;

		if (col->byval)
			same = a[i] == b[i];
		else if (col->typlen > 0)
			same = memcmp(DatumGetPointer(a[i]), DatumGetPointer(b[i]), col->typlen) == 0;
		else
			/* compressed, or elsewhere: the same where it is kept */
			same = col->typlen == -1 &&
				VARSIZE_ANY(DatumGetPointer(a[i])) == VARSIZE_ANY(DatumGetPointer(b[i])) &&
				memcmp(DatumGetPointer(a[i]), DatumGetPointer(b[i]), VARSIZE_ANY(DatumGetPointer(a[i]))) == 0;
		if (!same)
			return false;
	}
	return true;
}

static void
capture_row(TriggerData *td, int32 node, MmrKey *key)
{
	Oid			relid = RelationGetRelid(td->tg_relation);
	Datum		new_values[INDEX_MAX_KEYS];
	Datum		old_values[INDEX_MAX_KEYS];

	key_now.len = 0;
	if (!TRIGGER_FIRED_BY_UPDATE(td->tg_event))
	{
		capture_values(td, key, td->tg_trigtuple, new_values);
		mmr_key_encode_values(key, new_values, &key_now);
		capture_change(node, TRIGGER_FIRED_BY_INSERT(td->tg_event) ? MMR_OP_INSERT : MMR_OP_DELETE,
					   relid, key_now.data, key_now.len);
		return;
	}
	capture_values(td, key, td->tg_newtuple, new_values);
	capture_values(td, key, td->tg_trigtuple, old_values);
	mmr_key_encode_values(key, new_values, &key_now);
	if (!same_values(key, new_values, old_values))
	{
		key_before.len = 0;
		mmr_key_encode_values(key, old_values, &key_before);
		if (!mmr_key_equal(key, key_now.data, key_now.len, key_before.data, key_before.len))
		{
			capture_change(node, MMR_OP_DELETE, relid, key_before.data, key_before.len);
			capture_change(node, MMR_OP_INSERT, relid, key_now.data, key_now.len);
			return;
		}
	}
	capture_change(node, MMR_OP_UPDATE, relid, key_now.data, key_now.len);
}

/* The first change of a transaction: this node's id, or 0 if nothing is to be captured. */
static pg_noinline int32
capture_first(void)
{
	int32		node = capture_node();

	if (node == 0)
		return 0;
	if (key_before.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(&key_now);
		initStringInfo(&key_before);
		MemoryContextSwitchTo(old);
	}
	/* C1: first the xid, then the clock */
	(void) GetTopTransactionId();
	if (mmr_shared != NULL)
		mmr_shared_gave_out(U64FromFullTransactionId(GetTopFullTransactionIdIfAny()));
	mmr_capture_prepare_clock();
	return node;
}

/* What both triggers begin with: the same.  A transaction that has captured has all it takes, whatever was rolled back since. */
static inline int32
capture_begin(void)
{
	int32		node = mmr_buffer_node();

	return likely(node != 0) ? node : capture_first();
}

static pg_noinline void
capture_misused(const char *function, const char *how)
{
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("function \"mmrepl.%s\" %s", function, how)));
}

Datum
mmrepl_capture(PG_FUNCTION_ARGS)
{
	TriggerData *td = (TriggerData *) fcinfo->context;
	int32		node;
	MmrKey	   *key;

	if (unlikely(!CALLED_AS_TRIGGER(fcinfo)))
		capture_misused("_capture", "was not called by trigger manager");
	if (unlikely(!TRIGGER_FIRED_AFTER(td->tg_event) || !TRIGGER_FIRED_FOR_ROW(td->tg_event)))
		capture_misused("_capture", "must be fired AFTER ROW");
	node = capture_begin();
	if (node == 0)
		return PointerGetDatum(NULL);
	if (TRIGGER_FIRED_BY_UPDATE(td->tg_event) && same_tuple(td->tg_trigtuple, td->tg_newtuple))
		return PointerGetDatum(NULL);
	key = capture_key(td);
	if (key != NULL)
		capture_row(td, node, key);
	return PointerGetDatum(NULL);
}

Datum
mmrepl_capture_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *td = (TriggerData *) fcinfo->context;
	int32		node;

	if (!CALLED_AS_TRIGGER(fcinfo))
		capture_misused("_capture_truncate", "was not called by trigger manager");
	if (!TRIGGER_FIRED_BY_TRUNCATE(td->tg_event))
		capture_misused("_capture_truncate", "must be fired by TRUNCATE");
	node = capture_begin();
	if (node != 0)
		capture_change(node, MMR_OP_TRUNCATE, RelationGetRelid(td->tg_relation), NULL, 0);
	return PointerGetDatum(NULL);
}

static void
capture_xact(XactEvent event, void *arg)
{
	int64		captured;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			mmr_buffer_flush();
			break;
		case XACT_EVENT_COMMIT:
			captured = mmr_buffer_end();
			if (captured > 0)
				mmr_alarm_committed(captured);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			(void) mmr_buffer_end();
			break;
		default:
			break;
	}
}

static void
capture_subxact(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_PRE_COMMIT_SUB)
		mmr_buffer_precommit_sub(sub, parent);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		mmr_buffer_subcommit(sub, parent);
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		mmr_buffer_subabort(sub);
}

void
mmr_capture_init(void)
{
	RegisterXactCallback(capture_xact, NULL);
	RegisterSubXactCallback(capture_subxact, NULL);
}
