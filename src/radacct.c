/*-------------------------------------------------------------------------
 * radacct.c
 *	  One accounting record of FreeRADIUS made of two of the same session.
 *
 * Floor 1.  Reads and writes nothing.  Runs where merge functions run.
 *
 * Columns are known by their names, and whatever a schema does not have is
 * left out.  A column is the least of both, the greatest of both, or goes
 * with the start, with the stop, or with the last that was heard of the
 * session; NULL gives way to a value.
 *
 * Invariant: which of the two comes first makes no difference, and a result
 * that meets one of its sides again stays as it is.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(mmrepl_radacct_merge);

typedef enum Rule
{
	LATER,						/* of whom was heard last */
	LEAST,
	GREATEST,
	WITH_START,
	WITH_STOP
} Rule;

static const struct
{
	const char *name;
	Rule		rule;
}			rules[] = {
	{"radacctid", LEAST},
	{"acctstarttime", LEAST},
	{"connectinfo_start", WITH_START},
	{"acctstartdelay", WITH_START},
	{"acctstoptime", GREATEST},
	{"acctterminatecause", WITH_STOP},
	{"connectinfo_stop", WITH_STOP},
	{"acctstopdelay", WITH_STOP},
	{"acctupdatetime", GREATEST},
	{"acctsessiontime", GREATEST},
	{"acctinputoctets", GREATEST},
	{"acctoutputoctets", GREATEST},
	{"acctinputpackets", GREATEST},
	{"acctoutputpackets", GREATEST},
	{"acctinputgigawords", GREATEST},
	{"acctoutputgigawords", GREATEST},
};

typedef struct Column
{
	Rule		rule;
	TypeCacheEntry *type;
	Oid			collation;
	bool		skip;			/* dropped */
} Column;

/* What is known of the row type, kept between calls. */
typedef struct MergePlan
{
	Oid			rowtype;
	uint64		identifier;		/* of this state of its definition */
	int			start;			/* places of these columns; -1: there is none */
	int			stop;
	int			update;
	Column		columns[FLEXIBLE_ARRAY_MEMBER];
} MergePlan;

typedef struct Record
{
	Datum	   *values;
	bool	   *nulls;
} Record;

static int
find_time(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || strcmp(NameStr(att->attname), name) != 0)
			continue;
		if (att->atttypid == TIMESTAMPTZOID || att->atttypid == TIMESTAMPOID)
			return i;
	}
	return -1;
}

static MergePlan *
make_plan(TupleDesc desc, Oid rowtype, uint64 identifier, MemoryContext cxt)
{
	MergePlan	   *plan = MemoryContextAllocZero(cxt, offsetof(MergePlan, columns) + sizeof(Column) * desc->natts);

	plan->rowtype = rowtype;
	plan->identifier = identifier;
	plan->start = find_time(desc, "acctstarttime");
	plan->stop = find_time(desc, "acctstoptime");
	plan->update = find_time(desc, "acctupdatetime");
	if (plan->start < 0 || plan->stop < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("type %s has no columns acctstarttime and acctstoptime that are timestamps",
						format_type_be(rowtype)),
				 errhint("mmrepl.radacct_merge() is for FreeRADIUS's table radacct.")));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Column	   *c = &plan->columns[i];

		c->skip = att->attisdropped;
		if (c->skip)
			continue;
		c->type = lookup_type_cache(att->atttypid, TYPECACHE_CMP_PROC_FINFO);
		c->collation = att->attcollation;
		for (int k = 0; k < (int) lengthof(rules); k++)
			if (strcmp(NameStr(att->attname), rules[k].name) == 0)
				c->rule = rules[k].rule;
	}
	return plan;
}

/* By the text of both: for types without an order, and for values that are equal and look different. */
static int
compare_text(Column *c, Datum a, Datum b)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(c->type->type_id, &output, &varlena);
	return strcmp(OidOutputFunctionCall(output, a), OidOutputFunctionCall(output, b));
}

static int
compare_values(Column *c, Datum a, Datum b)
{
	int			cmp = 0;

	if (datum_image_eq(a, b, c->type->typbyval, c->type->typlen))
		return 0;
	if (OidIsValid(c->type->cmp_proc_finfo.fn_oid))
		cmp = DatumGetInt32(FunctionCall2Coll(&c->type->cmp_proc_finfo, c->collation, a, b));
	return cmp != 0 ? cmp : compare_text(c, a, b);
}

