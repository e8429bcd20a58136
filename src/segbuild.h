/*-------------------------------------------------------------------------
 * segbuild.h
 *	  Builds the index of a closed segment of the change log.
 *
 * Floor 4.  Runs in the janitor.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SEGBUILD_H
#define MMR_SEGBUILD_H

#include "mmrepl.h"
#include "utils/rel.h"

/*
 * Builds it, in the transaction under way, with the segment open as rel.  The
 * segment must be sealed.  False, and nothing is done, if somebody has the
 * index locked, or a table whose key is needed.
 */
extern bool mmr_segbuild_run(int segment, Relation rel);

/* Has the segment an index that holds? */
extern bool mmr_segbuild_done(int segment, Relation rel);

/*
 * Empties the index if it holds anything, in the transaction under way; false
 * if somebody has it locked.
 */
extern bool mmr_segbuild_clear(int segment);

#endif							/* MMR_SEGBUILD_H */
