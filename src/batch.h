/*-------------------------------------------------------------------------
 * batch.h
 *	  What a peer has not seen yet: found in the log, read from the tables,
 *	  put into frames.
 *
 * Floor 7.  Needs a transaction; emits through a function of the caller's.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_BATCH_H
#define MMR_BATCH_H

#include "lib/stringinfo.h"
#include "membership.h"
#include "position.h"
#include "wanted.h"

typedef struct MmrBatch MmrBatch;

/* Takes a frame; `last` with the one that ends the batch. The frame is reused after the call. */
typedef void (*MmrFrameSink) (void *arg, StringInfo frame, bool last);

/* The sender's memory of one sync and peer, kept from batch to batch. */
extern MmrBatch *mmr_batch_create(MemoryContext cxt, int32 sync_id, int32 peer);

/* Keys that the peer wants besides what is new; looked at by each batch. */
extern void mmr_batch_want(MmrBatch *b, MmrWanted *wanted);

/*
 * From now on batches hold, as if `author` had sent them, what is here of what he wrote
 * and `but` does not cover, be it handed on or not: he has departed (bequest.c).
 */
extern void mmr_batch_only_of(MmrBatch *b, int32 author, const MmrPosition *but);

/* Forgets what is known of the log: after a failure, and when the peer's position is not what it was. */
extern void mmr_batch_reset(MmrBatch *b);

/*
 * Takes the snapshot S2 (pushed as the active one until mmr_batch_done) and
 * looks for what it sees and `from` did not.  True if there is something.
 */
extern bool mmr_batch_prepare(MmrBatch *b, MmrSync *sync, const MmrPosition *from);

/* Changes found (an estimate for very large batches), runs of open transactions. */
extern int64 mmr_batch_pending(MmrBatch *b);
extern int64 mmr_batch_undecided(MmrBatch *b);

/*
 * Gives the frames of the batch to the sink.  False if a table was emptied or
 * rewritten since S2: nothing of the batch may be applied then, prepare again.
 */
extern bool mmr_batch_emit(MmrBatch *b, MmrFrameSink sink, void *arg);

/* Position S2, valid until the next prepare. */
extern const MmrPosition *mmr_batch_position(MmrBatch *b);

/* Pops the snapshot; acknowledged: the peer has it. */
extern void mmr_batch_done(MmrBatch *b, bool acknowledged);

#endif							/* MMR_BATCH_H */
