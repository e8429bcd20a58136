/*-------------------------------------------------------------------------
 * comparison.h
 *	  Tables of a sync here against those of another db, row by row.
 *
 * Floor 7.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_COMPARISON_H
#define MMR_COMPARISON_H

#include "key.h"
#include "lib/stringinfo.h"
#include "link.h"
#include "membership.h"
#include "utils/hsearch.h"

typedef struct MmrSide
{
	MmrNode    *node;
	MmrLink    *link;
} MmrSide;

struct MmrComparison;

/* Told of a row that is not the same; difference: missing here, missing there, differs. */
typedef void (*MmrFinding) (struct MmrComparison *c, const char *key, int keylen,
							const char *difference, bool in_flight, bool set_aside);

/* One table here and on one other db. */
typedef struct MmrComparison
{
	MmrSync    *sync;
	MmrMember  *member;
	MmrKey	   *key;
	char	   *columns;		/* as a text[] */
	MmrSide		here;
	MmrSide		there;
	int			buckets;
	MemoryContext cxt;			/* of the listing under way */
	HTAB	   *rows;			/* of that listing, by the hash of their keys */
	List	   *suspects;
	MmrFinding	finding;
	void	   *arg;
	const char *from;			/* db whose rows are right, if some are to be written anew */
	StringInfoData keys;		/* those, as a bytea[] */
	int			nkeys;
	int64		rewritten;
} MmrComparison;

/* This db against others: opens the connection to itself.  ERROR if it cannot be reached. */
extern void mmr_comparison_open(MmrComparison *c, MmrSync *sync, MmrFinding finding, void *arg);
extern void mmr_comparison_close(MmrComparison *c);

/* All these tables (MmrMember) against those of that db. ERROR if it cannot be reached. */
extern void mmr_comparison_node(MmrComparison *c, MmrNode *node, List *tables);

/* To be called by a finding: has that row written anew on the db `from`. */
extern void mmr_comparison_rewrite(MmrComparison *c, const char *key, int keylen);

#endif							/* MMR_COMPARISON_H */
