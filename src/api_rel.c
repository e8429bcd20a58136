/*-------------------------------------------------------------------------
 * api_rel.c
 *	  SQL: tables, sequences, and groups of them.
 *
 * Floor 11.
 * Reads and writes: rel, relgroup, relgroup_rel; the server's catalogs.
 * Runs in: client backends.
 *
 * Invariant: a relation is named by an argument as regclass input would
 * (quotes, schema or the caller's search_path), and from then on by its
 * schema and name, on all dbs.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "nodes/primnodes.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

#include "config.h"
#include "names.h"
#include "sqlrun.h"
#include "stratinput.h"
#include "synccheck.h"

typedef struct RelName
{
	char	   *nspname;
	char	   *relname;
} RelName;

PG_FUNCTION_INFO_V1(mmrepl_add_table);
PG_FUNCTION_INFO_V1(mmrepl_update_table);
PG_FUNCTION_INFO_V1(mmrepl_remove_table);
PG_FUNCTION_INFO_V1(mmrepl_add_sequence);
PG_FUNCTION_INFO_V1(mmrepl_remove_sequence);
PG_FUNCTION_INFO_V1(mmrepl_add_all_tables);
PG_FUNCTION_INFO_V1(mmrepl_add_all_sequences);
PG_FUNCTION_INFO_V1(mmrepl_add_relgroup);
PG_FUNCTION_INFO_V1(mmrepl_remove_relgroup);

static const char *
word(char kind)
{
	return kind == 'r' ? "table" : "sequence";
}

/* ---- names of relations ---- */

static RangeVar *
parse_name(const char *text)
{
	return makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(text)));
}

static RelName *
existing_relation(const char *text, char kind)
{
	Oid			relid = RangeVarGetRelid(parse_name(text), NoLock, true);
	RelName    *name = palloc(sizeof(RelName));

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("%s \"%s\" does not exist", word(kind), text),
				 errhint("Create it on all dbs first. A name with capitals, spaces or dots goes in double quotes; one outside search_path needs its schema.")));
	name->nspname = get_namespace_name(get_rel_namespace(relid));
	name->relname = get_rel_name(relid);
	return name;
}

/* One that is known to mmrepl, whether or not it still exists here. */
static RelName *
known_relation(const char *text, char kind)
{
	RangeVar   *range = parse_name(text);
	Oid			relid = RangeVarGetRelid(range, NoLock, true);
	char		kindtext[2] = {kind, '\0'};
	const char *args[3] = {range->schemaname, range->relname, kindtext};
	RelName    *name;
	List	   *schemas;

	if (range->schemaname == NULL && OidIsValid(relid))
		args[0] = get_namespace_name(get_rel_namespace(relid));
	schemas = mmr_sqlrun_texts("SELECT nspname FROM mmrepl.rel WHERE relname = $2 AND kind = $3::\"char\""
							   " AND (nspname = $1 OR $1 IS NULL)", 3, args);
	if (schemas == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s \"%s\" was not added to mmrepl", word(kind), text),
				 errhint("The view mmrepl.%ss shows those that were.", word(kind))));
	if (list_length(schemas) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_PARAMETER),
				 errmsg("%s \"%s\" is known in several schemas", word(kind), text),
				 errdetail("Schemas: %s.", mmr_names_quoted(schemas)),
				 errhint("Say which one, as in schema.name.")));
	name = palloc(sizeof(RelName));
	name->nspname = linitial(schemas);
	name->relname = range->relname;
	return name;
}

/* ---- checks ---- */

/* What stands in the way of replicating it, judged here alone: NULL if nothing. */
static char *
problem_of(const RelName *name, char kind, const char *key, const char *strategy, char **hint)
{
	char		kindtext[2] = {kind, '\0'};
	const char *args[5] = {name->nspname, name->relname, kindtext, key, strategy};
	char	  **row = mmr_sqlrun_row("SELECT d->>'problem', d->>'hint'"
									 " FROM pg_catalog.jsonb_array_elements(mmrepl._describe_members("
									 "  pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object("
									 "   'n', $1, 'r', $2, 'k', $3, 'i', $4, 's', $5)), false)) d", 5, args);

	*hint = row[1];
	return row[0];
}

