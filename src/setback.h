/*-------------------------------------------------------------------------
 * setback.h
 *	  What an error that has ended a pusher's session asks for.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SETBACK_H
#define MMR_SETBACK_H

#include "shared.h"

/* Does it pass by itself (locks), rather than when somebody acts? */
extern bool mmr_setback_transient(int sqlstate);

/* How the worker's state is called after it. */
extern MmrWorkerState mmr_setback_state(int sqlstate);

/* Logs it; without the DETAIL where that shows values of a row. */
extern void mmr_setback_log(const ErrorData *edata, bool careful_next);

#endif							/* MMR_SETBACK_H */
