/*-------------------------------------------------------------------------
 * synccheck.c
 *	  Can the syncs replicate what they hold, on all their dbs at once?
 *
 * Floor 6.
 * Reads: the configuration's tables; the server's catalogs here and there
 * through mmrepl._describe_members.
 * Runs in: backends that configure.
 *
 * Invariant: everything that is wrong is told at once, not the first thing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "config.h"
#include "dblist.h"
#include "membership.h"
#include "names.h"
#include "remote.h"
#include "sqlrun.h"
#include "synccheck.h"

static const char *const sql_describe = "SELECT mmrepl._describe_members($1::jsonb, $2::bool)";

/* What one db of the sync says, as an element for mmrepl._compare_members. */
static void
describe_on(StringInfo all, int32 node_id, const char *members, bool deep)
{
	const char *args[2] = {members, deep ? "true" : "false"};
	char	   *id = psprintf("%d", node_id);
	char	   *name = mmr_sqlrun_text("SELECT name FROM mmrepl.db WHERE node_id = $1::int4",
									   1, (const char *const *) &id);
	char	   *description;

	mmr_config_require(node_id);
	if (node_id == mmr_membership_my_id())
		description = mmr_sqlrun_text(sql_describe, 2, args);
	else
	{
		PGresult   *result = mmr_remote_exec(mmr_remote_find(node_id), sql_describe, 2, args);

		description = pstrdup(PQgetvalue(result, 0, 0));
		PQclear(result);
	}
	appendStringInfoString(all, all->len > 1 ? ",{\"db\":" : "{\"db\":");
	escape_json(all, name);
	appendStringInfo(all, ",\"members\":%s}", description);
}

/* Tables that another sync replicates among two of the same dbs. */
static List *
overlaps(const char *sync)
{
	return mmr_sqlrun_texts(
							"SELECT DISTINCT pg_catalog.format('%I.%I: sync \"%s\" already replicates it between the same dbs',"
							"   m.nspname, m.relname, o.name)"
							" FROM mmrepl.sync s JOIN mmrepl.relgroup_rel m ON m.relgroup = s.relgroup"
							" JOIN mmrepl.relgroup_rel n ON n.nspname = m.nspname AND n.relname = m.relname"
							" JOIN mmrepl.sync o ON o.relgroup = n.relgroup AND o.sync_id <> s.sync_id"
							" WHERE s.name = $1 AND 1 < (SELECT count(*) FROM mmrepl.dbgroup_db a"
							"   JOIN mmrepl.dbgroup_db b ON b.node_id = a.node_id"
							"   WHERE a.dbgroup = s.dbgroup AND b.dbgroup = o.dbgroup)"
							" ORDER BY 1", 1, &sync);
}

List *
mmr_synccheck_problems(const char *sync, bool deep)
{
	char	   *dbgroup = mmr_sqlrun_text("SELECT dbgroup FROM mmrepl.sync WHERE name = $1", 1, &sync);
	char	   *members = mmr_sqlrun_text(
										  "SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object("
										  " 'n', r.nspname, 'r', r.relname, 'k', r.kind, 'i', r.key_index,"
										  " 's', CASE WHEN r.kind = 'r' THEN coalesce(r.conflict_strategy, s.conflict_strategy) END)"
										  " ORDER BY r.nspname, r.relname), '[]')"
										  " FROM mmrepl.sync s JOIN mmrepl.relgroup_rel g ON g.relgroup = s.relgroup"
										  " JOIN mmrepl.rel r ON r.nspname = g.nspname AND r.relname = g.relname"
										  " WHERE s.name = $1", 1, &sync);
	StringInfoData all;
	const char *arg;
	ListCell   *lc;

	initStringInfo(&all);
	appendStringInfoChar(&all, '[');
	foreach(lc, mmr_dblist_node_ids(dbgroup))
		describe_on(&all, lfirst_int(lc), members, deep);
	appendStringInfoChar(&all, ']');

	arg = all.data;
	return list_concat(overlaps(sync),
					   mmr_sqlrun_texts("SELECT mmrepl._compare_members($1::jsonb)", 1, &arg));
}

void
mmr_synccheck_require(const char *sync)
{
	List	   *problems = mmr_synccheck_problems(sync, false);
	StringInfoData detail;
	ListCell   *lc;

	if (problems == NIL)
		return;
	initStringInfo(&detail);
	foreach(lc, problems)
		appendStringInfo(&detail, "%s%s", detail.len ? "\n" : "", (char *) lfirst(lc));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("sync \"%s\" cannot replicate what it is to hold", sync),
			 errdetail_internal("%s", detail.data),
			 errhint("Make it the same on all dbs of the sync, each table with a key, or leave out what is named here with mmrepl.remove_table() or mmrepl.remove_sequence().")));
}

static List *
require_all(List *syncs)
{
	List	   *ids = NIL;
	ListCell   *lc;

	foreach(lc, syncs)
	{
		const char *sync = lfirst(lc);

		mmr_synccheck_require(sync);
		ids = list_concat_unique_int(ids,
									 mmr_dblist_node_ids(mmr_sqlrun_text("SELECT dbgroup FROM mmrepl.sync WHERE name = $1", 1, &sync)));
	}
	return ids;
}

List *
mmr_synccheck_require_relgroup(const char *relgroup)
{
	return require_all(mmr_sqlrun_texts("SELECT name FROM mmrepl.sync WHERE relgroup = $1 ORDER BY sync_id",
										1, &relgroup));
}

List *
mmr_synccheck_require_dbgroup(const char *dbgroup)
{
	return require_all(mmr_sqlrun_texts("SELECT name FROM mmrepl.sync WHERE dbgroup = $1 ORDER BY sync_id",
										1, &dbgroup));
}
