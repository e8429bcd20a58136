/*-------------------------------------------------------------------------
 * api_db.c
 *	  SQL: dbs and groups of dbs.
 *
 * Floor 11.
 * Reads and writes: db, dbgroup, dbgroup_db, local_node; on a db that is
 * added: CREATE EXTENSION.
 * Runs in: client backends.
 *
 * Invariant: a connection string is stored and used, and never gets into a
 * message or, by an error, into the server's log.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "config.h"
#include "dblist.h"
#include "errors.h"
#include "guc.h"
#include "joining.h"
#include "leaving.h"
#include "membership.h"
#include "mmrepl.h"
#include "names.h"
#include "node.h"
#include "remote.h"
#include "shared.h"
#include "sqlrun.h"
#include "stratinput.h"
#include "synccheck.h"

#define WAIT_NEW_DB		8000	/* ms */

/* What a database says about itself before anything is done there. */
typedef struct Probe
{
	int64		system_identifier;
	Oid			database_oid;
	bool		this_server;	/* same postmaster, same start */
	bool		standby;
	bool		preloaded;
	bool		available;		/* the package is there */
	bool		installed;		/* the extension is there */
	char	   *encoding;
	int			version_num;
} Probe;

PG_FUNCTION_INFO_V1(mmrepl_add_db);
PG_FUNCTION_INFO_V1(mmrepl_update_db);
PG_FUNCTION_INFO_V1(mmrepl_remove_db);
PG_FUNCTION_INFO_V1(mmrepl_add_dbgroup);
PG_FUNCTION_INFO_V1(mmrepl_update_dbgroup);
PG_FUNCTION_INFO_V1(mmrepl_remove_dbgroup);

/*
 * A server that was not given the library at start has no postmaster-level
 * settings of it in pg_settings; a line in postgresql.conf alone makes none.
 */
static const char *const sql_probe =
"SELECT (pg_control_system()).system_identifier,"
" (SELECT oid FROM pg_database WHERE datname = current_database()),"
" extract(epoch FROM pg_postmaster_start_time())::text,"
" pg_is_in_recovery(),"
" EXISTS (SELECT FROM pg_settings WHERE name = 'mmrepl.max_databases'),"
" EXISTS (SELECT FROM pg_available_extensions WHERE name = 'mmrepl'),"
" EXISTS (SELECT FROM pg_extension WHERE extname = 'mmrepl'),"
" (SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()),"
" current_setting('server_version_num')";

/* ---- keeping connection strings out of the log ---- */

/* Also says what to do about a connection that fails, once we are that far. */
static void
guard_statement(void *arg)
{
	int			class = ERRCODE_TO_CATEGORY(geterrcode());
	const bool *connecting = arg;

	errhidestmt(true);
	if (!*connecting)
		return;
	if (class == ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_EXCEPTION))
		errhint("Is the server running, and does it accept connections from this one? The connection string is used by the server's own user, here and on the other dbs.");
	else if (class == ERRCODE_TO_CATEGORY(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION))
		errhint("Check user and password in the connection string, and pg_hba.conf of that server.");
	else if (geterrcode() == ERRCODE_INVALID_CATALOG_NAME)
		errhint("Check dbname in the connection string, or create that database first.");
	else if (geterrcode() == ERRCODE_INSUFFICIENT_PRIVILEGE)
		errhint("The role in the connection string creates the extension there, so it must be a superuser, or a superuser must have created it before.");
}

/* ---- looking at a database ---- */

static Probe *
probe(MmrRemote *remote)
{
	PGresult   *result = mmr_remote_exec(remote, sql_probe, 0, NULL);
	Probe	   *p = palloc0(sizeof(Probe));
	char	   *started = mmr_sqlrun_text("SELECT extract(epoch FROM pg_postmaster_start_time())::text", 0, NULL);
	int64		sysid;
	Oid			dboid;
	int32		timeline;

	p->system_identifier = pg_strtoint64(PQgetvalue(result, 0, 0));
	p->database_oid = (Oid) strtoul(PQgetvalue(result, 0, 1), NULL, 10);
	mmr_node_identity(&sysid, &dboid, &timeline);
	p->this_server = sysid == p->system_identifier &&
		strcmp(PQgetvalue(result, 0, 2), started) == 0;
	p->standby = PQgetvalue(result, 0, 3)[0] == 't';
	p->preloaded = PQgetvalue(result, 0, 4)[0] == 't';
	p->available = PQgetvalue(result, 0, 5)[0] == 't';
	p->installed = PQgetvalue(result, 0, 6)[0] == 't';
	p->encoding = pstrdup(PQgetvalue(result, 0, 7));
	p->version_num = pg_strtoint32(PQgetvalue(result, 0, 8));
	PQclear(result);
	return p;
}

