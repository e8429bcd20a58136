/*-------------------------------------------------------------------------
 * janitor.c
 *	  One per database: keeps the pushers that the configuration asks for,
 *	  purges the change log, drops old conflict history.
 *
 * Floor 11.
 * Reads the configuration; writes what purge writes, and slots.
 * Runs in its own background worker.
 *
 * Invariant: it leaves for good (the extension is not here, or stop() was
 * called) only after its pushers are gone, and tells in `settled` what it had
 * seen when it decided to, so that no start() or CREATE EXTENSION that
 * commits meanwhile is lost.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "catalog.h"
#include "closed.h"
#include "departed.h"
#include "guc.h"
#include "join.h"
#include "kept.h"
#include "life.h"
#include "membership.h"
#include "node.h"
#include "purge.h"
#include "topology.h"
#include "worker.h"

/* Rounds while the log moves, while something waits in it, and otherwise (ms). */
#define JANITOR_NAP_BUSY	1000
#define JANITOR_NAP_WAITING 10000
#define JANITOR_NAP_IDLE	60000

/* So many rounds without a change, and it is not busy any more. */
#define JANITOR_QUIET		5

/* Old conflict history goes once in so long (ms). */
#define JANITOR_HISTORY		(3600 * 1000)

extern PGDLLEXPORT void mmrepl_janitor_main(Datum main_arg) pg_attribute_noreturn();

/* A pusher that the configuration asks for. */
typedef struct WantedPusher
{
	int32		sync_id;
	int32		node_id;
} WantedPusher;

/* What one look at the configuration said. */
typedef struct Look
{
	bool		here;			/* the extension is in this database */
	bool		stopped;		/* by mmrepl.stop() */
	bool		is_db;			/* this database has been added */
	List	   *wanted;			/* WantedPusher */
} Look;

/* How fast the log moves. */
typedef struct Pace
{
	uint64		changes;
	uint64		contexts;
	int			quiet;			/* rounds without movement */
} Pace;

/* Reads the configuration; the list lives in `context`. */
static void
look(Look *result, MemoryContext context)
{
	ListCell   *lc,
			   *lc2;

	memset(result, 0, sizeof(Look));
	MemoryContextReset(context);

	mmr_worker_start_transaction("reading the configuration");
	result->here = mmr_catalog_hold();
	if (result->here)
	{
		mmr_membership_refresh();
		result->stopped = mmr_membership_stopped();
		result->is_db = mmr_membership_my_id() != 0;
		if (!result->stopped)
			mmr_node_check();
		foreach(lc, mmr_membership_syncs())
		{
			MmrSync    *sync = lfirst(lc);
			MemoryContext old;

			if (sync->my_role != MMR_ROLE_SOURCE)
				continue;

			old = MemoryContextSwitchTo(context);
			foreach(lc2, sync->nodes)
			{
				MmrSyncNode *other = lfirst(lc2);
				WantedPusher *wanted;

				if (!mmr_topology_speaks(sync, mmr_membership_my_id(), other->node->id))
					continue;
				wanted = palloc(sizeof(WantedPusher));
				wanted->sync_id = sync->id;
				wanted->node_id = other->node->id;
				result->wanted = lappend(result->wanted, wanted);
			}
			MemoryContextSwitchTo(old);
		}
	}
	mmr_worker_commit_transaction();
}

static bool
is_wanted(const Look *now, int32 sync_id, int32 node_id)
{
	ListCell   *lc;

	if (!now->here || now->stopped)
		return false;
	foreach(lc, now->wanted)
	{
		WantedPusher *wanted = lfirst(lc);

		if (wanted->sync_id == sync_id && wanted->node_id == node_id)
			return true;
	}
	return false;
}

/* Sends away pushers that nobody asks for any more; true when they are gone. */
static bool
dismiss_unwanted(const Look *now, TimestampTz *next)
{
	bool		gone = true;

	for (int i = 0; i < mmr_shared->max_workers; i++)
	{
		MmrWorker  *slot = &mmr_shared->workers[i];
		bool		unwanted;

		LWLockAcquire(mmr_shared->lock, LW_SHARED);
		unwanted = slot->dboid == MyDatabaseId &&
			((slot->kind == MMR_WORKER_PUSHER &&
			  !is_wanted(now, slot->sync_id, slot->node_id)) ||
			 /* what is kept of sessions of peers that are no more */
			 (slot->kind == MMR_WORKER_APPLY && slot->pid == 0 && !now->here));
		LWLockRelease(mmr_shared->lock);

		if (unwanted && !mmr_worker_dismiss(slot, next))
			gone = false;
	}
	return gone;
}

