/*-------------------------------------------------------------------------
 * target.c
 *	  One local row through the executor.
 *
 * Floor 4.  Reads and writes user tables.  Runs in apply backends, once per
 * row that comes.
 *
 * A row is found under a snapshot and written by its address: whoever changed
 * it in between is noticed then (RETRY), so no lock is taken beforehand.
 * Unique indexes are asked not to raise an error: what collides is
 * taken out again and reported.
 *
 * Invariant: user code (triggers, expressions of columns and indexes,
 * domains) runs as the table's owner, in a restricted context.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/nodeModifyTable.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "rewrite/rewriteHandler.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "target.h"

/* Default of a column that the sender does not have. */
typedef struct MmrDefault
{
	AttrNumber	attnum;
	ExprState  *expr;
} MmrDefault;

void
mmr_target_defer_nothing(void)
{
	ConstraintsSetStmt stmt = {T_ConstraintsSetStmt};

	AfterTriggerSetState(&stmt);
}

/* From here user code is the table owner's (A9). */
static void
target_become_owner(MmrTarget *t)
{
	mmr_session_begin_foreign(&t->saved, t->rel->rd_rel->relowner);
}

/* Has the table a row trigger AFTER such an event (0: any trigger) that fires for replicas? (What captures does not.) */
static bool
target_fires(MmrTarget *t, int16 event)
{
	TriggerDesc *triggers = t->rri->ri_TrigDesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if ((trigger->tgenabled == TRIGGER_FIRES_ALWAYS || trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA) &&
			(event == 0 || TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW, TRIGGER_TYPE_AFTER, event)))
			return true;
	}
	return false;
}

/*
 * A row that comes sets all columns but those of its key: triggers ON UPDATE OF
 * some of them fire.
 */
static void
target_mark_updated(MmrTarget *t)
{
	TriggerDesc *triggers = t->rri->ri_TrigDesc;
	Bitmapset  *columns = NULL;
	bool		wanted = false;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		wanted |= triggers->triggers[i].tgnattr > 0;
	if (!wanted)
		return;
	for (int i = 1; i <= RelationGetNumberOfAttributes(t->rel); i++)
		columns = bms_add_member(columns, i - FirstLowInvalidHeapAttributeNumber);
	for (int i = 0; i < t->key->ncolumns; i++)
		columns = bms_del_member(columns, t->key->columns[i].attnum - FirstLowInvalidHeapAttributeNumber);
	mmr_set_updated_columns(t->rri, t->estate, columns);
}

/* Learns what the indexes are made of. */
static void
target_know_index(MmrTarget *t, Relation index, IndexInfo *info)
{
	if (info->ii_Expressions != NIL || info->ii_Predicate != NIL || info->ii_ExclusionOps != NULL ||
		!index->rd_index->indisvalid)
		t->plain_indexes = false;
	for (int i = 0; i < info->ii_NumIndexKeyAttrs; i++)
	{
		if (info->ii_IndexAttrNumbers[i] > 0)
			t->indexed = bms_add_member(t->indexed, info->ii_IndexAttrNumbers[i]);
		else
			t->plain_indexes = false;
	}
	if (RelationGetRelid(index) == t->key->indexid)
		t->index = index;
}

