/*-------------------------------------------------------------------------
 * handshake.h
 *	  The sender's side of the handshake: who we are, and where the peer
 *	  stands (the receiver's side is hello).
 *
 * Floor 6.  Needs a transaction and a link without an open one.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_HANDSHAKE_H
#define MMR_HANDSHAKE_H

#include "link.h"
#include "membership.h"
#include "nodes/pg_list.h"
#include "position.h"

/* What the peer says. */
typedef struct MmrGreeting
{
	MmrPosition *position;		/* where it stands (B1), NULL: it has nothing of us yet */
	int			copy;			/* initial copy that it needs of us first, as onetimecopy (0: only the log); -1: none */
	int64		clock;			/* its clock; below 0: see mmr_join_meet */
	char	   *waits_for;		/* it joins the sync and takes nothing yet; NULL: it does */
} MmrGreeting;

/*
 * Tells the peer who we are and what for, and hears where it stands.  from: what it had confirmed, as far as is known; may be NULL.  ERROR
 * (ERRCODE_MMR_IDENTITY) if another node answers, or if it has of us what we have not, or, being a target, has lost what it had confirmed.
 */
extern void mmr_handshake_hello(MmrLink *link, MmrSync *sync, int32 peer, const MmrPosition *from, MmrGreeting *greeting);

/* Tables that an initial copy into empty ones leaves alone there: schema, name, schema, name, ... */
extern List *mmr_handshake_filled(MmrLink *link, int32 sync_id);

#endif							/* MMR_HANDSHAKE_H */
