/*-------------------------------------------------------------------------
 * alarm.h
 *	  Wakes the workers of this database when there is something to send.
 *
 * Floor 2.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_ALARM_H
#define MMR_ALARM_H

#include "mmrepl.h"

/*
 * Called when a transaction with so many changes for the peers has committed:
 * counts it, and wakes the workers of this database that sleep.  No ERROR.
 */
extern void mmr_alarm_committed(int64 changes);

/* Called when a batch of a peer was applied: wakes those of this database that rest. No ERROR. */
extern void mmr_alarm_applied(void);

#endif							/* MMR_ALARM_H */