MmrTarget *
mmr_target_open(Relation rel, MmrKey *key, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	MmrTarget  *t = palloc0(sizeof(MmrTarget));

	LockRelationOid(RelationGetRelid(rel), RowExclusiveLock);
	t->rel = rel;
	t->key = key;
	t->cxt = AllocSetContextCreate(cxt, "mmrepl row", ALLOCSET_DEFAULT_SIZES);
	t->estate = CreateExecutorState();
	mmr_init_range_table(t->estate, rel, RowExclusiveLock);
	t->rri = makeNode(ResultRelInfo);
	/* constant parts of expressions of indexes are evaluated already here */
	target_become_owner(t);
	InitResultRelInfo(t->rri, rel, 1, NULL, 0);
	ExecOpenIndices(t->rri, true);
	mmr_session_end_foreign(&t->saved);
	/* AFTER triggers find it there, and do not open the table once more */
	t->estate->es_opened_result_relations = list_make1(t->rri);
	target_mark_updated(t);
	t->fires = target_fires(t, 0);
	t->fires_insert = target_fires(t, TRIGGER_TYPE_INSERT);
	t->fires_update = target_fires(t, TRIGGER_TYPE_UPDATE);
	t->fires_delete = target_fires(t, TRIGGER_TYPE_DELETE);
	t->plain_indexes = true;
	for (int i = 0; i < t->rri->ri_NumIndices; i++)
	{
		Form_pg_index form = t->rri->ri_IndexRelationDescs[i]->rd_index;

		target_know_index(t, t->rri->ri_IndexRelationDescs[i], t->rri->ri_IndexRelationInfo[i]);
		if (!form->indisunique && !form->indisexclusion)
			continue;
		t->uniques = lappend_oid(t->uniques, form->indexrelid);
		if (form->indimmediate)
			t->arbiters = lappend_oid(t->arbiters, form->indexrelid);
	}
	if (t->index == NULL)
		elog(ERROR, "index %u of table \"%s\" is gone", key->indexid, RelationGetRelationName(rel));
	t->found = table_slot_create(rel, NULL);
	t->row = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	MemoryContextSwitchTo(old);
	return t;
}

void
mmr_target_begin(MmrTarget *t, Snapshot snapshot)
{
	target_become_owner(t);
	t->estate->es_output_cid = GetCurrentCommandId(true);
	t->estate->es_snapshot = snapshot;
	AfterTriggerBeginQuery();
	t->scan = mmr_keyscan_begin(t->rel, t->index, t->key, snapshot);
}

void
mmr_target_end(MmrTarget *t)
{
	ExecClearTuple(t->found);
	mmr_keyscan_end(t->scan);
	t->scan = NULL;
	AfterTriggerEndQuery(t->estate);
	mmr_session_end_foreign(&t->saved);
}

void
mmr_target_close(MmrTarget *t)
{
	ExecDropSingleTupleTableSlot(t->found);
	ExecDropSingleTupleTableSlot(t->row);
	ExecCloseIndices(t->rri);
	ExecResetTupleTable(t->estate->es_tupleTable, false);
	FreeExecutorState(t->estate);
	MemoryContextDelete(t->cxt);
}

bool
mmr_target_find(MmrTarget *t, const Datum *key)
{
	return mmr_keyscan_find(t->scan, key, t->found);
}

bool
mmr_target_wait(MmrTarget *t, const Datum *key)
{
	for (;;)
	{
		SnapshotData dirty;
		IndexScanDesc scan;
		TransactionId other = InvalidTransactionId;
		ItemPointerData tid;
		bool		alive;

		InitDirtySnapshot(dirty);
		for (int i = 0; i < t->key->ncolumns; i++)
			t->key->scankeys[i].sk_argument = key[i];
		scan = index_beginscan(t->rel, t->index, &dirty, t->key->ncolumns, 0);
		index_rescan(scan, t->key->scankeys, t->key->ncolumns, NULL, 0);
		alive = index_getnext_slot(scan, ForwardScanDirection, t->found);
		if (alive)
		{
			other = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
			tid = t->found->tts_tid;
		}
		ExecClearTuple(t->found);
		index_endscan(scan);
		if (!TransactionIdIsValid(other))
			return alive;
		XactLockTableWait(other, t->rel, &tid, XLTW_InsertIndex);
	}
}

/* Expressions of the defaults of all columns that `sent` does not name. */
static void
target_prepare_defaults(MmrTarget *t, bool (*sent) (void *arg, AttrNumber attnum), void *arg)
{
	TupleDesc	desc = RelationGetDescr(t->rel);
	MemoryContext old = MemoryContextSwitchTo(t->estate->es_query_cxt);

	t->defaults = palloc0(sizeof(MmrDefault) * (desc->natts + 1));
	t->ndefaults = 0;
	t->defaults_ready = true;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Expr	   *expr;

		if (att->attisdropped || att->attgenerated != '\0' || sent(arg, i + 1))
			continue;
		t->defaults[t->ndefaults].attnum = i + 1;
		expr = (Expr *) build_column_default(t->rel, i + 1);
		if (expr != NULL)
			t->defaults[t->ndefaults].expr = ExecInitExpr(expression_planner(expr), NULL);
		t->ndefaults++;
	}
	MemoryContextSwitchTo(old);
}

