/*-------------------------------------------------------------------------
 * api_compare.c
 *	  SQL: are the dbs of a sync equal, row by row?  And making them so.
 *
 * Floor 11.
 * Reads and writes what comparison does.
 * Runs in client backends.
 *
 * Invariant: repair_sync writes nothing that is on its way.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "catalog.h"
#include "comparison.h"
#include "conflict_log.h"
#include "names.h"

PG_FUNCTION_INFO_V1(mmrepl_compare_sync);
PG_FUNCTION_INFO_V1(mmrepl_repair_sync);

static void
require_admin(void)
{
	mmr_catalog_require();
	if (!has_privs_of_role(GetUserId(), mmr_catalog_owner()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to compare or repair a sync"),
				 errhint("It takes a superuser or the owner of the extension.")));
}

static MmrSync *
require_sync(const char *name)
{
	MmrSync    *sync;

	mmr_membership_refresh();
	sync = mmr_membership_sync_by_name(name);
	if (sync == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("sync \"%s\" does not exist", name),
				 errhint("The view mmrepl.syncs shows those there are.")));
	if (sync->my_role == MMR_ROLE_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this db has no part in sync \"%s\"", name),
				 errhint("Call it on a db of the sync.")));
	return sync;
}

/* The other dbs that are meant: List of MmrNode. */
static List *
choose_nodes(MmrSync *sync, List *names)
{
	List	   *result = NIL;
	ListCell   *lc,
			   *lc2;

	foreach(lc, names)
	{
		MmrNode    *node = mmr_membership_node_by_name(lfirst(lc));

		if (node == NULL || mmr_membership_sync_node(sync, node->id) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("db \"%s\" is not in sync \"%s\"", (char *) lfirst(lc), sync->name)));
	}
	foreach(lc2, sync->nodes)
	{
		MmrNode    *node = ((MmrSyncNode *) lfirst(lc2))->node;
		bool		named = names == NIL;

		foreach(lc, names)
			named |= strcmp(lfirst(lc), node->name) == 0;
		if (named && node->id != mmr_membership_my_id())
			result = lappend(result, node);
	}
	return result;
}

/* The tables that are meant: List of MmrMember. */
static List *
choose_tables(MmrSync *sync, List *names)
{
	List	   *result = NIL;
	ListCell   *lc,
			   *lc2;

	if (names == NIL)
		return sync->tables;
	foreach(lc, names)
	{
		const char *name = lfirst(lc);
		int			before = list_length(result);

		foreach(lc2, sync->tables)
		{
			MmrMember  *m = lfirst(lc2);

			if (strcmp(name, m->relname) == 0 ||
				strcmp(name, psprintf("%s.%s", m->nspname, m->relname)) == 0)
				result = list_append_unique_ptr(result, m);
		}
		if (list_length(result) == before)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("sync \"%s\" has no table \"%s\"", sync->name, name)));
	}
	return result;
}

static void
report(MmrComparison *c, const char *keybytes, int keylen, const char *difference, bool in_flight,
	   bool set_aside)
{
	ReturnSetInfo *rsinfo = c->arg;
	Datum		v[7];
	bool		n[7] = {0};
	Datum		key[INDEX_MAX_KEYS];

	mmr_key_decode(c->key, keybytes, keylen, key);
	v[0] = CStringGetTextDatum(c->there.node->name);
	v[1] = DirectFunctionCall1(namein, CStringGetDatum(c->member->nspname));
	v[2] = DirectFunctionCall1(namein, CStringGetDatum(c->member->relname));
	v[3] = mmr_conflict_log_key(c->key, key);
	v[4] = CStringGetTextDatum(difference);
	v[5] = BoolGetDatum(in_flight);
	v[6] = BoolGetDatum(set_aside);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
}

/*
 * mmrepl.compare_sync(sync text, dbs text[], tables text[]) returns setof (db
 * text, schemaname name, tablename name, key jsonb, difference text, in_flight
 * bool, set_aside bool)
 */
Datum
mmrepl_compare_sync(PG_FUNCTION_ARGS)
{
	MmrComparison c;
	MmrSync    *sync;
	List	   *tables;
	List	   *nodes;
	ListCell   *lc;

	require_admin();
	sync = require_sync(mmr_names_text(fcinfo, 0, "sync"));
	nodes = choose_nodes(sync, mmr_names_array(fcinfo, 1, "dbs"));
	tables = choose_tables(sync, mmr_names_array(fcinfo, 2, "tables"));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	mmr_comparison_open(&c, sync, report, fcinfo->resultinfo);
	foreach(lc, nodes)
		mmr_comparison_node(&c, lfirst(lc), tables);
	mmr_comparison_close(&c);
	return (Datum) 0;
}

static void
repair(MmrComparison *c, const char *key, int keylen, const char *difference, bool in_flight,
	   bool set_aside)
{
	(void) difference;
	(void) set_aside;
	/* what is on its way will be the same by itself */
	if (!in_flight)
		mmr_comparison_rewrite(c, key, keylen);
}

/* mmrepl.repair_sync(sync text, "from" text, dbs text[], tables text[]) returns int8 */
Datum
mmrepl_repair_sync(PG_FUNCTION_ARGS)
{
	MmrComparison c;
	MmrSync    *sync;
	const char *name;
	MmrNode    *me;
	MmrNode    *from;
	MmrSyncNode *part;
	List	   *dbs = mmr_names_array(fcinfo, 2, "dbs");
	List	   *tables;
	List	   *nodes;
	ListCell   *lc;

	require_admin();
	sync = require_sync(mmr_names_text(fcinfo, 0, "sync"));
	tables = choose_tables(sync, mmr_names_array(fcinfo, 3, "tables"));
	me = mmr_membership_node(mmr_membership_my_id());
	name = PG_ARGISNULL(1) ? me->name : mmr_names_text(fcinfo, 1, "from");
	from = mmr_membership_node_by_name(name);
	part = from ? mmr_membership_sync_node(sync, from->id) : NULL;
	if (part == NULL || part->role != MMR_ROLE_SOURCE)
		ereport(ERROR,
				(errcode(part == NULL ? ERRCODE_UNDEFINED_OBJECT : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("db \"%s\" is not a source of sync \"%s\"", name, sync->name),
				 errhint("from names the db whose rows are right: a source, from which they can travel.")));
	/* another db's rows are compared with those here only: they travel to all all the same */
	if (from != me && dbs != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dbs can be given only when the rows of this db are right"),
				 errhint("Call it on db \"%s\".", name)));
	if (from != me)
		dbs = list_make1(from->name);
	nodes = choose_nodes(sync, dbs);
	mmr_comparison_open(&c, sync, repair, NULL);
	c.from = from->name;
	foreach(lc, nodes)
		mmr_comparison_node(&c, lfirst(lc), tables);
	mmr_comparison_close(&c);
	PG_RETURN_INT64(c.rewritten);
}
