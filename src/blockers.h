/*-------------------------------------------------------------------------
 * blockers.h
 *	  All rows that hold a unique value of a row that is to be written, or that
 *	  an exclusion constraint keeps apart from it.
 *
 * Floor 5.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_BLOCKERS_H
#define MMR_BLOCKERS_H

#include "target.h"

/*
 * Addresses (ItemPointer, each once, palloc'd) of the rows that the snapshot
 * sees and that t->row collides with; in how many constraints.  Between
 * mmr_target_begin and end.  Waits for nobody.
 */
extern List *mmr_blockers_find(MmrTarget *t, int *constraints);

/*
 * Does a row hold a unique value of t->row?  Its address then.  Waits for whoever
 * is writing such a row.
 */
extern bool mmr_blockers_any(MmrTarget *t, ItemPointer tid);

#endif							/* MMR_BLOCKERS_H */