void
mmr_target_know_columns(MmrTarget *t, bool (*sent) (void *arg, AttrNumber attnum), void *arg)
{
	if (!t->defaults_ready)
		target_prepare_defaults(t, sent, arg);
}

bool
mmr_target_has_defaults(MmrTarget *t)
{
	for (int i = 0; i < t->ndefaults; i++)
		if (t->defaults[i].expr != NULL)
			return true;
	return false;
}

void
mmr_target_complete(MmrTarget *t, bool (*sent) (void *arg, AttrNumber attnum), void *arg,
					bool found)
{
	TupleTableSlot *row = t->row;
	TupleDesc	desc = RelationGetDescr(t->rel);

	mmr_target_know_columns(t, sent, arg);
	if (t->ndefaults > 0 && found)
		slot_getallattrs(t->found);
	for (int i = 0; i < t->ndefaults; i++)
	{
		MmrDefault *def = &t->defaults[i];
		int			at = def->attnum - 1;

		if (found)
		{
			row->tts_values[at] = t->found->tts_values[at];
			row->tts_isnull[at] = t->found->tts_isnull[at];
		}
		else if (def->expr != NULL)
			row->tts_values[at] = ExecEvalExprSwitchContext(def->expr,
															GetPerTupleExprContext(t->estate),
															&row->tts_isnull[at]);
		else
			row->tts_isnull[at] = true;
	}
	/* dropped and generated columns start as NULL */
	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attisdropped || TupleDescAttr(desc, i)->attgenerated != '\0')
		{
			row->tts_values[i] = (Datum) 0;
			row->tts_isnull[i] = true;
		}
}

/* Has the column, from 1, the same value in t->row as in t->found, byte by byte? */
static bool
target_same_column(MmrTarget *t, AttrNumber attnum)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(t->rel), attnum - 1);
	int			i = attnum - 1;

	if (t->row->tts_isnull[i] != t->found->tts_isnull[i])
		return false;
	return t->row->tts_isnull[i] ||
		datum_image_eq(t->row->tts_values[i], t->found->tts_values[i], att->attbyval, att->attlen);
}

bool
mmr_target_same(MmrTarget *t)
{
	TupleDesc	desc = RelationGetDescr(t->rel);

	slot_getallattrs(t->found);
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped && TupleDescAttr(desc, i)->attgenerated == '\0' &&
			!target_same_column(t, i + 1))
			return false;
	return true;
}

/* False if the found row has changed, or was changed by him who was waited for. */
static bool
target_lock(MmrTarget *t, LockTupleMode mode)
{
	ItemPointerData tid = t->found->tts_tid;
	TM_FailureData failure;

	return table_tuple_lock(t->rel, &tid, t->estate->es_snapshot, t->found,
							t->estate->es_output_cid, mode, LockWaitBlock, 0,
							&failure) == TM_Ok;
}

MmrWrite
mmr_target_keep(MmrTarget *t)
{
	BufferHeapTupleTableSlot *slot = (BufferHeapTupleTableSlot *) t->found;

	/*
	 * A row that nobody has touched by now needs no lock: who comes later
	 * takes a newer version.
	 */
	if (TTS_IS_BUFFERTUPLE(t->found) && BufferIsValid(slot->buffer))
	{
		bool		untouched;

		LockBuffer(slot->buffer, BUFFER_LOCK_SHARE);
		untouched = (slot->base.tuple->t_data->t_infomask & HEAP_XMAX_INVALID) != 0;
		LockBuffer(slot->buffer, BUFFER_LOCK_UNLOCK);
		if (untouched)
			return MMR_WRITE_DONE;
	}
	return target_lock(t, LockTupleNoKeyExclusive) ? MMR_WRITE_DONE : MMR_WRITE_RETRY;
}

