/*-------------------------------------------------------------------------
 * seqvalue.c
 *	  What a sequence is, and what it has given out last.
 *
 * Floor 1.
 * Reads: pg_sequence, sequences.
 * Runs in: pushers, backends that configure or receive.
 *
 * Invariant: the value counts what any session has taken into its cache,
 * given out or not.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "commands/sequence.h"
#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "seqvalue.h"

bool
mmr_seqvalue_read(Oid relid, int64 *value, bool *is_called)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		found = false;

	if (rel == NULL)
		return false;
	if (rel->rd_rel->relkind == RELKIND_SEQUENCE)
	{
		/* the one tuple is updated in place, and visible to everybody */
		slot = table_slot_create(rel, NULL);
		scan = table_beginscan(rel, SnapshotAny, 0, NULL);
		if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			bool		isnull;

			*value = DatumGetInt64(slot_getattr(slot, SEQ_COL_LASTVAL, &isnull));
			*is_called = DatumGetBool(slot_getattr(slot, SEQ_COL_CALLED, &isnull));
			found = true;
		}
		table_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
	}
	relation_close(rel, AccessShareLock);
	return found;
}

bool
mmr_seqvalue_form(Oid relid, FormData_pg_sequence *form)
{
	HeapTuple	tuple = SearchSysCache1(SEQRELID, ObjectIdGetDatum(relid));

	if (!HeapTupleIsValid(tuple))
		return false;
	*form = *(Form_pg_sequence) GETSTRUCT(tuple);
	ReleaseSysCache(tuple);
	return true;
}
