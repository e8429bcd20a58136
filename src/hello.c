/*-------------------------------------------------------------------------
 * hello.c
 *	  The receiver's side of the handshake: who is it, may it, and where did
 *	  the last batch of it end; and what an initial copy may fill.
 *
 * Floor 10.  Reads the configuration, progress, user tables.  Runs in a backend
 * that a peer's pusher has opened here.
 *
 * Invariant: after a handshake no other backend of this database applies the
 * same sync from the same node.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "apply.h"
#include "capture.h"
#include "catalog.h"
#include "clock.h"
#include "departed.h"
#include "errors.h"
#include "join.h"
#include "node.h"
#include "outgoing.h"
#include "progress.h"
#include "resync.h"
#include "sessions.h"
#include "shared.h"
#include "sweep.h"
#include "topology.h"

PG_FUNCTION_INFO_V1(mmrepl_hello);
PG_FUNCTION_INFO_V1(mmrepl_copy_filled);

/* The claim against the configuration. */
static MmrSync *
hello_check(int32 sync_id, int32 node_id, int64 sysid, Oid dboid)
{
	MmrSync    *sync = mmr_membership_sync(sync_id);
	MmrNode    *node = mmr_membership_node(node_id);

	if (sync == NULL || node == NULL || sync->my_role == MMR_ROLE_NONE ||
		!mmr_topology_speaks(sync, node_id, mmr_membership_my_id()))
		ereport(ERROR,
				(errcode(ERRCODE_MMR_CONFIG),
				 errmsg("sync %d from node %d is not in the configuration here", sync_id, node_id)));
	if (node->system_identifier != sysid || node->database_oid != dboid)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("a server that is not db \"%s\" claims to be it", node->name),
				 errdetail("System identifier or database oid differ from what they were when the db was added."),
				 errhint("If it is a copy or a restored backup, take the db out with mmrepl.remove_db and add it again.")));
	mmr_resync_check(sync, node_id);
	if (mmr_membership_stopped() || sync->paused)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_STOPPED),
				 errmsg(sync->paused ? "sync \"%s\" is paused" : "mmrepl is stopped at the receiver of sync \"%s\"",
						sync->name)));
	return sync;
}

/*
 * A node that also sends need not wait for its disk when it applies: before
 * anything that tells of the batch leaves it, it is made durable (B3), and
 * until then nobody has purged what the batch brought.  A mere target's
 * acknowledgement is all there is: that one waits.
 */
static void
set_durability(MmrSync *sync)
{
	SetConfigOption("synchronous_commit", sync->my_role == MMR_ROLE_SOURCE ? "off" : "on",
					PGC_USERSET, PGC_S_SESSION);
}

/* Frames hold rows, which are nothing for the server's log; nor would they fit. */
static void
keep_rows_out_of_log(void)
{
	SetConfigOption("log_parameter_max_length", "0", PGC_SUSET, PGC_S_SESSION);
	SetConfigOption("log_parameter_max_length_on_error", "0", PGC_USERSET, PGC_S_SESSION);
}

/*
 * mmrepl._hello(protocol int, sync_id int, node_id int, system_identifier
 * int8, database_oid oid, encoding text, clock int8)
 * returns (receiver int, "position" pg_snapshot, copy int, its_clock int8, waits_for text)
 */
Datum
mmrepl_hello(PG_FUNCTION_ARGS)
{
	int			protocol = PG_GETARG_INT32(0);
	int32		sync_id = PG_GETARG_INT32(1);
	int32		node_id = PG_GETARG_INT32(2);
	char	   *encoding = text_to_cstring(PG_GETARG_TEXT_PP(5));
	TupleDesc	desc;
	Datum		v[5];
	bool		n[5] = {0};
	MmrProgress *p;
	MmrSync    *sync;
	char	   *waits_for;
	int			copy;

	mmr_shared_require();
	if (protocol != MMR_PROTOCOL_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_PROTOCOL),
				 errmsg("peer speaks protocol version %d, here it is %d", protocol, MMR_PROTOCOL_VERSION),
				 errhint("Install the same version of mmrepl on all servers.")));
	if (pg_char_to_encoding(encoding) != GetDatabaseEncoding())
		ereport(ERROR,
				(errcode(ERRCODE_MMR_SCHEMA),
				 errmsg("peer's database has encoding %s, this one %s", encoding, GetDatabaseEncodingName())));
	/* from the handshake on a DROP EXTENSION ends this session */
	mmr_catalog_require_held();
	mmr_node_check();
	mmr_membership_refresh();
	sync = hello_check(sync_id, node_id, PG_GETARG_INT64(3), PG_GETARG_OID(4));
	set_durability(sync);
	keep_rows_out_of_log();
	/* an earlier connection of the same pusher may not have noticed yet that it is dead */
	mmr_sessions_end(sync_id, node_id);
	(void) mmr_shared_register_apply(sync_id, node_id);
	mmr_apply_open(sync_id, node_id, false);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	v[0] = Int32GetDatum(mmr_membership_my_id());
	copy = mmr_join_copy_wanted(sync_id, node_id);
	n[2] = copy < 0;
	v[2] = Int32GetDatum(copy);
	mmr_capture_prepare_clock();
	v[3] = Int64GetDatum(mmr_departed_settled(sync, node_id) ? mmr_clock_last() : -1);
	mmr_join_meet(sync, node_id, PG_GETARG_INT64(6));
	waits_for = mmr_join_waits_for(sync, node_id);
	n[4] = waits_for == NULL;
	if (waits_for != NULL)
		v[4] = CStringGetTextDatum(waits_for);
	/* last: who waits for nobody any more stands where his copy has put him */
	PushActiveSnapshot(GetLatestSnapshot());
	p = mmr_progress_read(sync_id, node_id);
	PopActiveSnapshot();
	/* what a target says is for good, and it may have been a source when it committed that */
	if (sync->my_role == MMR_ROLE_TARGET)
		mmr_outgoing_flush_wal();
	n[1] = p->position == NULL;
	if (p->position != NULL)
		v[1] = mmr_position_to_datum(p->position);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), v, n)));
}

/*
 * mmrepl._copy_filled(sync_id int) returns text[]: "schema.table" as pairs of
 * elements of the members that have rows here which no entry of the log
 * accounts for: an initial copy into empty tables leaves those alone.
 */
Datum
mmrepl_copy_filled(PG_FUNCTION_ARGS)
{
	MmrSync    *sync;
	MmrVersions *versions;
	ListCell   *lc;
	ArrayBuildState *result = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	mmr_membership_refresh();
	sync = mmr_membership_sync(PG_GETARG_INT32(0));
	if (sync == NULL)
		PG_RETURN_NULL();
	versions = mmr_apply_versions(sync);
	foreach(lc, sync->tables)
	{
		MmrMember  *m = lfirst(lc);
		Relation	rel = OidIsValid(m->relid) ? try_table_open(m->relid, AccessShareLock) : NULL;
		MmrKey	   *key = rel ? mmr_key_get(rel, m->key_index) : NULL;

		if (key != NULL && mmr_sweep_has_rows(versions, rel, key))
		{
			accumArrayResult(result, CStringGetTextDatum(m->nspname), false, TEXTOID,
							 CurrentMemoryContext);
			accumArrayResult(result, CStringGetTextDatum(m->relname), false, TEXTOID,
							 CurrentMemoryContext);
		}
		if (rel != NULL)
			table_close(rel, AccessShareLock);
	}
	PopActiveSnapshot();
	PG_RETURN_DATUM(makeArrayResult(result, CurrentMemoryContext));
}
