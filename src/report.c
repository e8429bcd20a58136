/*-------------------------------------------------------------------------
 * report.c
 *	  What a pusher tells of its work, in its slot in shared memory.
 *
 * Floor 2.  Writes the slot of this process.  Runs in pushers.
 *
 * Invariant: nothing is read from here to decide anything: it is for people.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report.h"
#include "shared.h"

void
mmr_report_pending(int64 pending)
{
	MmrWorker  *me = mmr_shared_my_worker;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&me->mutex);
	me->pending = pending;
	if (pending == 0)
		me->pending_since = 0;
	else if (me->pending_since == 0)
		me->pending_since = now;
	SpinLockRelease(&me->mutex);
}

void
mmr_report_batch(int64 bytes, const int64 *counts)
{
	MmrWorker  *me = mmr_shared_my_worker;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&me->mutex);
	me->batches++;
	me->bytes_sent += bytes;
	me->rows_inserted += counts[0];
	me->rows_updated += counts[1];
	me->rows_deleted += counts[2];
	me->truncates += counts[3];
	me->conflicts += counts[4];
	if (counts[0] + counts[1] + counts[2] + counts[3] > 0)
	{
		me->last_inserted = counts[0];
		me->last_updated = counts[1];
		me->last_deleted = counts[2];
		me->last_changes = now;
	}
	SpinLockRelease(&me->mutex);
}

void
mmr_report_copy_begun(void)
{
	MmrWorker  *me = mmr_shared_my_worker;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&me->mutex);
	memset(&me->copy, 0, sizeof(me->copy));
	me->copy.started = now;
	SpinLockRelease(&me->mutex);
}

void
mmr_report_copy(void *arg, const char *nspname, const char *relname, int tables_done,
				int tables, int64 rows, int64 rows_total, int64 bytes, int64 bytes_total)
{
	MmrWorker  *me = mmr_shared_my_worker;
	char		table[sizeof(me->copy.table)];

	snprintf(table, sizeof(table), "%s%s%s", nspname, nspname[0] ? "." : "", relname);
	SpinLockAcquire(&me->mutex);
	me->copy.tables_done = tables_done;
	me->copy.tables_total = tables;
	me->copy.rows_done = rows;
	me->copy.rows_total = rows_total;
	me->copy.bytes_done = bytes;
	me->copy.bytes_total = bytes_total;
	strlcpy(me->copy.table, table, sizeof(me->copy.table));
	SpinLockRelease(&me->mutex);
}

void
mmr_report_copy_ended(void)
{
	MmrWorker  *me = mmr_shared_my_worker;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&me->mutex);
	me->copy.finished = now;
	SpinLockRelease(&me->mutex);
}
