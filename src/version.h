/*-------------------------------------------------------------------------
 * version.h
 *	  Version of one state of a key, and the dot of the transaction that
 *	  authored it.
 *
 * Floor 0.  Pure.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_VERSION_H
#define MMR_VERSION_H

/*
 * Total order of the states of one key: ts (hybrid clock, microseconds since
 * 2000), then node, then rank (0 a write, 1 a delete decided by a unique
 * conflict).
 */
typedef struct MmrVersion
{
	int64		ts;
	int32		node;
	int32		rank;
} MmrVersion;

/* Author of an entry: node and its top-level transaction. */
typedef struct MmrDot
{
	int32		node;
	uint64		xid;
} MmrDot;

/* Lower than every version: what a key without an entry has, and what a copied row has. */
#define MMR_VERSION_NONE	((MmrVersion) {0, 0, 0})

static inline bool
mmr_version_is_none(const MmrVersion *v)
{
	return v->ts == 0;
}

/* <0, 0, >0 as a is older than, equal to, newer than b. */
static inline int
mmr_version_compare(const MmrVersion *a, const MmrVersion *b)
{
	if (a->ts != b->ts)
		return a->ts < b->ts ? -1 : 1;
	if (a->node != b->node)
		return a->node < b->node ? -1 : 1;
	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	return 0;
}

/*
 * A state that settled a conflict (A6) remembers how: level 0 is an ordinary
 * write; higher ones are results of results, and end at a limit.
 */
typedef struct MmrSettled
{
	int32		node;			/* whose row it is, or who made it */
	uint8		level;
} MmrSettled;

#define MMR_SETTLED_NONE	((MmrSettled) {0, 0})
#define MMR_SETTLED_LEVELS	100

#endif							/* MMR_VERSION_H */
