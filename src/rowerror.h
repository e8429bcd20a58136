/*-------------------------------------------------------------------------
 * rowerror.h
 *	  Whose fault an error is: a row's that cannot be applied, or of what
 *	  passes by itself (locks, space, shutdown).
 *
 * Floor 1.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_ROWERROR_H
#define MMR_ROWERROR_H

/*
 * True if an error of that SQLSTATE, raised while a row is applied, is caused
 * by the row and what it meets here (constraints, triggers, types, missing
 * columns): the same row will fail again until something is changed, and the
 * others need not wait for it (A11).
 */
extern bool mmr_rowerror_is(int sqlstate);

#endif							/* MMR_ROWERROR_H */
