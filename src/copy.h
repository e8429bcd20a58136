/*-------------------------------------------------------------------------
 * copy.h
 *	  The initial copy of a sync to a peer.
 *
 * Floor 8.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_COPY_H
#define MMR_COPY_H

#include "batch.h"
#include "membership.h"

/* Told after each frame and table how far it is. */
typedef void (*MmrCopyReport) (void *arg, const char *nspname, const char *relname,
							   int tables_done, int tables, int64 rows, int64 rows_total,
							   int64 bytes, int64 bytes_total);

/*
 * Gives all rows of the sync's tables, what the log holds of them, and our
 * positions, as one snapshot sees them, to the sink: one batch, applied as a
 * whole or not at all.  kind: as onetimecopy; 1: what the peer has goes first;
 * 0: rows only of keys that the log holds.  skip: tables (nspname, relname,
 * ...: char *) of which likewise.  Needs a transaction.
 */
extern void mmr_copy_run(MmrSync *sync, int32 my_node, int kind, List *skip,
						 MmrFrameSink sink, MmrCopyReport report, void *arg);

#endif							/* MMR_COPY_H */
