/*-------------------------------------------------------------------------
 * node.h
 *	  Who this database is: system identifier, database oid, timeline (M3).
 *
 * Floor 3.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_NODE_H
#define MMR_NODE_H

#include "mmrepl.h"

/* Of the database this session is connected to. */
extern void mmr_node_identity(int64 *sysid, Oid *dboid, int32 *timeline);

/*
 * ERROR (ERRCODE_MMR_IDENTITY) unless mmrepl.local_node was written by this
 * very database in this very life: workers call it before they do anything.
 * Needs a transaction; takes its own snapshot.
 */
extern void mmr_node_check(void);

#endif							/* MMR_NODE_H */
