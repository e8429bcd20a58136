/*-------------------------------------------------------------------------
 * join.c
 *	  A database joins a sync that runs (M1).
 *
 * Floor 5.  Reads and writes mmrepl.sync_state and mmrepl.met, writes mmrepl.departed; reads the log.
 * Runs in the janitor (opening), in pushers and apply backends.
 *
 * Whoever does not know of the joiner may purge what it has not got, and apply
 * without recording.  So nothing flows in the sync, neither to the joiner nor
 * from it, and it captures nothing and keeps clients out (closed.h), until every other db that takes part has
 * told in a handshake that it holds a configuration in which the joiner is
 * named, and the joiner's clock is above all clocks at those moments.  From
 * then on:
 *	- a version given here is above all that was purged without asking us, and
 *	  above all that was applied somewhere without being recorded;
 *	- the snapshot of the initial copy, taken later, shows all that any source
 *	  has purged without asking us, because that was stable among the others.
 * The copy is rows, log and positions of one source under that one snapshot, so
 * that we stand where it stood, and everybody goes on from there.  Rows
 * alone would not do: a TRUNCATE that some log still holds would come again,
 * and find rows of which nobody can tell any more that they are newer.  Clients
 * are kept out until it is in: the rows here are no state to go on from.
 *
 * Invariant: opened is set by the transaction that makes the triggers, with
 * no entry of the sync's tables left in the log from an earlier part in it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "attach.h"
#include "capture.h"
#include "clock.h"
#include "errors.h"
#include "guc.h"
#include "join.h"
#include "logreader.h"
#include "progress.h"
#include "sqlrun.h"
#include "topology.h"
#include "wake.h"
#include "worker.h"

/* Others of the sync that have not told; a mere target need not hear from other targets. */
#define NOT_MET \
	" FROM mmrepl._other o JOIN mmrepl._part p USING (sync_id) JOIN mmrepl.db d ON d.node_id = o.node_id" \
	" WHERE o.sync_id = $1::int4 AND (o.role = 'source' OR p.role = 'source')" \
	" AND NOT EXISTS (SELECT FROM mmrepl.met m WHERE m.sync_id = o.sync_id AND m.node_id = o.node_id)"

static const char *
id_arg(int32 id)
{
	return psprintf("%d", id);
}

char *
mmr_join_waits_for(MmrSync *sync, int32 from)
{
	const char *args[2] = {id_arg(sync->id), id_arg(from)};
	char	   *names;

	if (!sync->joining)
	{
		if (!sync->blank || from == 0)
			return NULL;
		names = mmr_sqlrun_text("SELECT d.name FROM mmrepl._copy_wanted($1::int4) w JOIN mmrepl.db d ON d.node_id = w.source_node"
								" WHERE w.source_node <> $2::int4", 2, args);
		return names ? psprintf("its initial copy from db \"%s\"", names) : NULL;
	}
	names = mmr_sqlrun_text("SELECT string_agg(pg_catalog.format('\"%s\"', d.name), ', ' ORDER BY d.name)" NOT_MET, 1, args);
	return names ? psprintf("db %s to hear of it", names) : pstrdup("its tables and its change log");
}

void
mmr_join_meet(MmrSync *sync, int32 node_id, int64 clock)
{
	const char *args[3] = {id_arg(sync->id), id_arg(node_id), psprintf(INT64_FORMAT, clock)};
	TimestampTz now = GetCurrentTimestamp();

	if (!sync->joining || clock < 0)
		return;
	if (clock > now + (int64) mmr_guc_max_clock_skew * 1000)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_CLOCK_SKEW),
				 errmsg("the clock of node %d is %.3f seconds ahead of the clock here", node_id,
						(clock - now) / 1000000.0),
				 errhint("Set the clocks of both servers right.")));
	if (mmr_sqlrun_exec("INSERT INTO mmrepl.met (sync_id, node_id, clock) VALUES ($1::int4, $2::int4, $3::int8)"
						" ON CONFLICT DO NOTHING", 3, args) > 0)
		mmr_wake_at_commit();
}

int
mmr_join_copy_wanted(int32 sync_id, int32 node_id)
{
	const char *args[2] = {id_arg(sync_id), id_arg(node_id)};
	char	   *mode = mmr_sqlrun_text("SELECT mode FROM mmrepl._copy_wanted($1::int4) WHERE source_node = $2::int4", 2, args);

	return mode ? pg_strtoint32(mode) : -1;
}

bool
mmr_join_lacks_copy(int32 sync_id)
{
	const char *arg = id_arg(sync_id);

	return mmr_sqlrun_text("SELECT mode FROM mmrepl._copy_wanted($1::int4)", 1, &arg) != NULL;
}

/*
 * The copy was the giver's rows, log and positions under one snapshot: we are
 * where he was, and everybody goes on from there.
 */
static void
take_positions(MmrSync *sync, int32 source_node, MmrContext *context)
{
	ListCell   *lc;

	foreach(lc, sync->nodes)
	{
		MmrSyncNode *part = lfirst(lc);
		const MmrPosition *position = mmr_context_position(context, part->node->id);
		MmrProgress *p;

		/* the giver's own row is about to be written by the caller */
		if (!mmr_topology_links(sync, part->node->id, mmr_membership_my_id()) || part->node->id == source_node ||
			part->node->id == mmr_membership_my_id() || position == NULL)
			continue;
		p = mmr_progress_claim(sync->id, part->node->id);
		p->position = mmr_position_copy(position, CurrentMemoryContext);
		PushActiveSnapshot(GetLatestSnapshot());
		mmr_progress_write(p, false);
		PopActiveSnapshot();
	}
}

/*
 * A source that the giver was not done with when he gave: we are with it where he was,
 * and ask targets, too, for what it has left with them: he may not live to do it (heir.h).
 */
