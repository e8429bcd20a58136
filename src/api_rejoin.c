/*-------------------------------------------------------------------------
 * api_rejoin.c
 *	  SQL: a db comes back as a new node (M3).
 *
 * Floor 11.
 * Reads and writes: all of mmrepl's tables; on another db, through it, the
 * configuration of all.
 * Runs in: client backends.
 *
 * What this database was as a node is over: numbers of its transactions mean
 * other things now, or nobody keeps any more what it would need.  So it takes
 * the name and the place of the node it was, under a new number, and joins
 * (join.h).  Another db makes that configuration; it is committed there and
 * on the others just before it is here, and calling again replaces it once
 * more.
 *
 * Invariant: a database takes the place only of itself: who answers to the
 * connection string is the server that asks.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "capture.h"
#include "catalog.h"
#include "clock.h"
#include "config.h"
#include "errors.h"
#include "guc.h"
#include "life.h"
#include "membership.h"
#include "names.h"
#include "node.h"
#include "progress.h"
#include "remote.h"
#include "shared.h"
#include "sqlrun.h"
#include "stratinput.h"
#include "wake.h"

#define WAIT_VIA	20000		/* ms: it locks all the others */

PG_FUNCTION_INFO_V1(mmrepl_rejoin);
PG_FUNCTION_INFO_V1(mmrepl_replace_db);
PG_FUNCTION_INFO_V1(mmrepl_confirm_identity);

static const char *const sql_self =
"SELECT (pg_control_system()).system_identifier,"
" (SELECT oid FROM pg_database WHERE datname = current_database()),"
" extract(epoch FROM pg_postmaster_start_time())::text";

/* Who is a source, as the others have it (here that may be long ago), and what the one who is asked has of whom. */
#define OTHERS_SQL \
	"SELECT pg_catalog.jsonb_build_object('sources'," \
	" (SELECT coalesce(pg_catalog.jsonb_agg(g.node_id), '[]') FROM mmrepl.dbgroup_db g WHERE g.role <> 'target' AND NOT g.needs_resync), 'has'," \
	" (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('sync_id', p.sync_id, 'author', p.source_node, 'has', p.position)), '[]')" \
	" FROM mmrepl.progress p JOIN mmrepl._part x ON x.sync_id = p.sync_id AND x.role <> 'target'))"

/* ---- the db that is asked ---- */

/* ERROR unless the server at the db's connection string is the one that asks. */
static void
require_asker(MmrNode *node, const char *sysid, const char *dboid, const char *started)
{
	MmrLink    *link = mmr_link_open(node->conninfo, "config", mmr_guc_connect_timeout);
	PGresult   *result = mmr_link_exec(link, sql_self, 0, NULL);
	bool		same = strcmp(PQgetvalue(result, 0, 0), sysid) == 0 &&
		strcmp(PQgetvalue(result, 0, 1), dboid) == 0 && strcmp(PQgetvalue(result, 0, 2), started) == 0;

	PQclear(result);
	mmr_link_close(link);
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("another server answers to the connection string of db \"%s\"", node->name),
				 errdetail("The one that asks to rejoin as it may be a copy of it."),
				 errhint("If it is: DROP EXTENSION mmrepl in the copy. If it is to take that place: stop the other one, or correct the connection string here with mmrepl.update_db().")));
}

/*
 * mmrepl._replace_db(name text, system_identifier int8, database_oid oid,
 * started text, copy_from text, OUT node_id int4, OUT document jsonb)
 */
