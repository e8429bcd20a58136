/*-------------------------------------------------------------------------
 * wake.h
 *	  Wakes the workers when a change of configuration commits, and when the
 *	  extension is created or dropped.
 *
 * Floor 2.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_WAKE_H
#define MMR_WAKE_H

/* From _PG_init only: callback at commit, hook that sees DROP EXTENSION. */
extern void mmr_wake_init(void);

/*
 * When this transaction commits: bump config_generation of this database, wake
 * the launcher (which starts a janitor if there is none) and every worker of
 * this database.  Nothing if it rolls back.  Any number of calls.  No ERROR.
 */
extern void mmr_wake_at_commit(void);

/*
 * When this transaction commits: end the sessions that peers have open here
 * to apply.  They come back when they are let in again.
 */
extern void mmr_wake_end_apply_at_commit(void);

#endif							/* MMR_WAKE_H */