/* This database's entry.  Without one nothing can be captured or sent. */
static MmrDatabase *
require_database(void)
{
	MmrDatabase *db = mmr_shared_database();

	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("there are already %d databases with mmrepl on this server",
						mmr_guc_max_databases),
				 errhint("Raise mmrepl.max_databases and restart the server.")));
	return db;
}

/*
 * How long to sleep after a round of purge.  Nothing moves for a while: the
 * next commit that captures something wakes us, so an idle database costs
 * nothing; what waits for a peer is looked at now and then.
 */
static long
nap(MmrWorker *me, MmrDatabase *db, Pace *pace, bool waiting)
{
	uint64		changes = pg_atomic_read_u64(&db->changes);
	uint64		contexts = pg_atomic_read_u64(&db->contexts);
	bool		moved = changes != pace->changes || contexts != pace->contexts;

	pace->changes = changes;
	pace->contexts = contexts;
	pace->quiet = moved ? 0 : pace->quiet + 1;
	if (pace->quiet < JANITOR_QUIET)
		return JANITOR_NAP_BUSY;

	pg_atomic_write_u32(&me->sleeping, MMR_SLEEP_REST);
	pg_memory_barrier();
	if (pg_atomic_read_u64(&db->changes) != changes || pg_atomic_read_u64(&db->contexts) != contexts)
		return JANITOR_NAP_BUSY;
	return waiting ? JANITOR_NAP_WAITING : JANITOR_NAP_IDLE;
}

/* Purge and history; how long to sleep after it. */
static long
clean(MmrWorker *me, MmrDatabase *db, Pace *pace, TimestampTz *history_at)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		waiting = mmr_purge_round();

	if (now >= *history_at)
	{
		mmr_purge_history();
		*history_at = TimestampTzPlusMilliseconds(now, JANITOR_HISTORY);
	}
	return nap(me, db, pace, waiting);
}

/* Leaves for good: nothing to do here until `wakes` moves on. */
static void
settle(const Look *now, uint64 wakes)
{
	MmrDatabase *db = mmr_shared_find_database(MyDatabaseId);

	if (db == NULL)
		return;
	if (!now->here)
		pg_atomic_write_u32(&db->present, 2);
	pg_atomic_write_u64(&db->settled, wakes);
}

static void
janitor_body(MmrWorker *me)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mmrepl janitor",
												  ALLOCSET_DEFAULT_SIZES);
	Pace		pace = {0};
	TimestampTz history_at = 0;
	bool		announced = false;
	bool		asked = false;

	for (;;)
	{
		MmrDatabase *db = mmr_shared_find_database(MyDatabaseId);
		uint64		wakes = db != NULL ? pg_atomic_read_u64(&db->wakes) : 0;
		TimestampTz next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), JANITOR_NAP_IDLE);
		Look		now;
		bool		gone;
		long		sleep_ms;
		ListCell   *lc;

		look(&now, context);
		gone = dismiss_unwanted(&now, &next);

		if (now.here && !now.stopped)
		{
			db = require_database();
			pg_atomic_write_u32(&db->present, 1);
			if (now.is_db)
			{
				if (!asked)
					mmr_life_start();
				asked = true;
				mmr_life_round();
			}
			foreach(lc, now.wanted)
			{
				WantedPusher *wanted = lfirst(lc);

				mmr_worker_keep(MMR_WORKER_PUSHER, MyDatabaseId,
								wanted->sync_id, wanted->node_id, &next);
			}
			if (mmr_join_round())
				next = Min(next, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), JANITOR_NAP_BUSY));
			mmr_departed_round();
			mmr_kept_round();
			mmr_closed_round(&next);
			/* not inside Min, which would do it twice */
			sleep_ms = clean(me, db, &pace, &history_at);
			next = Min(next, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), sleep_ms));
			mmr_worker_good();
			mmr_worker_state(MMR_STATE_IDLE);
			if (!announced)
				mmr_shared_wake_launcher(); /* it may be counting those that still find out */
			announced = true;
		}
		else if (gone)
		{
			settle(&now, wakes);
			return;
		}
		/* what woke us meanwhile may have been lost in a wait for something else */
		if (db != NULL && pg_atomic_read_u64(&db->wakes) != wakes)
			continue;
		mmr_worker_sleep(mmr_worker_until(next));
	}
}

void
mmrepl_janitor_main(Datum main_arg)
{
	mmr_worker_run(main_arg, janitor_body);
}