MmrWrite
mmr_target_lock(MmrTarget *t)
{
	return target_lock(t, LockTupleNoKeyExclusive) ? MMR_WRITE_DONE : MMR_WRITE_RETRY;
}

void
mmr_target_check_row(MmrTarget *t, CmdType operation)
{
	TupleConstr *constr = t->rel->rd_att->constr;

	if (constr != NULL && constr->has_generated_stored)
		ExecComputeStoredGenerated(t->rri, t->estate, t->row, operation);
	if (constr != NULL)
		ExecConstraints(t->rri, t->row, t->estate);
	if (t->rel->rd_rel->relispartition)
		ExecPartitionCheck(t->rri, t->row, t->estate, true);
}

void
mmr_target_check(MmrTarget *t, TupleTableSlot *row)
{
	TupleTableSlot *saved = t->row;

	t->row = row;
	PG_TRY();
	{
		mmr_target_check_row(t, CMD_UPDATE);
	}
	PG_FINALLY();
	{
		t->row = saved;
	}
	PG_END_TRY();
}

void
mmr_target_remove_tid(MmrTarget *t, ItemPointer tid)
{
	TM_FailureData failure;
	TM_Result	result;

	/* our own tuple is visible to us only after its command */
	CommandCounterIncrement();
	t->estate->es_output_cid = GetCurrentCommandId(true);
	result = table_tuple_delete(t->rel, tid, t->estate->es_output_cid, t->estate->es_snapshot,
								InvalidSnapshot, true, &failure, false);
	if (result != TM_Ok)
		elog(ERROR, "could not take back a row just written (%d)", (int) result);
}

/* Index entries of the row just written; DONE, or the row is taken out again. */
static MmrWrite
target_index(MmrTarget *t, bool update, List **recheck)
{
	bool		conflict = false;

	*recheck = NIL;
	if (t->rri->ri_NumIndices == 0)
		return MMR_WRITE_DONE;
	*recheck = ExecInsertIndexTuples(t->rri, t->row, t->estate, update, true, &conflict,
									 t->arbiters);
	/* a deferrable constraint is not checked later either: its trigger is silent for replicas */
	if (!conflict && *recheck == NIL)
		return MMR_WRITE_DONE;
	mmr_target_remove_tid(t, &t->row->tts_tid);
	return list_member_oid(*recheck, t->key->indexid) ? MMR_WRITE_RETRY : MMR_WRITE_COLLISION;
}

/*
 * New index entries for an updated row whose indexed columns have stayed as they
 * were: they cannot collide (A5).  The row has held its values all the time,
 * and whoever inserts one of them finds it, before and after.  False: they have
 * changed.
 */
static bool
target_index_again(MmrTarget *t)
{
	int			attnum = -1;

	if (!t->plain_indexes)
		return false;
	slot_getallattrs(t->found);
	while ((attnum = bms_next_member(t->indexed, attnum)) >= 0)
		if (!target_same_column(t, attnum))
			return false;
	for (int i = 0; i < t->rri->ri_NumIndices; i++)
	{
		Relation	index = t->rri->ri_IndexRelationDescs[i];
		IndexInfo  *info = t->rri->ri_IndexRelationInfo[i];
		Datum		values[INDEX_MAX_KEYS];
		bool		isnull[INDEX_MAX_KEYS];

		if (!info->ii_ReadyForInserts)
			continue;
		FormIndexDatum(info, t->row, t->estate, values, isnull);
		(void) index_insert(index, values, isnull, &t->row->tts_tid, t->rel, UNIQUE_CHECK_NO, true,
							info);
	}
	return true;
}

MmrWrite
mmr_target_enter(MmrTarget *t)
{
	List	   *recheck;
	MmrWrite	result = target_index(t, false, &recheck);

	if (result == MMR_WRITE_DONE && t->fires_insert)
		ExecARInsertTriggers(t->estate, t->rri, t->row, recheck, NULL);
	return result;
}

