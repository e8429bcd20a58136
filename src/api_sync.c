/*-------------------------------------------------------------------------
 * api_sync.c
 *	  SQL: syncs.
 *
 * Floor 11.
 * Reads and writes: sync, dbgroup, dbgroup_db, local_node.
 * Runs in: client backends.
 *
 * Invariant: a sync that is stored could replicate every table it holds among
 * all its dbs when it was stored.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"

#include "attach.h"
#include "config.h"
#include "dblist.h"
#include "names.h"
#include "sequence.h"
#include "sqlrun.h"
#include "stratinput.h"
#include "synccheck.h"

PG_FUNCTION_INFO_V1(mmrepl_add_sync);
PG_FUNCTION_INFO_V1(mmrepl_update_sync);
PG_FUNCTION_INFO_V1(mmrepl_remove_sync);
PG_FUNCTION_INFO_V1(mmrepl_validate_sync);
PG_FUNCTION_INFO_V1(mmrepl_member_problem);

/* ---- arguments ---- */

static void
check_on_error(const char *on_error)
{
	if (strcmp(on_error, "set_aside") != 0 && strcmp(on_error, "stop") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("on_error cannot be \"%s\"", on_error),
				 errhint("set_aside: a row that cannot be applied waits in mmrepl.apply_error, the others go on; stop: the sync stops until mmrepl.resume().")));
}

static void
check_onetimecopy(int onetimecopy)
{
	if (onetimecopy < 0 || onetimecopy > 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("onetimecopy cannot be %d", onetimecopy),
				 errhint("0: no copy; 1: replace what the other dbs have by what the first source has; 2: copy into those tables only that are empty on the other side.")));
}

static void
check_seq_step(int step)
{
	if (step < 1 || step > 1000000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("seq_step cannot be %d", step),
				 errhint("It is the number of dbs for which interleaved sequences leave room: 1 to 1000000, 10 by default.")));
}

/* A strategy, step and so on that is not NULL. */
static int
required_int(FunctionCallInfo fcinfo, int argno, const char *argname)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be NULL", argname)));
	return PG_GETARG_INT32(argno);
}

/*
 * The dbgroup that is meant: named as such, or as the only element of dbs, or
 * made of dbs under the sync's name.
 */
static const char *
settle_dbgroup(const char *sync, List *dbs, const char *dbgroup)
{
	if ((dbs == NIL) == (dbgroup == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("either dbs or dbgroup must be given"),
				 errhint("As in dbs => '{aaa01:source,aaa02:source}', or dbgroup => 'name' of one made with mmrepl.add_dbgroup().")));
	if (dbgroup == NULL && list_length(dbs) == 1 &&
		!mmr_names_exists("db", linitial(dbs)) &&
		mmr_names_exists("dbgroup", linitial(dbs)))
		dbgroup = linitial(dbs);
	if (dbgroup != NULL)
	{
		mmr_names_require("dbgroup", dbgroup);
		return dbgroup;
	}

	if (!mmr_names_exists("dbgroup", sync))
	{
		mmr_sqlrun_exec("INSERT INTO mmrepl.dbgroup (name) VALUES ($1)", 1, &sync);
		mmr_dblist_store(sync, dbs);
	}
	else if (!mmr_dblist_same(sync, dbs))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("dbgroup \"%s\" already exists with other dbs", sync),
				 errdetail("A sync that is given dbs makes a dbgroup of its own name."),
				 errhint("Give the sync another name, or give it the dbgroup with dbgroup => '%s'.", sync)));
	return sync;
}

/* ---- doors ---- */

/*
 * mmrepl.add_sync(name text, relgroup text, dbs text[], dbgroup text,
 * onetimecopy int4, conflict_strategy text, seq_step int4, on_error text, makedelta bool)
 */
Datum
mmrepl_add_sync(PG_FUNCTION_ARGS)
{
	const char *name = mmr_names_name(fcinfo, 0, "name");
	const char *relgroup = mmr_names_name(fcinfo, 1, "relgroup");
	List	   *dbs = mmr_names_array(fcinfo, 2, "dbs");
	const char *dbgroup = mmr_names_optional_name(fcinfo, 3, "dbgroup");
	int			onetimecopy = required_int(fcinfo, 4, "onetimecopy");
	const char *strategy = mmr_names_text(fcinfo, 5, "conflict_strategy");
	int			seq_step = required_int(fcinfo, 6, "seq_step");
	const char *on_error = mmr_names_text(fcinfo, 7, "on_error");
	bool		makedelta = !PG_ARGISNULL(8) && PG_GETARG_BOOL(8);
	const char *args[8];
	List	   *ids;

	check_onetimecopy(onetimecopy);
	check_seq_step(seq_step);
	check_on_error(on_error);

	mmr_config_begin();
	strategy = mmr_stratinput_read(strategy);
	mmr_names_require_new("sync", name);
	mmr_names_require("relgroup", relgroup);
	dbgroup = settle_dbgroup(name, dbs, dbgroup);
	ids = mmr_dblist_node_ids(dbgroup);
	if (list_length(ids) < 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("sync \"%s\" needs at least two dbs", name),
				 errhint("Name them as in dbs => '{aaa01:source,aaa02:source}'; add a db with mmrepl.add_db().")));
	if (mmr_sqlrun_exec("SELECT 1 FROM mmrepl.relgroup_rel WHERE relgroup = $1", 1, &relgroup) == 0)
		ereport(WARNING,
				(errmsg("relgroup \"%s\" is empty", relgroup),
				 errhint("Add tables with mmrepl.add_all_tables(relgroup => ...) or mmrepl.add_table(); that can be done while the sync runs.")));

	mmr_stratinput_require_sources(strategy, name, dbgroup);
	args[0] = name;
	args[1] = relgroup;
	args[2] = dbgroup;
	args[3] = psprintf("%d", onetimecopy);
	args[4] = strategy;
	args[5] = psprintf("%d", seq_step);
	args[6] = on_error;
	args[7] = makedelta ? "true" : "false";
	mmr_sqlrun_exec("WITH id AS (UPDATE mmrepl.local_node SET next_sync_id = next_sync_id + 1"
					" RETURNING next_sync_id - 1 AS sync_id)"
					" INSERT INTO mmrepl.sync (sync_id, name, relgroup, dbgroup, onetimecopy, conflict_strategy, seq_step, since, on_error, makedelta)"
					" SELECT id.sync_id, $1, $2, $3, $4::int2, $5, $6::int4, -1, $7, $8::bool FROM id", 8, args);
	mmr_synccheck_require(name);
	mmr_config_publish(ids);
	PG_RETURN_VOID();
}