static bool
is_this_database(const Probe *p)
{
	return p->this_server && p->database_oid == MyDatabaseId;
}

/* One database under two names, or a physical copy of one that takes part. */
static void
refuse_known(const Probe *p, const char *name)
{
	const char *args[2] = {psprintf("%lld", (long long) p->system_identifier),
	psprintf("%u", p->database_oid)};
	char	   *other = mmr_sqlrun_text("SELECT name FROM mmrepl.db WHERE system_identifier = $1::int8"
										" AND database_oid = $2::oid", 2, args);
	int64		sysid;
	Oid			dboid;
	int32		timeline;

	mmr_node_identity(&sysid, &dboid, &timeline);
	if (!p->this_server && p->system_identifier == sysid && p->database_oid == dboid)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("db \"%s\" is a physical copy of this database", name),
				 errdetail("Both servers have the same system identifier."),
				 errhint("Make that server with initdb, and load the data by pg_dump or by the initial copy of a sync.")));
	if (other)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("db \"%s\" is the same database as db \"%s\"", name, other),
				 errhint("A database takes part under one name. See mmrepl.update_db() to change its name or connection string.")));
}

static void
check_server(const Probe *p, const char *name)
{
	if (p->version_num < 150000)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the server of db \"%s\" is older than PostgreSQL 15", name)));
	if (p->standby)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("the server of db \"%s\" is a standby", name),
				 errhint("Name the primary in the connection string.")));
	if (!p->available)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("mmrepl is not installed on the server of db \"%s\"", name),
				 errhint("Install the package there, add mmrepl to its shared_preload_libraries and restart it.")));
	if (!p->preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_NOT_PRELOADED),
				 errmsg("mmrepl is not preloaded on the server of db \"%s\"", name),
				 errhint("Add mmrepl to shared_preload_libraries there and restart that server.")));
	if (strcmp(p->encoding, GetDatabaseEncodingName()) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("db \"%s\" has another encoding than this database", name),
				 errdetail("It is %s there and %s here.", p->encoding, GetDatabaseEncodingName()),
				 errhint("Create that database with ENCODING '%s'.", GetDatabaseEncodingName())));
}

/* Creates the extension there, or sees that the one that is there can be taken over. */
static void
prepare_extension(MmrRemote *remote, const Probe *p, const char *name)
{
	PGresult   *result;
	int			protocol;

	if (!p->installed)
		PQclear(mmr_remote_exec(remote, "CREATE EXTENSION mmrepl", 0, NULL));

	result = mmr_remote_exec(remote,
							 "SELECT EXISTS (SELECT FROM pg_proc WHERE proname = '_protocol_version'"
							 " AND pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'mmrepl'))",
							 0, NULL);
	protocol = PQgetvalue(result, 0, 0)[0] == 't' ? -1 : 0;
	PQclear(result);
	if (protocol < 0)
	{
		result = mmr_remote_exec(remote, "SELECT mmrepl._protocol_version()", 0, NULL);
		protocol = pg_strtoint32(PQgetvalue(result, 0, 0));
		PQclear(result);
	}
	if (protocol != MMR_PROTOCOL_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_PROTOCOL),
				 errmsg("db \"%s\" has another version of mmrepl", name),
				 errdetail("Its protocol version is %d, that of this database is %d.",
						   protocol, MMR_PROTOCOL_VERSION),
				 errhint("Install the same version of mmrepl on both servers, and ALTER EXTENSION mmrepl UPDATE in both databases.")));

	result = mmr_remote_exec(remote,
							 "SELECT node_id, config_id, config_version, config_author"
							 " FROM mmrepl._config_state(true)", 0, NULL);
	remote->its_id = PQgetisnull(result, 0, 0) ? 0 : pg_strtoint32(PQgetvalue(result, 0, 0));
	remote->config_version = pg_strtoint64(PQgetvalue(result, 0, 2));
	remote->config_author = pg_strtoint32(PQgetvalue(result, 0, 3));
	if (remote->its_id != 0 || !PQgetisnull(result, 0, 1))
	{
		PQclear(result);
		ereport(ERROR,
				(errcode(ERRCODE_MMR_CONFIG),
				 errmsg("db \"%s\" already has a configuration of its own", name),
				 errhint("Take it out there with mmrepl.remove_db(), or DROP EXTENSION mmrepl there; or add this database from there.")));
	}
	PQclear(result);
}

