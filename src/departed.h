/*-------------------------------------------------------------------------
 * departed.h
 *	  A source has departed from a sync: what it wrote and not all have is
 *	  taken over by sources who have it (M2).
 *
 * Floor 5.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_DEPARTED_H
#define MMR_DEPARTED_H

#include "membership.h"

/* Janitor: takes over what there is to take over, in transactions of its own. */
extern void mmr_departed_round(void);

/*
 * Is nothing left here of an earlier part of that node in the sync, and has
 * no source of it told, with its last batch, of one?  Needs a transaction.
 */
extern bool mmr_departed_settled(MmrSync *sync, int32 node_id);

/* What targets hold of him is settled with that node; janitor: looks again whether that was the last. */
extern void mmr_departed_asked(int32 sync_id, int32 node_id, int32 with);

#endif							/* MMR_DEPARTED_H */
