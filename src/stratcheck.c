/*-------------------------------------------------------------------------
 * stratcheck.c
 *	  Can a conflict strategy settle the conflicts of a table here?
 *
 * Floor 7.
 * Reads: some rows of the table; db through the configuration.
 * Runs in: backends that configure, on every db of the sync.
 *
 * A merge function is tried on rows of the table and on rows made up: with
 * both sides changed about, with versions either way round, and with what it
 * gave itself.  What it gives must have the key of both and break no
 * constraint.
 *
 * Invariant: the user's code runs as the table's owner, in a restricted
 * context, and nothing it does stays.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "key.h"
#include "keyindex.h"
#include "membership.h"
#include "mergefn.h"
#include "strategy.h"

PG_FUNCTION_INFO_V1(mmrepl_strategy_problem);

/* So many rows of the table are looked at. */
#define SAMPLES	20

typedef struct Check
{
	Relation	rel;
	MmrKey	   *key;
	MmrMergeFn *fn;
	MmrNode    *nodes[2];		/* two authors */
	int			tried;
	int			failed;			/* of those */
	char	   *error;			/* of the last failure */
} Check;

static TupleTableSlot *
make_slot(Check *c)
{
	return MakeSingleTupleTableSlot(RelationGetDescr(c->rel), &TTSOpsVirtual);
}

/* A value of the type to try with, the first or the second; false: none that we know. */
static bool
make_value(Form_pg_attribute att, int which, Datum *value)
{
	static const struct
	{
		char		category;
		const char *text[2];
	}			values[] = {
		{TYPCATEGORY_NUMERIC, {"1", "2"}},
		{TYPCATEGORY_STRING, {"a", "b"}},
		{TYPCATEGORY_DATETIME, {"2000-01-01 10:00", "2000-01-02 11:00"}},
		{TYPCATEGORY_TIMESPAN, {"1 hour", "2 hours"}},
		{TYPCATEGORY_BOOLEAN, {"false", "true"}},
		{TYPCATEGORY_NETWORK, {"10.0.0.1", "10.0.0.2"}},
	};
	char		category;
	bool		preferred;
	Oid			input;
	Oid			ioparam;

	get_type_category_preferred(att->atttypid, &category, &preferred);
	for (int i = 0; i < (int) lengthof(values); i++)
		if (values[i].category == category)
		{
			getTypeInputInfo(att->atttypid, &input, &ioparam);
			*value = OidInputFunctionCall(input, unconstify(char *, values[i].text[which]), ioparam,
										  att->atttypmod);
			return true;
		}
	return false;
}

/* A row made up; every `hole`-th column that may be is NULL. */
static TupleTableSlot *
make_row(Check *c, int which, int hole)
{
	TupleTableSlot *slot = make_slot(c);
	TupleDesc	desc = RelationGetDescr(c->rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		slot->tts_isnull[i] = att->attisdropped || att->attgenerated != '\0' ||
			(hole > 0 && i % hole == 0 && !att->attnotnull) ||
			!make_value(att, which, &slot->tts_values[i]);
		if (slot->tts_isnull[i])
			slot->tts_values[i] = (Datum) 0;
	}
	ExecStoreVirtualTuple(slot);
	return slot;
}

/* A copy of `row` with the key of `of`. */
static TupleTableSlot *
with_key(Check *c, TupleTableSlot *row, TupleTableSlot *of)
{
	TupleTableSlot *slot = make_slot(c);

	slot_getallattrs(row);
	slot_getallattrs(of);
	memcpy(slot->tts_values, row->tts_values, sizeof(Datum) * slot->tts_tupleDescriptor->natts);
	memcpy(slot->tts_isnull, row->tts_isnull, sizeof(bool) * slot->tts_tupleDescriptor->natts);
	for (int i = 0; i < c->key->ncolumns; i++)
	{
		int			at = c->key->columns[i].attnum - 1;

		slot->tts_values[at] = of->tts_values[at];
		slot->tts_isnull[at] = of->tts_isnull[at];
	}
	ExecStoreVirtualTuple(slot);
	return slot;
}

static bool
same_key(Check *c, TupleTableSlot *a, TupleTableSlot *b)
{
	StringInfoData ka;
	StringInfoData kb;

	slot_getallattrs(a);
	for (int i = 0; i < c->key->ncolumns; i++)
		if (a->tts_isnull[c->key->columns[i].attnum - 1])
			return false;
	initStringInfo(&ka);
	initStringInfo(&kb);
	mmr_key_encode(c->key, a, &ka);
	mmr_key_encode(c->key, b, &kb);
	return mmr_key_equal(c->key, ka.data, ka.len, kb.data, kb.len);
}

/* Two sides, one way and the other: NULL if all is well. */
static char *
try_sides(Check *c, const MmrMergeSide *a, const MmrMergeSide *b)
{
	TupleTableSlot *one = make_slot(c);
	TupleTableSlot *other = make_slot(c);
	bool		has_one = mmr_mergefn_call(c->fn, c->rel, a, b, one);
	bool		has_other = mmr_mergefn_call(c->fn, c->rel, b, a, other);
	char	   *problem = NULL;

	if (has_one != has_other || (has_one && !mmr_mergefn_same(one, other)))
		problem = "gives another row when its two sides change places";
	else if (has_one && !same_key(c, one, a->row))
		problem = "gives a row with another key";
	ExecDropSingleTupleTableSlot(one);
	ExecDropSingleTupleTableSlot(other);
	return problem;
}

