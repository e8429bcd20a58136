/*-------------------------------------------------------------------------
 * config.c
 *	  The configuration as one document that every db holds.
 *
 * Floor 5.
 * Reads and writes: local_node, db, dbgroup, dbgroup_db, rel, relgroup,
 * relgroup_rel, sync, progress, peer_state; on other dbs through
 * mmrepl._config_state, _config_document, _config_receive.
 * Runs in: backends that configure, and pushers (adopt, offer).
 *
 * Order of locks: local_node here, then local_node of the other dbs, all
 * before anything is changed, all with bounded waits.  Of two that configure
 * at once from two dbs, each holding its own, the one with the higher node id
 * gives up first.
 *
 * Invariant: (config_version, config_author) names one content: whoever
 * changes a table of the configuration publishes a higher version in the same
 * transaction.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "attach.h"
#include "catalog.h"
#include "config.h"
#include "confstate.h"
#include "errors.h"
#include "membership.h"
#include "node.h"
#include "remote.h"
#include "sequence.h"
#include "shared.h"
#include "slots.h"
#include "sqlrun.h"
#include "wake.h"

PG_FUNCTION_INFO_V1(mmrepl_protocol_version);
PG_FUNCTION_INFO_V1(mmrepl_config_receive);

/* ---- here ---- */

/*
 * The tables hold another configuration now: make this database what they say.
 * strict: others do that in the same transaction; then only look whether the
 * locks can be had, for nobody may hold any while another still waits.
 */
static void
settle_here(bool strict, int pushers_before)
{
	mmr_sqlrun_exec("SELECT mmrepl._settle_members()", 0, NULL);
	mmr_membership_invalidate();
	mmr_membership_refresh();
	if (strict && mmr_slots_pushers() > pushers_before)
		mmr_slots_check();
	if (strict)
	{
		mmr_attach_probe();
		mmr_sequence_probe();
	}
	else
		mmr_attach_reconcile();
	mmr_sqlrun_exec("SELECT mmrepl._forget_progress()", 0, NULL);
	/* what other dbs count on afterwards must not be lost in a crash */
	(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	mmr_wake_at_commit();
}

/*
 * This database has been taken out: no configuration, as after CREATE
 * EXTENSION.  But which version that was is kept: a db that was away then, and
 * offers the one before, does not take it in again.
 */
static void
reset_here(const MmrConfState *out)
{
	const char *args[2] = {psprintf("%lld", (long long) out->version), psprintf("%d", out->author)};

	mmr_sequence_restore_all();
	mmr_sqlrun_exec("SELECT mmrepl._config_replace('{}')", 0, NULL);
	mmr_sqlrun_exec("UPDATE mmrepl.local_node SET node_id = NULL, config_version = $1::int8, config_author = $2::int4", 2, args);
	settle_here(false, 0);
	mmr_wake_end_apply_at_commit();
}

/* Does the document know this very database under that id? False: it has no such db. */
static bool
document_has_me(const char *doc, int32 node_id, const MmrConfState *mine)
{
	const char *args[2] = {doc, psprintf("%d", node_id)};
	char	  **row = mmr_sqlrun_row("SELECT d->>'system_identifier', d->>'database_oid'"
									 " FROM pg_catalog.jsonb_array_elements($1::jsonb->'db') d"
									 " WHERE d->>'node_id' = $2", 2, args);

	if (row == NULL)
	{
		char	   *self = psprintf("%lld %u", (long long) mine->system_identifier, mine->database_oid);

		/* a rejoin that was committed there and not here: what is kept here is still needed */
		args[1] = self;
		if (mine->node_id != 0 &&
			mmr_sqlrun_row("SELECT 1 FROM pg_catalog.jsonb_array_elements($1::jsonb->'db') d"
						   " WHERE (d->>'system_identifier') || ' ' || (d->>'database_oid') = $2", 2, args) != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_MMR_IDENTITY),
					 errmsg("this database is another node by now for the others"),
					 errdetail("A rejoin was interrupted when the others had heard of it."),
					 errhint("Call mmrepl.rejoin() again.")));
		return false;
	}
	if (row[0] == NULL || row[1] == NULL ||
		pg_strtoint64(row[0]) != mine->system_identifier ||
		(Oid) strtoul(row[1], NULL, 10) != mine->database_oid)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("a configuration was sent to the wrong database"),
				 errdetail("It knows another database as node %d: this one is a copy, or was made anew, or the connection string leads elsewhere.",
						   node_id),
				 errhint("Remove the db with mmrepl.remove_db() and add it again with mmrepl.add_db().")));
	return true;
}

