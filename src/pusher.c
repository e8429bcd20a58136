/*-------------------------------------------------------------------------
 * pusher.c
 *	  Pushes what changed here to one peer of one sync, for ever.
 *
 * Floor 10.  Reads the configuration, the log, user tables; writes
 * mmrepl.peer_state.  A background worker, one per sync and peer.
 *
 * A session: connect, exchange configurations, handshake (the peer tells the
 * position where it stands: nothing else does, B1), initial copy if
 * it is due, then rounds.  A round takes one snapshot, sends what it sees and
 * the last one did not, and waits for the peer's commit.  Any error ends
 * the session; the next one asks the peer again.
 *
 * Invariant: the position kept here is what the peer said in this session, or
 * what it has acknowledged since.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "batch.h"
#include "config.h"
#include "copy.h"
#include "errors.h"
#include "guc.h"
#include "halt.h"
#include "handshake.h"
#include "join.h"
#include "link.h"
#include "membership.h"
#include "node.h"
#include "peerstate.h"
#include "rowerror.h"
#include "setback.h"
#include "topology.h"
#include "transport.h"
#include "worker.h"

/* How often what is known of the peer goes to mmrepl.peer_state, at most. */
#define SAVE_INTERVAL_MS	5000
/* First pause after a lock or a deadlock at the peer. */
#define RETRY_FIRST_MS		50

typedef struct Pusher
{
	MmrWorker  *me;
	MmrDatabase *db;
	int32		sync_id;
	int32		peer;
	MemoryContext life;			/* of the process */
	MemoryContext cxt;			/* of a session */
	MmrLink    *link;
	MmrTransport transport;
	MmrBatch   *batch;
	MmrWanted	wanted;			/* keys that the peer asks for, in this session */
	bool		sending;		/* rows are on their way to the peer */
	bool		careful;		/* it could not apply one of them: next time it shall set that aside (A11) */
	MmrPosition *from;			/* where the peer stands, as last heard; in life */
	bool		heard;			/* in this session */
	uint64		generation;		/* of the configuration of this session */
	uint64		commits;		/* counters when the last round began */
	uint64		ticket;
	uint64		applied;
	uint64		context_sent;	/* `applied` when our context was sent last */
	TimestampTz context_sent_at;
	TimestampTz saved_at;
	bool		unsaved;
	long		pause_ms;		/* after the next transient failure */
	bool		looked;			/* at the members */
	char		missing[MMR_MSGLEN];	/* what is wrong with one of them */
	bool		failed;			/* the session ended with an error... */
	bool		halted;			/* ...for which the sync is to stop */
	char		last_message[MMR_MSGLEN];
} Pusher;

static Pusher pusher;

PGDLLEXPORT void mmrepl_pusher_main(Datum main_arg) pg_attribute_noreturn();

/* Is a member gone, or renamed?  The others go on, but nobody shall believe that all is well. */
static void
pusher_look_at_members(Pusher *p, MmrSync *sync)
{
	ListCell   *lc;

	p->looked = true;
	p->missing[0] = '\0';
	foreach(lc, sync->tables)
	{
		MmrMember  *m = lfirst(lc);

		if (!OidIsValid(m->relid) || !OidIsValid(m->key_index))
			snprintf(p->missing, sizeof(p->missing), "table \"%s.%s\" of the sync %s here", m->nspname,
					 m->relname, OidIsValid(m->relid) ? "has no usable key" : "does not exist");
	}
}

/* The sync of this session, in a transaction; leaves for good if there is none for us. */
static MmrSync *
pusher_sync(Pusher *p)
{
	MmrSync    *sync;
	bool		refreshed;

	if (!mmr_worker_hold_extension())
		mmr_worker_leave();
	refreshed = mmr_membership_refresh();
	sync = mmr_membership_sync(p->sync_id);
	if (sync == NULL || !mmr_topology_links(sync, mmr_membership_my_id(), p->peer) ||
		mmr_membership_stopped())
		mmr_worker_leave();
	if (refreshed || !p->looked)
		pusher_look_at_members(p, sync);
	return sync;
}

static bool
pusher_config_moved(Pusher *p)
{
	return pg_atomic_read_u64(&p->db->config_generation) != p->generation;
}