static char *
known_key(const RelName *name)
{
	const char *args[2] = {name->nspname, name->relname};

	return mmr_sqlrun_text("SELECT key_index FROM mmrepl.rel WHERE nspname = $1 AND relname = $2", 2, args);
}

static void
ensure_relgroup(const char *relgroup)
{
	if (relgroup != NULL)
		mmr_sqlrun_exec("INSERT INTO mmrepl.relgroup (name) VALUES ($1) ON CONFLICT DO NOTHING", 1, &relgroup);
}

/* A name that a table and a sequence cannot share: one relation, one row. */
static void
store(const RelName *name, char kind, const char *key, const char *mode, const char *strategy,
	  const char *relgroup)
{
	char		kindtext[2] = {kind, '\0'};
	const char *args[6] = {name->nspname, name->relname, kindtext, key, mode, strategy};
	const char *group_args[3] = {relgroup, name->nspname, name->relname};

	mmr_sqlrun_exec("INSERT INTO mmrepl.rel AS r (nspname, relname, kind, key_index, seq_mode, conflict_strategy)"
					" VALUES ($1, $2, $3::\"char\", $4, $5, $6)"
					" ON CONFLICT (nspname, relname) DO UPDATE SET kind = excluded.kind,"
					" key_index = CASE WHEN excluded.kind = 'r' THEN coalesce(excluded.key_index, r.key_index) END,"
					" conflict_strategy = CASE WHEN excluded.kind = 'r' THEN coalesce(excluded.conflict_strategy, r.conflict_strategy) END,"
					" seq_mode = CASE WHEN excluded.kind = 'S' THEN coalesce(excluded.seq_mode, r.seq_mode) END",
					6, args);
	if (relgroup != NULL)
		mmr_sqlrun_exec("INSERT INTO mmrepl.relgroup_rel (relgroup, nspname, relname)"
						" VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", 3, group_args);
}

/* Syncs that hold the relation, through any group. */
static List *
require_relation(const RelName *name)
{
	const char *args[2] = {name->nspname, name->relname};
	List	   *ids = NIL;
	ListCell   *lc;

	foreach(lc, mmr_sqlrun_texts("SELECT relgroup FROM mmrepl.relgroup_rel WHERE nspname = $1 AND relname = $2",
								 2, args))
		ids = list_concat_unique_int(ids, mmr_synccheck_require_relgroup(lfirst(lc)));
	return ids;
}

/* ---- one by one ---- */

static void
add_relation(const char *text, char kind, const char *key, const char *mode, const char *strategy,
			 const char *relgroup)
{
	RelName    *name;
	char	   *problem;
	char	   *hint;

	/* by the caller's search_path, before anything else */
	name = existing_relation(text, kind);
	mmr_config_begin();
	if (strategy)
		strategy = mmr_stratinput_read(strategy);
	problem = problem_of(name, kind, key ? key : known_key(name), strategy, &hint);
	if (problem)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot replicate \"%s.%s\": %s", name->nspname, name->relname, problem),
				 hint ? errhint("%s", hint) : 0));
	ensure_relgroup(relgroup);
	store(name, kind, key, mode, strategy, relgroup);
	mmr_config_publish(require_relation(name));
}

static void
remove_relation(const char *text, char kind, const char *relgroup)
{
	RelName    *name;
	const char *args[3];

	mmr_config_begin();
	name = known_relation(text, kind);
	args[0] = name->nspname;
	args[1] = name->relname;
	args[2] = relgroup;
	if (relgroup)
		mmr_names_require("relgroup", relgroup);
	if (mmr_sqlrun_exec("DELETE FROM mmrepl.relgroup_rel WHERE nspname = $1 AND relname = $2"
						" AND (relgroup = $3 OR $3 IS NULL)", 3, args) == 0 && relgroup)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s \"%s.%s\" is not in relgroup \"%s\"", word(kind),
						name->nspname, name->relname, relgroup)));
	if (relgroup == NULL)
		mmr_sqlrun_exec("DELETE FROM mmrepl.rel WHERE nspname = $1 AND relname = $2", 2, args);
	mmr_config_publish(NIL);
}

