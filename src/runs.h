/*-------------------------------------------------------------------------
 * runs.h
 *	  Runs of the log kept in memory, as far as they fit.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_RUNS_H
#define MMR_RUNS_H

#include "lib/stringinfo.h"
#include "logreader.h"

typedef struct MmrRuns
{
	StringInfoData buf;			/* xid, length, bytes */
	bool		overflow;		/* there were more of them than fit */
} MmrRuns;

/* None yet; memory is of the current context. */
extern void mmr_runs_init(MmrRuns *r);

/* None any more; gives back what many have taken. */
extern void mmr_runs_reset(MmrRuns *r);

/* Keeps one more, or notes that it does not fit. */
extern void mmr_runs_keep(MmrRuns *r, uint64 xid, const char *data, int len);

/* Any kept, or would have been? */
extern bool mmr_runs_any(const MmrRuns *r);

/* Gives each to the callback, as the reader of the log would (of segment 0); not if there were more. */
extern void mmr_runs_each(const MmrRuns *r, MmrRunCallback callback, void *arg);

#endif							/* MMR_RUNS_H */
