/*-------------------------------------------------------------------------
 * merge.h
 *	  What came of one table meets what is here: row by row the newer one
 *	  stands, and the meeting is written down.
 *
 * Floor 7.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_MERGE_H
#define MMR_MERGE_H

#include "mergestate.h"

/*
 * Items of one table in one go.  ERROR (ERRCODE_MMR_CLOCK_SKEW) if
 * one is too far ahead (K3).  Bytes of the items must stay to the end of the
 * call; those put aside are copied.
 */
extern void mmr_merge_items(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *items, int nitems);

#endif							/* MMR_MERGE_H */
