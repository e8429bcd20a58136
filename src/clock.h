/*-------------------------------------------------------------------------
 * clock.h
 *	  The hybrid clock (K1): microseconds since 2000, never twice the same,
 *	  never below what has been seen.
 *
 * Floor 2.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_CLOCK_H
#define MMR_CLOCK_H

/* Next tick. Call it under the lock of the row that it stamps (C1). */
extern int64 mmr_clock_tick(void);

/* From now on every tick is above ts. */
extern void mmr_clock_raise(int64 ts);

/* The highest tick so far: no version that this server has seen is above it, once the clock is ready. */
extern int64 mmr_clock_last(void);

/* False until mmr_clock_set_ready: after a restart the clock must first be raised above this database's log and progress (K2). */
extern bool mmr_clock_is_ready(void);
extern void mmr_clock_set_ready(void);

#endif							/* MMR_CLOCK_H */