/*
 * Puts a document that came from elsewhere in place of ours.  strict: it is
 * part of a call that changes the configuration on all dbs now; then the
 * caller settles triggers and sequences.  False if we have it already, or a newer one.
 */
static bool
receive(const char *doc, int32 node_id, bool strict)
{
	MmrConfState	   *mine = mmr_confstate_here(MMR_WAIT_REMOTE_SHORT);
	const char *args[2] = {doc, NULL};
	MmrConfState	   *theirs;
	char	  **row;
	int			order;
	int			pushers;

	row = mmr_sqlrun_row("SELECT NULL, $1::jsonb->>'config_id', $1::jsonb->>'version', $1::jsonb->>'author',"
						 " NULL, NULL, $1::jsonb->>'format'", 1, args);
	theirs = mmr_confstate_make(row);
	if (row[6] == NULL || strcmp(row[6], "1") != 0 || theirs->config_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_PROTOCOL),
				 errmsg("configuration document has an unknown format"),
				 errhint("Use the same version of mmrepl on all dbs.")));
	if (mine->config_id != NULL && strcmp(mine->config_id, theirs->config_id) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_CONFIG),
				 errmsg("this database belongs to another configuration"),
				 errhint("Take it out there with mmrepl.remove_db(), or drop and create the extension here.")));
	order = mmr_confstate_compare(theirs, mine);
	/* who only offers it takes ours then */
	if (order == 0 || (order < 0 && !strict))
		return false;
	if (order < 0)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_CONFIG),
				 errmsg("this database holds a newer configuration (version %lld, offered was %lld)",
						(long long) mine->version, (long long) theirs->version)));
	if (mine->node_id != 0 && mine->node_id != node_id)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("a configuration was sent to the wrong database"),
				 errdetail("This is node %d, it was meant for node %d.", mine->node_id, node_id)));

	if (!document_has_me(doc, node_id, mine))
	{
		ereport(LOG,
				(errmsg("this database has been removed from the configuration"),
				 errdetail("It does not replicate any more; its tables stay as they are.")));
		reset_here(theirs);
		return true;
	}

	mmr_membership_refresh();
	pushers = mmr_slots_pushers();
	mmr_sqlrun_exec("SELECT mmrepl._config_replace($1::jsonb)", 1, args);
	args[0] = psprintf("%d", node_id);
	mmr_sqlrun_exec("UPDATE mmrepl.local_node SET node_id = $1::int4", 1, args);
	settle_here(strict, pushers);
	if (!strict)
		mmr_sequence_reconcile();
	return true;
}

void
mmr_config_take(const char *doc, int32 node_id)
{
	(void) receive(doc, node_id, false);
}

/* ---- other dbs ---- */

static char *
document_of(PGresult *result)
{
	char	   *doc = pstrdup(PQgetvalue(result, 0, 0));

	PQclear(result);
	return doc;
}

static void
open_and_lock(MmrNode *node)
{
	int			wait = mmr_membership_my_id() < node->id ? MMR_WAIT_REMOTE : MMR_WAIT_REMOTE_SHORT;
	MmrRemote  *remote = mmr_remote_begin(node->id, node->name, node->conninfo,
										  mmr_shared_my_worker ? wait / MMR_WAIT_WORKER_PART : wait);
	MmrConfState	   *state = mmr_confstate_of_result(mmr_remote_exec(remote, psprintf(MMR_CONFSTATE_SQL, "true"), 0, NULL));

	if (state->system_identifier != node->system_identifier ||
		state->database_oid != node->database_oid ||
		(state->node_id != 0 && state->node_id != node->id))
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("db \"%s\" is not the database that was added", node->name),
				 errdetail("Its connection string leads to another database, or it was made anew."),
				 errhint("Correct the connection string with mmrepl.update_db(), or remove the db and add it again.")));
	remote->config_version = state->version;
	remote->config_author = state->author;
	remote->its_id = state->node_id;
}

/* A db that does not answer is no error here, one that somebody else configures is. */
static void
try_open_and_lock(MmrNode *node)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		open_and_lock(node);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		MmrRemote  *remote;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			error->sqlerrcode == ERRCODE_OUT_OF_MEMORY)
			PG_RE_THROW();
		FlushErrorState();
		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("the configuration is being changed by another session on db \"%s\"",
							node->name),
					 errhint("Wait until that is done and try again.")));
		remote = mmr_remote_find(node->id);
		if (remote)
			mmr_remote_forget(remote);
		mmr_remote_unusable(node->id, node->name, error);
	}
	PG_END_TRY();
}

