/*-------------------------------------------------------------------------
 * news.c
 *	  What has happened in this database since a pusher looked last.
 *
 * Floor 5.  Reads counters in shared memory.  Runs in pushers.
 *
 * A batch costs what it costs, however little is in it.  When several transactions
 * have committed while one was on its way there will be more, and the next one waits
 * until it is worth that; but nobody waits who has asked for it.
 *
 * Invariant: what happens after a look is seen by the next one, or by mmr_news_any.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "guc.h"
#include "news.h"
#include "worker.h"

/* So many commits while a batch is on its way are many. */
#define GATHER_COMMITS	2

void
mmr_news_look(MmrNews *n)
{
	n->looked_at = GetCurrentTimestamp();
	n->ticket = pg_atomic_read_u64(&n->me->wanted);
	n->commits = pg_atomic_read_u64(&n->db->commits);
	n->applied = pg_atomic_read_u64(&n->db->applied);
	pg_memory_barrier();
}

bool
mmr_news_of_config(const MmrNews *n)
{
	return pg_atomic_read_u64(&n->db->config_generation) != n->generation;
}

bool
mmr_news_any(const MmrNews *n, bool applied)
{
	return pg_atomic_read_u64(&n->db->commits) != n->commits ||
		(applied && pg_atomic_read_u64(&n->db->applied) != n->applied) ||
		pg_atomic_read_u64(&n->me->wanted) != n->ticket || mmr_news_of_config(n);
}

void
mmr_news_gather(const MmrNews *n, TimestampTz since)
{
	TimestampTz due = TimestampTzPlusMilliseconds(since, mmr_guc_batch_delay);

	if (pg_atomic_read_u64(&n->db->commits) - n->commits >= GATHER_COMMITS &&
		pg_atomic_read_u64(&n->me->wanted) == n->ticket && GetCurrentTimestamp() < due)
		mmr_worker_sleep(mmr_worker_until(due));
}
