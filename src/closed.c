/*-------------------------------------------------------------------------
 * closed.c
 *	  Clients write nothing to the tables of a sync that this database joins.
 *
 * Floor 6.  Reads the configuration, and what the join waits for.  Runs in
 * client backends, inside the user's transaction, and (dropping) in the janitor.
 *
 * Before all others know of this database nothing is captured here; and before
 * its copy is in, the rows here are old or missing, and have no versions: a
 * client that changed one would put what it looked like long ago over what the
 * others have made of it since, as something new.  So triggers refuse writes
 * from the configuration that has it join to the copy that is the end of that
 * (MmrSync.closed); who applies does not fire them.
 *
 * They ask each time.  Whoever has got his lock on a table after they were made sees a
 * configuration that has them, because it is read again before locks are given
 * back (wake.c); and when all is in, they let everybody pass from that
 * moment on.  Dropping them takes a lock that waits for readers, and can wait.
 *
 * Invariant: while a sync is closed, what is committed to its tables here was applied.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "attach.h"
#include "catalog.h"
#include "closed.h"
#include "join.h"
#include "locking.h"
#include "membership.h"
#include "worker.h"

/* A table in use is tried again after that (ms): each time others wait behind us for a moment. */
#define TRY_AGAIN	10000

PG_FUNCTION_INFO_V1(mmrepl_closed);

static void refuse(Relation rel, MmrSync *sync) pg_attribute_noreturn();

static void
refuse(Relation rel, MmrSync *sync)
{
	char	   *name = pstrdup(sync->name);
	/* nothing comes from ourselves: so whoever it is that gives the copy is named, too */
	char	   *waits_for = mmr_join_waits_for(sync, mmr_membership_my_id());

	ereport(ERROR,
			(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
			 errmsg("cannot write to table \"%s\" yet: this database joins sync \"%s\"",
					RelationGetRelationName(rel), name),
			 waits_for ? errdetail("It waits for %s.", waits_for) : 0,
			 errhint("Write to another db until the view mmrepl.status shows here that all is good. If this one is not to join: mmrepl.remove_db() on another db, or DROP EXTENSION mmrepl here.")));
}

/* mmrepl._closed() returns trigger */
Datum
mmrepl_closed(PG_FUNCTION_ARGS)
{
	TriggerData *td = (TriggerData *) fcinfo->context;
	ListCell   *lc;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(td->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired BEFORE", "mmrepl._closed")));
	(void) mmr_membership_refresh();
	foreach(lc, mmr_membership_syncs_of_table(RelationGetRelid(td->tg_relation)))
	{
		MmrSync    *sync = lfirst(lc);

		if (sync->my_role == MMR_ROLE_SOURCE && sync->closed)
			refuse(td->tg_relation, sync);
	}
	if (TRIGGER_FIRED_FOR_STATEMENT(td->tg_event))
		return PointerGetDatum(NULL);
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(td->tg_event) ? td->tg_newtuple : td->tg_trigtuple);
}

/* ---- they go ---- */

static List *
find_left(MemoryContext cxt)
{
	List	   *left = NIL;

	mmr_worker_start_transaction("looking whether all tables are open");
	if (mmr_catalog_hold())
	{
		MemoryContext old;
		List	   *found;

		mmr_membership_refresh();
		found = mmr_attach_left_closed();
		old = MemoryContextSwitchTo(cxt);
		left = list_copy(found);
		MemoryContextSwitchTo(old);
	}
	mmr_worker_commit_transaction();
	return left;
}

/* One table; false: it is in use. */
static bool
reopen(void *arg)
{
	Oid			relid = *(Oid *) arg;

	if (!mmr_locking_try(list_make1_oid(relid), AccessExclusiveLock))
		return false;
	/* it may be to be closed again by now */
	mmr_membership_refresh();
	if (list_member_oid(mmr_attach_left_closed(), relid))
		mmr_attach_reopen(relid);
	return true;
}

void
mmr_closed_round(TimestampTz *next)
{
	static bool left = true;
	static uint64 looked_at;
	static TimestampTz again = 0;
	static char said[MMR_MSGLEN];
	MemoryContext cxt = CurrentMemoryContext;
	List	   *relids;
	ListCell   *lc;

	if (!left && looked_at == mmr_membership_changes())
		return;
	if (GetCurrentTimestamp() < again)
	{
		*next = Min(*next, again);
		return;
	}
	relids = find_left(cxt);
	looked_at = mmr_membership_changes();
	left = false;
	foreach(lc, relids)
	{
		Oid			relid = lfirst_oid(lc);

		if (mmr_worker_try("opening a table", reopen, &relid, "triggers that keep nobody out any more cannot be dropped yet", said))
			continue;
		left = true;
		again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TRY_AGAIN);
		*next = Min(*next, again);
		break;
	}
	list_free(relids);
}
