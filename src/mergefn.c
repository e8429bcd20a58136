/*-------------------------------------------------------------------------
 * mergefn.c
 *	  The function of a user's that makes one row of two.
 *
 * Floor 4.  Reads the server's catalog of functions.  Runs in apply backends,
 * once a conflict, and in backends that configure, as the table's owner in a
 * restricted context.
 *
 * It sees both rows without their generated columns, which are made anew in
 * any case, and of both versions the time and the db.
 *
 * Invariant: what it gives is a row of the table's own type; nothing else of
 * it is believed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "compat.h"
#include "membership.h"
#include "mergefn.h"

#define MAX_ARGS	6

struct MmrMergeFn
{
	MemoryContext cxt;
	Oid			rowtype;
	FmgrInfo	info;
	int			nargs;			/* 2, or 6 with versions */
};

/* The function with just these arguments, if it gives what is wanted. */
static Oid
find_exact(Oid nspoid, const char *proname, Oid rowtype, int nargs, char **problem)
{
	Oid			types[MAX_ARGS] = {rowtype, rowtype, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID};
	HeapTuple	tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(proname),
										PointerGetDatum(buildoidvector(types, nargs)),
										ObjectIdGetDatum(nspoid));
	Form_pg_proc proc;
	Oid			result = InvalidOid;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prokind != PROKIND_FUNCTION || proc->proretset)
		*problem = psprintf("%s is no plain function", format_procedure(proc->oid));
	else if (proc->prorettype != rowtype)
		*problem = psprintf("function %s does not return %s", format_procedure(proc->oid),
							format_type_be(rowtype));
	else
		result = proc->oid;
	ReleaseSysCache(tuple);
	return result;
}

/* The function that fits the table best. */
static Oid
find_function(Relation rel, const char *nspname, const char *proname, int *nargs, char **problem)
{
	Oid			nspoid = get_namespace_oid(nspname, true);
	Oid			types[2] = {rel->rd_rel->reltype, ANYELEMENTOID};
	char	   *row = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												 RelationGetRelationName(rel));
	char	   *function = quote_qualified_identifier(nspname, proname);

	*problem = NULL;
	for (int i = 0; OidIsValid(nspoid) && i < 2; i++)
		for (*nargs = MAX_ARGS; *nargs > 0; *nargs -= MAX_ARGS - 2)
		{
			Oid			found = find_exact(nspoid, proname, types[i], *nargs, problem);

			if (OidIsValid(found))
				return found;
		}
	if (*problem == NULL)
		*problem = psprintf("there is no function %s(%s, %s) that returns %s, nor one that takes times and dbs too (timestamptz, timestamptz, text, text)",
							function, row, row, row);
	return InvalidOid;
}

/* How the call looks to a polymorphic function. */
static Node *
call_expression(Oid funcid, Oid rowtype, int nargs)
{
	Oid			types[MAX_ARGS] = {rowtype, rowtype, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID};
	List	   *args = NIL;

	for (int i = 0; i < nargs; i++)
	{
		Param	   *param = makeNode(Param);

		param->paramkind = PARAM_EXTERN;
		param->paramid = i + 1;
		param->paramtype = types[i];
		param->paramtypmod = -1;
		param->location = -1;
		args = lappend(args, param);
	}
	return (Node *) makeFuncExpr(funcid, rowtype, args, InvalidOid, DEFAULT_COLLATION_OID,
								 COERCE_EXPLICIT_CALL);
}

static bool
is_trusted(Oid funcid, Oid table_owner)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", funcid);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	return superuser_arg(owner) || has_privs_of_role(owner, table_owner);
}

