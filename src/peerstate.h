/*-------------------------------------------------------------------------
 * peerstate.h
 *	  What a pusher knows of its peer and must survive a restart of the
 *	  server (mmrepl.peer_state).
 *
 * Floor 3.  Needs a transaction with an active snapshot, in a worker.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_PEERSTATE_H
#define MMR_PEERSTATE_H

#include "datatype/timestamp.h"
#include "position.h"

typedef struct MmrPeerState
{
	const MmrPosition *acked;	/* NULL: not known */
	TimestampTz last_good;		/* 0: not known, what is stored stays */
	TimestampTz last_bad;
	const char *error;			/* NULL: none now */
	const bytea *told;			/* a target's context (tidings.h); NULL: what is stored stays */
} MmrPeerState;

extern void mmr_peerstate_save(int32 sync_id, int32 peer, const MmrPeerState *state);

/* The position the peer had confirmed when that was saved last; NULL if it never was. */
extern MmrPosition *mmr_peerstate_position(int32 sync_id, int32 peer);

#endif							/* MMR_PEERSTATE_H */
