/*-------------------------------------------------------------------------
 * heir.c
 *	  What a departed source has left with a target alone (M2); the target's
 *	  side is bequest.
 *
 * Floor 10.  Reads and writes what apply does, and mmrepl.departed.  Runs in pushers.
 *
 * A target says of whom it holds something.  That is fetched, and applied here as a
 * batch of the departed one: what wins is recorded as written here, with its
 * version (mmr_merge_record), so it goes to all, and is kept until all have it.  As long as
 * some target has not been asked, this database is not done with the departed one,
 * and its context names him: nobody forgets meanwhile what is newer than that (stability.c).
 *
 * If this database dies on the way it asks again.  When it has it all on its disk
 * it tells the target, again if need be: by then that asks itself for nobody.
 *
 * Invariant: the target is named in `asked` by the transaction that applies what it has.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "apply.h"
#include "catalog.h"
#include "confstate.h"
#include "departed.h"
#include "departures.h"
#include "heir.h"
#include "join.h"
#include "membership.h"
#include "progress.h"
#include "worker.h"

#define LIST_SQL	"SELECT * FROM mmrepl._bequests($1::int4, $2::int8, $3::int4)"
#define OPEN_SQL	"DECLARE bequest CURSOR FOR SELECT * FROM mmrepl._bequest($1::int4, $2::int4, $3::pg_catalog.pg_snapshot)"
#define FETCH_SQL	"FETCH 1 FROM bequest"	/* a frame may be large */
#define TAKEN_SQL	"SELECT mmrepl._bequest_taken($1::int4, $2::int4)"

/* All frames, spilled to disk if there are many: nothing here is locked meanwhile. */
static Tuplestorestate *
fetch(MmrLink *link, int32 sync_id, int32 gone, TupleDesc desc)
{
	Tuplestorestate *frames = tuplestore_begin_heap(false, false, work_mem);
	MmrProgress *p = mmr_progress_read(sync_id, gone);
	const char *args[3] = {psprintf("%d", sync_id), psprintf("%d", gone), NULL};
	int			n;

	if (p->position != NULL)
		args[2] = DatumGetCString(DirectFunctionCall1(pg_snapshot_out, mmr_position_to_datum(p->position)));
	PQclear(mmr_link_exec(link, "BEGIN ISOLATION LEVEL READ COMMITTED", 0, NULL));
	PQclear(mmr_link_exec(link, OPEN_SQL, 3, args));
	do
	{
		PGresult   *res = mmr_link_exec(link, FETCH_SQL, 0, NULL);

		n = PQntuples(res);
		PG_TRY();
		{
			for (int i = 0; i < n; i++)
			{
				Datum		v[1] = {DirectFunctionCall1(byteain, CStringGetDatum(PQgetvalue(res, i, 0)))};
				bool		null[1] = {false};

				tuplestore_putvalues(frames, desc, v, null);
				pfree(DatumGetPointer(v[0]));
			}
		}
		PG_FINALLY();
		{
			/* the disk may be full, again and again */
			PQclear(res);
		}
		PG_END_TRY();
	} while (n > 0);
	PQclear(mmr_link_exec(link, "COMMIT", 0, NULL));
	return frames;
}

/* A batch like others, but for where it comes from; a row that cannot be applied is set aside at once. */
static void
apply(int32 sync_id, int32 gone, Tuplestorestate *frames, TupleDesc desc)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	/* a frame is a statement elsewhere: what it takes goes with it */
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl bequest", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	LOCAL_FCINFO(fcinfo, 1);

	mmr_apply_open(sync_id, gone, true);
	mmr_apply_be_careful();
	while (tuplestore_gettupleslot(frames, true, false, slot))
	{
		InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
		fcinfo->args[0].value = slot_getattr(slot, 1, &fcinfo->args[0].isnull);
		(void) mmrepl_apply(fcinfo);
		MemoryContextReset(cxt);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(cxt);
}

