/*-------------------------------------------------------------------------
 * keyscan.h
 *	  Rows of a table looked up by key, one key after the other, under one
 *	  snapshot.
 *
 * Floor 3.  Needs a transaction.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_KEYSCAN_H
#define MMR_KEYSCAN_H

#include "access/genam.h"
#include "executor/tuptable.h"
#include "utils/snapshot.h"

#include "key.h"

typedef struct MmrKeyScan MmrKeyScan;

/* In the current context, which must not be reset before the end. */
extern MmrKeyScan *mmr_keyscan_begin(Relation rel, Relation index, MmrKey *key, Snapshot snapshot);

/*
 * The key's row as the snapshot sees it; false: there is none.  Keys that come
 * in the order of the index, and close to each other, cost least.
 */
extern bool mmr_keyscan_find(MmrKeyScan *s, const Datum *values, TupleTableSlot *slot);

/* Lets go of all pages, before something that may take long: VACUUM waits for whoever holds one. */
extern void mmr_keyscan_rest(MmrKeyScan *s);

extern void mmr_keyscan_end(MmrKeyScan *s);

#endif							/* MMR_KEYSCAN_H */