/* -1, 0, 1: when the event was, for a and b; none is before all others, or after them. */
static int
compare_times(const Record *a, const Record *b, int at, bool none_is_last)
{
	if (at < 0 || (a->nulls[at] && b->nulls[at]))
		return 0;
	if (a->nulls[at] || b->nulls[at])
		return a->nulls[at] == none_is_last ? 1 : -1;
	if (DatumGetInt64(a->values[at]) == DatumGetInt64(b->values[at]))
		return 0;
	return DatumGetInt64(a->values[at]) < DatumGetInt64(b->values[at]) ? -1 : 1;
}

/* When the session was heard of last: its update, or its stop. */
static int64
heard_at(const MergePlan *plan, const Record *r)
{
	int64		at = PG_INT64_MIN;

	if (plan->update >= 0 && !r->nulls[plan->update])
		at = DatumGetInt64(r->values[plan->update]);
	if (!r->nulls[plan->stop])
		at = Max(at, DatumGetInt64(r->values[plan->stop]));
	return at;
}

/* Does a give the column, or b? */
static bool
takes_a(Column *c, const Record *a, const Record *b, int i, int start, int stop, int heard)
{
	int			cmp = 0;

	if (a->nulls[i] || b->nulls[i])
		return !a->nulls[i];
	if (c->rule == WITH_START)
		cmp = -start;
	else if (c->rule == WITH_STOP)
		cmp = stop;
	else if (c->rule == LATER)
		cmp = heard;
	if (cmp == 0)
		cmp = compare_values(c, a->values[i], b->values[i]);
	return c->rule == LEAST ? cmp <= 0 : cmp >= 0;
}

static void
read_record(HeapTupleHeader header, TupleDesc desc, Record *r)
{
	HeapTupleData tuple = {0};

	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_data = header;
	r->values = palloc(sizeof(Datum) * desc->natts);
	r->nulls = palloc(sizeof(bool) * desc->natts);
	heap_deform_tuple(&tuple, desc, r->values, r->nulls);
}

/* mmrepl.radacct_merge(a anyelement, b anyelement) returns anyelement */
Datum
mmrepl_radacct_merge(PG_FUNCTION_ARGS)
{
	HeapTupleHeader ha = PG_GETARG_HEAPTUPLEHEADER(0);
	HeapTupleHeader hb = PG_GETARG_HEAPTUPLEHEADER(1);
	Oid			rowtype = HeapTupleHeaderGetTypeId(ha);
	int32		typmod = HeapTupleHeaderGetTypMod(ha);
	MergePlan	   *plan = fcinfo->flinfo->fn_extra;
	TupleDesc	desc;
	uint64		identifier;
	Record		a;
	Record		b;
	int			start;
	int			stop;
	int			heard;
	HeapTuple	result;

	if (rowtype != HeapTupleHeaderGetTypeId(hb) || typmod != HeapTupleHeaderGetTypMod(hb))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("both rows must be of one type")));
	desc = lookup_rowtype_tupdesc(rowtype, typmod);
	identifier = assign_record_type_identifier(rowtype, typmod);
	if (plan == NULL || plan->rowtype != rowtype || plan->identifier != identifier)
		fcinfo->flinfo->fn_extra = plan = make_plan(desc, rowtype, identifier, fcinfo->flinfo->fn_mcxt);
	read_record(ha, desc, &a);
	read_record(hb, desc, &b);
	start = compare_times(&a, &b, plan->start, true);
	stop = compare_times(&a, &b, plan->stop, false);
	heard = heard_at(plan, &a) < heard_at(plan, &b) ? -1 : heard_at(plan, &a) > heard_at(plan, &b);
	for (int i = 0; i < desc->natts; i++)
	{
		if (plan->columns[i].skip || takes_a(&plan->columns[i], &a, &b, i, start, stop, heard))
			continue;
		a.values[i] = b.values[i];
		a.nulls[i] = b.nulls[i];
	}
	result = heap_form_tuple(desc, a.values, a.nulls);
	ReleaseTupleDesc(desc);
	PG_RETURN_DATUM(HeapTupleGetDatum(result));
}