/* Keeps the position the peer stands at. */
static void
pusher_stands_at(Pusher *p, const MmrPosition *position)
{
	if (p->from != NULL)
		pfree(p->from);
	p->from = position ? mmr_position_copy(position, p->life) : NULL;
}

/* Writes down what is to survive a restart of the server. In a transaction of its own. */
static void
pusher_save(Pusher *p)
{
	MmrPeerState state;

	mmr_worker_start_transaction("saving state");
	(void) pusher_sync(p);
	state.acked = p->from;
	state.error = p->last_message[0] ? p->last_message : NULL;
	SpinLockAcquire(&p->me->mutex);
	state.last_good = p->me->last_good;
	state.last_bad = p->me->last_error_at;
	SpinLockRelease(&p->me->mutex);
	mmr_peerstate_save(p->sync_id, p->peer, &state);
	mmr_worker_commit_transaction();
	p->saved_at = GetCurrentTimestamp();
	p->unsaved = false;
}

static void
pusher_frame(void *arg, StringInfo frame, bool last)
{
	mmr_transport_frame(&((Pusher *) arg)->transport, frame, last);
}

static void
pusher_copy_report(void *arg, const char *nspname, const char *relname, int tables_done,
				   int tables, int64 rows, int64 rows_total, int64 bytes, int64 bytes_total)
{
	MmrWorker  *me = ((Pusher *) arg)->me;
	char		table[sizeof(me->copy.table)];

	snprintf(table, sizeof(table), "%s%s%s", nspname, nspname[0] ? "." : "", relname);
	SpinLockAcquire(&me->mutex);
	me->copy.tables_done = tables_done;
	me->copy.tables_total = tables;
	me->copy.rows_done = rows;
	me->copy.rows_total = rows_total;
	me->copy.bytes_done = bytes;
	me->copy.bytes_total = bytes_total;
	strlcpy(me->copy.table, table, sizeof(me->copy.table));
	SpinLockRelease(&me->mutex);
}

/* The initial copy (kind: as onetimecopy) that the peer wants of us. */
static void
pusher_copy(Pusher *p, int kind)
{
	MmrSync    *sync;
	List	   *skip = NIL;
	MmrWorker  *me = p->me;

	mmr_worker_start_transaction("initial copy");
	sync = pusher_sync(p);
	if (mmr_join_lacks_copy(p->sync_id))
		ereport(ERROR,
				(errcode(ERRCODE_MMR_STOPPED),
				 errmsg("the initial copy is to come from this db, which has not got its own yet")));
	mmr_worker_state(MMR_STATE_COPYING);
	SpinLockAcquire(&me->mutex);
	memset(&me->copy, 0, sizeof(me->copy));
	me->copy.started = GetCurrentTimestamp();
	SpinLockRelease(&me->mutex);
	p->sending = true;
	if (kind == 2)
		skip = mmr_handshake_filled(p->link, p->sync_id);
	mmr_copy_run(sync, mmr_membership_my_id(), kind == 1, skip, pusher_frame,
				 pusher_copy_report, p);
	mmr_transport_finish(&p->transport);
	p->sending = false;
	SpinLockAcquire(&me->mutex);
	me->copy.finished = GetCurrentTimestamp();
	SpinLockRelease(&me->mutex);
	mmr_worker_good();
	p->unsaved = true;
	mmr_worker_commit_transaction();
}

/* The handshake; gives the initial copy that the peer wants.  ERROR while one of the two joins the sync. */
static int
pusher_hello(Pusher *p)
{
	MmrGreeting greeting;
	MmrSync    *sync;
	char	   *waits_for;

	mmr_worker_start_transaction("handshake");
	sync = pusher_sync(p);
	mmr_handshake_hello(p->link, p->sync_id, p->peer, &greeting);
	mmr_join_meet(sync, p->peer, greeting.clock);
	waits_for = mmr_join_waits_for(sync);
	if (waits_for != NULL)
		waits_for = MemoryContextStrdup(p->cxt, waits_for);
	if (greeting.waits_for != NULL)
		greeting.waits_for = MemoryContextStrdup(p->cxt, greeting.waits_for);
	pusher_stands_at(p, greeting.position);
	mmr_worker_commit_transaction();
	if (waits_for != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_STOPPED),
				 errmsg("this db joins the sync and waits for %s", waits_for)));
	if (greeting.waits_for != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_STOPPED),
				 errmsg("%s joins the sync and waits for %s", mmr_link_name(p->link), greeting.waits_for)));
	p->heard = true;
	return greeting.copy;
}