/* ---- dbs ---- */

static int32
next_node_id(void)
{
	return pg_strtoint32(mmr_sqlrun_text("UPDATE mmrepl.local_node SET next_node_id = next_node_id + 1"
										 " RETURNING next_node_id - 1", 0, NULL));
}

static void
insert_db(int32 node_id, const char *name, const char *conninfo, const Probe *p)
{
	const char *args[5] = {psprintf("%d", node_id), name, conninfo,
		psprintf("%lld", (long long) p->system_identifier),
	psprintf("%u", p->database_oid)};

	mmr_sqlrun_exec("INSERT INTO mmrepl.db (node_id, name, conninfo, system_identifier, database_oid)"
					" VALUES ($1::int4, $2, $3, $4::int8, $5::oid)", 5, args);
}

/* Where a db that is added goes, dbgroup NULL: nowhere yet. */
typedef struct Place
{
	const char *dbgroup;
	const char *role;
	int			onetimecopy;	/* -1: not given */
	const char *copy_from;
} Place;

static void
add_db(const char *name, const char *conninfo, const Place *place, bool *connecting)
{
	int32		node_id;
	MmrRemote  *remote;
	Probe	   *p;
	List	   *required = NIL;
	List	   *empty = NIL;

	mmr_config_begin();
	mmr_names_require_new("db", name);
	if (place->dbgroup != NULL)
		mmr_names_require("dbgroup", place->dbgroup);
	mmr_link_check_conninfo(conninfo);
	node_id = next_node_id();
	*connecting = true;
	remote = mmr_remote_begin(node_id, name, conninfo, WAIT_NEW_DB);
	p = probe(remote);
	refuse_known(p, name);

	if (is_this_database(p))
	{
		const char *arg = psprintf("%d", node_id);

		mmr_remote_forget(remote);
		mmr_sqlrun_exec("UPDATE mmrepl.local_node SET node_id = $1::int4", 1, &arg);
	}
	else
	{
		if (mmr_membership_my_id() == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this database is not a db yet"),
					 errdetail("The connection string of \"%s\" leads to another database.", name),
					 errhint("Add this database first: SELECT mmrepl.add_db('name', 'host=... dbname=...'), with a host that the other dbs can reach.")));
		check_server(p, name);
		prepare_extension(remote, p, name);
		required = list_make1_int(node_id);
	}
	insert_db(node_id, name, conninfo, p);
	if (place->dbgroup != NULL)
	{
		*connecting = false;
		mmr_dblist_add(place->dbgroup, name, place->role);
		required = list_concat(required, mmr_synccheck_require_dbgroup(place->dbgroup));
		empty = mmr_joining_settle(place->dbgroup, place->onetimecopy, place->copy_from);
	}
	mmr_config_publish(required);
	mmr_joining_require_empty(place->dbgroup, empty);
}

/* mmrepl.add_db(name text, conninfo text, dbgroup text, role text, onetimecopy int4, copy_from text) */
Datum
mmrepl_add_db(PG_FUNCTION_ARGS)
{
	bool		connecting = false;
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = guard_statement,
		.arg = &connecting
	};

	Place		place = {
		.dbgroup = mmr_names_optional_name(fcinfo, 2, "dbgroup"),
		.role = mmr_names_text(fcinfo, 3, "role"),
		.onetimecopy = PG_ARGISNULL(4) ? -1 : PG_GETARG_INT32(4),
		.copy_from = mmr_names_optional(fcinfo, 5)
	};

	error_context_stack = &context;
	add_db(mmr_names_name(fcinfo, 0, "name"), mmr_names_text(fcinfo, 1, "conninfo"), &place, &connecting);
	error_context_stack = context.previous;
	PG_RETURN_VOID();
}

