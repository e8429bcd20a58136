/*-------------------------------------------------------------------------
 * resync.c
 *	  A db that needs a resync (P3).
 *
 * Floor 6.  Writes dbgroup_db; reads shared memory.  Runs in the janitor
 * (giving up), in pushers and backends of peers (the check).
 *
 * It is a mark in the configuration: whoever has adopted that keeps nothing
 * for the db any more, takes nothing from it, and has it departed as a source
 * (departed.h).  A db that has not heard of the mark yet still holds all it
 * needs to compare what comes from there, so that does no harm; and it passes
 * on what it took, when it hears.  The db itself learns of it from whoever it
 * reaches first.  When two give up each other, the configuration with the
 * higher version stands when they meet, or that of the higher node id.
 *
 * Invariant: the mark of a db is never taken back: it comes back as another
 * node.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "config.h"
#include "errors.h"
#include "guc.h"
#include "resync.h"
#include "shared.h"
#include "sqlrun.h"
#include "worker.h"

/* Away: not heard of for so many heartbeats. */
#define AWAY_HEARTBEATS	10

#define RESYNC_HINT "Call mmrepl.rejoin() on it, or take it out with mmrepl.remove_db(..., force => true) on another db."

void
mmr_resync_check(MmrSync *sync, int32 other)
{
	MmrSyncNode *part = mmr_membership_sync_node(sync, other);

	if (sync->lost)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_RESYNC),
				 errmsg("db \"%s\" needs a resync", mmr_membership_node(mmr_membership_my_id())->name),
				 errdetail("It was away for so long that the others do not keep any more what it would need."),
				 errhint(RESYNC_HINT)));
	if (part != NULL && part->lost)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_RESYNC),
				 errmsg("db \"%s\" needs a resync", part->node->name),
				 errdetail("It was away for so long that the change log outgrew mmrepl.max_log_size: nothing is kept for it any more."),
				 errhint(RESYNC_HINT)));
}

/* Neither do we reach it, or (a source) it does not reach us, for long. */
static bool
is_away(MmrSync *sync, MmrSyncNode *part)
{
	TimestampTz to = 0;
	TimestampTz from = 0;
	TimestampTz since = 0;
	TimestampTz now = GetCurrentTimestamp();
	bool		connected = part->role != MMR_ROLE_SOURCE;
	MmrWorker  *w;

	LWLockAcquire(mmr_shared->lock, LW_SHARED);
	w = mmr_shared_find_worker(MMR_WORKER_PUSHER, MyDatabaseId, sync->id, part->node->id);
	if (w != NULL)
	{
		since = w->since;
		SpinLockAcquire(&w->mutex);
		to = w->state == MMR_STATE_IDLE || w->state == MMR_STATE_PUSHING || w->state == MMR_STATE_COPYING ||
			w->state == MMR_STATE_PAUSED ? now : w->last_good;
		SpinLockRelease(&w->mutex);
	}
	for (int i = 0; i < mmr_shared->max_workers; i++)
	{
		MmrWorker  *a = &mmr_shared->workers[i];

		if (a->kind != MMR_WORKER_APPLY || a->dboid != MyDatabaseId || a->sync_id != sync->id ||
			a->node_id != part->node->id)
			continue;
		connected |= a->pid != 0;
		from = Max(from, a->retry_at);
	}
	LWLockRelease(mmr_shared->lock);
	if (w == NULL)
		return false;
	to = Max(to, since);
	from = connected ? now : Max(from, since);
	return TimestampDifferenceExceeds(Min(to, from), now, AWAY_HEARTBEATS * mmr_guc_heartbeat_interval);
}

/*
 * Whoever is cut off from most sources is away himself, and must not give up those
 * who go on without him: his configuration would stand, having the higher version.
 * Of two each may.  In a star it is the hub that knows who is away.
 */
static bool
may_decide(MmrSync *sync)
{
	int32		me = mmr_membership_my_id();
	int			here = 1;
	int			away = 0;
	ListCell   *lc;

	if (sync->hub != NULL)
		return sync->hub->node->id == me || list_length(sync->nodes) == 2;
	foreach(lc, sync->nodes)
	{
		MmrSyncNode *part = lfirst(lc);

		if (part->node->id == me || part->lost || part->role != MMR_ROLE_SOURCE)
			continue;
		if (is_away(sync, part))
			away++;
		else
			here++;
	}
	return here >= away;
}

bool
mmr_resync_give_up(int32 sync_id, int32 node_id)
{
	const char *args[2] = {psprintf("%d", sync_id), psprintf("%d", node_id)};
	MmrSync    *sync;
	MmrSyncNode *part;
	bool		done = false;

	mmr_worker_start_transaction("giving up a db that is away");
	if (mmr_catalog_hold())
	{
		mmr_membership_refresh();
		sync = mmr_membership_sync(sync_id);
		part = sync ? mmr_membership_sync_node(sync, node_id) : NULL;
		if (part != NULL && !part->lost && !sync->lost && !sync->paused &&
			sync->my_role == MMR_ROLE_SOURCE && is_away(sync, part) && may_decide(sync) &&
			/* somebody may be changing the configuration: then later */
			mmr_sqlrun_exec("SELECT 1 FROM mmrepl.local_node FOR UPDATE SKIP LOCKED", 0, NULL) > 0)
		{
			ereport(WARNING,
					(errmsg("db \"%s\" is given up and needs a resync", part->node->name),
					 errdetail("The change log is larger than mmrepl.max_log_size, %d MB, and was kept for it in sync \"%s\".",
							   mmr_guc_max_log_size, sync->name),
					 errhint(RESYNC_HINT)));
			mmr_sqlrun_exec("UPDATE mmrepl.dbgroup_db SET needs_resync = true WHERE node_id = $2::int4"
							" AND dbgroup = (SELECT dbgroup FROM mmrepl.sync WHERE sync_id = $1::int4)", 2, args);
			mmr_config_publish_here();
			done = true;
		}
	}
	mmr_worker_commit_transaction();
	return done;
}
