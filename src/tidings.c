/*-------------------------------------------------------------------------
 * tidings.c
 *	  What a target has of everybody's changes.
 *
 * Floor 6.  Reads mmrepl.progress through topology.  Runs in pushers; tell, in a backend that a
 * peer's pusher has opened.
 *
 * A source tells with every batch what it has of others, so that they know what
 * they need not keep for it.  A target sends no batches.  When an author dies, what
 * he wrote and the target has not got can only come from another source (M2),
 * which therefore has to know what the target has, and keeps the rest (P1).
 * By return is enough: a target authors nothing that could be on its way, and
 * it has on disk what it tells.
 *
 * Invariant: nothing is told that would not be here after a crash.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "changelog.h"
#include "errors.h"
#include "outgoing.h"
#include "tidings.h"
#include "topology.h"
#include "wire.h"

PG_FUNCTION_INFO_V1(mmrepl_tidings);

bool
mmr_tidings_matter(const MmrSync *sync, int32 peer)
{
	int32		me = mmr_membership_my_id();
	ListCell   *lc;

	if (mmr_membership_is_source((MmrSync *) sync, peer))
		return false;
	/* also by another sync: stability waits for all that comes to it */
	foreach(lc, mmr_membership_nodes())
	{
		int32		other = ((MmrNode *) lfirst(lc))->id;

		if (other != me && other != peer && mmr_topology_reaches_around(sync, other, peer))
			return true;
	}
	return false;
}

bytea *
mmr_tidings_ask(MmrLink *link, int32 sync_id)
{
	char		id[16];
	const char *values[1] = {id};
	PGresult   *res;
	bytea	   *told;

	snprintf(id, sizeof(id), "%d", sync_id);
	res = mmr_link_exec(link, "SELECT mmrepl._tidings($1::int4)", 1, values);
	if (PQntuples(res) != 1 || PQgetisnull(res, 0, 0))
	{
		PQclear(res);
		ereport(ERROR,
				(errcode(ERRCODE_MMR_PROTOCOL),
				 errmsg("%s does not tell what it has applied", mmr_link_name(link))));
	}
	told = DatumGetByteaPP(DirectFunctionCall1(byteain, CStringGetDatum(PQgetvalue(res, 0, 0))));
	PQclear(res);
	return told;
}

static bool
log_is_empty(void)
{
	for (int i = 0; i < MMR_SEGMENTS; i++)
		if (mmr_changelog_segment_used(i))
			return false;
	return true;
}

bool
mmr_tidings_behind(const MmrSync *sync, int32 peer, const bytea *told)
{
	MmrReader	r = {VARDATA_ANY(told), VARDATA_ANY(told) + VARSIZE_ANY_EXHDR(told)};
	const MmrContext *its = mmr_get_context(&r);
	const MmrContext *ours = mmr_topology_context(sync);

	/* nothing is kept here for anybody */
	if (log_is_empty())
		return false;
	for (int i = 0; i < ours->n; i++)
	{
		int32		author = ours->entries[i].node;
		const MmrPosition *has = mmr_context_position(its, author);

		if (author != peer && mmr_topology_reaches_around(sync, author, peer) &&
			!mmr_position_equal(mmr_position_union(has, ours->entries[i].position), has))
			return true;
	}
	return false;
}

/* mmrepl._tidings(sync_id int4) returns bytea */
Datum
mmrepl_tidings(PG_FUNCTION_ARGS)
{
	MmrSync    *sync;
	StringInfoData buf;
	bytea	   *result;

	mmr_membership_refresh();
	sync = mmr_membership_sync(PG_GETARG_INT32(0));
	if (sync == NULL || sync->my_role == MMR_ROLE_NONE)
		PG_RETURN_NULL();
	PushActiveSnapshot(GetLatestSnapshot());
	initStringInfo(&buf);
	mmr_append_context(&buf, mmr_topology_context(sync));
	PopActiveSnapshot();
	/* somebody may have committed without waiting for the disk: it was a source until now */
	mmr_outgoing_flush_wal();
	result = palloc(VARHDRSZ + buf.len);
	SET_VARSIZE(result, VARHDRSZ + buf.len);
	memcpy(VARDATA(result), buf.data, buf.len);
	PG_RETURN_BYTEA_P(result);
}
