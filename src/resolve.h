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
	MMR_MERGE,					/* a row made of both */
	MMR_ABORT,					/* nothing was decided: the sync stops */
	MMR_SET_ASIDE
} MmrResolution;

/* What came, and what is here. */
typedef struct MmrMeeting
{
	MmrOp		op;				/* of what came */
	bool		remote_row;		/* it has a row (else the key is gone there) */
	MmrVersion	remote;
	MmrSettled	remote_settled; /* how it came about */
	bool		local_row;		/* there is a row here */
	bool		local_known;	/* the key has an entry in the log here... */
	bool		local_truncate; /* ...that of a TRUNCATE... */
	MmrVersion	local;			/* ...with this version... */
	MmrSettled	local_settled;	/* ...that came about so... */
	bool		local_seen;		/* ...which the sender had applied (A7) */
} MmrMeeting;

typedef struct MmrVerdict
{
	MmrResolution resolution;
	MmrConflict conflict;		/* NONE: ordinary */
	bool		equal;			/* the very same version: nothing to do */
} MmrVerdict;

extern MmrVerdict mmr_resolve(const MmrMeeting *m);

/*
 * A strategy other than latest may decide a conflict between two writes.
 * What lost to a unique value or a TRUNCATE stays lost.
 */
extern bool mmr_resolve_is_open(const MmrMeeting *m);

/*
 * Level of what is made of both sides.  A write is used up by a result; a
 * result of results counts one more, so that they end.
 */
extern int	mmr_resolve_level(const MmrMeeting *m);

/* Whose row it is: the author, or whom a priority has preferred. */
extern int32 mmr_resolve_owner(const MmrVersion *version, const MmrSettled *settled);

extern const char *mmr_conflict_name(MmrConflict conflict);
extern const char *mmr_resolution_name(MmrResolution resolution);

#endif							/* MMR_RESOLVE_H */