MmrMergeFn *
mmr_mergefn_open(Relation rel, const char *nspname, const char *proname, MemoryContext cxt,
				 char **problem)
{
	MemoryContext own;
	MemoryContext old;
	MmrMergeFn *f;
	int			nargs;
	Oid			funcid = find_function(rel, nspname, proname, &nargs, problem);

	if (!OidIsValid(funcid))
		return NULL;
	/* it runs with the rights of the table's owner: only who has those anyway may have written it */
	if (!is_trusted(funcid, rel->rd_rel->relowner))
	{
		*problem = psprintf("the owner of %s is neither a superuser nor the table's owner",
							format_procedure(funcid));
		return NULL;
	}
	/* mmrepl's own are for nobody, and harmless */
	if (strcmp(nspname, "mmrepl") != 0 && !mmr_may_execute(funcid, rel->rd_rel->relowner))
	{
		*problem = psprintf("the table's owner may not execute %s", format_procedure(funcid));
		return NULL;
	}
	own = AllocSetContextCreate(cxt, "mmrepl merge function", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(own);
	f = palloc0(sizeof(MmrMergeFn));
	f->cxt = own;
	f->rowtype = rel->rd_rel->reltype;
	f->nargs = nargs;
	fmgr_info_cxt(funcid, &f->info, own);
	fmgr_info_set_expr(call_expression(funcid, f->rowtype, nargs), &f->info);
	MemoryContextSwitchTo(old);
	return f;
}

void
mmr_mergefn_close(MmrMergeFn *f)
{
	MemoryContextDelete(f->cxt);
}

/* The row as a composite value, without generated columns. */
static Datum
row_datum(Relation rel, TupleTableSlot *slot)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);

	slot_getallattrs(slot);
	for (int i = 0; i < desc->natts; i++)
		nulls[i] = slot->tts_isnull[i] || TupleDescAttr(desc, i)->attgenerated != '\0';
	return heap_copy_tuple_as_datum(heap_form_tuple(desc, slot->tts_values, nulls), desc);
}

static void
set_side(FunctionCallInfo fcinfo, Relation rel, int side, const MmrMergeSide *s)
{
	MmrNode    *node = mmr_membership_node(s->version.node);

	fcinfo->args[side].value = row_datum(rel, s->row);
	fcinfo->args[side].isnull = false;
	if (fcinfo->nargs == 2)
		return;
	fcinfo->args[2 + side].value = TimestampTzGetDatum(s->version.ts);
	fcinfo->args[2 + side].isnull = false;
	/* of a db that is no more, nobody knows the name */
	fcinfo->args[4 + side].isnull = node == NULL;
	fcinfo->args[4 + side].value = node ? CStringGetTextDatum(node->name) : (Datum) 0;
}

/* What came back becomes the slot's row. */
static void
store_result(MmrMergeFn *f, Relation rel, Datum datum, TupleTableSlot *result)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(datum);
	TupleDesc	desc = RelationGetDescr(rel);
	HeapTupleData tuple;

	if (HeapTupleHeaderGetTypeId(header) != f->rowtype)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("merge function %s gave no row of table \"%s\"",
						format_procedure(f->info.fn_oid), RelationGetRelationName(rel))));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	ExecClearTuple(result);
	heap_deform_tuple(&tuple, desc, result->tts_values, result->tts_isnull);
	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attisdropped || TupleDescAttr(desc, i)->attgenerated != '\0')
		{
			result->tts_values[i] = (Datum) 0;
			result->tts_isnull[i] = true;
		}
	ExecStoreVirtualTuple(result);
}

bool
mmr_mergefn_call(MmrMergeFn *f, Relation rel, const MmrMergeSide *a, const MmrMergeSide *b,
				 TupleTableSlot *result)
{
	LOCAL_FCINFO(fcinfo, MAX_ARGS);
	Datum		value;

	InitFunctionCallInfoData(*fcinfo, &f->info, f->nargs, DEFAULT_COLLATION_OID, NULL, NULL);
	set_side(fcinfo, rel, 0, a);
	set_side(fcinfo, rel, 1, b);
	if (f->info.fn_strict)
		for (int i = 0; i < f->nargs; i++)
			if (fcinfo->args[i].isnull)
				return false;
	value = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		return false;
	store_result(f, rel, value, result);
	return true;
}

bool
mmr_mergefn_same(TupleTableSlot *a, TupleTableSlot *b)
{
	TupleDesc	desc = a->tts_tupleDescriptor;

	slot_getallattrs(a);
	slot_getallattrs(b);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || att->attgenerated != '\0')
			continue;
		if (a->tts_isnull[i] != b->tts_isnull[i])
			return false;
		if (!a->tts_isnull[i] &&
			!datum_image_eq(a->tts_values[i], b->tts_values[i], att->attbyval, att->attlen))
			return false;
	}
	return true;
}
