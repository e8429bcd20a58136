/*-------------------------------------------------------------------------
 * resolve.c
 *	  Which of two states of a key stands, and what the meeting is called.
 *
 * Floor 1.  Reads and writes nothing.  Runs in apply backends.
 * Invariant: of two versions the same one stands on every node.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "breaks.h"
#include "resolve.h"

static MmrConflict
conflict_of(const MmrMeeting *m)
{
	if (m->op == MMR_OP_TRUNCATE)
		return MMR_CONFLICT_TRUNCATE;
	if (!m->remote_row)
		return m->local_row ? MMR_CONFLICT_DELETE_ORIGIN_DIFFERS : MMR_CONFLICT_DELETE_MISSING;
	if (!m->local_row)
		return MMR_CONFLICT_UPDATE_DELETED;
	return m->op == MMR_OP_INSERT ? MMR_CONFLICT_INSERT_EXISTS : MMR_CONFLICT_UPDATE_ORIGIN_DIFFERS;
}

MmrVerdict
mmr_resolve(const MmrMeeting *m)
{
	MmrVerdict	verdict = {MMR_APPLY_REMOTE, MMR_CONFLICT_NONE, false};
	int			cmp;

	/* A3: no entry, no doubt: what is here is known to all, and older */
	if (!m->local_known)
		return verdict;
	cmp = mmr_version_compare(&m->remote, &m->local);
#ifndef MMR_BREAK_NEWEST
	if (cmp <= 0)
		verdict.resolution = MMR_KEEP_LOCAL;
#endif
	verdict.equal = cmp == 0;
	if (cmp != 0 && !m->local_seen && !mmr_version_is_none(&m->remote))
		verdict.conflict = conflict_of(m);
	return verdict;
}

bool
mmr_resolve_is_open(const MmrMeeting *m)
{
	return m->remote.rank == 0 && m->local.rank == 0 && !m->local_truncate;
}

int
mmr_resolve_level(const MmrMeeting *m)
{
	int			a = m->local_settled.level;
	int			b = m->remote_settled.level;

	return a > 0 && b > 0 ? Max(a, b) + 1 : Max(Max(a, b), 1);
}

int32
mmr_resolve_owner(const MmrVersion *version, const MmrSettled *settled)
{
	return settled->level > 0 ? settled->node : version->node;
}

const char *
mmr_conflict_name(MmrConflict conflict)
{
	switch (conflict)
	{
		case MMR_CONFLICT_INSERT_EXISTS:
			return "insert_exists";
		case MMR_CONFLICT_UPDATE_ORIGIN_DIFFERS:
			return "update_origin_differs";
		case MMR_CONFLICT_UPDATE_EXISTS:
			return "update_exists";
		case MMR_CONFLICT_UPDATE_MISSING:
			return "update_missing";
		case MMR_CONFLICT_UPDATE_DELETED:
			return "update_deleted";
		case MMR_CONFLICT_DELETE_ORIGIN_DIFFERS:
			return "delete_origin_differs";
		case MMR_CONFLICT_DELETE_MISSING:
			return "delete_missing";
		case MMR_CONFLICT_MULTIPLE_UNIQUE:
			return "multiple_unique_conflicts";
		case MMR_CONFLICT_TRUNCATE:
			return "truncate_conflict";
		case MMR_CONFLICT_APPLY_ERROR:
			return "apply_error";
		case MMR_CONFLICT_NONE:
			break;
	}
	return "none";
}

const char *
mmr_resolution_name(MmrResolution resolution)
{
	switch (resolution)
	{
		case MMR_APPLY_REMOTE:
			return "apply_remote";
		case MMR_KEEP_LOCAL:
			return "keep_local";
		case MMR_MERGE:
			return "merge";
		case MMR_ABORT:
			return "abort";
		case MMR_SET_ASIDE:
			return "set_aside";
	}
	return "unknown";
}
