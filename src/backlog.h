/*-------------------------------------------------------------------------
 * backlog.h
 *	  How much waits for a peer to whom nothing can be sent.
 *
 * Floor 8.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_BACKLOG_H
#define MMR_BACKLOG_H

#include "membership.h"
#include "position.h"

typedef struct MmrBacklog MmrBacklog;

extern MmrBacklog *mmr_backlog_create(MemoryContext parent, int32 sync_id, int32 peer);

/*
 * Changes that wait, behind the position where the peer stands.  Only what is
 * new since the last look is read as long as that position stays.  In a
 * transaction.
 */
extern int64 mmr_backlog_look(MmrBacklog *b, MmrSync *sync, const MmrPosition *from);

/* The peer is there again: gives the memory back. */
extern void mmr_backlog_forget(MmrBacklog *b);

#endif							/* MMR_BACKLOG_H */
