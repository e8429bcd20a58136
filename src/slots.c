/*-------------------------------------------------------------------------
 * slots.c
 *	  How many workers the configuration needs here, and whether the server
 *	  has room for them.
 *
 * Floor 4.
 * Reads: membership, shared memory, settings.
 * Runs in: backends that configure, here and as asked by another db.
 *
 * Invariant: counts what mmrepl is sure to need, and what the server itself
 * is sure to take (its own launcher of logical replication), no more.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "replication/logicallauncher.h"

#include "guc.h"
#include "membership.h"
#include "shared.h"
#include "slots.h"
#include "topology.h"

int
mmr_slots_pushers(void)
{
	int			pushers = 0;
	ListCell   *lc,
			   *ln;

	foreach(lc, mmr_membership_syncs())
		foreach(ln, ((MmrSync *) lfirst(lc))->nodes)
			pushers += mmr_topology_speaks(lfirst(lc), mmr_membership_my_id(),
										  ((MmrSyncNode *) lfirst(ln))->node->id);
	return pushers;
}

/* Sessions that sources keep open here to apply what they push. */
static int
apply_sessions(void)
{
	int			sessions = 0;
	ListCell   *lc,
			   *ln;

	foreach(lc, mmr_membership_syncs())
		foreach(ln, ((MmrSync *) lfirst(lc))->nodes)
			sessions += mmr_topology_speaks(lfirst(lc), ((MmrSyncNode *) lfirst(ln))->node->id,
										   mmr_membership_my_id());
	return sessions;
}

void
mmr_slots_check(void)
{
	int			pushers = mmr_slots_pushers();
	int			processes = 0;	/* of mmrepl for other databases */
	int			slots = 0;
	int			need;

	mmr_shared_require();
	LWLockAcquire(mmr_shared->lock, LW_SHARED);
	for (int i = 0; i < mmr_shared->max_workers; i++)
	{
		MmrWorker  *worker = &mmr_shared->workers[i];

		if (worker->kind == MMR_WORKER_NONE || worker->kind == MMR_WORKER_LAUNCHER ||
			worker->dboid == MyDatabaseId)
			continue;
		slots++;
		if (worker->kind != MMR_WORKER_APPLY)
			processes++;
	}
	LWLockRelease(mmr_shared->lock);

	/* the launcher, this database's janitor */
	need = processes + 2 + pushers + (max_logical_replication_workers > 0 ? 1 : 0);
	if (need > max_worker_processes)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("not enough worker processes for this configuration in database \"%s\"",
						get_database_name(MyDatabaseId)),
				 errdetail("It needs a max_worker_processes of at least %d, which is %d there.",
						   need, max_worker_processes),
				 errhint("Set max_worker_processes to %d or more (parallel queries take some too) and restart that server.",
						 need + 4)));

	need = slots + 2 + pushers + apply_sessions();
	if (need > mmr_shared->max_workers)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("not enough worker slots for this configuration in database \"%s\"",
						get_database_name(MyDatabaseId)),
				 errdetail("It needs a mmrepl.max_workers of at least %d, which is %d there.",
						   need, mmr_shared->max_workers),
				 errhint("Set mmrepl.max_workers to %d or more and restart that server.",
						 need + 4)));
}
