/*-------------------------------------------------------------------------
 * join.h
 *	  A database joins a sync that runs (M1); initial copies that are due here.
 *
 * Floor 5.  All need a transaction, and membership as of it.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_JOIN_H
#define MMR_JOIN_H

#include "membership.h"
#include "position.h"

/*
 * While this database joins the sync: whom it still waits for, for a message
 * (palloc'd).  NULL: it captures, and sends; and takes what comes from that
 * node (0: does not matter).
 */
extern char *mmr_join_waits_for(MmrSync *sync, int32 from);

/*
 * That node has told that it knows of this database's part in the sync; its
 * clock then was that, below 0: it has not settled yet what is left of an
 * earlier part of ours (departed.h).  Nothing unless this database is about to join.
 */
extern void mmr_join_meet(MmrSync *sync, int32 node_id, int64 clock);

/* Kind of initial copy that this database needs from that node, as onetimecopy; -1: none. */
extern int	mmr_join_copy_wanted(int32 sync_id, int32 node_id);

/* Does it need one of anybody?  Then it has nothing to give. */
extern bool mmr_join_lacks_copy(int32 sync_id);

/*
 * The initial copy of that node is in.  context: what it shows of every source.
 * True if it was the first, by which this database joins: then we stand where
 * the giver stood, and the caller stores his own position.
 */
extern bool mmr_join_copied(MmrSync *sync, int32 source_node, MmrContext *context);

/* Janitor: takes its part in what it can, in transactions of its own; true: some have to wait still. */
extern bool mmr_join_round(void);

#endif							/* MMR_JOIN_H */
