/*-------------------------------------------------------------------------
 * collide.h
 *	  Items whose row holds a unique value that a row of another key holds
 *	  here (A5): put aside, and settled when the batch is through.
 *
 * Floor 6.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_COLLIDE_H
#define MMR_COLLIDE_H

#include "mergestate.h"

/*
 * Copies the item and keeps it for later.  Its row is not in the table any
 * more; the one it had here before is in t->found, if there was one.
 */
extern void mmr_collide_put_aside(MmrMerge *m, MmrMergeTable *table, MmrTarget *t,
								  MmrMergeItem *item, bool found);

/* Told of an item that cannot be put in. */
typedef void (*MmrCollideRefusal) (MmrMerge *m, MmrMergeTable *table, MmrMergeItem *item,
								   ErrorData *error);

/*
 * All rows put aside go in; where one still collides, the newer version
 * stands, and the older is deleted by a new entry authored here.  refuse: what
 * becomes of one that fails in a careful batch.
 */
extern void mmr_collide_settle(MmrMerge *m, MmrCollideRefusal refuse);

#endif							/* MMR_COLLIDE_H */
