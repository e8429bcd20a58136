/*-------------------------------------------------------------------------
 * api_run.c
 *	  SQL: start, stop, pause, resume, kick, wait_for_sync.
 *
 * Floor 11.
 * Writes local_node.stopped and sync.paused; reads and writes tickets in the
 * slots of pushers.
 * Runs in client backends.
 *
 * Invariant: a ticket is taken after the caller's earlier transactions have
 * committed, and the pusher reads it before it takes its snapshot, so a
 * ticket that is served says that all of them are applied at that peer.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/wait_event.h"

#include "catalog.h"
#include "config.h"
#include "errors.h"
#include "membership.h"
#include "node.h"
#include "session.h"
#include "shared.h"
#include "topology.h"
#include "wake.h"

PG_FUNCTION_INFO_V1(mmrepl_start);
PG_FUNCTION_INFO_V1(mmrepl_stop);
PG_FUNCTION_INFO_V1(mmrepl_pause);
PG_FUNCTION_INFO_V1(mmrepl_resume);
PG_FUNCTION_INFO_V1(mmrepl_kick);
PG_FUNCTION_INFO_V1(mmrepl_wait_for_sync);

/* Who waits looks at least so often whether there is still something to wait for (ms). */
#define RUN_NAP			1000

/* While the pusher it waits for has no slot yet (ms). */
#define RUN_NAP_NO_SLOT 100

/* One pusher whose confirmation is waited for. */
typedef struct Target
{
	int32		sync_id;
	int32		node_id;
	char	   *sync;
	char	   *db;
	MmrWorker  *slot;			/* NULL: it has none at the moment */
	uint64		generation;		/* of the slot when the ticket was taken */
	uint64		ticket;
	bool		done;
} Target;

/* ---------- start, stop ---------- */

static void
require_admin(const char *what)
{
	mmr_catalog_require();
	if (!has_privs_of_role(GetUserId(), mmr_catalog_owner()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to %s replication", what),
				 errhint("It takes a superuser or the owner of the extension.")));
	mmr_shared_require();
}

static void
set_stopped(bool stopped)
{
	MmrSession	save;

	require_admin(stopped ? "stop" : "start");
	if (!stopped)
		mmr_node_check();

	if (!mmr_session_become_owner(&save))
		elog(ERROR, "the extension has gone");
	SPI_connect();
	if (SPI_execute(stopped ?
					"UPDATE mmrepl.local_node SET stopped = true" :
					"UPDATE mmrepl.local_node SET stopped = false",
					false, 0) != SPI_OK_UPDATE || SPI_processed != 1)
		elog(ERROR, "local_node has no row");
	SPI_finish();
	mmr_session_restore(&save);

	mmr_wake_at_commit();
	if (stopped)
		mmr_wake_end_apply_at_commit();
}

Datum
mmrepl_start(PG_FUNCTION_ARGS)
{
	set_stopped(false);
	PG_RETURN_VOID();
}

Datum
mmrepl_stop(PG_FUNCTION_ARGS)
{
	set_stopped(true);
	PG_RETURN_VOID();
}

/* ---------- pause, resume ---------- */

static void
no_such_sync(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("sync \"%s\" does not exist", name),
			 errhint("The view mmrepl.syncs shows those there are.")));
}

