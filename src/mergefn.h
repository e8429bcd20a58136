/*-------------------------------------------------------------------------
 * mergefn.h
 *	  The function of a user's that makes one row of two (strategy
 *	  "function"): which one fits a table, and how it is called.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_MERGEFN_H
#define MMR_MERGEFN_H

#include "executor/tuptable.h"
#include "utils/rel.h"

#include "version.h"

typedef struct MmrMergeFn MmrMergeFn;

/* A side of a conflict, as the function sees it. */
typedef struct MmrMergeSide
{
	TupleTableSlot *row;
	MmrVersion	version;
} MmrMergeSide;

/*
 * Looks for schema.name(t, t [, timestamptz, timestamptz, text, text])
 * returning t, t being the row type of the table or anyelement.  NULL, and
 * why in words, if there is none that the table's owner may call.  Lives in a
 * context of its own below cxt, until closed.
 */
extern MmrMergeFn *mmr_mergefn_open(Relation rel, const char *nspname, const char *proname,
									MemoryContext cxt, char **problem);
extern void mmr_mergefn_close(MmrMergeFn *f);

/*
 * Calls it: a and b are called by their order here.  The result is in
 * `result` (virtual slot of the table), its values in the current context;
 * false: it gave NULL, and has no opinion.  ERROR if it raised one, or gave
 * what is no row of the table.  Runs as whoever is the current user; needs an
 * active snapshot.
 */
extern bool mmr_mergefn_call(MmrMergeFn *f, Relation rel, const MmrMergeSide *a,
							 const MmrMergeSide *b, TupleTableSlot *result);

/* Are two rows the same, byte by byte, generated columns left out? */
extern bool mmr_mergefn_same(TupleTableSlot *a, TupleTableSlot *b);

#endif							/* MMR_MERGEFN_H */