static char *
try_rows(Check *c, TupleTableSlot *x, TupleTableSlot *y)
{
	MmrMergeSide a = {x, {1000000, c->nodes[0]->id, 0}};
	MmrMergeSide b = {y, {2000000, c->nodes[1]->id, 0}};
	char	   *problem = try_sides(c, &a, &b);

	a.row = y;
	b.row = x;
	return problem ? problem : try_sides(c, &a, &b);
}

/* The same in a subtransaction that is rolled back: an error is only noted. */
static char *
try_guarded(Check *c, TupleTableSlot *x, TupleTableSlot *y)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	char	   *volatile problem = NULL;

	c->tried++;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		problem = try_rows(c, x, y);
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		c->failed++;
		c->error = edata->message;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return problem;
}

/* Rows of the table, each with the next one. */
static char *
try_table(Check *c)
{
	TableScanDesc scan = table_beginscan(c->rel, GetActiveSnapshot(), 0, NULL);
	TupleTableSlot *slot = table_slot_create(c->rel, NULL);
	TupleTableSlot *last = make_slot(c);
	TupleTableSlot *mixed;
	char	   *problem = NULL;

	for (int i = 0; problem == NULL && i < SAMPLES && table_scan_getnextslot(scan, ForwardScanDirection, slot); i++)
	{
		if (i > 0)
		{
			mixed = with_key(c, last, slot);
			problem = try_guarded(c, slot, mixed);
			ExecDropSingleTupleTableSlot(mixed);
		}
		ExecCopySlot(last, slot);
	}
	ExecDropSingleTupleTableSlot(last);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	if (problem == NULL && c->failed > 0)
		problem = psprintf("raises an error on rows of the table: %s", c->error);
	return problem;
}

/* Rows made up; whether they make sense to the function is another matter. */
static char *
try_made_up(Check *c)
{
	TupleTableSlot *first = make_row(c, 0, 0);
	char	   *problem = NULL;

	for (int hole = 0; problem == NULL && hole < 4; hole++)
	{
		TupleTableSlot *row = make_row(c, 1, hole);
		TupleTableSlot *mixed = with_key(c, row, first);

		problem = try_guarded(c, first, mixed);
		ExecDropSingleTupleTableSlot(row);
		ExecDropSingleTupleTableSlot(mixed);
	}
	ExecDropSingleTupleTableSlot(first);
	if (problem == NULL && c->failed == c->tried)
		problem = psprintf("raises an error: %s", c->error);
	return problem;
}

static char *
check_function(Relation rel, MmrKey *key, const MmrStrategy *strategy)
{
	Check		c = {rel, key};
	char	   *problem;
	List	   *nodes = mmr_membership_nodes();

	if (nodes == NIL)
		return NULL;
	c.nodes[0] = linitial(nodes);
	c.nodes[1] = llast(nodes);
	c.fn = mmr_mergefn_open(rel, strategy->nspname, strategy->proname, CurrentMemoryContext, &problem);
	if (c.fn == NULL)
		return psprintf("conflict strategy: %s", problem);
	problem = try_table(&c);
	if (problem == NULL)
		problem = try_made_up(&c);
	mmr_mergefn_close(c.fn);
	return problem ? psprintf("merge function %s %s",
							  quote_qualified_identifier(strategy->nspname, strategy->proname), problem) : NULL;
}

/* As the table's owner; cleaned up by the transaction if it fails. */
static char *
check_as_owner(Relation rel, const char *key_index, const MmrStrategy *strategy)
{
	MmrKey	   *key = mmr_key_get(rel, mmr_keyindex_find(RelationGetRelid(rel), key_index));
	Oid			user;
	int			sec_context;
	int			nestlevel;
	char	   *problem;

	if (key == NULL)
		return NULL;
	nestlevel = NewGUCNestLevel();
	/* as apply has it */
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&user, &sec_context);
	SetUserIdAndSecContext(rel->rd_rel->relowner, sec_context | SECURITY_RESTRICTED_OPERATION);
	problem = check_function(rel, key, strategy);
	SetUserIdAndSecContext(user, sec_context);
	AtEOXact_GUC(false, nestlevel);
	return problem;
}

/* mmrepl._strategy_problem(member regclass, key_index name, strategy text) returns text */
Datum
mmrepl_strategy_problem(PG_FUNCTION_ARGS)
{
	MmrStrategy *strategy;
	char	   *problem = NULL;
	Relation	rel;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	strategy = mmr_strategy_parse(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	if (strategy == NULL)
		PG_RETURN_NULL();
	mmr_membership_refresh();
	/* dbs that a list of priorities names are where it is kept, as long as they are dbs at all (stratinput.h) */
	if (strategy->kind == MMR_STRATEGY_FUNCTION &&
		(rel = try_table_open(PG_GETARG_OID(0), AccessShareLock)) != NULL)
	{
		problem = check_as_owner(rel, PG_ARGISNULL(1) ? NULL : NameStr(*PG_GETARG_NAME(1)), strategy);
		table_close(rel, NoLock);
	}
	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}
