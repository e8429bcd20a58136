/*-------------------------------------------------------------------------
 * bequest.c
 *	  What a departed source has left with this target, for the sources (the
 *	  other side is heir).
 *
 * Floor 10.  Reads mmrepl.departed, the log and user tables, writes mmrepl.departed.
 * Runs in backends that peers' pushers have opened here.
 *
 * A target of several sources keeps what comes to it until all of them are known to have
 * it.  It pushes to nobody; so when a source has departed, the others ask for what they
 * may lack of it.  They get it as a batch of the departed one: keys of which the log
 * holds a change of his that the asking one has not, each with the newest version known
 * here and its row as it is now.  That can be asked for again until it is said to be taken.
 *
 * Invariant: when a source is answered, nothing of the departed one can come here any
 * more but from the sources.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "apply.h"
#include "batch.h"
#include "confstate.h"
#include "departed.h"
#include "errors.h"
#include "progress.h"
#include "sessions.h"
#include "topology.h"

PG_FUNCTION_INFO_V1(mmrepl_bequests);
PG_FUNCTION_INFO_V1(mmrepl_bequest);
PG_FUNCTION_INFO_V1(mmrepl_bequest_taken);

/* The sync, if this database is a target of it and the caller one of its sources; else NULL. */
static MmrSync *
bequest_sync(int32 sync_id)
{
	MmrSync    *sync;

	mmr_membership_refresh();
	sync = mmr_membership_sync(sync_id);
	if (sync == NULL || sync->my_role != MMR_ROLE_TARGET ||
		!mmr_topology_links(sync, mmr_apply_source(), mmr_membership_my_id()))
		return NULL;
	return sync;
}

/* mmrepl._bequests(sync_id int4, version int8, author int4) returns setof int4 */
Datum
mmrepl_bequests(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MmrSync    *sync = bequest_sync(PG_GETARG_INT32(0));
	MmrConfState its = {.version = PG_GETARG_INT64(1),.author = PG_GETARG_INT32(2)};
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	/* only who knows of the same departures can say that somebody has left nothing */
	if (sync == NULL || mmr_confstate_compare(mmr_confstate_here(0), &its) != 0)
	{
		Datum		v[1] = {(Datum) 0};
		bool		n[1] = {true};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
		return (Datum) 0;
	}
	PushActiveSnapshot(GetLatestSnapshot());
	foreach(lc, mmr_departures(sync->id))
	{
		MmrDeparture *d = lfirst(lc);
		Datum		v[1] = {Int32GetDatum(d->node_id)};
		bool		n[1] = {false};

		if (!list_member_int(d->asked, mmr_apply_source()))
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
	}
	PopActiveSnapshot();
	return (Datum) 0;
}

static void
put_frame(void *arg, StringInfo frame, bool last)
{
	ReturnSetInfo *rsinfo = arg;
	Datum		v[1] = {PointerGetDatum(cstring_to_text_with_len(frame->data, frame->len))};
	bool		n[1] = {false};

	(void) last;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
	pfree(DatumGetPointer(v[0]));
}

/* mmrepl._bequest(sync_id int4, node_id int4, has pg_snapshot) returns setof bytea */
Datum
mmrepl_bequest(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int32		author = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	MmrSync    *sync = PG_ARGISNULL(0) ? NULL : bequest_sync(PG_GETARG_INT32(0));
	MmrBatch   *batch;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (sync == NULL)
		return (Datum) 0;
	if (mmr_departures_find(sync->id, author) == NULL)
		return (Datum) 0;
	/* what it has begun to apply here ends, and it is not let in again */
	mmr_sessions_end(sync->id, author);
	(void) mmr_progress_claim(sync->id, author);
	batch = mmr_batch_create(CurrentMemoryContext, sync->id, mmr_apply_source());
	mmr_batch_only_of(batch, author, PG_ARGISNULL(2) ? NULL : mmr_position_from_datum(PG_GETARG_DATUM(2)));
	if (mmr_batch_prepare(batch, sync, NULL) && !mmr_batch_emit(batch, put_frame, rsinfo))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a table of sync \"%s\" was emptied or rewritten meanwhile", sync->name)));
	mmr_batch_done(batch, true);
	return (Datum) 0;
}

/* mmrepl._bequest_taken(sync_id int4, node_id int4) returns void */
Datum
mmrepl_bequest_taken(PG_FUNCTION_ARGS)
{
	MmrSync    *sync = bequest_sync(PG_GETARG_INT32(0));

	if (sync != NULL)
		mmr_departed_asked(sync->id, PG_GETARG_INT32(1), mmr_apply_source());
	PG_RETURN_VOID();
}
