/*-------------------------------------------------------------------------
 * tidings.h
 *	  What a target has of everybody's changes: it pushes to nobody, so
 *	  who pushes to it asks.
 *
 * Floor 6.  Runs in pushers.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_TIDINGS_H
#define MMR_TIDINGS_H

#include "link.h"
#include "membership.h"

/* Does it matter to this node what that peer has of others?  Needs a transaction. */
extern bool mmr_tidings_matter(const MmrSync *sync, int32 peer);

/* Asks the peer; gives its context as bytes (palloc'd). */
extern bytea *mmr_tidings_ask(MmrLink *link, int32 sync_id);

/*
 * Does the peer lack something of others that may be kept here, and will come to it
 * from those?  Then it is worth asking again.  ERROR if that is no context.  Needs a
 * transaction with an active snapshot.
 */
extern bool mmr_tidings_behind(const MmrSync *sync, int32 peer, const bytea *told);

#endif							/* MMR_TIDINGS_H */