/* mmrepl.add_table(tbl text, key text, relgroup text, conflict_strategy text) */
Datum
mmrepl_add_table(PG_FUNCTION_ARGS)
{
	add_relation(mmr_names_text(fcinfo, 0, "tbl"), 'r',
				 mmr_names_optional_name(fcinfo, 1, "key"), NULL,
				 mmr_names_optional(fcinfo, 3),
				 mmr_names_optional_name(fcinfo, 2, "relgroup"));
	PG_RETURN_VOID();
}

/* mmrepl.update_table(tbl text, conflict_strategy text): "sync" takes its own away */
Datum
mmrepl_update_table(PG_FUNCTION_ARGS)
{
	const char *text = mmr_names_text(fcinfo, 0, "tbl");
	const char *strategy = mmr_names_optional(fcinfo, 1);
	RelName    *name;
	const char *args[3];

	mmr_config_begin();
	name = known_relation(text, 'r');
	if (strategy == NULL)
		PG_RETURN_VOID();
	args[0] = name->nspname;
	args[1] = name->relname;
	args[2] = pg_strcasecmp(strategy, "sync") == 0 ? NULL : mmr_stratinput_read(strategy);
	if (args[2])
	{
		char	   *hint;
		char	   *problem = problem_of(name, 'r', known_key(name), args[2], &hint);

		if (problem)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot settle conflicts of \"%s.%s\" so: %s", name->nspname, name->relname, problem),
					 hint ? errhint("%s", hint) : 0));
	}
	mmr_sqlrun_exec("UPDATE mmrepl.rel SET conflict_strategy = $3 WHERE nspname = $1 AND relname = $2", 3, args);
	mmr_config_publish(args[2] && mmr_stratinput_needs_check(args[2]) ? require_relation(name) : NIL);
	PG_RETURN_VOID();
}

/* mmrepl.remove_table(tbl text, relgroup text) */
Datum
mmrepl_remove_table(PG_FUNCTION_ARGS)
{
	remove_relation(mmr_names_text(fcinfo, 0, "tbl"), 'r',
					mmr_names_optional_name(fcinfo, 1, "relgroup"));
	PG_RETURN_VOID();
}

/* mmrepl.add_sequence(seq text, mode text, relgroup text) */
Datum
mmrepl_add_sequence(PG_FUNCTION_ARGS)
{
	char	   *mode = mmr_names_optional(fcinfo, 1);

	if (mode && strcmp(mode, "interleave") != 0 && strcmp(mode, "copy") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown mode \"%s\" of a sequence", mode),
				 errhint("Modes are interleave (every db draws values of its own) and copy (targets follow the source). NULL lets the sync decide.")));
	add_relation(mmr_names_text(fcinfo, 0, "seq"), 'S', NULL, mode, NULL,
				 mmr_names_optional_name(fcinfo, 2, "relgroup"));
	PG_RETURN_VOID();
}

/* mmrepl.remove_sequence(seq text, relgroup text) */
Datum
mmrepl_remove_sequence(PG_FUNCTION_ARGS)
{
	remove_relation(mmr_names_text(fcinfo, 0, "seq"), 'S',
					mmr_names_optional_name(fcinfo, 1, "relgroup"));
	PG_RETURN_VOID();
}

/* ---- all of them ---- */

/* A jsonb array for a statement. */
static char *
json_list(List *texts)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '[');
	foreach(lc, texts)
	{
		if (buf.len > 1)
			appendStringInfoChar(&buf, ',');
		escape_json(&buf, lfirst(lc));
	}
	appendStringInfoChar(&buf, ']');
	return buf.data;
}

