/*-------------------------------------------------------------------------
 * careful.h
 *	  Items that may not be applicable: found, set aside, tried again (A11).
 *
 * Floor 8.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_CAREFUL_H
#define MMR_CAREFUL_H

#include "merge.h"

/*
 * As mmr_merge_items; with m->careful those that fail are set aside and the
 * others go on.  Items of keys of which something stands aside are always
 * taken with care: they are what the sender was asked for, or settle it.
 */
extern void mmr_careful_items(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *items, int nitems);

/*
 * Binds the sender's columns to the table here.  If they do not fit it is an
 * ERROR (ERRCODE_MMR_SCHEMA), or, with m->careful, each of its rows is set
 * aside.
 */
extern void mmr_careful_bind(MmrMerge *m, MmrMergeTable *table, MmrRowDescription *description);

/* The end of a batch: what collided is settled; tells the server's log of what was set aside. */
extern void mmr_careful_end(MmrMerge *m);

#endif							/* MMR_CAREFUL_H */
