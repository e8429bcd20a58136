/*-------------------------------------------------------------------------
 * clock.c
 *	  The hybrid clock.
 *
 * Floor 2.  Reads and writes MmrShared.clock_last.  Runs everywhere.
 * Invariant: two ticks of one server are never equal and never go back, also
 * when the machine's clock does.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/timestamp.h"

#include "breaks.h"
#include "clock.h"
#include "shared.h"

/*
 * Without shared memory (library not preloaded) each backend has a clock of
 * its own; the tick is then as good as the machine's clock.
 */
static int64 private_last = 0;
static bool private_ready = false;

int64
mmr_clock_tick(void)
{
	int64		now = GetCurrentTimestamp();
	uint64		last;
	uint64		next;

	if (mmr_shared == NULL)
		return private_last = Max(now, private_last + 1);

	last = pg_atomic_read_u64(&mmr_shared->clock_last);
	do
#ifndef MMR_BREAK_CLOCK_TICK
		next = Max((uint64) now, last + 1);
#else
		next = now;
#endif
	while (!pg_atomic_compare_exchange_u64(&mmr_shared->clock_last, &last, next));
	return (int64) next;
}

void
mmr_clock_raise(int64 ts)
{
	uint64		last;

	if (mmr_shared == NULL)
	{
		private_last = Max(private_last, ts);
		return;
	}
	last = pg_atomic_read_u64(&mmr_shared->clock_last);
	while (last < (uint64) ts &&
		   !pg_atomic_compare_exchange_u64(&mmr_shared->clock_last, &last, (uint64) ts))
		;
}

int64
mmr_clock_last(void)
{
	return mmr_shared == NULL ? private_last : (int64) pg_atomic_read_u64(&mmr_shared->clock_last);
}

bool
mmr_clock_is_ready(void)
{
	MmrDatabase *db = mmr_shared_database();

	/* without an entry each session remembers for itself */
	return db == NULL ? private_ready : pg_atomic_read_u32(&db->clock_ready) != 0;
}

void
mmr_clock_set_ready(void)
{
	MmrDatabase *db = mmr_shared_database();

	/* what a standby replays from here on may be newer than what it has looked at */
	if (RecoveryInProgress())
		return;
	private_ready = true;
	if (db != NULL)
	{
		pg_write_barrier();
		pg_atomic_write_u32(&db->clock_ready, 1);
	}
}
