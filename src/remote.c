/*-------------------------------------------------------------------------
 * remote.c
 *	  Transactions on other dbs that end with the local transaction.
 *
 * Floor 2.
 * Reads and writes no table of its own.
 * Runs in: backends that configure.
 *
 * Invariant: a remote transaction is committed only by a local transaction
 * that is about to commit and that kept everything it sent there.  The
 * remote commits are not one atomic step with the local one: when a
 * connection breaks between them, some dbs have the newer configuration,
 * and the others take it from them later (it has a version).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "guc.h"
#include "remote.h"

static List *remotes = NIL;		/* MmrRemote, in TopTransactionContext */
static bool poisoned = false;	/* a savepoint was rolled back that we cannot follow */
static bool callbacks_registered = false;

static void
forget_all(void)
{
	ListCell   *lc;

	foreach(lc, remotes)
	{
		MmrRemote  *remote = lfirst(lc);

		if (remote->link)
			mmr_link_close(remote->link);
	}
	remotes = NIL;
	poisoned = false;
}

static void
add_context(void *arg)
{
	errcontext("db \"%s\"", (const char *) arg);
}

static void
commit_all(void)
{
	ListCell   *lc;

	if (poisoned)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot commit a change of mmrepl's configuration of which a part was rolled back to a savepoint"),
				 errdetail("Other dbs have already been given that part in the same transaction."),
				 errhint("Roll back the whole transaction and do it again without the savepoint or exception block.")));

	foreach(lc, remotes)
	{
		MmrRemote  *remote = lfirst(lc);

		if (remote->link)
			PQclear(mmr_remote_exec(remote, "COMMIT", 0, NULL));
	}
	forget_all();
}

static void
xact_end(XactEvent event, void *arg)
{
	(void) arg;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (remotes != NIL || poisoned)
				commit_all();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (remotes != NIL || poisoned)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has changed mmrepl's configuration")));
			break;
		case XACT_EVENT_ABORT:
			forget_all();
			break;
		default:
			break;
	}
}

static void
subxact_end(SubXactEvent event, SubTransactionId mysub,
			SubTransactionId parentsub, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *lc;

	(void) mysub;
	(void) parentsub;
	(void) arg;
	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;

	foreach(lc, remotes)
	{
		MmrRemote  *remote = lfirst(lc);

		if (remote->used < level)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
		{
			remote->level = Min(remote->level, level - 1);
			remote->used = level - 1;
		}
		else if (remote->level >= level)
		{
			if (remote->link)
				mmr_link_close(remote->link);
			remotes = foreach_delete_current(remotes, lc);
		}
		else
			poisoned = true;
	}
}

static MmrRemote *
new_remote(int32 node_id, const char *name)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	MmrRemote  *remote = palloc0(sizeof(MmrRemote));

	remote->node_id = node_id;
	remote->name = pstrdup(name);
	remote->level = GetCurrentTransactionNestLevel();
	remote->used = remote->level;
	MemoryContextSwitchTo(old);
	return remote;
}

static void
keep(MmrRemote *remote)
{
	MemoryContext old;

	if (!callbacks_registered)
	{
		RegisterXactCallback(xact_end, NULL);
		RegisterSubXactCallback(subxact_end, NULL);
		callbacks_registered = true;
	}
	old = MemoryContextSwitchTo(TopTransactionContext);
	remotes = lappend(remotes, remote);
	MemoryContextSwitchTo(old);
}

MmrRemote *
mmr_remote_begin(int32 node_id, const char *name, const char *conninfo,
				 int lock_timeout)
{
	MmrRemote  *remote = new_remote(node_id, name);
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = add_context,
		.arg = remote->name
	};
	char		sql[512];

	error_context_stack = &context;
	remote->link = mmr_link_open(conninfo, "config", mmr_guc_connect_timeout);

	/* parameters hold connection strings: they must not get into the log there */
	snprintf(sql, sizeof(sql),
			 "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
			 "SET LOCAL lock_timeout = %d;"
			 "SET LOCAL log_parameter_max_length_on_error = 0;"
			 "SELECT set_config('log_parameter_max_length', '0', true)"
			 " FROM pg_roles WHERE rolname = current_user AND rolsuper",
			 lock_timeout);
	PG_TRY();
	{
		PQclear(mmr_link_exec(remote->link, sql, 0, NULL));
	}
	PG_CATCH();
	{
		mmr_link_close(remote->link);
		PG_RE_THROW();
	}
	PG_END_TRY();
	error_context_stack = context.previous;

	keep(remote);
	return remote;
}

MmrRemote *
mmr_remote_unusable(int32 node_id, const char *name, ErrorData *error)
{
	MmrRemote  *remote = new_remote(node_id, name);
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	Assert(TopTransactionContext != ErrorContext);
	remote->error = palloc0(sizeof(ErrorData));
	remote->error->sqlerrcode = error->sqlerrcode;
	remote->error->message = pstrdup(error->message);
	remote->error->detail = error->detail ? pstrdup(error->detail) : NULL;
	remote->error->hint = error->hint ? pstrdup(error->hint) : NULL;
	if (error->sqlerrcode == ERRCODE_UNDEFINED_FUNCTION ||
		error->sqlerrcode == ERRCODE_UNDEFINED_SCHEMA)
	{
		remote->error->message = pstrdup("the extension mmrepl is not there any more");
		remote->error->hint = pstrdup("Take it out with mmrepl.remove_db(), and add it again if it is to take part.");
	}
	MemoryContextSwitchTo(old);
	keep(remote);
	return remote;
}

MmrRemote *
mmr_remote_find(int32 node_id)
{
	ListCell   *lc;

	foreach(lc, remotes)
	{
		MmrRemote  *remote = lfirst(lc);

		if (remote->node_id == node_id)
			return remote;
	}
	return NULL;
}

List *
mmr_remote_all(void)
{
	return remotes;
}

void
mmr_remote_forget(MmrRemote *remote)
{
	remotes = list_delete_ptr(remotes, remote);
	if (remote->link)
	{
		/* at once, so that it holds no lock when we come again */
		if (PQtransactionStatus(mmr_link_conn(remote->link)) != PQTRANS_UNKNOWN)
			PQclear(mmr_link_exec(remote->link, "ROLLBACK", 0, NULL));
		mmr_link_close(remote->link);
	}
}

PGresult *
mmr_remote_exec(MmrRemote *remote, const char *sql, int nparams,
				const char *const *values)
{
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = add_context,
		.arg = remote->name
	};
	PGresult   *result;

	if (remote->link == NULL)
		ereport(ERROR,
				(errcode(remote->error->sqlerrcode),
				 errmsg("db \"%s\" cannot be used: %s", remote->name,
						remote->error->message),
				 remote->error->detail ?
				 errdetail_internal("%s", remote->error->detail) : 0,
				 remote->error->hint ?
				 errhint("%s", remote->error->hint) : 0));

	remote->used = Max(remote->used, GetCurrentTransactionNestLevel());
	error_context_stack = &context;
	result = mmr_link_exec(remote->link, sql, nparams, values);
	error_context_stack = context.previous;
	return result;
}
