/*-------------------------------------------------------------------------
 * resolve.h
 *	  Which of two states of a key stands, and what the meeting is called.
 *	  Pure: no row, no table, no clock is looked at.
 *
 * Floor 1.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_RESOLVE_H
#define MMR_RESOLVE_H

#include "mmrepl.h"
#include "version.h"

/* The server's own words (PostgreSQL 18), plus truncate_conflict and apply_error. */
typedef enum MmrConflict
{
	MMR_CONFLICT_NONE = 0,
	MMR_CONFLICT_INSERT_EXISTS,
	MMR_CONFLICT_UPDATE_ORIGIN_DIFFERS,
	MMR_CONFLICT_UPDATE_EXISTS,
	MMR_CONFLICT_UPDATE_MISSING,
	MMR_CONFLICT_UPDATE_DELETED,
	MMR_CONFLICT_DELETE_ORIGIN_DIFFERS,
	MMR_CONFLICT_DELETE_MISSING,
	MMR_CONFLICT_MULTIPLE_UNIQUE,
	MMR_CONFLICT_TRUNCATE,
	MMR_CONFLICT_APPLY_ERROR	/* no conflict of versions: it cannot be applied here (A11) */
} MmrConflict;

typedef enum MmrResolution
{
	MMR_APPLY_REMOTE,
	MMR_KEEP_LOCAL,
	MMR_SET_ASIDE
} MmrResolution;

/* What came, and what is here. */
typedef struct MmrMeeting
{
	MmrOp		op;				/* of what came */
	bool		remote_row;		/* it has a row (else the key is gone there) */
	MmrVersion	remote;
	bool		local_row;		/* there is a row here */
	bool		local_known;	/* the key has an entry in the log here... */
	MmrVersion	local;			/* ...with this version... */
	bool		local_seen;		/* ...which the sender had applied (A7) */
} MmrMeeting;

typedef struct MmrVerdict
{
	MmrResolution resolution;
	MmrConflict conflict;		/* NONE: ordinary */
	bool		equal;			/* the very same version: nothing to do */
} MmrVerdict;

extern MmrVerdict mmr_resolve(const MmrMeeting *m);

extern const char *mmr_conflict_name(MmrConflict conflict);
extern const char *mmr_resolution_name(MmrResolution resolution);

#endif							/* MMR_RESOLVE_H */
