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
#define RECENT_TABLES	16

static struct
{
	Oid			relid;
	uint64		generation;
	MmrKey	   *key;
}			recent[RECENT_TABLES];

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
static MmrKey *
capture_key(TriggerData *td)
{
	Relation	rel = td->tg_relation;
	Oid			relid = RelationGetRelid(rel);
	int			i = relid % RECENT_TABLES;
	char	  **args = td->tg_trigger->tgargs;
	const char *name;
	MmrKey	   *key;

	if (recent[i].relid == relid && recent[i].generation == mmr_key_generation())
		return recent[i].key;

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

static void
capture_row(TriggerData *td, int32 node, MmrKey *key)
{
	static StringInfoData now = {0};
	static StringInfoData before = {0};
	Oid			relid = RelationGetRelid(td->tg_relation);

	if (now.data == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		initStringInfo(&now);
		initStringInfo(&before);
		MemoryContextSwitchTo(old);
	}
	resetStringInfo(&now);
	resetStringInfo(&before);
	if (TRIGGER_FIRED_BY_UPDATE(td->tg_event))
	{
		mmr_key_encode(key, td->tg_newslot, &now);
		mmr_key_encode(key, td->tg_trigslot, &before);
		if (!mmr_key_equal(key, now.data, now.len, before.data, before.len))
		{
			capture_change(node, MMR_OP_DELETE, relid, before.data, before.len);
			capture_change(node, MMR_OP_INSERT, relid, now.data, now.len);
		}
		else
			capture_change(node, MMR_OP_UPDATE, relid, now.data, now.len);
		return;
	}
	mmr_key_encode(key, td->tg_trigslot, &now);
	capture_change(node, TRIGGER_FIRED_BY_INSERT(td->tg_event) ? MMR_OP_INSERT : MMR_OP_DELETE,
				   relid, now.data, now.len);
}

/* What both triggers begin with: this node's id, or 0 if nothing is to be captured. */
static int32
capture_begin(FunctionCallInfo fcinfo)
{
	int32		node;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", "mmrepl._capture")));
	node = capture_node();
	if (node == 0)
		return 0;
	/* C1: first the xid, then the clock */
	(void) GetTopTransactionId();
	if (mmr_shared != NULL)
		mmr_shared_gave_out(U64FromFullTransactionId(GetTopFullTransactionIdIfAny()));
	mmr_capture_prepare_clock();
	return node;
}

Datum
mmrepl_capture(PG_FUNCTION_ARGS)
{
	TriggerData *td = (TriggerData *) fcinfo->context;
	int32		node = capture_begin(fcinfo);
	MmrKey	   *key;

	if (!TRIGGER_FIRED_AFTER(td->tg_event) || !TRIGGER_FIRED_FOR_ROW(td->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired AFTER ROW", "mmrepl._capture")));
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
	int32		node = capture_begin(fcinfo);

	if (!TRIGGER_FIRED_BY_TRUNCATE(td->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired by TRUNCATE", "mmrepl._capture_truncate")));
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
