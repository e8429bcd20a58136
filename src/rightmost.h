/*-------------------------------------------------------------------------
 * rightmost.h
 *	  Entries above all others of a btree, put in together.
 *
 * Floor 1.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_RIGHTMOST_H
#define MMR_RIGHTMOST_H

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/relcache.h"

/*
 * Enters the first of n new rows (their tids in the slots) into an index that
 * holds nothing but columns, as long as each lies above all that is there.
 * Returns how many are in, in a unique index as the only ones with their
 * values; the next one has to go in by itself.
 */
extern int	mmr_rightmost_append(Relation index, IndexInfo *info, EState *estate,
								 TupleTableSlot **rows, int n);

#endif							/* MMR_RIGHTMOST_H */