/* Takes it, unless that was done before. */
static void
collect(MmrLink *link, int32 sync_id, int32 peer, int32 gone)
{
	TupleDesc	desc = CreateTemplateTupleDesc(1);
	Tuplestorestate *frames;
	MmrDeparture *d;

	TupleDescInitEntry(desc, 1, "frame", BYTEAOID, -1, 0);
	d = mmr_departures_find(sync_id, gone);
	if (d == NULL || list_member_int(d->asked, peer))
		return;
	frames = fetch(link, sync_id, gone, desc);
	/* the janitor may be about to be done with it, or another pusher collects, too */
	(void) mmr_progress_claim(sync_id, gone);
	if (mmr_departures_find(sync_id, gone) != NULL)
	{
		apply(sync_id, gone, frames, desc);
		mmr_departed_asked(sync_id, gone, peer);
		/* the target will not keep it any longer */
		ForceSyncCommit();
	}
	tuplestore_end(frames);
}

/* In a transaction; the sync, NULL if it is no more. */
static MmrSync *
begin(const char *activity, int32 sync_id)
{
	mmr_worker_start_transaction(activity);
	if (!mmr_catalog_hold())
		mmr_worker_leave();
	mmr_membership_refresh();
	return mmr_membership_sync(sync_id);
}

/*
 * The departed ones of whom the peer, under the same configuration, says that it holds something.
 * Of others it holds nothing: it came later, or has said all; with it they are settled.
 */
static List *
ask(MmrLink *link, int32 sync_id, int32 peer, MemoryContext cxt)
{
	const char *args[3] = {psprintf("%d", sync_id)};
	MmrConfState *state;
	List	   *departures = mmr_departures(sync_id);	/* before the version: of a later one more may have departed */
	PGresult   *res;
	MemoryContext old;
	List	   *result = NIL;
	bool		knows = true;
	ListCell   *lc;

	state = mmr_confstate_here(0);
	args[1] = psprintf(INT64_FORMAT, state->version);
	args[2] = psprintf("%d", state->author);
	res = mmr_link_exec(link, LIST_SQL, 3, args);
	old = MemoryContextSwitchTo(cxt);
	for (int i = 0; i < PQntuples(res); i++)
	{
		if (PQgetisnull(res, i, 0))
			knows = false;
		else
			result = lappend_int(result, pg_strtoint32(PQgetvalue(res, i, 0)));
	}
	MemoryContextSwitchTo(old);
	PQclear(res);
	foreach(lc, departures)
	{
		MmrDeparture *d = lfirst(lc);

		if (list_member_int(d->asked, peer) || list_member_int(result, d->node_id))
			continue;
		if (!knows)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("the configuration of %s has changed meanwhile", mmr_link_name(link))));
		mmr_departed_asked(sync_id, d->node_id, peer);
	}
	return result;
}

void
mmr_heir_collect(MmrLink *link, int32 sync_id, int32 peer, MemoryContext cxt)
{
	MmrSync    *sync = begin("asking for what departed dbs have left", sync_id);
	MmrSyncNode *part = sync != NULL ? mmr_membership_sync_node(sync, peer) : NULL;
	List	   *left = NIL;
	ListCell   *lc;

	/* who waits for the copy with which it joins hears with that of whom to ask for (join.c) */
	if (part != NULL && part->role == MMR_ROLE_TARGET && !(sync->blank && mmr_join_lacks_copy(sync_id)))
		left = ask(link, sync_id, peer, cxt);
	mmr_worker_commit_transaction();
	MemoryContextSwitchTo(cxt);
	foreach(lc, left)
	{
		int32		gone = lfirst_int(lc);
		const char *args[2] = {psprintf("%d", sync_id), psprintf("%d", gone)};

		(void) begin("taking over what a departed db has left", sync_id);
		collect(link, sync_id, peer, gone);
		mmr_worker_commit_transaction();
		mmr_apply_open(0, 0, false);
		MemoryContextSwitchTo(cxt);
		/* on disk, be it by an earlier session */
		PQclear(mmr_link_exec(link, TAKEN_SQL, 2, args));
	}
}
