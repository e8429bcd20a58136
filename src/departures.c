/*-------------------------------------------------------------------------
 * departures.c
 *	  Sources that have departed from a sync and are not done with yet.
 *
 * Floor 2.  Reads mmrepl.departed, into which a change of the
 * configuration puts them (mmrepl._settle_members).  Runs in the janitor, pushers, and
 * backends that peers' pushers have opened here.
 *
 * Invariant: a row goes only when this database holds, as its own, all it will ever
 * hold of what that one wrote (departed.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "departures.h"

/* Columns of mmrepl.departed, as src/schema/10_catalog.sql makes them. */
enum
{
	COL_SYNC = 1,
	COL_NODE,
	COL_TAKEN,
	COL_ASKED,
	NCOLS = COL_ASKED
};

static MmrDeparture *
from_tuple(HeapTuple tuple, TupleDesc desc)
{
	MmrDeparture *d = palloc0(sizeof(MmrDeparture));
	Datum		v[NCOLS];
	bool		n[NCOLS];
	Datum	   *ids;
	int			nids;

	heap_deform_tuple(tuple, desc, v, n);
	d->sync_id = DatumGetInt32(v[COL_SYNC - 1]);
	d->node_id = DatumGetInt32(v[COL_NODE - 1]);
	d->taken = DatumGetBool(v[COL_TAKEN - 1]);
	deconstruct_array(DatumGetArrayTypeP(v[COL_ASKED - 1]), INT4OID, sizeof(int32), true, TYPALIGN_INT,
					  &ids, NULL, &nids);
	for (int i = 0; i < nids; i++)
		d->asked = lappend_int(d->asked, DatumGetInt32(ids[i]));
	return d;
}

List *
mmr_departures(int32 sync_id)
{
	Relation	rel = table_open(mmr_catalog_table("departed"), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, GetActiveSnapshot(), 0, NULL);
	HeapTuple	tuple;
	List	   *result = NIL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		MmrDeparture *d = from_tuple(tuple, RelationGetDescr(rel));

		if (sync_id == 0 || d->sync_id == sync_id)
			result = lappend(result, d);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

MmrDeparture *
mmr_departures_find(int32 sync_id, int32 node_id)
{
	MmrDeparture *found = NULL;
	ListCell   *lc;

	PushActiveSnapshot(GetLatestSnapshot());
	foreach(lc, mmr_departures(sync_id))
		if (((MmrDeparture *) lfirst(lc))->node_id == node_id)
			found = lfirst(lc);
	PopActiveSnapshot();
	return found;
}