static void
require_schemas(List *schemas)
{
	ListCell   *lc;

	foreach(lc, schemas)
	{
		if (!OidIsValid(get_namespace_oid(lfirst(lc), true)))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_SCHEMA),
					 errmsg("schema \"%s\" does not exist", (char *) lfirst(lc)),
					 errhint("Names in this list are taken as they are, without quotes around them.")));
	}
}

/* Adds what can be added of the kind, tells what cannot; number of those that were added. */
static int
add_all(FunctionCallInfo fcinfo, char kind)
{
	bool		all_schemas = PG_ARGISNULL(0);
	List	   *schemas = mmr_names_array(fcinfo, 0, "schemas");
	List	   *exclude = mmr_names_array(fcinfo, 1, "exclude");
	const char *relgroup = mmr_names_optional_name(fcinfo, 2, "relgroup");
	char		kindtext[2] = {kind, '\0'};
	const char *args[3] = {all_schemas ? NULL : json_list(schemas), json_list(exclude), kindtext};
	List	   *found;
	ListCell   *lc;
	int			added = 0;

	mmr_config_begin();
	require_schemas(schemas);
	ensure_relgroup(relgroup);
	found = mmr_sqlrun_texts("SELECT pg_catalog.jsonb_build_array(f.nspname, f.relname, f.key, f.problem)"
							 " FROM mmrepl._find_members($1::jsonb, $2::jsonb, $3::\"char\") f", 3, args);
	foreach(lc, found)
	{
		const char *arg = lfirst(lc);
		char	  **row = mmr_sqlrun_row("SELECT $1::jsonb->>0, $1::jsonb->>1, $1::jsonb->>2, $1::jsonb->>3",
										 1, &arg);
		RelName		name = {row[0], row[1]};

		if (row[3] != NULL)
		{
			ereport(NOTICE,
					(errmsg("skipping %s \"%s.%s\": %s", word(kind), row[0], row[1], row[3])));
			continue;
		}
		store(&name, kind, row[2], NULL, NULL, relgroup);
		added++;
	}
	mmr_config_publish(relgroup ? mmr_synccheck_require_relgroup(relgroup) : NIL);
	return added;
}

/* mmrepl.add_all_tables(schemas text[], exclude text[], relgroup text) returns int4 */
Datum
mmrepl_add_all_tables(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(add_all(fcinfo, 'r'));
}

/* mmrepl.add_all_sequences(schemas text[], exclude text[], relgroup text) returns int4 */
Datum
mmrepl_add_all_sequences(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(add_all(fcinfo, 'S'));
}

/* ---- groups ---- */

/* mmrepl.add_relgroup(name text) */
Datum
mmrepl_add_relgroup(PG_FUNCTION_ARGS)
{
	const char *name = mmr_names_name(fcinfo, 0, "name");

	mmr_config_begin();
	mmr_names_require_new("relgroup", name);
	ensure_relgroup(name);
	mmr_config_publish(NIL);
	PG_RETURN_VOID();
}

/* mmrepl.remove_relgroup(name text) */
Datum
mmrepl_remove_relgroup(PG_FUNCTION_ARGS)
{
	const char *name = mmr_names_name(fcinfo, 0, "name");
	List	   *users;

	mmr_config_begin();
	mmr_names_require("relgroup", name);
	users = mmr_sqlrun_texts("SELECT name FROM mmrepl.sync WHERE relgroup = $1 ORDER BY sync_id", 1, &name);
	if (users != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("relgroup \"%s\" is used by a sync", name),
				 errdetail("Sync: %s.", mmr_names_quoted(users)),
				 errhint("Remove the sync first, with mmrepl.remove_sync().")));
	mmr_sqlrun_exec("DELETE FROM mmrepl.relgroup WHERE name = $1", 1, &name);
	mmr_config_publish(NIL);
	PG_RETURN_VOID();
}
