/*-------------------------------------------------------------------------
 * seqcopy.h
 *	  Sequences of a sync in copy mode: the highest value wins.
 *
 * Floor 2.  All need a transaction.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SEQCOPY_H
#define MMR_SEQCOPY_H

#include "mmrepl.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

/* One value of a sequence in copy mode. */
typedef struct MmrSequenceValue
{
	char	   *nspname;
	char	   *relname;
	int64		value;
	bool		is_called;
} MmrSequenceValue;

/*
 * Sender: copy-mode sequences of the sync whose value changed since this
 * session was last asked about this sync, all of them at the first call,
 * after mmr_seqcopy_forget, and once a minute.  (A pusher has one peer: what
 * it was given once is there once the batch is acknowledged; when a batch
 * fails, forget.)  Ask after the batch's snapshot was taken: then no row of
 * the batch is ahead of its sequence.  List of MmrSequenceValue in
 * CurrentMemoryContext.  Uses SPI when the configuration has changed.
 */
extern List *mmr_seqcopy_values(int32 sync_id);
extern void mmr_seqcopy_forget(void);

/*
 * Receiver: moves the sequence forward (backward if it descends) to the
 * value, never the other way.  False when nothing was done: this sync has no
 * such sequence in copy mode, there is none here, the value is out of
 * its limits, it is there already, or a
 * transaction that runs has used it (the sender gives it again later).
 * Not undone by a rollback, which does no harm.
 */
extern bool mmr_seqcopy_advance(int32 sync_id, const char *nspname, const char *relname,
								int64 value, bool is_called);

/* Appends MMR_REC_SEQUENCE for each of the values (MmrSequenceValue). */
extern void mmr_seqcopy_append(List *values, StringInfo frame);

/* Are there any in the sync looked at last?  What nextval draws tells nobody: they have to be looked at. */
extern bool mmr_seqcopy_any(void);

#endif							/* MMR_SEQCOPY_H */