/* The database that the new connection string leads to must be the one we know. */
static void
change_conninfo(const char *name, const char *conninfo)
{
	MmrNode    *node = mmr_membership_node_by_name(name);
	const char *args[2] = {name, conninfo};
	MmrRemote  *old = mmr_remote_find(node->id);
	MmrRemote  *remote;
	Probe	   *p;

	mmr_link_check_conninfo(conninfo);
	if (old)
		mmr_remote_forget(old);
	remote = mmr_remote_begin(node->id, name, conninfo, WAIT_NEW_DB);
	p = probe(remote);
	if (p->system_identifier != node->system_identifier ||
		p->database_oid != node->database_oid)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("the new connection string of db \"%s\" leads to another database", name),
				 errhint("To put another database in its place, remove the db and add it again.")));
	if (is_this_database(p))
		mmr_remote_forget(remote);
	else
	{
		check_server(p, name);
		PQclear(mmr_remote_exec(remote, "SELECT mmrepl._config_state(true)", 0, NULL));
	}
	mmr_sqlrun_exec("UPDATE mmrepl.db SET conninfo = $2 WHERE name = $1", 2, args);
}

static void
update_db(const char *name, const char *conninfo, const char *new_name, bool *connecting)
{
	mmr_config_begin();
	mmr_names_require("db", name);
	if (new_name && strcmp(new_name, name) != 0)
		mmr_names_require_new("db", new_name);
	*connecting = (conninfo != NULL);
	if (conninfo)
		change_conninfo(name, conninfo);
	if (new_name)
	{
		const char *args[2] = {name, new_name};

		mmr_sqlrun_exec("UPDATE mmrepl.db SET name = $2 WHERE name = $1", 2, args);
	}
	mmr_config_publish(NIL);
}

/* mmrepl.update_db(name text, conninfo text, new_name text) */
Datum
mmrepl_update_db(PG_FUNCTION_ARGS)
{
	bool		connecting = false;
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = guard_statement,
		.arg = &connecting
	};

	error_context_stack = &context;
	update_db(mmr_names_name(fcinfo, 0, "name"), mmr_names_optional(fcinfo, 1),
			  mmr_names_optional_name(fcinfo, 2, "new_name"), &connecting);
	error_context_stack = context.previous;
	PG_RETURN_VOID();
}

/* mmrepl.remove_db(name text, force bool, timeout float8) */
Datum
mmrepl_remove_db(PG_FUNCTION_ARGS)
{
	const char *name = mmr_names_name(fcinfo, 0, "name");
	bool		force = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	double		timeout = PG_ARGISNULL(2) ? 60 : PG_GETARG_FLOAT8(2);
	MmrNode    *node;
	int32		node_id;

	/* before anything is locked: what is behind may take its time */
	mmr_shared_require();
	mmr_membership_refresh();
	node = mmr_membership_node_by_name(name);
	if (!force && node != NULL && mmr_leaving_sends(node->id))
	{
		mmr_leaving_require_running(node->id, name, NULL);
		mmr_leaving_drain(name, node->conninfo, timeout);
	}

	mmr_config_begin();
	mmr_names_require("db", name);
	node = mmr_membership_node_by_name(name);
	node_id = node->id;
	if (!force && mmr_leaving_sends(node_id))
	{
		mmr_leaving_require_running(node_id, name, NULL);
		mmr_config_require(node_id);
		mmr_leaving_hold_writers(node_id);
		mmr_leaving_drain(name, node->conninfo, timeout);
	}
	mmr_leaving_take_out(node_id, name, force);
	mmr_stratinput_replace(psprintf("%d", node_id), NULL);
	mmr_sqlrun_exec("DELETE FROM mmrepl.db WHERE name = $1", 1, &name);
	mmr_config_publish(NIL);
	PG_RETURN_VOID();
}

/* ---- groups of dbs ---- */

