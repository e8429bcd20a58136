/*-------------------------------------------------------------------------
 * setback.h
 *	  What keeps a pusher from its work: an error that has ended its session,
 *	  a table that is not as it was.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SETBACK_H
#define MMR_SETBACK_H

#include "membership.h"
#include "shared.h"

/* Does it pass by itself (locks), rather than when somebody acts? */
extern bool mmr_setback_transient(int sqlstate);

/* How the worker's state is called after it. */
extern MmrWorkerState mmr_setback_state(int sqlstate);

/* Logs it; without the DETAIL where that shows values of a row. */
extern void mmr_setback_log(const ErrorData *edata, bool careful_next);

/* Says which table of the sync is gone, or cannot be used; an empty string: none. In a transaction. */
extern void mmr_setback_of_members(MmrSync *sync, char *message, size_t size);

#endif							/* MMR_SETBACK_H */
