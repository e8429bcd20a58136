/*-------------------------------------------------------------------------
 * api_log.c
 *	  SQL: the change log, decoded, for the view change_log.
 *
 * Floor 11.
 * Reads the segments of the log, and of members the definition of the key.
 * Runs in client backends, also of roles that may only monitor.
 *
 * Invariant: shows what the caller's snapshot sees, and changes nothing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "changelog.h"
#include "conflict_log.h"
#include "key.h"
#include "membership.h"

PG_FUNCTION_INFO_V1(mmrepl_change_log);

#define CHANGE_LOG_COLS	11

static const char *
op_name(MmrOp op)
{
	switch (op)
	{
		case MMR_OP_INSERT:
			return "insert";
		case MMR_OP_UPDATE:
			return "update";
		case MMR_OP_DELETE:
			return "delete";
		case MMR_OP_TRUNCATE:
			return "truncate";
	}
	return "unknown";
}

/* The index that identifies rows of the table in some sync of this db, or none. */
static Oid
key_index_of(Oid relid)
{
	ListCell   *lc;

	foreach(lc, mmr_membership_syncs_of_table(relid))
	{
		MmrMember  *member = mmr_membership_table((MmrSync *) lfirst(lc), relid);

		if (member != NULL && OidIsValid(member->key_index))
			return member->key_index;
	}
	return InvalidOid;
}

/* NULL for the whole table, and for a table that is no member any more. */
static bool
change_key(const MmrChange *change, Datum *key)
{
	Relation	rel;
	MmrKey	   *k = NULL;
	Oid			indexid;

	if (change->key == NULL)
		return false;
	rel = try_table_open(change->relid, AccessShareLock);
	if (rel == NULL)
		return false;
	indexid = key_index_of(change->relid);
	if (OidIsValid(indexid))
		k = mmr_key_get(rel, indexid);
	if (k != NULL)
	{
		Datum	   *values = palloc0(k->ncolumns * sizeof(Datum));

		mmr_key_decode(k, change->key, change->keylen, values);
		*key = mmr_conflict_log_key(k, values);
	}
	table_close(rel, AccessShareLock);
	return k != NULL;
}

/* The order of columns is that of mmrepl._change_log() in 85_change_log.sql. */
static void
put_change(ReturnSetInfo *rsinfo, int segment, const MmrRun *run, const MmrChange *change)
{
	Datum		values[CHANGE_LOG_COLS];
	bool		nulls[CHANGE_LOG_COLS] = {0};
	int			n = 0;

	values[n++] = Int32GetDatum(segment);
	values[n++] = UInt64GetDatum(run->xid);
	values[n++] = ObjectIdGetDatum(change->relid);
	values[n++] = CStringGetTextDatum(op_name(change->op));
	values[n] = (Datum) 0;
	nulls[n] = !change_key(change, &values[n]);
	n++;
	values[n++] = Int64GetDatum(change->version.ts);
	values[n++] = Int32GetDatum(change->version.node);
	values[n++] = Int32GetDatum(change->version.rank);
	values[n++] = Int32GetDatum(change->dot.node);
	values[n++] = UInt64GetDatum(change->dot.xid);
	values[n++] = BoolGetDatum(run->recorded);
	Assert(n == CHANGE_LOG_COLS);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
put_run(ReturnSetInfo *rsinfo, int segment, TupleTableSlot *slot)
{
	bool		isnull;
	uint64		xid = DatumGetUInt64(slot_getattr(slot, 1, &isnull));
	struct varlena *v = PG_DETOAST_DATUM_PACKED(slot_getattr(slot, 2, &isnull));
	MmrRun		run;
	MmrChange	change;

	mmr_changelog_open_run(&run, xid, VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
	while (mmr_changelog_next(&run, &change))
	{
		CHECK_FOR_INTERRUPTS();
		put_change(rsinfo, segment, &run, &change);
	}
}

static void
put_segment(ReturnSetInfo *rsinfo, int segment, MemoryContext cxt)
{
	Relation	rel = mmr_changelog_open_segment(segment, AccessShareLock);
	TupleTableSlot *slot;
	TableScanDesc scan;
	MemoryContext old;

	if (rel == NULL)
		return;
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		old = MemoryContextSwitchTo(cxt);
		put_run(rsinfo, segment, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}

Datum
mmrepl_change_log(PG_FUNCTION_ARGS)
{
	MemoryContext cxt;

	InitMaterializedSRF(fcinfo, 0);
	mmr_membership_refresh();
	cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl change log", ALLOCSET_DEFAULT_SIZES);
	for (int segment = 0; segment < MMR_SEGMENTS; segment++)
		put_segment((ReturnSetInfo *) fcinfo->resultinfo, segment, cxt);
	MemoryContextDelete(cxt);
	return (Datum) 0;
}
