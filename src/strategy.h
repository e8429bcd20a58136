/*-------------------------------------------------------------------------
 * strategy.h
 *	  How the conflicts of a sync or a table are settled, as the
 *	  configuration says it.
 *
 * Floor 1.  Stored as text: "latest", "abort", "priority:ID,ID..." (node ids,
 * the first comes first), "function:SCHEMA.NAME" (quoted as SQL wants it).
 *-------------------------------------------------------------------------
 */
#ifndef MMR_STRATEGY_H
#define MMR_STRATEGY_H

#include "mmrepl.h"

typedef enum MmrStrategyKind
{
	MMR_STRATEGY_PRIORITY,
	MMR_STRATEGY_ABORT,
	MMR_STRATEGY_FUNCTION
} MmrStrategyKind;

typedef struct MmrStrategy
{
	MmrStrategyKind kind;
	int			nnodes;			/* PRIORITY */
	int32	   *nodes;
	char	   *nspname;		/* FUNCTION */
	char	   *proname;
} MmrStrategy;

/* What a stored text says, palloc'd; NULL: latest, or one that this version does not know. */
extern MmrStrategy *mmr_strategy_parse(const char *stored);

/* Place of the node in a list of priorities, from 0; those not named come last, all alike. */
extern int	mmr_strategy_place(const MmrStrategy *strategy, int32 node);

static inline bool
mmr_strategy_aborts(const MmrStrategy *strategy)
{
	return strategy != NULL && strategy->kind == MMR_STRATEGY_ABORT;
}

#endif							/* MMR_STRATEGY_H */