/* Connects and agrees on everything; false: start the session again. */
static bool
pusher_connect(Pusher *p)
{
	MmrSync    *sync;
	char	   *conninfo;
	bool		adopted;
	int			copy;

	p->generation = pg_atomic_read_u64(&p->db->config_generation);
	p->heard = false;
	p->batch = NULL;
	MemoryContextReset(p->cxt);
	mmr_worker_start_transaction("reading the configuration");
	mmr_node_check();
	sync = pusher_sync(p);
	conninfo = MemoryContextStrdup(p->cxt, mmr_membership_node(p->peer)->conninfo);
	p->batch = mmr_batch_create(p->cxt, p->sync_id, p->peer);
	mmr_wanted_init(&p->wanted, p->cxt);
	mmr_batch_want(p->batch, &p->wanted);
	if (sync->paused)
	{
		mmr_worker_commit_transaction();
		mmr_worker_state(MMR_STATE_PAUSED);
		mmr_worker_sleep(-1);
		return false;
	}
	mmr_worker_commit_transaction();

	mmr_worker_state(MMR_STATE_CONNECTING);
	MemoryContextSwitchTo(p->cxt);
	p->link = mmr_link_open(conninfo, psprintf("push %d", p->sync_id), mmr_guc_connect_timeout);
	mmr_worker_start_transaction("exchanging the configuration");
	(void) pusher_sync(p);
	adopted = mmr_config_adopt(p->link);
	if (!adopted)
		(void) mmr_config_offer(p->link, p->peer);
	mmr_worker_commit_transaction();
	if (adopted)
		return false;

	copy = pusher_hello(p);
	mmr_wanted_ask(&p->wanted, p->link, p->sync_id, p->careful);
	mmr_transport_open(&p->transport, p->link);
	if (copy != 0)
		pusher_copy(p, copy);
	/* whatever was told before may not have arrived: tell our context once */
	p->context_sent = pg_atomic_read_u64(&p->db->applied) - 1;
	p->context_sent_at = 0;
	return true;
}

/* Everything up to the ticket is there. */
static void
pusher_served(Pusher *p)
{
	MmrWorker  *me = p->me;

	p->pause_ms = RETRY_FIRST_MS;
	p->last_message[0] = '\0';
	if (p->missing[0] != '\0')
		mmr_worker_failed(ERRCODE_MMR_SCHEMA, p->missing, MMR_STATE_BAD);
	else
	{
		mmr_worker_good();
		mmr_worker_state(MMR_STATE_IDLE);
	}
	SpinLockAcquire(&me->mutex);
	me->pending = 0;
	me->pending_since = 0;
	SpinLockRelease(&me->mutex);
	pg_atomic_write_u64(&me->done, p->ticket);
	ConditionVariableBroadcast(&me->served);
}

static void
pusher_count(Pusher *p)
{
	MmrWorker  *me = p->me;
	int64	   *c = p->transport.counts;

	SpinLockAcquire(&me->mutex);
	me->batches++;
	me->bytes_sent += p->transport.bytes;
	me->rows_inserted += c[0];
	me->rows_updated += c[1];
	me->rows_deleted += c[2];
	me->truncates += c[3];
	me->conflicts += c[4];
	if (c[0] + c[1] + c[2] + c[3] > 0)
	{
		me->last_inserted = c[0];
		me->last_updated = c[1];
		me->last_deleted = c[2];
		me->last_changes = GetCurrentTimestamp();
	}
	SpinLockRelease(&me->mutex);
}

static void
pusher_found(Pusher *p)
{
	MmrWorker  *me = p->me;

	SpinLockAcquire(&me->mutex);
	me->pending = mmr_batch_pending(p->batch);
	if (me->pending == 0)
		me->pending_since = 0;
	else if (me->pending_since == 0)
		me->pending_since = GetCurrentTimestamp();
	SpinLockRelease(&me->mutex);
}

