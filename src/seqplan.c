/*-------------------------------------------------------------------------
 * seqplan.c
 *	  Which sequences of this database must be interleaved, and how.
 *
 * Floor 2.
 * Reads: the configuration and mmrepl.sequence_state by SPI (what this
 * transaction has changed counts), pg_sequence, sequences.
 * Runs in: backends that configure, here and at the other end of a link.
 *
 * Invariant: what a sequence must become follows from what it is and from
 * the configuration alone, so that doing it twice changes nothing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "seqplan.h"
#include "seqvalue.h"

/*
 * What has to be interleaved here (nothing if $1), and what is now.  A sequence of
 * several syncs may meet values of dbs that are not in a sync with this one: its
 * slots are the dbs' numbers, which are no other's anywhere.
 */
static const char *const sql_plan =
"WITH held AS (" MMR_SEQPLAN_SQL "), wanted AS (SELECT i.nspname, i.relname,"
" string_agg('\"' || i.sync || '\"', ', ' ORDER BY i.sync) FILTER (WHERE l.node_id IS NOT NULL) AS syncs,"
" max(i.seq_step) AS step,"
" CASE WHEN count(DISTINCT i.sync) > 1 THEN max(l.node_id) ELSE max(i.pos) FILTER (WHERE l.node_id IS NOT NULL) END AS pos"
" FROM held i LEFT JOIN mmrepl.local_node l ON l.node_id = i.node_id"
" WHERE NOT $1 GROUP BY i.nspname, i.relname HAVING count(l.node_id) > 0)"
" SELECT coalesce(w.nspname, q.nspname)::text, coalesce(w.relname, q.relname)::text, w.syncs,"
" w.step, w.pos,"
" q.old_increment, q.old_start, q.old_min, q.old_max"
" FROM wanted w FULL JOIN mmrepl.sequence_state q ON q.nspname = w.nspname AND q.relname = w.relname"
" ORDER BY 1, 2";

static MmrSeqPlan *seqplan_item(HeapTuple row, TupleDesc desc);
static void seqplan_check_room(const MmrSeqPlan *item, const char *syncs);
static void seqplan_shape(MmrSeqPlan *item);

List *
mmr_seqplan_make(bool restore_all)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[1] = {BOOLOID};
	Datum		args[1] = {BoolGetDatum(restore_all)};
	List	   *items = NIL;

	SPI_connect();
	if (SPI_execute_with_args(sql_plan, 1, types, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "reading the sequences of the configuration failed");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		items = lappend(items, seqplan_item(SPI_tuptable->vals[i], SPI_tuptable->tupdesc));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return items;
}

static MmrSeqPlan *
seqplan_item(HeapTuple row, TupleDesc desc)
{
	MmrSeqPlan    *item = palloc0(sizeof(MmrSeqPlan));
	char	   *syncs = SPI_getvalue(row, desc, 3);
	Datum		v[10];
	bool		n[10];
	Oid			nsp;

	for (int i = 4; i <= 9; i++)
		v[i] = SPI_getbinval(row, desc, i, &n[i]);
	item->nspname = pstrdup(SPI_getvalue(row, desc, 1));
	item->relname = pstrdup(SPI_getvalue(row, desc, 2));
	item->name = pstrdup(quote_qualified_identifier(item->nspname, item->relname));
	item->wanted = (syncs != NULL);
	item->has_state = !n[6];
	if (item->has_state)
	{
		item->old_increment = DatumGetInt64(v[6]);
		item->old_start = DatumGetInt64(v[7]);
		item->old_min = DatumGetInt64(v[8]);
		item->old_max = DatumGetInt64(v[9]);
	}
	nsp = get_namespace_oid(item->nspname, true);
	item->relid = OidIsValid(nsp) ? get_relname_relid(item->relname, nsp) : InvalidOid;
	if (OidIsValid(item->relid) && !mmr_seqvalue_form(item->relid, &item->now))
		item->relid = InvalidOid;
	if (item->wanted)
	{
		item->step = DatumGetInt32(v[4]);
		item->slot = DatumGetInt32(v[5]);
		seqplan_check_room(item, syncs);
	}
	if (OidIsValid(item->relid))
		seqplan_shape(item);
	return item;
}

