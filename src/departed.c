/*-------------------------------------------------------------------------
 * departed.c
 *	  A source has departed from a sync (M2).
 *
 * Floor 5.  Reads the log and mmrepl.departed; writes the log, mmrepl.progress,
 * mmrepl.clock, mmrepl.departed.  Runs in the janitor.
 *
 * Whoever holds entries that the departed one wrote writes them once more, with
 * the same version and a dot of its own: so they travel, as all that is
 * written here, and stay until all are known to have them.  A target has nobody to
 * tell: the sources fetch from it what they lack (heir.c), which they record as their own.
 * When a source has asked every target, it forgets the position of the departed one;
 * so a batch whose context does not tell of him any more was sent by someone who
 * has all he will ever have of him, and brings what there was.  Until every source has been
 * heard so, nothing of the sync is stable (stability.c): a TRUNCATE of the
 * departed one that comes so late must find what is newer than it.
 *
 * Nothing of him comes in between: a batch that was under way when the
 * configuration changed is refused at its end (mmr_merge_hold_members).
 *
 * Invariant: when mmrepl.departed does not name him any more, no entry in the
 * log here that somebody may lack has a dot of his, and every target has been asked for
 * what it has, or has gone.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "capture.h"
#include "catalog.h"
#include "departed.h"
#include "departures.h"
#include "logreader.h"
#include "position.h"
#include "progress.h"
#include "sqlrun.h"
#include "stability.h"
#include "topology.h"
#include "wake.h"
#include "worker.h"

typedef struct Takeover
{
	MmrSync    *sync;
	int32		gone;
	int32		my_node;
	uint64		xid;			/* of this transaction */
	MmrStability *stability;
	MmrAppender *appender;		/* NULL: nothing found yet */
	int64		changes;
} Takeover;

static void
take_over_run(void *arg, int segment, uint64 xid, const char *data, int len)
{
	Takeover   *t = arg;
	MmrRun		run;
	MmrChange	change;

	(void) segment;
	mmr_changelog_open_run(&run, xid, data, len);
	if (!run.recorded)
		return;
	while (mmr_changelog_next(&run, &change))
	{
		if (change.dot.node != t->gone || mmr_membership_table(t->sync, change.relid) == NULL ||
			mmr_stability_known(t->stability, t->sync->id, &change.dot))
			continue;
		if (t->appender == NULL)
		{
			t->xid = U64FromFullTransactionId(GetTopFullTransactionId());
			t->appender = mmr_changelog_begin(t->my_node, true);
		}
		change.dot.node = t->my_node;
		change.dot.xid = t->xid;
		mmr_changelog_add(t->appender, &change);
		t->changes++;
	}
}

static void
take_over(MmrSync *sync, int32 gone)
{
	Takeover	t = {.sync = sync,.gone = gone,.my_node = mmr_membership_my_id()};
	const char *args[2] = {psprintf("%d", sync->id), psprintf("%d", gone)};
	MmrPosition *pos;

	mmr_capture_prepare_clock();
	PushActiveSnapshot(GetLatestSnapshot());
	pos = mmr_position_active();
	t.stability = mmr_stability_load();
	(void) mmr_logreader_scan(mmr_logreader_create(CurrentMemoryContext), GetActiveSnapshot(), pos,
							  take_over_run, NULL, &t);
	PopActiveSnapshot();
	if (t.appender != NULL)
		mmr_changelog_end(t.appender);
	mmr_sqlrun_exec("UPDATE mmrepl.departed SET taken = true WHERE sync_id = $1::int4 AND node_id = $2::int4", 2, args);
	/* pushers have something to send */
	mmr_wake_at_commit();
	ereport(LOG,
			(errmsg("node %d has departed from sync \"%s\"", gone, sync->name),
			 errdetail("%lld changes of it that others may lack are passed on by this database.",
					   (long long) t.changes)));
}

/* Done with him: forgets how far he was. */
static void
forget(int32 sync_id, int32 gone)
{
	const char *args[2] = {psprintf("%d", sync_id), psprintf("%d", gone)};

	/* the clock must not forget what it brought (K2) */
	mmr_sqlrun_exec("UPDATE mmrepl.clock SET max_ts = p.max_ts FROM mmrepl.progress p"
					" WHERE p.max_ts > clock.max_ts AND p.sync_id = $1::int4 AND p.source_node = $2::int4", 2, args);
	mmr_sqlrun_exec("DELETE FROM mmrepl.progress WHERE sync_id = $1::int4 AND source_node = $2::int4", 2, args);
	mmr_sqlrun_exec("DELETE FROM mmrepl.departed WHERE sync_id = $1::int4 AND node_id = $2::int4", 2, args);
	/* pushers tell of it, with a context that does not name it any more */
	mmr_wake_at_commit();
}

