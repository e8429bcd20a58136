/*-------------------------------------------------------------------------
 * apply.h
 *	  A batch from a peer, in one transaction of this backend.
 *
 * Floor 9.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_APPLY_H
#define MMR_APPLY_H

#include "fmgr.h"
#include "membership.h"
#include "versions.h"

/*
 * From now on this session applies what `source` pushes of that sync, or
 * (bequest) what it has left with a target.  Who it is has been checked by the caller.
 * 0, 0: nothing any more; what was known of the log is given back.
 */
extern void mmr_apply_open(int32 sync_id, int32 source_node, bool bequest);

/* SQL: mmrepl._apply */
extern Datum mmrepl_apply(PG_FUNCTION_ARGS);

/* The next batch is one that has failed because of a row: what cannot be applied is set aside. */
extern void mmr_apply_be_careful(void);

/* Whom this session applies for. */
extern int32 mmr_apply_source(void);

/* Versions as this session knows them, fed up to now; an active snapshot is pushed by the call. */
extern MmrVersions *mmr_apply_versions(MmrSync *sync);

#endif							/* MMR_APPLY_H */