/* Sends the prepared batch; false if it has to be prepared anew. */
static bool
pusher_push(Pusher *p)
{
	MmrTransport *t = &p->transport;

	mmr_worker_state(MMR_STATE_PUSHING);
	t->bytes = 0;
	memset(t->counts, 0, sizeof(t->counts));
	p->sending = true;
	if (!mmr_batch_emit(p->batch, pusher_frame, p))
	{
		mmr_transport_cancel(t);
		p->sending = false;
		mmr_batch_done(p->batch, false);
		return false;
	}
	mmr_transport_finish(t);
	p->sending = p->careful = false;
	mmr_wanted_served(&p->wanted, t->counts[5] > 0);
	pusher_stands_at(p, mmr_batch_position(p->batch));
	mmr_batch_done(p->batch, true);
	p->context_sent = p->applied;
	p->context_sent_at = GetCurrentTimestamp();
	p->unsaved = true;
	pusher_count(p);
	return true;
}

/* Is the peer still there, with the state this session knows? ERROR if not. */
static void
pusher_ask(Pusher *p)
{
	PQclear(mmr_link_exec(p->link, "SELECT 1", 0, NULL));
}

/* One look at what is new; true if it is worth looking again at once. */
static bool
pusher_round(Pusher *p)
{
	MmrSync    *sync;
	bool		work;
	bool		context_due;
	bool		pushed = true;

	if (mmr_wanted_due(&p->wanted))
		mmr_wanted_ask(&p->wanted, p->link, p->sync_id, false);
	/* read before the snapshot: what they count is in it, or looked at again */
	p->ticket = pg_atomic_read_u64(&p->me->wanted);
	p->commits = pg_atomic_read_u64(&p->db->commits);
	p->applied = pg_atomic_read_u64(&p->db->applied);
	pg_memory_barrier();
	/* who waits since the configuration changed waits for what it asks for now */
	if (pusher_config_moved(p))
		return true;

	mmr_worker_start_transaction("pushing");
	sync = pusher_sync(p);
	work = mmr_batch_prepare(p->batch, sync, p->from);
	pusher_found(p);
	/* B6: what we have applied is worth telling, but not all the time */
	context_due = p->applied != p->context_sent &&
		TimestampDifferenceExceeds(p->context_sent_at, GetCurrentTimestamp(),
								   mmr_guc_heartbeat_interval);
	if (work || context_due)
		pushed = pusher_push(p);
	else
		mmr_batch_done(p->batch, true);
	mmr_worker_commit_transaction();
	/*
	 * Somebody waits, and nothing was sent: a peer that crashed may have lost
	 * what it had not flushed.  As long as this session answers, it has not.
	 */
	if (!work && !context_due && pg_atomic_read_u64(&p->me->done) < p->ticket)
		pusher_ask(p);
	if (pushed)
		pusher_served(p);
	return work || !pushed;
}

/* Nothing to do: waits for a commit, a kick, or the next heartbeat. */
static void
pusher_nap(Pusher *p)
{
	MmrWorker  *me = p->me;
	TimestampTz before = GetCurrentTimestamp();

	if (p->unsaved && TimestampDifferenceExceeds(p->saved_at, before, SAVE_INTERVAL_MS))
		pusher_save(p);
	pg_atomic_write_u32(&me->sleeping, 1);
	pg_memory_barrier();
	if (pg_atomic_read_u64(&p->db->commits) == p->commits &&
		pg_atomic_read_u64(&me->wanted) == p->ticket && !pusher_config_moved(p))
		mmr_worker_sleep(mmr_guc_heartbeat_interval);
	pg_atomic_write_u32(&me->sleeping, 0);
	/* nothing heard for a heartbeat: is the peer still there? */
	if (TimestampDifferenceExceeds(before, GetCurrentTimestamp(), mmr_guc_heartbeat_interval))
		pusher_ask(p);
}