/* mmrepl.add_dbgroup(name text, dbs text[]) */
Datum
mmrepl_add_dbgroup(PG_FUNCTION_ARGS)
{
	const char *name = mmr_names_name(fcinfo, 0, "name");
	List	   *dbs = mmr_names_array(fcinfo, 1, "dbs");

	mmr_config_begin();
	mmr_names_require_new("dbgroup", name);
	mmr_sqlrun_exec("INSERT INTO mmrepl.dbgroup (name) VALUES ($1)", 1, &name);
	mmr_dblist_store(name, dbs);
	mmr_config_publish(NIL);
	PG_RETURN_VOID();
}

/* Those that are to be sources no more deliver what they have; locked: their clients wait, until this ends. */
static void
drain_those_who_go(const char *dbgroup, List *dbs, double timeout, bool locked)
{
	ListCell   *lc;

	foreach(lc, mmr_dblist_sources_out(dbgroup, dbs))
	{
		const char *name = lfirst(lc);
		MmrNode    *node = mmr_membership_node_by_name(name);

		if (node == NULL)
			continue;
		mmr_leaving_require_running(node->id, name, dbgroup);
		if (locked)
		{
			mmr_config_require(node->id);
			mmr_leaving_hold_writers(node->id);
		}
		mmr_leaving_drain(name, node->conninfo, timeout);
	}
}

/*
 * mmrepl.update_dbgroup(name text, dbs text[], new_name text, onetimecopy int4, copy_from text,
 * force bool, timeout float8)
 */
Datum
mmrepl_update_dbgroup(PG_FUNCTION_ARGS)
{
	const char *name = mmr_names_name(fcinfo, 0, "name");
	List	   *dbs = mmr_names_array(fcinfo, 1, "dbs");
	const char *args[2] = {name, mmr_names_optional_name(fcinfo, 2, "new_name")};
	bool		drain = !PG_ARGISNULL(1) && (PG_ARGISNULL(5) || !PG_GETARG_BOOL(5));
	double		timeout = PG_ARGISNULL(6) ? 60 : PG_GETARG_FLOAT8(6);
	List	   *required = NIL;
	List	   *empty = NIL;

	/* before anything is locked: what is behind may take its time */
	mmr_shared_require();
	mmr_membership_refresh();
	if (drain && mmr_names_exists("dbgroup", name))
		drain_those_who_go(name, dbs, timeout, false);

	mmr_config_begin();
	mmr_names_require("dbgroup", name);
	if (!PG_ARGISNULL(1))
	{
		if (drain)
			drain_those_who_go(name, dbs, timeout, true);
		mmr_dblist_store(name, dbs);
		if (list_length(mmr_dblist_node_ids(name)) < 2 &&
			mmr_sqlrun_exec("SELECT 1 FROM mmrepl.sync WHERE dbgroup = $1", 1, &name) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("dbgroup \"%s\" is used by a sync and needs at least two dbs", name)));
		required = mmr_synccheck_require_dbgroup(name);
		empty = mmr_joining_settle(name, PG_ARGISNULL(3) ? -1 : PG_GETARG_INT32(3), mmr_names_optional(fcinfo, 4));
	}
	if (args[1] && strcmp(args[1], name) != 0)
	{
		mmr_names_require_new("dbgroup", args[1]);
		mmr_sqlrun_exec("UPDATE mmrepl.dbgroup SET name = $2 WHERE name = $1", 2, args);
	}
	mmr_config_publish(required);
	mmr_joining_require_empty(args[1] ? args[1] : name, empty);
	PG_RETURN_VOID();
}

/* mmrepl.remove_dbgroup(name text) */
Datum
mmrepl_remove_dbgroup(PG_FUNCTION_ARGS)
{
	const char *name = mmr_names_name(fcinfo, 0, "name");
	List	   *users;

	mmr_config_begin();
	mmr_names_require("dbgroup", name);
	users = mmr_sqlrun_texts("SELECT name FROM mmrepl.sync WHERE dbgroup = $1 ORDER BY sync_id", 1, &name);
	if (users != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("dbgroup \"%s\" is used by a sync", name),
				 errdetail("Sync: %s.", mmr_names_quoted(users)),
				 errhint("Remove the sync first, with mmrepl.remove_sync().")));
	mmr_sqlrun_exec("DELETE FROM mmrepl.dbgroup WHERE name = $1", 1, &name);
	mmr_config_publish(NIL);
	PG_RETURN_VOID();
}
