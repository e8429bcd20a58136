/*-------------------------------------------------------------------------
 * sweep.h
 *	  Rows of a whole table go: TRUNCATE from a peer (A2), replacement by an
 *	  initial copy.
 *
 * Floor 6.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SWEEP_H
#define MMR_SWEEP_H

#include "mergestate.h"

/*
 * A TRUNCATE of the table: rows older than it go, and later arrivals that are
 * older lose.  copied: it comes behind a copy of rows that have met it where
 * they come from; so rows without an entry stay.
 */
extern void mmr_sweep_truncate(MmrMerge *m, MmrMergeTable *table, const MmrChange *change, bool copied);

/* Removes all rows whose key has no entry here: what an initial copy replaces. */
extern void mmr_sweep_clear(MmrMerge *m, MmrMergeTable *table);

/*
 * The two ends of an initial copy.  A key that was deleted by another peer's
 * session while the copy was under way and that session's work could not be
 * seen: its row goes again.  From the second call to the commit nobody deletes
 * anything else in this way.  tables: MmrMergeTable, open.
 */
extern void mmr_sweep_begin_copy(MmrMerge *m);
extern void mmr_sweep_crossed(MmrMerge *m, List *tables);

/* True if the table has a row whose key has no entry here: not empty, as an initial copy sees it. */
extern bool mmr_sweep_has_rows(MmrVersions *versions, Relation rel, MmrKey *key);

#endif							/* MMR_SWEEP_H */