static void
take_departures(MmrSync *sync, MmrContext *context)
{
	int32		me = mmr_membership_my_id();

	for (int i = 0; i < context->n; i++)
	{
		int32		node = context->entries[i].node;
		const char *args[2] = {id_arg(sync->id), id_arg(node)};

		if (node != me && !mmr_membership_is_source(sync, node) && !mmr_topology_reaches_besides(sync, node, me))
			mmr_sqlrun_exec("INSERT INTO mmrepl.departed (sync_id, node_id) VALUES ($1::int4, $2::int4)"
							/* entries of it have come with the copy */
							" ON CONFLICT (sync_id, node_id) DO UPDATE SET taken = false", 2, args);
	}
}

bool
mmr_join_copied(MmrSync *sync, int32 source_node, MmrContext *context)
{
	const char *args[3] = {id_arg(sync->id), id_arg(source_node), psprintf("%d", sync->copy_round)};

	mmr_sqlrun_exec("UPDATE mmrepl.sync_state SET copied = $3::int4, copied_from = $2::int4 WHERE sync_id = $1::int4", 3, args);
	if (sync->blank)
	{
		take_positions(sync, source_node, context);
		if (sync->my_role == MMR_ROLE_SOURCE)
			take_departures(sync, context);
		mmr_wake_at_commit();
	}
	return sync->blank;
}

/* ---- opening ---- */

typedef struct LogLook
{
	MmrSync    *sync;
	bool		found;
} LogLook;

/* Is the table in another sync, too, that has a use for its entries? */
static bool
table_is_shared(MmrSync *sync, Oid relid)
{
	ListCell   *lc;

	foreach(lc, mmr_membership_syncs_of_table(relid))
	{
		MmrSync    *other = lfirst(lc);

		if (other->id != sync->id && !other->joining)
			return true;
	}
	return false;
}

static void
look_at_run(void *arg, int segment, uint64 xid, const char *data, int len)
{
	LogLook    *look = arg;
	MmrRun		run;
	MmrChange	change;
	Oid			last = InvalidOid;

	(void) segment;
	mmr_changelog_open_run(&run, xid, data, len);
	while (!look->found && mmr_changelog_next(&run, &change))
	{
		if (change.relid == last)
			continue;
		last = change.relid;
		look->found = mmr_membership_table(look->sync, last) != NULL &&
			!table_is_shared(look->sync, last);
	}
}

/* Entries from an earlier part in the sync: their versions would pass for newer than the copy. */
static bool
log_has_entries(MmrSync *sync)
{
	LogLook		look = {sync, false};
	MmrPosition *pos;

	PushActiveSnapshot(GetLatestSnapshot());
	pos = mmr_position_active();
	(void) mmr_logreader_scan(mmr_logreader_create(CurrentMemoryContext), GetActiveSnapshot(), pos,
							  look_at_run, NULL, &look);
	PopActiveSnapshot();
	return look.found;
}

/* False: not yet. */
static bool
join_open(MmrSync *sync)
{
	const char *arg = id_arg(sync->id);
	int32		sync_id = sync->id;
	char	   *name = pstrdup(sync->name);
	char	   *clock;

	if (mmr_sqlrun_exec("SELECT 1" NOT_MET, 1, &arg) > 0 || (sync->blank && log_has_entries(sync)))
		return false;
	/* nobody changes the configuration meanwhile */
	if (mmr_sqlrun_exec("SELECT 1 FROM mmrepl.local_node FOR UPDATE SKIP LOCKED", 0, NULL) == 0)
		return false;
	mmr_capture_prepare_clock();
	clock = mmr_sqlrun_text("SELECT max(clock) FROM mmrepl.met WHERE sync_id = $1::int4", 1, &arg);
	if (clock)
		mmr_clock_raise(pg_strtoint64(clock));
	if (!mmr_progress_note_ts(mmr_clock_last()))
		return false;
	mmr_sqlrun_exec("UPDATE mmrepl.sync_state SET opened = true WHERE sync_id = $1::int4", 1, &arg);
	mmr_sqlrun_exec("DELETE FROM mmrepl.met WHERE sync_id = $1::int4", 1, &arg);
	mmr_attach_reconcile();
	/* now nobody writes the tables: a prepared transaction may have been in the way of the look before */
	sync = mmr_membership_sync(sync_id);
	if (sync == NULL || (sync->blank && log_has_entries(sync)))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the change log still has entries of an earlier part of this database in sync \"%s\"", name)));
	mmr_wake_at_commit();
	ereport(LOG,
			(errmsg("this database has joined sync \"%s\"", name)));
	return true;
}

/* One sync; false: not yet. */
static bool
join_one(void *arg)
{
	MmrSync    *sync;

	mmr_membership_refresh();
	sync = mmr_membership_sync(*(int *) arg);
	return sync != NULL && sync->joining && sync->my_role != MMR_ROLE_NONE && join_open(sync);
}

bool
mmr_join_round(void)
{
	static char said[MMR_MSGLEN];
	List	   *ids = NIL;
	bool		waiting = false;
	ListCell   *lc;

	/* what the janitor has just looked at is still there */
	foreach(lc, mmr_membership_syncs())
	{
		MmrSync    *sync = lfirst(lc);

		if (sync->joining && sync->my_role != MMR_ROLE_NONE)
			ids = lappend_int(ids, sync->id);
	}
	foreach(lc, ids)
	{
		int			sync_id = lfirst_int(lc);

		/* what does not work is tried again in the next round */
		waiting |= !mmr_worker_try("joining a sync", join_one, &sync_id, "cannot join a sync yet", said);
	}
	list_free(ids);
	return waiting;
}