static void
set_paused(const char *name, bool paused)
{
	MmrSession	save;
	Oid			argtypes[2] = {TEXTOID, BOOLOID};
	Datum		values[2];

	mmr_config_begin();

	if (!mmr_session_become_owner(&save))
		elog(ERROR, "the extension has gone");
	values[0] = CStringGetTextDatum(name);
	values[1] = BoolGetDatum(paused);
	SPI_connect();
	if (SPI_execute_with_args("UPDATE mmrepl.sync SET paused = $2, halted = NULL WHERE name = $1",
							  2, argtypes, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write table sync");
	if (SPI_processed == 0)
		no_such_sync(name);
	SPI_finish();
	mmr_session_restore(&save);

	mmr_config_publish(NIL);
}

Datum
mmrepl_pause(PG_FUNCTION_ARGS)
{
	set_paused(text_to_cstring(PG_GETARG_TEXT_PP(0)), true);
	PG_RETURN_VOID();
}

Datum
mmrepl_resume(PG_FUNCTION_ARGS)
{
	set_paused(text_to_cstring(PG_GETARG_TEXT_PP(0)), false);
	PG_RETURN_VOID();
}

/* ---------- kick, wait_for_sync ---------- */

static void
require_running(MmrSync *sync)
{
	if (mmr_membership_stopped())
		ereport(ERROR,
				(errcode(ERRCODE_MMR_STOPPED),
				 errmsg("replication is stopped in this database"),
				 errhint("SELECT mmrepl.start() lets it go on.")));
	if (sync != NULL && sync->paused)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_STOPPED),
				 sync->halted ? errmsg("sync \"%s\" is halted", sync->name) :
				 errmsg("sync \"%s\" is paused", sync->name),
				 sync->halted ? errdetail_internal("%s", sync->halted) : 0,
				 errhint("SELECT mmrepl.resume(%s) lets it go on.",
						 quote_literal_cstr(sync->name))));
}

/* Adds the peers that this database pushes to in the sync. */
static List *
add_targets(List *targets, MmrSync *sync)
{
	ListCell   *lc;

	foreach(lc, sync->nodes)
	{
		MmrSyncNode *other = lfirst(lc);
		Target	   *target;

		if (!mmr_topology_links(sync, mmr_membership_my_id(), other->node->id))
			continue;
		target = palloc0(sizeof(Target));
		target->sync_id = sync->id;
		target->node_id = other->node->id;
		target->sync = pstrdup(sync->name);
		target->db = pstrdup(other->node->name);
		targets = lappend(targets, target);
	}
	return targets;
}

/* The pushers of that sync, NULL: of all that are not paused. */
static List *
find_targets(const char *name)
{
	List	   *targets = NIL;
	ListCell   *lc;
	MmrSync    *sync;

	mmr_catalog_require();
	mmr_shared_require();
	mmr_membership_refresh();

	if (name != NULL)
	{
		sync = mmr_membership_sync_by_name(name);
		if (sync == NULL)
			no_such_sync(name);
		require_running(sync);
		return add_targets(NIL, sync);
	}

	require_running(NULL);
	foreach(lc, mmr_membership_syncs())
	{
		sync = lfirst(lc);
		if (!sync->paused)
			targets = add_targets(targets, sync);
	}
	return targets;
}

/* Takes a ticket if there is none for this life of the slot, and wakes the pusher; sets done. */
static void
look_at_target(Target *target)
{
	MmrWorker  *slot;

	LWLockAcquire(mmr_shared->lock, LW_SHARED);
	slot = mmr_shared_find_worker(MMR_WORKER_PUSHER, MyDatabaseId,
								  target->sync_id, target->node_id);
	if (slot != NULL && (slot != target->slot || slot->generation != target->generation))
	{
		target->generation = slot->generation;
		target->ticket = pg_atomic_fetch_add_u64(&slot->wanted, 1) + 1;
		if (slot->latch != NULL)
			SetLatch(slot->latch);
	}
	target->slot = slot;
	if (slot != NULL)
		target->done = pg_atomic_read_u64(&slot->done) >= target->ticket;
	LWLockRelease(mmr_shared->lock);
}

/* ERROR if the pusher will never come, because the configuration says so meanwhile. */
static void
recheck_target(Target *target)
{
	MmrSync    *sync;

	mmr_membership_refresh();
	sync = mmr_membership_sync(target->sync_id);
	if (sync == NULL || !mmr_topology_links(sync, mmr_membership_my_id(), target->node_id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sync \"%s\" does not push to db \"%s\" any more",
						target->sync, target->db)));
	require_running(sync);
}