static void
open_others(int32 my_id, int32 without)
{
	ListCell   *lc;

	foreach(lc, mmr_membership_nodes())
	{
		MmrNode    *node = lfirst(lc);

		if (node->id != my_id && node->id != without && mmr_remote_find(node->id) == NULL)
			try_open_and_lock(node);
	}
}

/* Takes the newest configuration that any db holds, if it is not ours. */
static void
adopt_newest(const MmrConfState *mine)
{
	MmrRemote  *newest = NULL;
	MmrConfState		best = *mine;
	ListCell   *lc;

	foreach(lc, mmr_remote_all())
	{
		MmrRemote  *remote = lfirst(lc);
		MmrConfState		its = {.version = remote->config_version,.author = remote->config_author};

		if (remote->link != NULL && mmr_confstate_compare(&its, &best) > 0)
		{
			newest = remote;
			best.version = its.version;
			best.author = its.author;
		}
	}
	if (newest == NULL)
		return;
	ereport(NOTICE,
			(errmsg("taking over a newer configuration (version %lld) from db \"%s\" first",
					(long long) newest->config_version, newest->name)));
	(void) receive(document_of(mmr_remote_exec(newest, "SELECT mmrepl._config_document()", 0, NULL)),
				   mine->node_id, false);
	mmr_membership_invalidate();
	mmr_membership_refresh();
	if (mmr_membership_my_id() == 0)
		ereport(WARNING,
				(errmsg("this database is not part of the configuration any more: it was removed from another db")));
}

void
mmr_config_begin(void)
{
	mmr_config_begin_without(0);
}

void
mmr_config_begin_without(int32 without)
{
	MmrConfState	   *mine;

	mmr_shared_require();
	mmr_catalog_require();
	PreventCommandDuringRecovery("changing mmrepl's configuration");
	if (!has_privs_of_role(GetUserId(), mmr_catalog_owner()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to change mmrepl's configuration"),
				 errhint("Only superusers and members of the role that owns the extension may do that.")));
	mmr_node_check();

	mine = mmr_confstate_here(MMR_WAIT_LOCAL);
	mmr_membership_invalidate();
	mmr_membership_refresh();
	if (mine->node_id == 0)
		return;
	open_others(mine->node_id, without);
	adopt_newest(mine);
	open_others(mine->node_id, without);
}

void
mmr_config_require(int32 node_id)
{
	MmrRemote  *remote;

	if (node_id == mmr_membership_my_id())
		return;
	remote = mmr_remote_find(node_id);
	if (remote == NULL)
	{
		MmrNode    *node = mmr_membership_node(node_id);

		if (node == NULL)
			elog(ERROR, "no db has node id %d", node_id);
		try_open_and_lock(node);
		remote = mmr_remote_find(node_id);
	}
	PQclear(mmr_remote_exec(remote, "SELECT", 0, NULL));
}

/* Gives the new document to one db, or says why not. */
static void
send_document(MmrRemote *remote, const char *doc, bool required)
{
	const char *args[2] = {doc, psprintf("%d", remote->node_id)};

	if (remote->link != NULL || required)
		PQclear(mmr_remote_exec(remote, "SELECT mmrepl._config_receive($1::jsonb, $2::int4, true)",
								2, args));
	else if (mmr_membership_node(remote->node_id) != NULL)
		ereport(WARNING,
				(errmsg("db \"%s\" cannot be reached: it gets the new configuration when it is back",
						remote->name),
				 errdetail("%s.", remote->error->message)));
	else
		ereport(WARNING,
				(errmsg("db \"%s\" cannot be reached: it does not know that it was removed", remote->name),
				 errdetail("%s.", remote->error->message),
				 errhint("When it is back, drop the extension there.")));
}

/* What is in the tables is the next version, above that one too. */
static void
next_version(int64 newest)
{
	const char *args[1];

	args[0] = psprintf("%lld", (long long) newest);
	mmr_sqlrun_exec("UPDATE mmrepl.local_node SET config_author = coalesce(node_id, 0),"
					" config_version = greatest(config_version, $1::int8) + 1,"
					" config_id = coalesce(config_id, pg_catalog.gen_random_uuid())", 1, args);
	mmr_sqlrun_exec("UPDATE mmrepl.dbgroup_db SET since = (SELECT config_version FROM mmrepl.local_node) WHERE since < 0", 0, NULL);
	mmr_sqlrun_exec("UPDATE mmrepl.sync SET since = (SELECT config_version FROM mmrepl.local_node) WHERE since = -1", 0, NULL);
}

