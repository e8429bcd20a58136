/*-------------------------------------------------------------------------
 * purge.h
 *	  Rotation of the change log and TRUNCATE of segments whose every entry
 *	  is stable (P1, P2).
 *
 * Floor 10.  Runs in the janitor.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_PURGE_H
#define MMR_PURGE_H

/*
 * One round, in transactions of its own.  Call it outside a transaction.
 * Returns true when something is left that a later round might remove
 * (call again soon), false when the log is empty.
 */
extern bool mmr_purge_round(void);

/* Removes conflict history older than mmrepl.conflict_history_retention, in a transaction of its own. */
extern void mmr_purge_history(void);

#endif							/* MMR_PURGE_H */
