/*-------------------------------------------------------------------------
 * sessions.c
 *	  Sessions that peers' pushers have open here, ended from outside.
 *
 * Floor 2.  Reads the slots of workers in shared memory.  Runs in backends that
 * peers' pushers have opened here.
 *
 * Such a session may not have noticed that its peer is gone: it would hold what it
 * has applied of a batch, and the sync and source it applies, until the network says so.
 *
 * Invariant: only sessions of this database are touched.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"

#include "sessions.h"
#include "shared.h"

void
mmr_sessions_end(int32 sync_id, int32 node_id)
{
	LWLockAcquire(mmr_shared->lock, LW_SHARED);
	for (int i = 0; i < mmr_shared->max_workers; i++)
	{
		MmrWorker  *w = &mmr_shared->workers[i];

		if (w->kind == MMR_WORKER_APPLY && w->dboid == MyDatabaseId && w->sync_id == sync_id &&
			w->node_id == node_id && w->pid != 0 && w->pid != MyProcPid)
			kill(w->pid, SIGTERM);
	}
	LWLockRelease(mmr_shared->lock);
}
