/*-------------------------------------------------------------------------
 * capture.h
 *	  Capture: row triggers gather changed keys in backend memory and bring
 *	  them to the log before the transaction commits.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_CAPTURE_H
#define MMR_CAPTURE_H

/* From _PG_init only: transaction callbacks. */
extern void mmr_capture_init(void);

/*
 * Raises the clock above everything this database's log and progress hold,
 * once after a restart (K2); cheap when that has been done.  Needs a
 * transaction.
 */
extern void mmr_capture_prepare_clock(void);

#endif							/* MMR_CAPTURE_H */
