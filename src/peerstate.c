/*-------------------------------------------------------------------------
 * peerstate.c
 *	  What a pusher knows of its peer and must survive a restart of the server.
 *
 * Floor 3.  Reads and writes mmrepl.peer_state.  Runs in pushers.
 *
 * Invariant: what is stored is never ahead of what the peer has confirmed; it
 * may be behind, since it is written now and then.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "peerstate.h"

static const char *const SAVE_SQL =
	"INSERT INTO mmrepl.peer_state AS s (sync_id, peer_node, acked, last_good, last_bad, last_error, context, part)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (sync_id, peer_node) DO UPDATE SET"
	" acked = COALESCE(EXCLUDED.acked, CASE WHEN s.part = EXCLUDED.part THEN s.acked END),"
	" last_good = COALESCE(EXCLUDED.last_good, s.last_good),"
	" last_bad = COALESCE(EXCLUDED.last_bad, s.last_bad), last_error = EXCLUDED.last_error,"
	" context = COALESCE(EXCLUDED.context, CASE WHEN s.part = EXCLUDED.part THEN s.context END), part = EXCLUDED.part";

static const char *const READ_SQL =
	"SELECT acked FROM mmrepl.peer_state WHERE sync_id = $1 AND peer_node = $2 AND part = $3";

void
mmr_peerstate_part(const MmrSync *sync, int32 peer, char part[MMR_PEER_PART])
{
	MmrSyncNode *mine = mmr_membership_sync_node((MmrSync *) sync, mmr_membership_my_id());
	MmrSyncNode *its = mmr_membership_sync_node((MmrSync *) sync, peer);

	snprintf(part, MMR_PEER_PART, INT64_FORMAT " " INT64_FORMAT " %s", mine ? mine->since : -1, its ? its->since : -1,
			 its != NULL && its->role == MMR_ROLE_TARGET ? "target" : "source");
}

void
mmr_peerstate_save(int32 sync_id, int32 peer, const MmrPeerState *state)
{
	Oid			types[8] = {INT4OID, INT4OID, PG_SNAPSHOTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, BYTEAOID, TEXTOID};
	Datum		v[8];
	char		n[9] = "        ";

	v[0] = Int32GetDatum(sync_id);
	v[1] = Int32GetDatum(peer);
	if (state->acked != NULL)
		v[2] = mmr_position_to_datum(state->acked);
	else
		n[2] = 'n';
	v[3] = TimestampTzGetDatum(state->last_good);
	n[3] = state->last_good != 0 ? ' ' : 'n';
	v[4] = TimestampTzGetDatum(state->last_bad);
	n[4] = state->last_bad != 0 ? ' ' : 'n';
	if (state->error != NULL)
		v[5] = CStringGetTextDatum(state->error);
	else
		n[5] = 'n';
	if (state->told != NULL)
		v[6] = PointerGetDatum(state->told);
	else
		n[6] = 'n';
	v[7] = CStringGetTextDatum(state->part);
	SPI_connect();
	if (SPI_execute_with_args(SAVE_SQL, 8, types, v, n, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write the peer's state");
	SPI_finish();
}

MmrPosition *
mmr_peerstate_position(int32 sync_id, int32 peer, const char *part)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[3] = {INT4OID, INT4OID, TEXTOID};
	Datum		v[3] = {Int32GetDatum(sync_id), Int32GetDatum(peer), CStringGetTextDatum(part)};
	MmrPosition *result = NULL;
	bool		isnull = true;

	SPI_connect();
	if (SPI_execute_with_args(READ_SQL, 3, types, v, NULL, true, 1) == SPI_OK_SELECT && SPI_processed == 1)
	{
		Datum		acked = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(caller);

		if (!isnull)
			result = mmr_position_from_datum(acked);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return result;
}