static void
seqplan_check_room(const MmrSeqPlan *item, const char *syncs)
{
	if (item->slot > item->step)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sync %s has more dbs than its sequences have room for", syncs),
				 errdetail("This db is number " INT64_FORMAT ", and seq_step is " INT64_FORMAT ".", item->slot, item->step),
				 errhint("Raise seq_step of the sync.")));
}

/*
 * Sets `then`.  START is moved into the slot because TRUNCATE ... RESTART
 * IDENTITY goes back to it, and the limit at which CYCLE starts over too.
 * What a user changes afterwards (a higher MAXVALUE) is kept.
 */
static void
seqplan_shape(MmrSeqPlan *item)
{
	FormData_pg_sequence *then = &item->then;
	bool		up = item->now.seqincrement > 0;

	*then = item->now;
	if (!item->wanted)
	{
		item->step = item->old_increment > 0 ? item->old_increment : -item->old_increment;
		item->slot = item->old_start;
		then->seqincrement = up ? item->step : -item->step;
		then->seqstart = item->old_start;
		if (up)
			then->seqmin = item->old_min;
		else
			then->seqmax = item->old_max;
		return;
	}

	then->seqincrement = up ? item->step : -item->step;
	if (item->now.seqcycle &&
		!mmr_seqplan_align(up, up ? item->now.seqmin : item->now.seqmax, item->step, item->slot,
						up ? &then->seqmin : &then->seqmax))
		mmr_seqplan_raise_room(item, item->now.seqstart);
	if (!mmr_seqplan_align(up, item->now.seqstart, item->step, item->slot, &then->seqstart) ||
		then->seqstart > then->seqmax || then->seqstart < then->seqmin)
	{
		if (!mmr_seqplan_align(up, up ? then->seqmin : then->seqmax, item->step, item->slot, &then->seqstart) ||
			then->seqstart > then->seqmax || then->seqstart < then->seqmin)
			mmr_seqplan_raise_room(item, item->now.seqstart);
	}
}

const char *
mmr_seqplan_difference(const MmrSeqPlan *item)
{
	int64		value;
	int64		aligned;
	bool		called;

	if (!item->wanted)
		return "still interleaved";
	if (item->now.seqincrement != item->then.seqincrement)
		return psprintf("increment is " INT64_FORMAT " and should be " INT64_FORMAT,
						item->now.seqincrement, item->then.seqincrement);
	if (!item->has_state)
		return "not interleaved";
	if (item->now.seqstart != item->then.seqstart || item->now.seqmin != item->then.seqmin ||
		item->now.seqmax != item->then.seqmax)
		return "start or limit is another db's";
	if (mmr_seqvalue_read(item->relid, &value, &called) &&
		(!mmr_seqplan_align(true, value, item->step, item->slot, &aligned) || aligned != value))
		return psprintf("value " INT64_FORMAT " is another db's", value);
	return NULL;
}

bool
mmr_seqplan_align(bool up, int64 from, int64 step, int64 slot, int64 *value)
{
	int64		have = from % step;
	int64		want = slot % step;
	int64		distance;

	have += have < 0 ? step : 0;
	want += want < 0 ? step : 0;
	distance = up ? want - have : have - want;
	distance += distance < 0 ? step : 0;
	return up ? !pg_add_s64_overflow(from, distance, value) :
		!pg_sub_s64_overflow(from, distance, value);
}

void
mmr_seqplan_raise_room(const MmrSeqPlan *item, int64 used)
{
	ereport(ERROR,
			(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
			 errmsg("sequence %s has no room left for being interleaved", item->name),
			 errdetail("The last value used on any side is " INT64_FORMAT ", its limits are " INT64_FORMAT " and " INT64_FORMAT ", and the step is " INT64_FORMAT ".",
					   used, item->now.seqmin, item->now.seqmax, item->step),
			 errhint("Give it (and its column) a larger type or limit, or take it out of the relgroup.")));
}
