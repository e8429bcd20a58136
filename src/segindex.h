/*-------------------------------------------------------------------------
 * segindex.h
 *	  Index of a closed segment of the change log: from the hash of a key to
 *	  the run that holds its newest change there.
 *
 * Floor 3.
 *
 * A segment has an index only when it has waited long for a peer; segbuild
 * makes it, in mmrepl.log_N_index, of pages that are filled by hash:
 *
 *	  pages 0 ..			a description of the segment (SegHead, MmrSegTable ...)
 *	  then nbuckets pages	entries, by the upper half of the hash; within a page by its lower half
 *	  then					what did not fit, chained to its page
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SEGINDEX_H
#define MMR_SEGINDEX_H

#include "changelog.h"
#include "compat.h"
#include "key.h"
#include "storage/itemptr.h"
#include "utils/snapshot.h"

/* What is known of one table by a segment. */
typedef struct MmrSegTable
{
	Oid			relid;
	bool		truncated;		/* by `truncate` */
	uint64		fingerprint;	/* of the key by which its changes are indexed; 0: they are not */
	MmrVersion	newest;			/* of any key, and of TRUNCATE */
	MmrVersion	recorded;		/* newest of what apply has recorded; none: all was captured */
	MmrState	truncate;		/* newest TRUNCATE */
} MmrSegTable;

typedef struct MmrSegHead
{
	uint32		magic;
	uint32		ntables;
	Oid			filenode;		/* of the segment */
	uint32		nhead;			/* pages of the description */
	uint32		nbuckets;
	uint32		unused;
	uint64		max_xid;		/* highest transaction that appended to the segment */
	int64		changes;		/* of keys, before the newest of each was chosen */
} MmrSegHead;

typedef struct MmrSegEntry
{
	uint32		hash;			/* lower half */
	BlockNumber block;			/* of the segment */
	OffsetNumber offset;
	uint16		unused;
} MmrSegEntry;

/* What a page's one tuple holds; all have the same length, so that each page has one. */
#define MMR_SEG_BYTES	8128
#define MMR_SEG_ENTRIES ((MMR_SEG_BYTES - 16) / (int) sizeof(MmrSegEntry))
#define MMR_SEG_MAGIC	0x4d535832

typedef struct MmrSegPage
{
	uint32		magic;
	uint32		n;				/* entries; bytes of the description */
	BlockNumber next;			/* InvalidBlockNumber: none */
	uint32		unused;
	union
	{
		MmrSegEntry entries[MMR_SEG_ENTRIES];
		char		bytes[MMR_SEG_BYTES - 16];
	}			u;
} MmrSegPage;

/* The page of a hash. */
static inline uint32
mmr_segindex_bucket(uint64 hash, uint32 nbuckets)
{
	return (uint32) (((hash >> 32) * nbuckets) >> 32);
}

/* An index in use by this session. */
typedef struct MmrSegIndex
{
	MmrSegHead	head;
	MmrSegTable *tables;		/* by relid */
	BlockNumber nblocks;		/* of the index */
	int			segment;
	Oid			relid;			/* of the segment, and of the index */
	Oid			index_relid;
	MmrFileLocator locator;		/* of both */
	MmrFileLocator index_locator;
	uint32		lxid;			/* transaction in which both are locked */
} MmrSegIndex;

/* False if there is certainly no index of that segment that could be used. */
extern bool mmr_segindex_exists(int segment);

/* Table of the index, locked; NULL if there is none (extension being dropped). */
extern Relation mmr_segindex_open(int segment, LOCKMODE lockmode);

/*
 * The index of the segment (open as rel), if it has one that is whole and
 * visible to the snapshot: then all that is in the segment is, too.
 */
extern MmrSegIndex *mmr_segindex_attach(MemoryContext cxt, int segment, Relation rel, Snapshot snapshot);

/* Locks both to the end of the transaction; false: they are not what they were. Once per transaction, before lookups. */
extern bool mmr_segindex_hold(MmrSegIndex *index, Relation rel);

extern void mmr_segindex_free(MmrSegIndex *index);

/* The key's newest state in the segment (TRUNCATEs aside); false: it has none there. */
extern bool mmr_segindex_lookup(MmrSegIndex *index, MmrKey *key, uint64 hash,
								const char *data, int len, MmrState *state);

/* What the segment holds of the table, or NULL. */
extern const MmrSegTable *mmr_segindex_table(const MmrSegIndex *index, Oid relid);

#endif							/* MMR_SEGINDEX_H */
