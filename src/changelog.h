/*-------------------------------------------------------------------------
 * changelog.h
 *	  The change log: packed runs of changes, appended to segment tables.
 *
 * Floor 2.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_CHANGELOG_H
#define MMR_CHANGELOG_H

#include "mmrepl.h"
#include "port/atomics.h"
#include "storage/block.h"
#include "utils/rel.h"
#include "version.h"
#include "wire.h"

/* One change of one key, as it is packed and unpacked. */
typedef struct MmrChange
{
	MmrOp		op;
	Oid			relid;
	MmrVersion	version;
	MmrDot		dot;
	MmrSettled	settled;		/* a conflict, by a resolver (A6) */
	const char *key;			/* NULL for TRUNCATE */
	int			keylen;
} MmrChange;

/* What is known of one key. */
typedef struct MmrState
{
	MmrVersion	version;
	MmrDot		dot;
	MmrOp		op;
	MmrSettled	settled;
} MmrState;

/* A run under the reader. */
typedef struct MmrRun
{
	MmrReader	r;
	uint64		xid;			/* top-level transaction that appended it */
	int32		node;			/* this node's id then */
	int32		via;			/* recorded: the sync by which it came, 0: not known */
	bool		recorded;		/* by apply: each change has its own dot */
	bool		has_truncate;
	int64		ts;
	Oid			relid;
} MmrRun;

/* Collects changes into runs, and writes those; one at a time per backend. */
typedef struct MmrAppender MmrAppender;

/*
 * Starts appending for the current (sub)transaction; recorded: changes carry
 * their own dot and version.  Changes must come with the transaction's
 * top-level xid assigned.
 */
extern MmrAppender *mmr_changelog_begin(int32 node, bool recorded);
/* Recorded: what is added came by that sync. */
extern void mmr_changelog_via(MmrAppender *a, int32 sync_id);
extern void mmr_changelog_add(MmrAppender *a, const MmrChange *change);
/* Writes what is left; the appender is gone. */
extern void mmr_changelog_end(MmrAppender *a);

/* Checks the run's header; ERROR (ERRCODE_MMR_CORRUPT) if it is of an unknown version. */
extern void mmr_changelog_open_run(MmrRun *run, uint64 xid, const char *data, int len);
/* Next change of the run, false at its end. `key` points into the run. */
extern bool mmr_changelog_next(MmrRun *run, MmrChange *change);

/* True if this transaction, before it comes to append, has dropped the extension. */
extern bool mmr_changelog_is_gone(void);

/* Opens a segment; NULL if there is none (extension being dropped). */
extern Relation mmr_changelog_open_segment(int segment, LOCKMODE lockmode);

/*
 * A mark of each stretch of pages, which moves after something was appended
 * there and before that can be seen by others.  NULL: nobody keeps it.
 */
#define MMR_STRETCH		32
extern pg_atomic_uint32 *mmr_changelog_mark(int segment, BlockNumber block);

/* False if that segment is certainly empty. */
extern bool mmr_changelog_segment_used(int segment);

/* Highest version time in the log, whoever wrote it, of transactions under way too; 0 if it is empty. */
extern int64 mmr_changelog_max_ts(void);

#endif							/* MMR_CHANGELOG_H */
