/*-------------------------------------------------------------------------
 * transport.h
 *	  A batch as frames to the peer, its answer back.
 *
 * Floor 3.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_TRANSPORT_H
#define MMR_TRANSPORT_H

#include "lib/stringinfo.h"
#include "link.h"

typedef struct MmrTransport
{
	MmrLink    *link;
	bool		prepared;		/* the peer has the statement */
	bool		streaming;		/* more than one frame: a pipeline is open */
	bool		sent_last;
	int			unanswered;		/* statements of the pipeline */
	int64		bytes;			/* of the batch */
	int64		counts[6];		/* the answer: inserted, updated, deleted, truncated, conflicts, keys that stand aside */
} MmrTransport;

/* Readies a fresh connection. */
extern void mmr_transport_open(MmrTransport *t, MmrLink *link);

/*
 * Sends a frame (an MmrFrameSink; arg is the MmrTransport).  One frame alone is a
 * transaction of its own; several are one together.  ERROR with what the peer
 * said; the link is of no use then.
 */
extern void mmr_transport_frame(void *arg, StringInfo frame, bool last);

/* Waits for the peer's commit; the answer is in t->counts. */
extern void mmr_transport_finish(MmrTransport *t);

/* Makes the peer forget the frames sent so far; the link can be used again. */
extern void mmr_transport_cancel(MmrTransport *t);

/* Between batches, when something came from the peer: ERROR if it was the end of the connection. */
extern void mmr_transport_listen(MmrTransport *t);

#endif							/* MMR_TRANSPORT_H */
