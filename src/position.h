/*-------------------------------------------------------------------------
 * position.h
 *	  Positions: a pg_snapshot of one node, and contexts: a position of
 *	  every node.
 *
 * Floor 0.  Values and bytes are those of the server's pg_snapshot type (its
 * binary send format goes over the wire).
 *-------------------------------------------------------------------------
 */
#ifndef MMR_POSITION_H
#define MMR_POSITION_H

#include "lib/stringinfo.h"

typedef struct MmrPosition
{
	uint64		xmin;
	uint64		xmax;
	int			nxip;
	uint64		xip[FLEXIBLE_ARRAY_MEMBER]; /* ascending; in progress */
} MmrPosition;

/* True if the transaction is visible (finished) in the position; NULL covers nothing. */
extern bool mmr_position_covers(const MmrPosition *pos, uint64 xid);

/* Both NULL, or the same set of transactions. */
extern bool mmr_position_equal(const MmrPosition *a, const MmrPosition *b);

/* Position of the active snapshot; palloc'd. */
extern MmrPosition *mmr_position_active(void);

/* What either covers; what both cover. NULL covers nothing; palloc'd unless it is one of the two. */
extern const MmrPosition *mmr_position_union(const MmrPosition *a, const MmrPosition *b);
extern const MmrPosition *mmr_position_intersect(const MmrPosition *a, const MmrPosition *b);

/* From and to a Datum of type pg_snapshot; palloc'd. */
extern MmrPosition *mmr_position_from_datum(Datum snapshot);
extern Datum mmr_position_to_datum(const MmrPosition *pos);

/* Copy in a context. */
extern MmrPosition *mmr_position_copy(const MmrPosition *pos, MemoryContext cxt);

/* A node's position inside a context. */
typedef struct MmrContextEntry
{
	int32		node;
	bool		carried;		/* whoever tells this hands on all that; of a node's two entries the second */
	const MmrPosition *position;
} MmrContextEntry;

typedef struct MmrContext
{
	int			n;
	MmrContextEntry *entries;
} MmrContext;

/* Position of that node in the context, NULL if it has none (or the context is NULL). */
extern const MmrPosition *mmr_context_position(const MmrContext *ctx, int32 node);

/* As far as whoever tells the context hands on what it has of that node; NULL likewise. */
extern const MmrPosition *mmr_context_carried(const MmrContext *ctx, int32 node);

/* Adds an entry without a position, unless there is one: of that node more may come to whoever tells the context. */
extern void mmr_context_name(MmrContext *ctx, int32 node);

/* Adds an entry; position may be NULL (nothing is added then). */
extern void mmr_context_add(MmrContext *ctx, int32 node, const MmrPosition *position, bool carried);

#endif							/* MMR_POSITION_H */
