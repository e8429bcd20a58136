/*-------------------------------------------------------------------------
 * leaving.c
 *	  A db that is to be removed.
 *
 * Floor 6.  Reads the configuration; writes dbgroup_db; locks user tables.
 * Runs in: backends that configure; hold_writers also on the db that leaves.
 *
 * First it delivers while its clients go on; then they wait, it
 * delivers the rest, and what takes its triggers away is committed before they
 * go on.  Its pushers only read, and are not kept out.
 *
 * Invariant: a db that is removed without force has nothing that only it knows.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "catalog.h"
#include "errors.h"
#include "guc.h"
#include "leaving.h"
#include "link.h"
#include "locking.h"
#include "membership.h"
#include "remote.h"
#include "sqlrun.h"

PG_FUNCTION_INFO_V1(mmrepl_hold_writers);

#define FORCE_HINT "If it is lost for good: mmrepl.remove_db(..., force => true). What it has sent to nobody is lost then; what it has sent to some reaches the others from those."

bool
mmr_leaving_sends(int32 node_id)
{
	ListCell   *lc;

	foreach(lc, mmr_membership_syncs())
		if (mmr_membership_is_source(lfirst(lc), node_id))
			return true;
	return false;
}

void
mmr_leaving_require_running(int32 node_id, const char *name, const char *dbgroup)
{
	ListCell   *lc;

	foreach(lc, mmr_membership_syncs())
	{
		MmrSync    *sync = lfirst(lc);

		if (sync->paused && mmr_membership_is_source(sync, node_id) &&
			(dbgroup == NULL || strcmp(sync->dbgroup, dbgroup) == 0))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("db \"%s\" cannot deliver what it has written: sync \"%s\" is %s", name, sync->name,
							sync->halted ? "halted" : "paused"),
					 errhint("SELECT mmrepl.resume(%s) first. " FORCE_HINT, quote_literal_cstr(sync->name))));
	}
}

/* Says what force means, whatever went wrong. */
static void
add_hint(void *arg)
{
	if (!*(bool *) arg)
		errhint(FORCE_HINT);
}

void
mmr_leaving_drain(const char *name, const char *conninfo, double timeout)
{
	bool		answered = false;
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = add_hint,
		.arg = &answered
	};
	const char *arg = psprintf("%f", timeout);
	MmrLink    *link;
	PGresult   *result;
	bool		done;

	error_context_stack = &context;
	link = mmr_link_open(conninfo, "config", mmr_guc_connect_timeout);
	result = mmr_link_exec(link, "SELECT mmrepl.wait_for_sync(NULL, greatest($1::float8, 0.001))", 1, &arg);
	answered = true;
	error_context_stack = context.previous;
	done = PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	mmr_link_close(link);
	if (!done)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("db \"%s\" has not delivered all its changes within %g seconds", name, timeout),
				 errdetail("The view status there tells which db has not got them, and why."),
				 errhint("Help that one, or remove it first; or give more time with timeout => seconds. " FORCE_HINT)));
}

/* mmrepl._hold_writers() */
Datum
mmrepl_hold_writers(PG_FUNCTION_ARGS)
{
	List	   *relids = NIL;
	ListCell   *lc,
			   *lc2;

	mmr_catalog_require();
	mmr_membership_refresh();
	foreach(lc, mmr_membership_syncs())
	{
		MmrSync    *sync = lfirst(lc);

		if (sync->my_role != MMR_ROLE_SOURCE)
			continue;
		foreach(lc2, sync->tables)
		{
			MmrMember  *m = lfirst(lc2);

			if (OidIsValid(m->relid))
				relids = list_append_unique_oid(relids, m->relid);
		}
	}
	mmr_locking_acquire(relids, ShareRowExclusiveLock);
	PG_RETURN_VOID();
}

void
mmr_leaving_hold_writers(int32 node_id)
{
	const char *sql = "SELECT mmrepl._hold_writers()";

	if (node_id == mmr_membership_my_id())
		mmr_sqlrun_exec(sql, 0, NULL);
	else
		PQclear(mmr_remote_exec(mmr_remote_find(node_id), sql, 0, NULL));
}

/* Nobody but the hub knew what each leaf had: what it had not handed on, the leaves may have forgotten. */
static void
warn_of_lost_hub(const char *node_id, const char *name)
{
	ListCell   *lc;

	foreach(lc, mmr_sqlrun_texts("SELECT s.name FROM mmrepl.sync s JOIN mmrepl.dbgroup_db d ON d.dbgroup = s.dbgroup"
								 " WHERE d.node_id = $1::int4 AND d.role = 'hub' ORDER BY s.sync_id", 1, &node_id))
		ereport(WARNING,
				(errmsg("db \"%s\" was the hub of sync \"%s\": what it had not handed on is where it was written, and may be nowhere else",
						name, (char *) lfirst(lc)),
				 errdetail("From now on each db of the sync exchanges with each."),
				 errhint("Compare them with mmrepl.compare_sync().")));
}

void
mmr_leaving_take_out(int32 node_id, const char *name, bool lost)
{
	const char *arg = psprintf("%d", node_id);
	char	   *sync;

	if (lost)
		warn_of_lost_hub(arg, name);
	mmr_sqlrun_exec("DELETE FROM mmrepl.dbgroup_db WHERE node_id = $1::int4", 1, &arg);
	sync = mmr_sqlrun_text("SELECT s.name FROM mmrepl.sync s WHERE (SELECT count(*) FROM mmrepl.dbgroup_db d WHERE d.dbgroup = s.dbgroup) < 2"
						   " ORDER BY s.sync_id LIMIT 1", 0, NULL);
	if (sync != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("sync \"%s\" cannot do without db \"%s\"", sync, name),
				 errdetail("It would have one db only."),
				 errhint("Remove the sync first, with mmrepl.remove_sync().")));
	sync = mmr_sqlrun_text("SELECT s.name FROM mmrepl.sync s WHERE NOT EXISTS (SELECT FROM mmrepl.dbgroup_db d WHERE d.dbgroup = s.dbgroup AND d.role = 'source')"
						   " ORDER BY s.sync_id LIMIT 1", 0, NULL);
	if (sync != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("sync \"%s\" cannot do without db \"%s\"", sync, name),
				 errdetail("It is its only source."),
				 errhint("Make another db a source first, with mmrepl.update_dbgroup(), or remove the sync with mmrepl.remove_sync().")));
}
