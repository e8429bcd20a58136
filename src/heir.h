/*-------------------------------------------------------------------------
 * heir.h
 *	  What a departed source has left with a target alone comes to this
 *	  source.
 *
 * Floor 10.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_HEIR_H
#define MMR_HEIR_H

#include "link.h"

/*
 * Pusher, when it has shaken hands with that peer: fetches what is left there, if the
 * peer is a target of the sync.  In transactions of its own; a little stays in cxt.
 */
extern void mmr_heir_collect(MmrLink *link, int32 sync_id, int32 peer, MemoryContext cxt);

#endif							/* MMR_HEIR_H */
