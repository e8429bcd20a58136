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
 * Gives all rows of the sync's tables, as one snapshot sees them, to the sink:
 * one batch, applied as a whole or not at all.  clear: what the peer has goes
 * first; skip: tables (nspname, relname, ...: char *) that are left as they
 * are there.  Needs a transaction.
 */
extern void mmr_copy_run(MmrSync *sync, int32 my_node, bool clear, List *skip,
						 MmrFrameSink sink, MmrCopyReport report, void *arg);

#endif							/* MMR_COPY_H */
