/*-------------------------------------------------------------------------
 * asks.c
 *	  Keys that stand aside here, for who can send them again (the sender's
 *	  side is wanted).
 *
 * Floor 10.  Reads and writes mmrepl.apply_error_log, reads the log.  Runs in a
 * backend that a peer's pusher has opened here.
 *
 * Who sent a key is asked for it; when it is no source of the sync any more,
 * every other source is.
 *
 * Invariant: a key that has got a newer state here since does not stand aside
 * any more.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "apply.h"
#include "setaside.h"

PG_FUNCTION_INFO_V1(mmrepl_asks);

/* So many keys go with one batch. */
#define ASK_LIMIT		1000

/* Something was written over it since, here or by another source. */
static bool
is_settled(MmrSync *sync, MmrVersions *versions, MmrStanding *s)
{
	MmrMember  *member = mmr_membership_table(sync, s->relid);
	Relation	rel = member ? try_table_open(s->relid, AccessShareLock) : NULL;
	MmrKey	   *key = rel ? mmr_key_get(rel, member->key_index) : NULL;
	MmrState	state;
	bool		settled = key != NULL &&
		mmr_versions_lookup(versions, key, s->hash, s->key, s->keylen, &state) &&
		mmr_version_compare(&state.version, &s->version) > 0;

	if (rel != NULL)
		table_close(rel, AccessShareLock);
	return settled;
}

static void
give(ReturnSetInfo *rsinfo, MmrMember *member, MmrStanding *s)
{
	Datum		v[3] = {0};
	bool		n[3] = {true, true, true};

	if (s != NULL)
	{
		v[0] = CStringGetTextDatum(member->nspname);
		v[1] = CStringGetTextDatum(member->relname);
		v[2] = PointerGetDatum(cstring_to_text_with_len(s->key, s->keylen));
		n[0] = n[1] = n[2] = false;
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, n);
}

/*
 * mmrepl._asks(sync_id int4, careful bool) returns setof (nspname text, relname
 * text, key bytea): what is due; a row of NULLs if something stands aside
 */
Datum
mmrepl_asks(PG_FUNCTION_ARGS)
{
	int32		sync_id = PG_GETARG_INT32(0);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MmrSync    *sync;
	MmrVersions *versions;
	List	   *standing;
	ListCell   *lc;
	bool		none = true;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	mmr_membership_refresh();
	sync = mmr_membership_sync(sync_id);
	if (sync == NULL)
		return (Datum) 0;
	versions = mmr_apply_versions(sync);
	if (PG_GETARG_BOOL(1))
		mmr_apply_be_careful();
	mmr_setaside_refresh(sync);
	standing = mmr_setaside_of(sync, mmr_apply_source());
	foreach(lc, standing)
	{
		if (is_settled(sync, versions, lfirst(lc)))
			mmr_setaside_resolve(lfirst(lc));
		else
			none = false;
	}
	PopActiveSnapshot();
	if (none)
		return (Datum) 0;
	give(rsinfo, NULL, NULL);
	foreach(lc, mmr_setaside_take_due(standing, ASK_LIMIT))
	{
		MmrStanding *s = lfirst(lc);
		MmrMember  *member = mmr_membership_table(sync, s->relid);

		if (member != NULL)
			give(rsinfo, member, s);
	}
	return (Datum) 0;
}
