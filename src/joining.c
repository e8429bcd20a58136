/*-------------------------------------------------------------------------
 * joining.c
 *	  Who is to come into a dbgroup whose syncs run.
 *
 * Floor 6.  Writes dbgroup_db; reads user tables, here and on other dbs.
 * Runs in: backends that configure.
 *
 * Invariant: a db is not put into a running sync with rows that neither the
 * copy replaces nor somebody has said to be right.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"

#include "joining.h"
#include "membership.h"
#include "names.h"
#include "remote.h"
#include "sqlrun.h"

/* Those that this call puts in: their part begins with the version to come. */
#define COMING " FROM mmrepl.dbgroup_db g JOIN mmrepl.db d ON d.node_id = g.node_id WHERE g.dbgroup = $1 AND g.since = -1"

static void
require_empty(const char *dbgroup, int32 node_id)
{
	const char *id = psprintf("%d", node_id);
	const char *arg = mmr_sqlrun_text("SELECT coalesce(pg_catalog.jsonb_agg(DISTINCT pg_catalog.jsonb_build_object('n', r.nspname, 'r', r.relname)), '[]')"
									  " FROM mmrepl.sync s JOIN mmrepl.relgroup_rel m ON m.relgroup = s.relgroup"
									  " JOIN mmrepl.rel r ON r.nspname = m.nspname AND r.relname = m.relname AND r.kind = 'r'"
									  " WHERE s.dbgroup = $1", 1, &dbgroup);
	char	   *filled;

	if (node_id == mmr_membership_my_id() && IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("a db must join a sync in a READ COMMITTED transaction")));
	if (node_id == mmr_membership_my_id())
		filled = mmr_sqlrun_text("SELECT mmrepl._filled_tables($1::jsonb)", 1, &arg);
	else
	{
		PGresult   *result = mmr_remote_exec(mmr_remote_find(node_id), "SELECT mmrepl._filled_tables($1::jsonb)", 1, &arg);

		filled = PQgetisnull(result, 0, 0) ? NULL : pstrdup(PQgetvalue(result, 0, 0));
		PQclear(result);
	}
	if (filled != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tables of db \"%s\" have rows", mmr_sqlrun_text("SELECT name FROM mmrepl.db WHERE node_id = $1::int4", 1, &id)),
				 errdetail("%s.", filled),
				 errhint("onetimecopy => 1 replaces them by what the others have, 2 leaves those tables as they are, 0 copies nothing at all.")));
}

void
mmr_joining_require_empty(const char *dbgroup, List *nodes)
{
	ListCell   *lc;

	foreach(lc, nodes)
		require_empty(dbgroup, lfirst_int(lc));
}

List *
mmr_joining_settle(const char *dbgroup, int onetimecopy, const char *copy_from)
{
	List	   *nodes = NIL;
	const char *args[3] = {dbgroup, copy_from, psprintf("%d", onetimecopy < 0 ? 1 : onetimecopy)};
	ListCell   *lc;

	if (onetimecopy > 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("onetimecopy cannot be %d", onetimecopy),
				 errhint("0: no copy; 1: replace what the new db has; 2: copy into those tables only that are empty there.")));
	if (copy_from != NULL)
	{
		mmr_names_require("db", copy_from);
		if (mmr_sqlrun_exec("SELECT 1 FROM mmrepl.dbgroup_db g JOIN mmrepl.db d ON d.node_id = g.node_id"
							" WHERE g.dbgroup = $1 AND d.name = $2 AND g.role <> 'target' AND g.since <> -1"
							" AND (g.role = 'hub' OR NOT EXISTS (SELECT FROM mmrepl.dbgroup_db h WHERE h.dbgroup = $1 AND h.role = 'hub'))", 2, args) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("db \"%s\" cannot give the initial copy", copy_from),
					 errhint("Name one that is a source of dbgroup \"%s\" already; the hub, if it has one.", dbgroup)));
	}
	if (onetimecopy < 0)
		foreach(lc, mmr_sqlrun_texts("SELECT d.node_id" COMING " ORDER BY g.pos", 1, &dbgroup))
			nodes = lappend_int(nodes, pg_strtoint32(lfirst(lc)));
	/* to be told before anything is changed; and then again, when nobody writes */
	mmr_joining_require_empty(dbgroup, nodes);
	mmr_sqlrun_exec("UPDATE mmrepl.dbgroup_db g SET copy = $3::int2,"
					" copy_from = (SELECT d.node_id FROM mmrepl.db d WHERE d.name = $2)"
					" WHERE g.dbgroup = $1 AND g.since = -1", 3, args);
	return nodes;
}