/* deadline 0: none. */
static bool
wait_for_target(Target *target, TimestampTz deadline)
{
	MmrDatabase *db = mmr_shared_database();
	uint64		generation = db != NULL ? pg_atomic_read_u64(&db->config_generation) : 0;

	for (;;)
	{
		long		nap = RUN_NAP;

		CHECK_FOR_INTERRUPTS();
		look_at_target(target);
		if (target->done)
			break;

		if (deadline != 0)
		{
			TimestampTz now = GetCurrentTimestamp();

			if (now >= deadline)
				break;
			nap = Min(nap, TimestampDifferenceMilliseconds(now, deadline) + 1);
		}
		if (db != NULL && pg_atomic_read_u64(&db->config_generation) != generation)
		{
			generation = pg_atomic_read_u64(&db->config_generation);
			recheck_target(target);
		}

		if (target->slot != NULL)
			ConditionVariableTimedSleep(&target->slot->served, nap, PG_WAIT_EXTENSION);
		else
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 Min(nap, RUN_NAP_NO_SLOT), PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
	}
	ConditionVariableCancelSleep();
	return target->done;
}

/* One line about a peer that has not confirmed. */
static void
describe_laggard(StringInfo out, Target *target)
{
	MmrWorkerState state = MMR_STATE_STARTING;
	char		error[MMR_MSGLEN] = "";

	if (target->slot != NULL)
	{
		SpinLockAcquire(&target->slot->mutex);
		state = target->slot->state;
		memcpy(error, target->slot->last_error, MMR_MSGLEN);
		SpinLockRelease(&target->slot->mutex);
	}

	if (out->len > 0)
		appendStringInfoChar(out, '\n');
	appendStringInfo(out, "Sync \"%s\", db \"%s\": %s", target->sync, target->db,
					 target->slot == NULL ? "no worker" : mmr_shared_state_name(state));
	if (error[0] != '\0')
		appendStringInfo(out, ", %s", error);
	appendStringInfoChar(out, '.');
}

static bool
wait_for_targets(List *targets, TimestampTz deadline)
{
	StringInfoData laggards;
	int			nlaggards = 0;
	ListCell   *lc;

	/* All at once first: they work in parallel. */
	foreach(lc, targets)
		look_at_target(lfirst(lc));

	initStringInfo(&laggards);
	foreach(lc, targets)
	{
		if (!wait_for_target(lfirst(lc), deadline))
		{
			describe_laggard(&laggards, lfirst(lc));
			nlaggards++;
		}
	}
	if (nlaggards > 0)
		ereport(WARNING,
				(errmsg_plural("%d of %d peers has not confirmed in time",
							   "%d of %d peers have not confirmed in time",
							   nlaggards, nlaggards, list_length(targets)),
				 errdetail_internal("%s", laggards.data)));
	return nlaggards == 0;
}

/* Argument timeout in seconds as the time at which it ends; 0: never. */
static TimestampTz
get_deadline(FunctionCallInfo fcinfo, int argno)
{
	double		seconds;

	if (PG_ARGISNULL(argno))
		return 0;
	seconds = PG_GETARG_FLOAT8(argno);
	if (isnan(seconds) || seconds < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative"),
				 errhint("It is in seconds; 0 waits without limit.")));
	if (seconds == 0 || seconds > 1e9)
		return 0;
	return GetCurrentTimestamp() + (TimestampTz) (seconds * USECS_PER_SEC);
}

static char *
get_sync_name(FunctionCallInfo fcinfo)
{
	return PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
}

Datum
mmrepl_kick(PG_FUNCTION_ARGS)
{
	TimestampTz deadline = get_deadline(fcinfo, 1);
	List	   *targets = find_targets(get_sync_name(fcinfo));
	ListCell   *lc;

	foreach(lc, targets)
		look_at_target(lfirst(lc));
	/* Those that failed wait before they try again: not now. */
	mmr_shared_retry_now(MyDatabaseId);

	if (PG_ARGISNULL(1))
		PG_RETURN_BOOL(true);
	PG_RETURN_BOOL(wait_for_targets(targets, deadline));
}

Datum
mmrepl_wait_for_sync(PG_FUNCTION_ARGS)
{
	TimestampTz deadline = get_deadline(fcinfo, 1);

	PG_RETURN_BOOL(wait_for_targets(find_targets(get_sync_name(fcinfo)), deadline));
}