MmrWrite
mmr_target_insert(MmrTarget *t)
{
	TriggerDesc *triggers = t->rri->ri_TrigDesc;

	if (t->fires && triggers->trig_insert_before_row &&
		!ExecBRInsertTriggers(t->estate, t->rri, t->row))
		return MMR_WRITE_SKIPPED;
	mmr_target_check_row(t, CMD_INSERT);
	table_tuple_insert(t->rel, t->row, t->estate->es_output_cid, 0, NULL);
	return mmr_target_enter(t);
}

/* Keys come once in a pass: this was a trigger of the user's. */
static void
target_raise_modified(MmrTarget *t)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			 errmsg("a trigger of table \"%s\" has changed the row that it was fired for",
					RelationGetRelationName(t->rel)),
			 errhint("Consider using an AFTER trigger instead of a BEFORE trigger.")));
}

MmrWrite
mmr_target_update(MmrTarget *t)
{
	TriggerDesc *triggers = t->rri->ri_TrigDesc;
	ItemPointerData tid = t->found->tts_tid;
	TM_FailureData failure;
	LockTupleMode lockmode;
	bool		update_indexes;
	List	   *recheck;
	MmrWrite	result;

	if (t->fires && triggers->trig_update_before_row)
	{
		EPQState	epq;
		bool		go_on;

		/* they would follow a chain of updates, which is not for us to write on */
		if (!target_lock(t, LockTupleNoKeyExclusive))
			return MMR_WRITE_RETRY;
		EvalPlanQualInit(&epq, t->estate, NULL, NIL, -1);
		go_on = ExecBRUpdateTriggers(t->estate, &epq, t->rri, &tid, NULL, t->row, &failure);
		EvalPlanQualEnd(&epq);
		if (!go_on)
			return MMR_WRITE_SKIPPED;
	}
	mmr_target_check_row(t, CMD_UPDATE);
	switch (table_tuple_update(t->rel, &tid, t->row, t->estate->es_output_cid,
							   t->estate->es_snapshot, InvalidSnapshot, true, &failure,
							   &lockmode, &update_indexes))
	{
		case TM_Ok:
			break;
		case TM_Updated:
		case TM_Deleted:
			return MMR_WRITE_RETRY;
		default:
			target_raise_modified(t);
	}
	recheck = NIL;
	result = !update_indexes || target_index_again(t) ? MMR_WRITE_DONE : target_index(t, true, &recheck);
	if (result == MMR_WRITE_DONE && t->fires_update)
		ExecARUpdateTriggers(t->estate, t->rri, NULL, NULL, &tid, NULL, t->row, recheck, NULL,
							 false);
	return result;
}

MmrWrite
mmr_target_delete(MmrTarget *t)
{
	TriggerDesc *triggers = t->rri->ri_TrigDesc;
	ItemPointerData tid = t->found->tts_tid;
	TM_FailureData failure;

	if (t->fires && triggers->trig_delete_before_row)
	{
		EPQState	epq;
		bool		go_on;

		/* they would follow a chain of updates, which is not for us to write on */
		if (!target_lock(t, LockTupleExclusive))
			return MMR_WRITE_RETRY;
		EvalPlanQualInit(&epq, t->estate, NULL, NIL, -1);
		go_on = ExecBRDeleteTriggers(t->estate, &epq, t->rri, &tid, NULL, NULL);
		EvalPlanQualEnd(&epq);
		if (!go_on)
			return MMR_WRITE_SKIPPED;
	}
	switch (table_tuple_delete(t->rel, &tid, t->estate->es_output_cid, t->estate->es_snapshot,
							   InvalidSnapshot, true, &failure, false))
	{
		case TM_Ok:
			break;
		case TM_Updated:
		case TM_Deleted:
			return MMR_WRITE_RETRY;
		default:
			target_raise_modified(t);
	}
	if (t->fires_delete)
		ExecARDeleteTriggers(t->estate, t->rri, &tid, NULL, NULL, false);
	return MMR_WRITE_DONE;
}
