/*-------------------------------------------------------------------------
 * apply.h
 *	  A batch from a peer, in one transaction of this backend.
 *
 * Floor 8.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_APPLY_H
#define MMR_APPLY_H

#include "membership.h"
#include "versions.h"

/*
 * From now on this session applies what `source` pushes of that sync.  Who it
 * is has been checked by the caller.
 */
extern void mmr_apply_open(int32 sync_id, int32 source_node);

/* Versions as this session knows them, fed up to now; an active snapshot is pushed by the call. */
extern MmrVersions *mmr_apply_versions(MmrSync *sync);

#endif							/* MMR_APPLY_H */