Datum
mmrepl_replace_db(PG_FUNCTION_ARGS)
{
	const char *name = mmr_names_name(fcinfo, 0, "name");
	const char *sysid = psprintf(INT64_FORMAT, PG_GETARG_INT64(1));
	const char *dboid = psprintf("%u", PG_GETARG_OID(2));
	const char *started = mmr_names_text(fcinfo, 3, "started");
	const char *copy_from = mmr_names_optional(fcinfo, 4);
	const char *args[5];
	MmrNode    *node;
	char	   *sync;
	char	  **row;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	mmr_shared_require();
	mmr_membership_refresh();
	node = mmr_membership_node_by_name(name);
	if (node == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("db \"%s\" does not exist any more", name),
				 errhint("It was removed: DROP EXTENSION mmrepl on it, and add it with mmrepl.add_db() on another db.")));
	if (node->id == mmr_membership_my_id())
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("db \"%s\" cannot ask itself", name)));
	require_asker(node, sysid, dboid, started);

	mmr_config_begin_without(node->id);
	if (copy_from != NULL)
		mmr_names_require("db", copy_from);
	args[0] = psprintf("%d", node->id);
	args[1] = sysid;
	args[2] = dboid;
	args[3] = copy_from;
	row = mmr_sqlrun_row("UPDATE mmrepl.local_node SET next_node_id = next_node_id + 1 RETURNING next_node_id - 1", 0, NULL);
	args[4] = row[0];
	mmr_sqlrun_exec("INSERT INTO mmrepl.db (node_id, name, conninfo, system_identifier, database_oid)"
					" SELECT $4::int4, '', conninfo, $2::int8, $3::oid FROM mmrepl.db WHERE node_id = $1::int4",
					4, (const char *const[]) {args[0], args[1], args[2], args[4]});
	mmr_sqlrun_exec("UPDATE mmrepl.dbgroup_db g SET node_id = $3::int4, needs_resync = false, copy = 1, was = 0,"
					" copy_from = (SELECT d.node_id FROM mmrepl.db d WHERE d.name = $2),"
					" since = CASE WHEN EXISTS (SELECT FROM mmrepl.sync s WHERE s.dbgroup = g.dbgroup) THEN -1 ELSE 0 END"
					" WHERE node_id = $1::int4", 3, (const char *const[]) {args[0], args[3], args[4]});
	sync = mmr_sqlrun_text("SELECT s.name FROM mmrepl.sync s JOIN mmrepl.dbgroup_db g ON g.dbgroup = s.dbgroup AND g.node_id = $1::int4"
						   " WHERE NOT EXISTS (SELECT FROM mmrepl.dbgroup_db o WHERE o.dbgroup = s.dbgroup AND o.node_id <> g.node_id"
						   "  AND o.role <> 'target' AND NOT o.needs_resync)", 1, &args[4]);
	if (sync != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no db can give db \"%s\" a copy of sync \"%s\"", name, sync),
				 errhint("Make another db a source of it first, with mmrepl.update_dbgroup(), or remove the sync.")));
	mmr_stratinput_replace(args[0], args[4]);
	mmr_sqlrun_exec("DELETE FROM mmrepl.db WHERE node_id = $1::int4", 1, args);
	mmr_sqlrun_exec("UPDATE mmrepl.db SET name = $2 WHERE node_id = $1::int4", 2, (const char *const[]) {args[4], name});
	mmr_config_publish(NIL);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int32GetDatum(pg_strtoint32(args[4]));
	values[1] = DirectFunctionCall1(jsonb_in, CStringGetDatum(mmr_sqlrun_text("SELECT mmrepl._config_document()", 0, NULL)));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* ---- the db that comes back ---- */

/* The db to ask: that one, or the first that answers. */
static MmrRemote *
find_via(int32 my_id, const char *via)
{
	MemoryContext cxt = CurrentMemoryContext;
	MmrRemote  *volatile remote = NULL;
	ErrorData  *volatile error = NULL;
	ListCell   *lc;

	foreach(lc, mmr_membership_nodes())
	{
		MmrNode    *node = lfirst(lc);

		if (node->id == my_id || remote != NULL || (via != NULL && strcmp(via, node->name) != 0))
			continue;
		PG_TRY();
		{
			remote = mmr_remote_begin(node->id, node->name, node->conninfo, WAIT_VIA);
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(cxt);
			error = CopyErrorData();
			if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || via != NULL)
				PG_RE_THROW();
			FlushErrorState();
		}
		PG_END_TRY();
	}
	if (remote == NULL && error != NULL)
		ThrowErrorData(error);
	if (remote == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("this database knows no other db to ask"),
				 errhint("DROP EXTENSION mmrepl here, and add this database with mmrepl.add_db() on another db.")));
	return remote;
}

