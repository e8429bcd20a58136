/*-------------------------------------------------------------------------
 * handshake.c
 *	  The sender's side of the handshake.
 *
 * Floor 6.  Runs in pushers.
 *
 * Invariant: a position from the future of this database is never taken: it
 * covers transactions that are yet to come, and would hide them for ever.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "mb/pg_wchar.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#include "capture.h"
#include "clock.h"
#include "departed.h"
#include "errors.h"
#include "handshake.h"
#include "membership.h"
#include "node.h"

#define HELLO_SQL \
	"SELECT h.receiver, h.position, h.copy, h.its_clock, h.waits_for FROM mmrepl._hello($1::int4, $2::int4," \
	" $3::int4, $4::int8, $5::oid, $6, $7::int8) h"

static MmrPosition *
read_position(PGresult *res)
{
	if (PQgetisnull(res, 0, 1))
		return NULL;
	return mmr_position_from_datum(OidInputFunctionCall(F_PG_SNAPSHOT_IN, PQgetvalue(res, 0, 1),
														InvalidOid, -1));
}

/* Is all that b covers covered by a? */
static bool
reaches(const MmrPosition *a, const MmrPosition *b)
{
	if (a == NULL || a->xmax < b->xmax)
		return false;
	for (int i = 0; i < a->nxip; i++)
		if (mmr_position_covers(b, a->xip[i]))
			return false;
	return true;
}

void
mmr_handshake_hello(MmrLink *link, MmrSync *sync, int32 peer, const MmrPosition *from, MmrGreeting *greeting)
{
	MmrSyncNode *part = mmr_membership_sync_node(sync, peer);
	int64		sysid;
	Oid			dboid;
	int32		timeline;
	char	   *values[7];
	PGresult   *res;
	MmrPosition *position;

	mmr_node_identity(&sysid, &dboid, &timeline);
	values[0] = psprintf("%d", MMR_PROTOCOL_VERSION);
	values[1] = psprintf("%d", sync->id);
	values[2] = psprintf("%d", mmr_membership_my_id());
	values[3] = psprintf(INT64_FORMAT, sysid);
	values[4] = psprintf("%u", dboid);
	values[5] = pstrdup(GetDatabaseEncodingName());
	mmr_capture_prepare_clock();
	values[6] = psprintf(INT64_FORMAT, mmr_departed_settled(sync, peer) ? mmr_clock_last() : -1);
	res = mmr_link_exec(link, HELLO_SQL, 7, (const char *const *) values);
	if (PQntuples(res) != 1 || PQgetisnull(res, 0, 0) || atoi(PQgetvalue(res, 0, 0)) != peer)
	{
		PQclear(res);
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("another node answers at %s", mmr_link_name(link)),
				 errhint("Correct the db's conninfo with mmrepl.update_db.")));
	}
	greeting->position = position = read_position(res);
	greeting->copy = PQgetisnull(res, 0, 2) ? -1 : pg_strtoint32(PQgetvalue(res, 0, 2));
	greeting->clock = pg_strtoint64(PQgetvalue(res, 0, 3));
	greeting->waits_for = PQgetisnull(res, 0, 4) ? NULL : pstrdup(PQgetvalue(res, 0, 4));
	PQclear(res);

	/* a source may forget in a crash what it has not told on; the acknowledgement of a target is for good */
	if (greeting->copy < 0 && part != NULL && part->role == MMR_ROLE_TARGET && from != NULL && !reaches(position, from))
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("%s has not any more what it had confirmed", mmr_link_name(link)),
				 errdetail("That database has been put back to an earlier state, and what it lacks now may not be kept here any more."),
				 errhint("Call mmrepl.rejoin() there, or copy everything to it again with mmrepl.update_sync(..., onetimecopy => 1) here.")));

	/* what a peer has of us is on our disk (B3), unless this is not the disk it came from (M3) */
	if (position != NULL && position->xmax > U64FromFullTransactionId(ReadNextFullTransactionId()))
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("%s has applied changes of this database that are not here", mmr_link_name(link)),
				 errdetail("This database has been put back to an earlier state: by a backup, a snapshot, or a standby that was behind."),
				 errhint("Call mmrepl.rejoin() here: this db then gets a copy of everything, and keeps what only it has.")));
}

List *
mmr_handshake_filled(MmrLink *link, int32 sync_id)
{
	char	   *id = psprintf("%d", sync_id);
	const char *values[1] = {id};
	PGresult   *res = mmr_link_exec(link, "SELECT unnest(mmrepl._copy_filled($1::int4))", 1, values);
	List	   *result = NIL;

	for (int i = 0; i < PQntuples(res); i++)
		result = lappend(result, pstrdup(PQgetvalue(res, i, 0)));
	PQclear(res);
	return result;
}
