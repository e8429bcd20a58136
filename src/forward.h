/*-------------------------------------------------------------------------
 * forward.h
 *	  Which changes of the log go to a peer: what was written here, and what
 *	  this node hands on.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_FORWARD_H
#define MMR_FORWARD_H

#include "changelog.h"
#include "membership.h"
#include "position.h"

typedef struct MmrForward
{
	MmrSync    *sync;
	int32		my_node;
	int32		peer;
	bool		any;			/* something that others wrote may go to the peer */
	const MmrContext *peer_has; /* if so: as the peer has told */
	int32		only_of;		/* nothing but what this one wrote and the log here holds... */
	const MmrPosition *but;		/* ...and this does not cover; 0: as above */
} MmrForward;

/* For batches under the active snapshot; lives in the current memory context. */
extern void mmr_forward_load(MmrForward *f, MmrSync *sync, int32 peer);

/* Is there something in the run that others wrote and this node hands on to the peer? */
extern bool mmr_forward_run(const MmrForward *f, const MmrRun *run);

/*
 * Is that change of the run to be sent (hands_on: what mmr_forward_run said of
 * it)?  What the peer wrote itself, or is known to have, is not.
 */
extern bool mmr_forward_change(const MmrForward *f, bool hands_on, const MmrChange *change);

#endif							/* MMR_FORWARD_H */
