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
#include "membership.h"
#include "position.h"

/*
 * Which part in the sync, of this node and of the peer, it is about: what was
 * known of another one (one of them has left, and come again; or a source that
 * is a target now) says nothing of this one.
 */
#define MMR_PEER_PART	64
extern void mmr_peerstate_part(const MmrSync *sync, int32 peer, char part[MMR_PEER_PART]);

typedef struct MmrPeerState
{
	const char *part;
	const MmrPosition *acked;	/* NULL: not known */
	TimestampTz last_good;		/* 0: not known, what is stored stays */
	TimestampTz last_bad;
	const char *error;			/* NULL: none now */
	const bytea *told;			/* a target's context (tidings.h); NULL: what is stored stays */
} MmrPeerState;

extern void mmr_peerstate_save(int32 sync_id, int32 peer, const MmrPeerState *state);

/* The position the peer had confirmed when that was saved last, in that part; NULL if it never was. */
extern MmrPosition *mmr_peerstate_position(int32 sync_id, int32 peer, const char *part);

#endif							/* MMR_PEERSTATE_H */