void
mmr_config_publish_here(void)
{
	next_version(0);
	settle_here(false, 0);
}

void
mmr_config_publish(List *required)
{
	int			pushers = mmr_slots_pushers();
	const char *doc;
	List	   *links = NIL;
	List	   *ids = NIL;
	int64		newest = 0;
	int32		my_id = mmr_membership_my_id();
	ListCell   *lc;

	foreach(lc, mmr_remote_all())
		newest = Max(newest, ((MmrRemote *) lfirst(lc))->config_version);
	next_version(newest);
	doc = mmr_sqlrun_text("SELECT mmrepl._config_document()", 0, NULL);
	mmr_membership_invalidate();
	mmr_membership_refresh();

	foreach(lc, mmr_remote_all())
	{
		MmrRemote  *remote = lfirst(lc);

		send_document(remote, doc, list_member_int(required, remote->node_id));
		if (remote->link != NULL && mmr_membership_node(remote->node_id) != NULL)
		{
			links = lappend(links, remote->link);
			ids = lappend_int(ids, remote->node_id);
		}
	}

	if (my_id != 0 && mmr_membership_node(my_id) == NULL)
		reset_here(mmr_confstate_here(0));
	else
	{
		settle_here(true, pushers);
		foreach(lc, links)
			PQclear(mmr_link_exec(lfirst(lc), "SELECT mmrepl._attach_reconcile()", 0, NULL));
		mmr_attach_reconcile();
		mmr_sequence_settle(links, ids);
	}
}

/* ---- the pusher's handshake ---- */

static MmrConfState *
state_of_link(MmrLink *link)
{
	return mmr_confstate_of_result(mmr_link_exec(link, psprintf(MMR_CONFSTATE_SQL, "false"), 0, NULL));
}

bool
mmr_config_adopt(MmrLink *link)
{
	MmrConfState	   *mine = mmr_confstate_here(0);
	MmrConfState	   *theirs = state_of_link(link);

	if (theirs->node_id == 0 || mmr_confstate_compare(theirs, mine) <= 0)
		return false;
	mine = mmr_confstate_here(MMR_WAIT_REMOTE_SHORT);
	if (mine->node_id == 0 || mmr_confstate_compare(theirs, mine) <= 0)
		return false;
	return receive(document_of(mmr_link_exec(link, "SELECT mmrepl._config_document()", 0, NULL)),
				   mine->node_id, false);
}

bool
mmr_config_offer(MmrLink *link, int32 node_id)
{
	MmrConfState	   *mine = mmr_confstate_here(0);
	MmrConfState	   *theirs = state_of_link(link);
	const char *args[2];
	PGresult   *result;
	bool		taken;

	if (mmr_confstate_compare(mine, theirs) <= 0)
		return false;

	/* parameters hold connection strings: they must not get into the log there */
	PQclear(mmr_link_exec(link,
						  "BEGIN; SET LOCAL log_parameter_max_length_on_error = 0;"
						  "SELECT set_config('log_parameter_max_length', '0', true)"
						  " FROM pg_roles WHERE rolname = current_user AND rolsuper", 0, NULL));
	args[0] = mmr_sqlrun_text("SELECT mmrepl._config_document()", 0, NULL);
	args[1] = psprintf("%d", node_id);
	result = mmr_link_exec(link, "SELECT mmrepl._config_receive($1::jsonb, $2::int4, false)", 2, args);
	taken = PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	PQclear(mmr_link_exec(link, "COMMIT", 0, NULL));
	/* or somebody else was there in between */
	return !taken && mmr_config_adopt(link);
}

/* ---- SQL ---- */

/* mmrepl._protocol_version() returns int4 */
Datum
mmrepl_protocol_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(MMR_PROTOCOL_VERSION);
}

/* mmrepl._config_receive(doc jsonb, node_id int4, strict bool) returns bool */
Datum
mmrepl_config_receive(PG_FUNCTION_ARGS)
{
	Jsonb	   *doc = PG_GETARG_JSONB_P(0);

	mmr_shared_require();
	mmr_catalog_require();
	PG_RETURN_BOOL(receive(JsonbToCString(NULL, &doc->root, VARSIZE(doc)),
						   PG_GETARG_INT32(1), PG_GETARG_BOOL(2)));
}
