/*-------------------------------------------------------------------------
 * crossing.h
 *	  Changes of two sessions that have crossed: each was written before the
 *	  other one could be seen.
 *
 * Floor 3.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_CROSSING_H
#define MMR_CROSSING_H

#include "changelog.h"
#include "position.h"

/* Marks of transactions: 1 to that, and anew. */
#define MMR_CROSSING_TURNS	7

typedef struct MmrCrossing
{
	MemoryContext cxt;
	LocalTransactionId lxid;	/* transaction that wrote last... */
	unsigned	turn;			/* ...and its mark */
	MmrPosition *fed;			/* the log has been read up to here */
	bool		look;			/* is the run being read news to that transaction? */
	int64		met;
} MmrCrossing;

/* Nothing has been read, nothing written. */
extern void mmr_crossing_reset(MmrCrossing *c, MemoryContext cxt);

/* This transaction writes a change: the mark to keep with it. */
extern unsigned mmr_crossing_write(MmrCrossing *c);

/* Has it written any? */
extern bool mmr_crossing_wrote(const MmrCrossing *c);

/* A run of the log is read. */
extern void mmr_crossing_run(MmrCrossing *c, uint64 xid);

/* A change of it meets one of the same key, with its mark (0: none): counted if they have crossed. */
extern void mmr_crossing_meet(MmrCrossing *c, unsigned turn, uint8 op, const MmrVersion *known,
							  const MmrChange *change);

/* The log has been read up to there. */
extern void mmr_crossing_fed(MmrCrossing *c, const MmrPosition *pos);

/* One of those counted has been dealt with. */
extern void mmr_crossing_settled(MmrCrossing *c);

/*
 * Do two changes of a key not go together, when neither has seen the other's row?
 * Of the older one there may be a row that the newer one has not seen.
 */
extern bool mmr_crossing_matters(uint8 op, const MmrVersion *own, uint8 other_op, const MmrVersion *other);

#endif							/* MMR_CROSSING_H */
