/*-------------------------------------------------------------------------
 * resync.h
 *	  A db that was away for so long that the others keep nothing for it any
 *	  more (P3).
 *
 * Floor 6.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_RESYNC_H
#define MMR_RESYNC_H

#include "membership.h"

/* ERROR (ERRCODE_MMR_RESYNC) that says what to do, if this db or that one needs a resync in the sync. */
extern void mmr_resync_check(MmrSync *sync, int32 other);

/*
 * The change log is larger than it may be, and that db is waited for: if it is
 * away, it is given up.  In a transaction of its own.  True if it was.
 */
extern bool mmr_resync_give_up(int32 sync_id, int32 node_id);

#endif							/* MMR_RESYNC_H */
