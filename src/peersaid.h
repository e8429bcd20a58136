/*-------------------------------------------------------------------------
 * peersaid.h
 *	  What a pusher has heard of its peer: where it stands, and in which part
 *	  of it in the sync; written down now and then.
 *
 * Floor 7.  Needs a transaction, unless it says otherwise.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_PEERSAID_H
#define MMR_PEERSAID_H

#include "peerstate.h"
#include "shared.h"

/* It is written down once in so long (ms). */
#define MMR_PEERSAID_MS	5000

typedef struct MmrPeerSaid
{
	int32		sync_id;
	int32		peer;
	MemoryContext cxt;			/* of the process: what is here lives in it */
	char		part[MMR_PEER_PART];	/* empty: none yet */
	MmrPosition *position;		/* where it stands, as last heard in that part; NULL: not known, or nowhere */
	bool		target;			/* that is to be asked what it has of others */
	bool		unsaved;
	TimestampTz saved_at;
	char		message[MMR_MSGLEN];	/* saved last */
} MmrPeerSaid;

/* A session begins: what was known of an earlier part is nothing; at first, what is written down of this one. */
extern void mmr_peersaid_begin(MmrPeerSaid *s, const MmrSync *sync);

/* It stands there, in this part.  Needs no transaction. */
extern void mmr_peersaid_stands_at(MmrPeerSaid *s, const MmrPosition *position);

/* Is it time to write it down?  Needs no transaction. */
extern bool mmr_peersaid_due(const MmrPeerSaid *s);

/* Writes it down, with what the worker and the peer (told; may be NULL) tell. */
extern void mmr_peersaid_save(MmrPeerSaid *s, const MmrSync *sync, MmrWorker *me, const char *message, const bytea *told);

#endif							/* MMR_PEERSAID_H */
