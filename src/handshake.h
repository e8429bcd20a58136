/*-------------------------------------------------------------------------
 * handshake.h
 *	  The sender's side of the handshake: who we are, and where the peer
 *	  stands (the receiver's side is hello).
 *
 * Floor 4.  Needs a transaction and a link without an open one.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_HANDSHAKE_H
#define MMR_HANDSHAKE_H

#include "link.h"
#include "nodes/pg_list.h"
#include "position.h"

/*
 * Tells the peer who we are and what for; sets *position to where it stands
 * (B1), NULL if it has nothing of us yet.  True if the initial copy is in.
 * ERROR (ERRCODE_MMR_IDENTITY) if another node answers, or if it has of us what
 * we have not (any more).
 */
extern bool mmr_handshake_hello(MmrLink *link, int32 sync_id, int32 peer, MmrPosition **position);

/* Tables that an initial copy into empty ones leaves alone there: schema, name, schema, name, ... */
extern List *mmr_handshake_filled(MmrLink *link, int32 sync_id);

#endif							/* MMR_HANDSHAKE_H */
