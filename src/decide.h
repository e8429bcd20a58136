/*-------------------------------------------------------------------------
 * decide.h
 *	  What stands in a conflict when the table's strategy is not latest (A6).
 *
 * Floor 6.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_DECIDE_H
#define MMR_DECIDE_H

#include "mergestate.h"
#include "resolve.h"

typedef enum MmrWant
{
	MMR_WANT_LATEST,			/* nothing but what the versions say */
	MMR_WANT_LOCAL,				/* what is here, as a new write */
	MMR_WANT_REMOTE,			/* what came, as a new write */
	MMR_WANT_MERGED				/* a row made of both, as a new write */
} MmrWant;

typedef struct MmrDecision
{
	MmrWant		want;
	MmrSettled	settled;		/* of the new write */
	TupleTableSlot *merged;		/* MERGED: the row, to be dropped by the caller */
	bool		abort;			/* the sync is to stop */
	bool		quiet;			/* both have the same already: not worth a word */
	const char *error;			/* why the strategy could not be followed; NULL: it was */
} MmrDecision;

/*
 * The table's strategy looks at a conflict: t->found is the row here (if
 * meeting->local_row), t->row the one that came (if meeting->remote_row).
 * Between mmr_target_begin and end.  What the user's function does wrong is
 * told in `error`, and the newest stands; ERROR only for what ends by itself
 * (locks and the like), and for lack of memory.
 */
extern void mmr_decide(MmrMerge *m, MmrMergeTable *table, MmrTarget *t, const MmrMergeItem *item,
					   const MmrMeeting *meeting, const MmrVerdict *verdict,
					   MmrDecision *decision);

#endif							/* MMR_DECIDE_H */
