/*-------------------------------------------------------------------------
 * outgoing.h
 *	  A local table on its way out: its rows looked up by key under a
 *	  snapshot, and written into frames.
 *
 * Floor 5.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_OUTGOING_H
#define MMR_OUTGOING_H

#include "key.h"
#include "keyscan.h"
#include "membership.h"
#include "row.h"
#include "versions.h"

typedef struct MmrOutgoing
{
	Oid			relid;
	uint32		number;			/* in the batch under way; 0: not described yet */
	uint64		generation;		/* of the catalog caches that key and format were made under */
	MmrRowFormat *format;
	MemoryContext parent;		/* set by the owner: where cxt is made */
	MemoryContext cxt;
	Relation	rel;			/* while open */
	Relation	index;
	MmrKey	   *key;
	TupleTableSlot *slot;
	MmrKeyScan *scan;
} MmrOutgoing;

/*
 * B3: makes durable whatever the snapshot just taken sees as finished.  Call it
 * after the snapshot and before anything leaves.
 */
extern void mmr_outgoing_flush_wal(void);

/*
 * Opens a member for reading under the snapshot.  False if its storage is not
 * what the snapshot knew (TRUNCATE, rewrite): then its rows only look
 * deleted (B2).  ERROR if it has no usable key.
 */
extern bool mmr_outgoing_open(MmrOutgoing *o, MmrMember *member, Snapshot snapshot);
/* Lets go of all pages of the table, before something that may take long. */
extern void mmr_outgoing_rest(MmrOutgoing *o);
extern void mmr_outgoing_close(MmrOutgoing *o);

/* Appends MMR_REC_RELATION if this batch has not had it. */
extern void mmr_outgoing_describe(MmrOutgoing *o, uint32 number, StringInfo out);

/*
 * Appends MMR_REC_ITEM: the key's row as the snapshot sees it, or that there is
 * none.  *ts is the time of the item before in this frame.
 */
extern void mmr_outgoing_item(MmrOutgoing *o, const MmrChange *label, int32 my_node, int64 *ts,
							  StringInfo out);

/* The same for a row at hand, whose key is in `key`, without a version: for an initial copy. */
extern void mmr_outgoing_row(MmrOutgoing *o, TupleTableSlot *slot, StringInfo key, int64 *ts, StringInfo out);

/* Appends MMR_REC_TRUNCATE: that version and dot. */
extern void mmr_outgoing_truncate(MmrOutgoing *o, const MmrVersion *version, const MmrDot *dot, StringInfo out);

#endif							/* MMR_OUTGOING_H */
