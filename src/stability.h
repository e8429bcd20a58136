/*-------------------------------------------------------------------------
 * stability.h
 *	  Which entries of the change log are stable (P1): every peer is known, in
 *	  band, to have them.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_STABILITY_H
#define MMR_STABILITY_H

#include "version.h"

#include "mmrepl.h"

/* What is known of all peers at one moment. */
typedef struct MmrStability MmrStability;

/* Who is not known to have an entry: one peer of one sync. */
typedef struct MmrHold
{
	int32		sync_id;		/* 0: nobody */
	int32		node_id;
} MmrHold;

/*
 * Reads what the peers have said, under the active snapshot.  Membership must
 * have been refreshed in this transaction, and not be refreshed while the
 * result is used.  Lives in the current memory context.
 */
extern MmrStability *mmr_stability_load(void);

/* Is every entry of that run (by transaction xid) stable?  If not, *hold says for whom it stays. */
extern bool mmr_stability_of_run(MmrStability *st, uint64 xid, const char *data, int len,
								 MmrHold *hold);

/* Has every db that takes part in the sync now been heard to know that dot of somebody who does not? */
extern bool mmr_stability_known(MmrStability *st, int32 sync_id, const MmrDot *dot);

#endif							/* MMR_STABILITY_H */
