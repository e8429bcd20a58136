/*-------------------------------------------------------------------------
 * incoming.h
 *	  An item as it comes over the wire (outgoing writes it).
 *
 * Floor 6.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_INCOMING_H
#define MMR_INCOMING_H

#include "mergestate.h"
#include "wire.h"

/*
 * Reads what stands behind an item's flags and table.  Bytes stay where they
 * are.  *ts: time of the item before; copy: a time of 0 is no version.
 */
extern void mmr_incoming_item(MmrReader *r, MmrMergeTable *table, uint8 flags, int32 source,
							  bool copy, int64 *ts, MmrMergeItem *item);

#endif							/* MMR_INCOMING_H */
