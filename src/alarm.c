/*-------------------------------------------------------------------------
 * alarm.c
 *	  Wakes the workers of this database when there is something to send.
 *
 * Floor 2.  Reads and writes shared memory.  Runs in whatever has committed:
 * client backends, apply backends.
 *
 * Invariant: workers are woken after the commit can be seen, or they would
 * look, see nothing new, and sleep again.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "alarm.h"
#include "shared.h"

/*
 * Wakes who sleeps as deeply as `depth`, or deeper.
 *
 * On the way out of every commit that captured something, so the usual case,
 * nobody asleep, must cost next to nothing: slots are looked at without the
 * lock first.  A worker sets `sleeping` and then looks for work once more
 * before it sleeps; with the barriers on both sides one of us sees the other.
 */
static void
wake_sleepers(uint32 depth)
{
	uint32		top;
	bool		found = false;

	pg_memory_barrier();
	top = pg_atomic_read_u32(&mmr_shared->workers_top);
	for (uint32 i = 0; i < top && !found; i++)
	{
		MmrWorker  *worker = &mmr_shared->workers[i];

		found = worker->dboid == MyDatabaseId &&
			pg_atomic_read_u32(&worker->sleeping) >= depth;
	}
	if (!found)
		return;

	LWLockAcquire(mmr_shared->lock, LW_SHARED);
	for (uint32 i = 0; i < top; i++)
	{
		MmrWorker  *worker = &mmr_shared->workers[i];

		if (worker->kind != MMR_WORKER_NONE && worker->dboid == MyDatabaseId &&
			pg_atomic_read_u32(&worker->sleeping) >= depth &&
			pg_atomic_exchange_u32(&worker->sleeping, MMR_SLEEP_NOT) != MMR_SLEEP_NOT &&
			worker->latch != NULL)
			SetLatch(worker->latch);
	}
	LWLockRelease(mmr_shared->lock);
}

void
mmr_alarm_committed(int64 changes)
{
	MmrDatabase *db = mmr_shared_database();

	if (db == NULL)
		return;
	pg_atomic_fetch_add_u64(&db->changes, changes);
	pg_atomic_fetch_add_u64(&db->commits, 1);
	wake_sleepers(MMR_SLEEP_NAP);
}

void
mmr_alarm_applied(void)
{
	if (mmr_shared != NULL)
		wake_sleepers(MMR_SLEEP_REST);
}