static void
pusher_session(Pusher *p)
{
	if (!pusher_connect(p))
		return;
	mmr_worker_good();
	while (!pusher_config_moved(p))
	{
		if (!pusher_round(p))
			pusher_nap(p);
	}
}

/* While the peer cannot be reached: what waits for it? */
static void
pusher_look(Pusher *p)
{
	MmrSync    *sync;

	if (p->batch == NULL)
		return;
	mmr_worker_start_transaction("looking at the log");
	sync = pusher_sync(p);
	mmr_batch_reset(p->batch);
	(void) mmr_batch_prepare(p->batch, sync, p->from);
	pusher_found(p);
	mmr_batch_done(p->batch, false);
	mmr_worker_commit_transaction();
}

/* Takes note of an error; logs it if it is not the one before. */
static void
pusher_failed(Pusher *p, ErrorData *edata)
{
	/* a row cannot be applied there: once more, at once, with care */
	bool		careful = p->sending && !p->careful && mmr_rowerror_is(edata->sqlerrcode);

	if (careful || strncmp(p->last_message, edata->message, MMR_MSGLEN - 1) != 0)
		mmr_setback_log(edata, careful);
	p->failed = true;
	p->careful |= careful;
	p->sending = false;
	p->halted |= edata->sqlerrcode == ERRCODE_MMR_HALTED;
	if (careful)
		p->pause_ms = 1;
	else
		p->pause_ms = mmr_setback_transient(edata->sqlerrcode) ?
			Min(Max(p->pause_ms, RETRY_FIRST_MS / 2) * 2, mmr_guc_restart_delay) : mmr_guc_restart_delay;
	strlcpy(p->last_message, edata->message, MMR_MSGLEN);
	mmr_worker_failed(edata->sqlerrcode, edata->message, mmr_setback_state(edata->sqlerrcode));
	ConditionVariableBroadcast(&p->me->served);
}

/* One session, and what its end by an error asks for. */
static void
pusher_guarded(Pusher *p, void (*work) (Pusher *p))
{
	MemoryContext old = CurrentMemoryContext;

	PG_TRY();
	{
		work(p);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(old);
		edata = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(old);
		pusher_failed(p, edata);
		FreeErrorData(edata);
	}
	PG_END_TRY();
	mmr_link_close_all();
	p->link = NULL;
}

static void
pusher_look_and_save(Pusher *p)
{
	pusher_look(p);
	pusher_save(p);
}

/* The peer has met what nobody but a human is to decide. */
static void
pusher_halt(Pusher *p)
{
	mmr_worker_start_transaction("stopping");
	mmr_halt_sync(pusher_sync(p)->id, p->peer, p->last_message);
	mmr_worker_commit_transaction();
}

/* What was known before the server was restarted. */
static void
pusher_remember(Pusher *p)
{
	mmr_worker_start_transaction("reading state");
	(void) pusher_sync(p);
	pusher_stands_at(p, mmr_peerstate_position(p->sync_id, p->peer));
	mmr_worker_commit_transaction();
}

static void
pusher_body(MmrWorker *me)
{
	Pusher	   *p = &pusher;

	*p = (Pusher) {.me = me, .db = mmr_shared_database(), .sync_id = me->sync_id, .peer = me->node_id};
	p->life = AllocSetContextCreate(TopMemoryContext, "mmrepl pusher", ALLOCSET_SMALL_SIZES);
	p->cxt = AllocSetContextCreate(p->life, "mmrepl session", ALLOCSET_DEFAULT_SIZES);
	p->pause_ms = RETRY_FIRST_MS;
	pusher_remember(p);
	for (;;)
	{
		long		pause;

		CHECK_FOR_INTERRUPTS();
		p->failed = p->halted = false;
		pusher_guarded(p, pusher_session);
		if (p->halted)
			pusher_guarded(p, pusher_halt);
		/* ended without an error: the configuration has changed */
		if (!p->failed)
			continue;
		pause = p->pause_ms;
		if (pause >= mmr_guc_restart_delay)
			pusher_guarded(p, pusher_look_and_save);
		mmr_worker_sleep(pause);
	}
}

void
mmrepl_pusher_main(Datum main_arg)
{
	mmr_worker_run(main_arg, pusher_body);
}