/* mmrepl.rejoin(via text, copy_from text) */
Datum
mmrepl_rejoin(PG_FUNCTION_ARGS)
{
	const char *via = mmr_names_optional(fcinfo, 0);
	const char *args[5];
	char	   *node_id;
	char	  **self;
	char	   *kept;
	MmrRemote  *remote;
	PGresult   *result;
	char	   *doc;

	mmr_shared_require();
	mmr_catalog_require();
	PreventCommandDuringRecovery("mmrepl.rejoin()");
	/* what was written while it waits for writers is to be kept, too */
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s must be called in a READ COMMITTED transaction", "mmrepl.rejoin()")));
	if (!has_privs_of_role(GetUserId(), mmr_catalog_owner()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to change mmrepl's configuration"),
				 errhint("Only superusers and members of the role that owns the extension may do that.")));
	node_id = mmr_sqlrun_text("SELECT node_id FROM mmrepl.local_node FOR UPDATE", 0, NULL);
	mmr_membership_invalidate();
	mmr_membership_refresh();
	if (node_id == NULL || mmr_membership_node(pg_strtoint32(node_id)) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not a db"),
				 errhint("Add it with mmrepl.add_db() on a db that is.")));
	args[0] = pstrdup(mmr_membership_node(pg_strtoint32(node_id))->name);
	remote = find_via(pg_strtoint32(node_id), via);

	/* nobody writes from here until this db has joined again (closed.h) */
	mmr_capture_prepare_clock();
	mmr_sqlrun_exec("SELECT mmrepl._hold_writers()", 0, NULL);
	mmr_sqlrun_exec("INSERT INTO mmrepl.kept (nspname, relname, key, content) VALUES ('', '', NULL, NULL)", 0, NULL);
	result = mmr_remote_exec(remote, OTHERS_SQL, 0, NULL);
	args[1] = PQgetvalue(result, 0, 0);
	kept = mmr_sqlrun_text("SELECT mmrepl._keep_unsent($1::jsonb)", 1, args + 1);
	PQclear(result);
	mmr_sqlrun_exec("SET LOCAL lock_timeout = '10s'", 0, NULL);
	/* the janitor has it for a moment when it empties the log */
	mmr_sqlrun_exec("LOCK TABLE mmrepl.clock IN SHARE ROW EXCLUSIVE MODE", 0, NULL);
	(void) mmr_progress_note_ts(mmr_clock_last());
	mmr_sqlrun_exec("SELECT mmrepl._forget_all()", 0, NULL);

	mmr_life_begin_anew();

	self = mmr_sqlrun_row(sql_self, 0, NULL);
	args[1] = self[0];
	args[2] = self[1];
	args[3] = self[2];
	args[4] = mmr_names_optional(fcinfo, 1);
	result = mmr_remote_exec(remote, "SELECT node_id, document FROM mmrepl._replace_db($1, $2::int8, $3::oid, $4, $5)", 5, args);
	node_id = pstrdup(PQgetvalue(result, 0, 0));
	doc = pstrdup(PQgetvalue(result, 0, 1));
	PQclear(result);
	mmr_config_take(doc, pg_strtoint32(node_id));
	mmr_wake_end_apply_at_commit();
	ereport(NOTICE,
			(errmsg("this database joins again as node %s", node_id),
			 errdetail("%s rows written here that no other db has confirmed are kept until the copy is in.", kept),
			 errhint("See the view status.")));
	PG_RETURN_VOID();
}

/* mmrepl.confirm_identity() */
Datum
mmrepl_confirm_identity(PG_FUNCTION_ARGS)
{
	char	   *refused;

	mmr_shared_require();
	mmr_catalog_require();
	PreventCommandDuringRecovery("mmrepl.confirm_identity()");
	mmr_node_check_place();
	refused = mmr_sqlrun_text("SELECT refused FROM mmrepl.local_node FOR UPDATE", 0, NULL);
	mmr_membership_refresh();
	if (mmr_membership_my_id() != 0)
		mmr_life_confirm(refused);
	mmr_node_confirm();
	mmr_wake_at_commit();		/* workers gave up until someone looks */
	PG_RETURN_VOID();
}