/*
 * mmrepl.update_sync(name text, conflict_strategy text, seq_step int4,
 * new_name text, onetimecopy int4, on_error text)
 */
Datum
mmrepl_update_sync(PG_FUNCTION_ARGS)
{
	const char *name = mmr_names_name(fcinfo, 0, "name");
	const char *args[6] = {name, mmr_names_optional(fcinfo, 1), NULL,
	mmr_names_optional_name(fcinfo, 3, "new_name"), NULL, mmr_names_optional(fcinfo, 5)};

	if (!PG_ARGISNULL(2))
	{
		check_seq_step(PG_GETARG_INT32(2));
		args[2] = psprintf("%d", PG_GETARG_INT32(2));
	}
	if (!PG_ARGISNULL(4))
	{
		check_onetimecopy(PG_GETARG_INT32(4));
		args[4] = psprintf("%d", PG_GETARG_INT32(4));
	}
	if (args[5])
		check_on_error(args[5]);

	mmr_config_begin();
	mmr_names_require("sync", name);
	if (args[1])
	{
		args[1] = mmr_stratinput_read(args[1]);
		mmr_stratinput_require_sources(args[1], name,
									   mmr_sqlrun_text("SELECT dbgroup FROM mmrepl.sync WHERE name = $1", 1, &name));
	}
	if (args[3] && strcmp(args[3], name) != 0)
		mmr_names_require_new("sync", args[3]);
	mmr_sqlrun_exec("UPDATE mmrepl.sync SET conflict_strategy = coalesce($2, conflict_strategy),"
					" seq_step = coalesce($3::int4, seq_step), name = coalesce($4, name),"
					" onetimecopy = coalesce($5::int2, onetimecopy),"
					" copy_round = copy_round + ($5 IS NOT NULL)::int4,"
					" on_error = coalesce($6, on_error) WHERE name = $1",
					6, args);
	if (args[1] && mmr_stratinput_needs_check(args[1]))
		mmr_synccheck_require(args[3] ? args[3] : name);
	mmr_config_publish(NIL);
	PG_RETURN_VOID();
}

/* mmrepl.remove_sync(name text): a dbgroup that was made for it goes with it */
Datum
mmrepl_remove_sync(PG_FUNCTION_ARGS)
{
	const char *name = mmr_names_name(fcinfo, 0, "name");
	const char *dbgroup;

	mmr_config_begin();
	mmr_names_require("sync", name);
	dbgroup = mmr_sqlrun_text("DELETE FROM mmrepl.sync WHERE name = $1 RETURNING dbgroup", 1, &name);
	if (strcmp(dbgroup, name) == 0)
		mmr_sqlrun_exec("DELETE FROM mmrepl.dbgroup WHERE name = $1"
						" AND NOT EXISTS (SELECT FROM mmrepl.sync WHERE dbgroup = $1)", 1, &name);
	mmr_config_publish(NIL);
	PG_RETURN_VOID();
}

/* mmrepl.validate_sync(name text) returns setof text */
Datum
mmrepl_validate_sync(PG_FUNCTION_ARGS)
{
	const char *name = mmr_names_name(fcinfo, 0, "name");
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	mmr_config_begin();
	mmr_names_require("sync", name);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	foreach(lc, mmr_synccheck_problems(name, true))
	{
		Datum		value = CStringGetTextDatum(lfirst(lc));
		bool		null = false;

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &value, &null);
	}
	return (Datum) 0;
}

/* mmrepl._member_problem(member regclass) returns text: triggers or increment that are not as they should be */
Datum
mmrepl_member_problem(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	const char *problem;

	if (get_rel_relkind(relid) == RELKIND_SEQUENCE)
		problem = mmr_sequence_problem(get_namespace_name(get_rel_namespace(relid)),
									   get_rel_name(relid));
	else
	{
		problem = mmr_attach_problem(relid);
		if (problem)
			problem = psprintf("capture trigger: %s", problem);
	}
	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}
