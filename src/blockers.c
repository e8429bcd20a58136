/*-------------------------------------------------------------------------
 * blockers.c
 *	  All rows that stand in the way of one row.
 *
 * Floor 5.  Reads user tables.  Runs in apply backends, for rows that are known
 * to collide.
 *
 * The server tells of the first such row only.  Who is to go can be decided
 * only when all are known: if one of them is newer than the row that wants
 * in, that one loses and all others stay.
 *
 * Invariant: what is found is what the constraint's own operators say, under
 * the snapshot of the target.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "nodes/execnodes.h"
#include "utils/rel.h"

#include "blockers.h"

/* The row's values in the index; false: the index does not take part (partial, or NULL collides with nothing). */
static bool
blockers_values(MmrTarget *t, Relation index, IndexInfo *info, Datum *values, bool *isnull)
{
	ExprContext *econtext = GetPerTupleExprContext(t->estate);

	econtext->ecxt_scantuple = t->row;
	if (info->ii_Predicate != NIL)
	{
		if (info->ii_PredicateState == NULL)
			info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate, t->estate);
		if (!ExecQual(info->ii_PredicateState, econtext))
			return false;
	}
	FormIndexDatum(info, t->row, t->estate, values, isnull);
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(index); i++)
		if (isnull[i] && !info->ii_NullsNotDistinct)
			return false;
	return true;
}

/* Does the row found by a lossy index really collide? */
static bool
blockers_recheck(MmrTarget *t, Relation index, IndexInfo *info, Oid *procs,
				 TupleTableSlot *slot, Datum *values)
{
	Datum		theirs[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
	ExprContext *econtext = GetPerTupleExprContext(t->estate);

	econtext->ecxt_scantuple = slot;
	FormIndexDatum(info, slot, t->estate, theirs, isnull);
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(index); i++)
		if (isnull[i] ||
			!DatumGetBool(OidFunctionCall2Coll(procs[i], index->rd_indcollation[i], theirs[i], values[i])))
			return false;
	return true;
}

static List *
blockers_add(List *tids, ItemPointer tid)
{
	ListCell   *lc;
	ItemPointer copy;

	foreach(lc, tids)
		if (ItemPointerEquals(lfirst(lc), tid))
			return tids;
	copy = palloc(sizeof(ItemPointerData));
	*copy = *tid;
	return lappend(tids, copy);
}

/* Those that one index tells of. */
static List *
blockers_of(MmrTarget *t, Relation index, IndexInfo *info, TupleTableSlot *slot, List *tids, bool *any)
{
	Oid		   *procs = info->ii_ExclusionOps ? info->ii_ExclusionProcs : info->ii_UniqueProcs;
	uint16	   *strats = info->ii_ExclusionOps ? info->ii_ExclusionStrats : info->ii_UniqueStrats;
	int			nkeys = IndexRelationGetNumberOfKeyAttributes(index);
	ScanKeyData keys[INDEX_MAX_KEYS];
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
	IndexScanDesc scan;

	if (!blockers_values(t, index, info, values, isnull))
		return tids;
	for (int i = 0; i < nkeys; i++)
		ScanKeyEntryInitialize(&keys[i], isnull[i] ? SK_ISNULL | SK_SEARCHNULL : 0, i + 1, strats[i],
							   InvalidOid, index->rd_indcollation[i], procs[i], values[i]);
	scan = index_beginscan(t->rel, index, t->estate->es_snapshot, nkeys, 0);
	index_rescan(scan, keys, nkeys, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		if (scan->xs_recheck && !blockers_recheck(t, index, info, procs, slot, values))
			continue;
		*any = true;
		tids = blockers_add(tids, &slot->tts_tid);
	}
	index_endscan(scan);
	return tids;
}

List *
mmr_blockers_find(MmrTarget *t, int *constraints)
{
	TupleTableSlot *slot = table_slot_create(t->rel, NULL);
	List	   *tids = NIL;

	*constraints = 0;
	for (int i = 0; i < t->rri->ri_NumIndices; i++)
	{
		Relation	index = t->rri->ri_IndexRelationDescs[i];
		bool		any = false;

		/* one that is being built concurrently has no pages at first */
		if (!list_member_oid(t->uniques, RelationGetRelid(index)) ||
			!t->rri->ri_IndexRelationInfo[i]->ii_ReadyForInserts)
			continue;
		tids = blockers_of(t, index, t->rri->ri_IndexRelationInfo[i], slot, tids, &any);
		*constraints += any;
	}
	ExecDropSingleTupleTableSlot(slot);
	return tids;
}

bool
mmr_blockers_any(MmrTarget *t, ItemPointer tid)
{
	List	   *deferrable = NIL;
	ListCell   *lc;
	bool		collides;

	for (int i = 0; i < t->rri->ri_NumIndices; i++)
	{
		Relation	index = t->rri->ri_IndexRelationDescs[i];

		if (list_member_oid(t->uniques, RelationGetRelid(index)) && !index->rd_index->indimmediate)
			deferrable = lappend(deferrable, index);
	}

	/*
	 * The server looks at those constraints only that are checked at once.
	 * For replicas none is checked later, so here all are like them.
	 */
	PG_TRY();
	{
		foreach(lc, deferrable)
			((Relation) lfirst(lc))->rd_index->indimmediate = true;
		collides = !ExecCheckIndexConstraints(t->rri, t->row, t->estate, tid, t->uniques);
	}
	PG_FINALLY();
	{
		foreach(lc, deferrable)
			((Relation) lfirst(lc))->rd_index->indimmediate = false;
	}
	PG_END_TRY();
	list_free(deferrable);
	return collides;
}