/* Is there something to take over from the log here (*take)?  And is nobody else waited for (*done)? */
static MmrSync *
look(int32 sync_id, int32 gone, bool *take, bool *done)
{
	MmrSync    *sync = mmr_membership_sync(sync_id);
	MmrDeparture *d = mmr_departures_find(sync_id, gone);
	bool		mine = sync != NULL && sync->my_role != MMR_ROLE_NONE;

	*take = d != NULL && mine && sync->my_role == MMR_ROLE_SOURCE && !d->taken;
	*done = d != NULL && (!mine || mmr_topology_unasked(sync, d) == 0);
	return sync;
}

/* One of them, in a transaction of its own. */
static void
settle(int32 sync_id, int32 gone)
{
	MmrSync    *sync;
	bool		take = false;
	bool		done = false;

	mmr_worker_start_transaction("taking over what a departed db has written");
	if (mmr_catalog_hold())
	{
		mmr_membership_refresh();
		(void) look(sync_id, gone, &take, &done);
	}
	/* who waits, perhaps for days, for a db that is away, is in nobody's way */
	if ((take || done) &&
		/* nobody changes the configuration meanwhile */
		mmr_sqlrun_exec("SELECT 1 FROM mmrepl.local_node FOR UPDATE SKIP LOCKED", 0, NULL) > 0)
	{
		mmr_membership_invalidate();
		mmr_membership_refresh();
		/* a batch of his that is still being applied ends first, one way or the other */
		(void) mmr_progress_claim(sync_id, gone);
		sync = look(sync_id, gone, &take, &done);
		if (take)
			take_over(sync, gone);
		if (done)
			forget(sync_id, gone);
	}
	mmr_worker_commit_transaction();
}

void
mmr_departed_round(void)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext cxt = AllocSetContextCreate(old, "mmrepl departed", ALLOCSET_SMALL_SIZES);
	List	   *ids = NIL;
	ListCell   *lc;

	mmr_worker_start_transaction("looking for departed dbs");
	if (mmr_catalog_hold())
	{
		MemoryContextSwitchTo(cxt);
		foreach(lc, mmr_sqlrun_texts("SELECT unnest(ARRAY[sync_id, node_id]) FROM mmrepl.departed ORDER BY sync_id, node_id", 0, NULL))
			ids = lappend_int(ids, pg_strtoint32(lfirst(lc)));
	}
	mmr_worker_commit_transaction();
	MemoryContextSwitchTo(old);
	for (int i = 0; i + 1 < list_length(ids); i += 2)
		settle(list_nth_int(ids, i), list_nth_int(ids, i + 1));
	MemoryContextDelete(cxt);
}

bool
mmr_departed_settled(MmrSync *sync, int32 node_id)
{
	const char *args[2] = {psprintf("%d", sync->id), psprintf("%d", node_id)};
	bool		settled;
	ListCell   *lc;

	settled = mmr_sqlrun_exec("SELECT 1 FROM mmrepl.departed WHERE sync_id = $1::int4 AND node_id = $2::int4", 2, args) == 0;
	PushActiveSnapshot(GetLatestSnapshot());
	foreach(lc, mmr_progress_list(sync->id))
	{
		MmrProgress *p = lfirst(lc);

		/* what it writes may come to that one by another sync all the time */
		if (p->source_node == node_id ? p->position != NULL :
			(mmr_context_position(p->context, node_id) != NULL &&
			 !mmr_topology_reaches_besides(sync, node_id, p->source_node)))
			settled = false;
	}
	PopActiveSnapshot();
	return settled;
}

void
mmr_departed_asked(int32 sync_id, int32 node_id, int32 with)
{
	const char *args[3] = {psprintf("%d", sync_id), psprintf("%d", node_id), psprintf("%d", with)};

	/* what has just come is to be taken over, too: if he is back by now it was recorded as his */
	mmr_sqlrun_exec("UPDATE mmrepl.departed d SET asked = asked || $3::int4, taken = taken AND NOT EXISTS ("
					" SELECT FROM mmrepl.known_member k WHERE k.sync_id = d.sync_id AND k.node_id = d.node_id AND k.role = 'source')"
					" WHERE sync_id = $1::int4 AND node_id = $2::int4 AND $3::int4 <> ALL (asked)", 3, args);
	mmr_wake_at_commit();
}
