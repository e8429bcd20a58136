/*-------------------------------------------------------------------------
 * report.h
 *	  What a pusher tells of its work, in its slot in shared memory.
 *
 * Floor 2.  In pushers only.  No ERROR.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_REPORT_H
#define MMR_REPORT_H

#include "mmrepl.h"

/* So many changes wait for the peer. */
extern void mmr_report_pending(int64 pending);

/* The peer has applied a batch: so many bytes, and what it has counted (MmrTransport). */
extern void mmr_report_batch(int64 bytes, const int64 *counts);

/* Progress of an initial copy; mmr_report_copy as mmr_copy_run calls it. */
extern void mmr_report_copy_begun(void);
extern void mmr_report_copy(void *arg, const char *nspname, const char *relname, int tables_done,
							int tables, int64 rows, int64 rows_total, int64 bytes, int64 bytes_total);
extern void mmr_report_copy_ended(void);

#endif							/* MMR_REPORT_H */
