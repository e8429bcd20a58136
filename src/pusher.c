/*-------------------------------------------------------------------------
 * pusher.c
 *	  Pushes what changed here to one peer of one sync, for ever.
 *
 * Floor 11.  Reads the configuration, the log, user tables; writes
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

#include "backlog.h"
#include "batch.h"
#include "catalog.h"
#include "config.h"
#include "conflict_log.h"
#include "copy.h"
#include "errors.h"
#include "guc.h"
#include "halt.h"
#include "handshake.h"
#include "heir.h"
#include "join.h"
#include "life.h"
#include "link.h"
#include "membership.h"
#include "news.h"
#include "node.h"
#include "peersaid.h"
#include "report.h"
#include "resync.h"
#include "rowerror.h"
#include "seqcopy.h"
#include "setback.h"
#include "tidings.h"
#include "topology.h"
#include "transport.h"
#include "worker.h"

#define RETRY_FIRST_MS		50		/* pause after a lock or a deadlock at the peer */
/* An idle pusher looks at its peer ever less often, down to once in so many heartbeats. */
#define REST_HEARTBEATS		10

typedef struct Pusher
{
	MmrWorker  *me;
	int32		sync_id;
	int32		peer;
	MemoryContext life;			/* of the process */
	MemoryContext cxt;			/* of a session */
	MmrLink    *link;
	MmrTransport transport;
	MmrBatch   *batch;
	MmrBacklog *backlog;		/* what waits while nothing can be sent; in life */
	long		nap_ms;			/* next one, when nothing happens */
	MmrWanted	wanted;			/* keys that the peer asks for, in this session */
	bool		collecting;		/* what a departed one has left with the peer comes here */
	bool		sending;		/* rows are on their way to the peer */
	bool		careful;		/* it could not apply one of them: next time it shall set that aside (A11) */
	MmrPeerSaid said;			/* where the peer stands */
	bool		heard;			/* in this session */
	MmrNews		news;			/* as of the last round */
	int64		version;		/* of the configuration of this session */
	TimestampTz batch_at;		/* when the last round that sent something began */
	uint64		context_sent;	/* `applied` when our context was sent last */
	TimestampTz context_sent_at;
	long		pause_ms;		/* after the next transient failure */
	bool		looked;			/* at the members */
	char		missing[MMR_MSGLEN];	/* what is wrong with one of them */
	bool		failed;			/* the session ended with an error... */
	bool		halted;			/* ...for which the sync is to stop */
	char		last_message[MMR_MSGLEN];
} Pusher;

static Pusher pusher;

PGDLLEXPORT void mmrepl_pusher_main(Datum main_arg) pg_attribute_noreturn();

/* The sync of this session, in a transaction; leaves for good if there is none for us. */
static MmrSync *
pusher_sync(Pusher *p)
{
	MmrSync    *sync;
	bool		refreshed;

	if (!mmr_catalog_hold())
		mmr_worker_leave();
	refreshed = mmr_membership_refresh();
	sync = mmr_membership_sync(p->sync_id);
	if (sync == NULL || !mmr_topology_speaks(sync, mmr_membership_my_id(), p->peer) ||
		mmr_membership_stopped())
		mmr_worker_leave();
	if (refreshed || !p->looked)
		mmr_setback_of_members(sync, p->missing, sizeof(p->missing));
	p->looked = true;
	return sync;
}

/* Writes down what is to survive a restart of the server, and what a target has told.  In a transaction of its own. */
static void
pusher_save(Pusher *p, const bytea *told)
{
	mmr_worker_start_transaction("saving state");
	mmr_peersaid_save(&p->said, pusher_sync(p), p->me, p->last_message, told);
	mmr_worker_commit_transaction();
}

static void
pusher_frame(void *arg, StringInfo frame, bool last)
{
	mmr_transport_frame(&((Pusher *) arg)->transport, frame, last);
}

/* The initial copy (kind: as onetimecopy) that the peer wants of us. */
static void
pusher_copy(Pusher *p, int kind)
{
	MmrSync    *sync;
	List	   *skip = NIL;

	mmr_worker_start_transaction("initial copy");
	sync = pusher_sync(p);
	if (mmr_join_lacks_copy(p->sync_id))
		ereport(ERROR,
				(errcode(ERRCODE_MMR_STOPPED),
				 errmsg("the initial copy is to come from this db, which has not got its own yet")));
	mmr_worker_state(MMR_STATE_COPYING);
	mmr_report_copy_begun();
	p->sending = true;
	if (kind == 2)
		skip = mmr_handshake_filled(p->link, p->sync_id);
	mmr_copy_run(sync, mmr_membership_my_id(), kind, skip, pusher_frame,
				 mmr_report_copy, p);
	mmr_transport_finish(&p->transport);
	p->sending = false;
	mmr_report_copy_ended();
	mmr_worker_good();
	p->said.unsaved = true;
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
	/* the configuration is the same on both sides by now */
	mmr_resync_check(sync, p->peer);
	mmr_handshake_hello(p->link, sync, p->peer, p->said.position, &greeting);
	mmr_join_meet(sync, p->peer, greeting.clock);
	waits_for = mmr_join_waits_for(sync, 0);
	if (waits_for != NULL)
		waits_for = MemoryContextStrdup(p->cxt, waits_for);
	if (greeting.waits_for != NULL)
		greeting.waits_for = MemoryContextStrdup(p->cxt, greeting.waits_for);
	mmr_peersaid_stands_at(&p->said, greeting.position);
	mmr_worker_commit_transaction();
	if (waits_for != NULL || greeting.waits_for != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_STOPPED),
				 errmsg("%s joins the sync and waits for %s", waits_for ? "this db" : mmr_link_name(p->link),
						waits_for ? waits_for : greeting.waits_for)));
	p->heard = true;
	return greeting.copy;
}

/* While nothing can be sent: what waits? */
static void
pusher_look(Pusher *p)
{
	MmrSync    *sync;

	mmr_news_look(&p->news);
	mmr_worker_start_transaction("looking at the log");
	sync = pusher_sync(p);
	mmr_report_pending(mmr_backlog_look(p->backlog, sync, p->said.position));
	mmr_worker_commit_transaction();
}

/* The sync is paused: looks at the log now and then, if anything is new there. */
static void
pusher_pause(Pusher *p)
{
	mmr_worker_state(MMR_STATE_PAUSED);
	pusher_look(p);
	pg_atomic_write_u32(&p->me->sleeping, MMR_SLEEP_NAP);
	pg_memory_barrier();
	if (pg_atomic_read_u64(&p->news.db->commits) == p->news.commits && !mmr_news_of_config(&p->news))
		mmr_worker_sleep(-1);
	pg_atomic_write_u32(&p->me->sleeping, MMR_SLEEP_NOT);
	if (!mmr_news_of_config(&p->news))
		mmr_worker_sleep(mmr_guc_restart_delay);
}

/* Connects and agrees on everything; false: start the session again. */
static bool
pusher_connect(Pusher *p)
{
	MmrSync    *sync;
	char	   *conninfo;
	bool		adopted;
	int			copy;

	p->news.generation = pg_atomic_read_u64(&p->news.db->config_generation);
	p->heard = p->collecting = false;
	p->batch = NULL;
	MemoryContextReset(p->cxt);
	mmr_worker_start_transaction("reading the configuration");
	sync = pusher_sync(p);
	p->version = mmr_membership_config_version();
	mmr_peersaid_begin(&p->said, sync);
	mmr_node_check();
	conninfo = MemoryContextStrdup(p->cxt, mmr_membership_node(p->peer)->conninfo);
	p->batch = mmr_batch_create(p->cxt, p->sync_id, p->peer);
	mmr_wanted_init(&p->wanted, p->cxt);
	mmr_batch_want(p->batch, &p->wanted);
	if (sync->paused)
	{
		mmr_worker_commit_transaction();
		pusher_pause(p);
		return false;
	}
	mmr_worker_commit_transaction();

	mmr_worker_state(MMR_STATE_CONNECTING);
	MemoryContextSwitchTo(p->cxt);
	p->link = mmr_link_open(conninfo, psprintf("push %d", p->sync_id), mmr_guc_connect_timeout);
	mmr_worker_start_transaction("exchanging the configuration");
	(void) pusher_sync(p);
	adopted = mmr_config_adopt(p->link) || mmr_config_offer(p->link, p->peer);
	mmr_worker_commit_transaction();
	if (adopted)
		return false;

	mmr_life_claim(p->link, p->peer);
	mmr_transport_open(&p->transport, p->link);
	/* after a copy the peer may stand elsewhere */
	while ((copy = pusher_hello(p)) >= 0)
	{
		/* each handshake begins without care */
		if (p->careful)
			mmr_wanted_ask(&p->wanted, p->link, p->sync_id, true);
		pusher_copy(p, copy);
	}
	p->collecting = true;
	mmr_heir_collect(p->link, p->sync_id, p->peer, p->cxt);
	p->collecting = false;
	mmr_wanted_ask(&p->wanted, p->link, p->sync_id, p->careful);
	/* whatever was told before may not have arrived: tell our context once */
	p->context_sent = pg_atomic_read_u64(&p->news.db->applied) - 1;
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
	mmr_report_pending(0);
	pg_atomic_write_u64(&me->done, p->news.ticket);
	ConditionVariableBroadcast(&me->served);
}

/* Sends the prepared batch, and lets go of the snapshot; false if it has to be prepared anew. */
static bool
pusher_send(Pusher *p)
{
	MmrTransport *t = &p->transport;
	bool		sent;

	mmr_worker_state(MMR_STATE_PUSHING);
	t->bytes = 0;
	memset(t->counts, 0, sizeof(t->counts));
	p->sending = true;
	sent = mmr_batch_emit(p->batch, pusher_frame, p);
	if (!sent)
	{
		mmr_transport_cancel(t);
		p->sending = false;
	}
	mmr_batch_done(p->batch, sent);
	return sent;
}

/*
 * Waits for the peer's answer, which may take as long as a large batch takes
 * there: no transaction is open meanwhile that would keep dead rows alive here.
 */
static void
pusher_confirm(Pusher *p)
{
	MmrTransport *t = &p->transport;

	mmr_transport_finish(t);
	p->sending = p->careful = false;
	mmr_wanted_served(&p->wanted, t->counts[5] > 0);
	mmr_peersaid_stands_at(&p->said, mmr_batch_position(p->batch));
	p->context_sent = p->news.applied;
	p->context_sent_at = GetCurrentTimestamp();
	p->said.unsaved = true;
	mmr_report_batch(t->bytes, t->counts);
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
	bool		send;
	bool		pushed = true;

	if (mmr_wanted_due(&p->wanted))
		mmr_wanted_ask(&p->wanted, p->link, p->sync_id, false);
	mmr_news_gather(&p->news, p->batch_at);
	mmr_news_look(&p->news);
	/* who waits since the configuration changed waits for what it asks for now */
	if (mmr_news_of_config(&p->news))
		return true;

	mmr_worker_start_transaction("pushing");
	sync = pusher_sync(p);
	work = mmr_batch_prepare(p->batch, sync, p->said.position);
	/* the snapshot may see changes of a member that has just come: they would be passed over for ever */
	if (mmr_news_of_config(&p->news) || !mmr_membership_is_current())
	{
		mmr_batch_done(p->batch, false);
		mmr_worker_commit_transaction();
		if (!mmr_news_of_config(&p->news))
			mmr_worker_sleep(RETRY_FIRST_MS);
		return true;
	}
	mmr_report_pending(mmr_batch_pending(p->batch));
	/* B6: what we have applied is worth telling, but not all the time */
	context_due = p->news.applied != p->context_sent &&
		TimestampDifferenceExceeds(p->context_sent_at, GetCurrentTimestamp(),
								   mmr_guc_heartbeat_interval);
	send = work || context_due;
	if (send)
		pushed = pusher_send(p);
	else
		mmr_batch_done(p->batch, true);
	mmr_worker_commit_transaction();
	if (send && pushed)
		pusher_confirm(p);
	/* somebody waits, nothing was sent: a peer that has crashed may lack what it had; if this session answers, it has not */
	if (!send && pg_atomic_read_u64(&p->me->done) < p->news.ticket)
		pusher_ask(p);
	if (pushed)
		pusher_served(p);
	if (send)
	{
		p->nap_ms = 0;
		p->batch_at = p->news.looked_at;
	}
	return work || !pushed;
}

/*
 * Nothing to do: waits for a commit, a kick, the end of the connection, or the
 * next heartbeat.  When nothing happens for long it rests, longer and longer: then
 * the first batch that a peer applies here wakes it too, to tell of it (B6); what
 * nobody tells it of, and a peer that has vanished without a word, it finds
 * when it looks.
 */
static void
pusher_nap(Pusher *p)
{
	MmrWorker  *me = p->me;
	TimestampTz before = GetCurrentTimestamp();
	bool		tell = p->news.applied != p->context_sent;	/* when a heartbeat is over */
	bool		rest = !tell && !p->wanted.standing && !mmr_seqcopy_any();
	bool		heard = false;

	p->nap_ms = rest ? Min(2 * p->nap_ms, (long) REST_HEARTBEATS * mmr_guc_heartbeat_interval) : 0;
	/* what is not saved yet is so in the end */
	if (p->said.unsaved)
		p->nap_ms = Min(p->nap_ms, MMR_PEERSAID_MS);
	p->nap_ms = Max(p->nap_ms, mmr_guc_heartbeat_interval);
	pg_atomic_write_u32(&me->sleeping, rest ? MMR_SLEEP_REST : MMR_SLEEP_NAP);
	pg_memory_barrier();
	if (!mmr_news_any(&p->news, rest))
		heard = mmr_worker_sleep_on(PQsocket(mmr_link_conn(p->link)), p->nap_ms);
	pg_atomic_write_u32(&me->sleeping, MMR_SLEEP_NOT);
	if (heard)
		mmr_transport_listen(&p->transport);
	/* nothing heard all the time: is the peer still there? A target may have put a key of ours aside because of another source (collide.c) */
	if (TimestampDifferenceExceeds(before, GetCurrentTimestamp(), p->nap_ms))
	{
		if (p->said.target)
			mmr_wanted_ask(&p->wanted, p->link, p->sync_id, false);
		else
			pusher_ask(p);
	}
	else
		p->nap_ms = 0;
}

/* Now and then, also while there is something to do all the time: what a target has confirmed is purged by what is written down. */
static void
pusher_save_if_due(Pusher *p)
{
	bytea	   *told;

	if (!mmr_peersaid_due(&p->said))
		return;
	told = p->said.target ? mmr_tidings_ask(p->link, p->sync_id) : NULL;
	pusher_save(p, told);
	if (told != NULL)
		pfree(told);
}

static void
pusher_session(Pusher *p)
{
	bool		more;

	if (!pusher_connect(p))
		return;
	mmr_backlog_forget(p->backlog);
	mmr_worker_good();
	while (!mmr_news_of_config(&p->news))
	{
		more = pusher_round(p);
		pusher_save_if_due(p);
		if (!more)
			pusher_nap(p);
	}
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
		/* what is applied here (heir.h) may have failed in a subtransaction */
		AbortOutOfAnyTransaction();
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
	if (p->said.unsaved || strcmp(p->said.message, p->last_message) != 0)
		pusher_save(p, NULL);
}

/*
 * The peer, or this database when it collects, has met what nobody but a human is to decide; if the configuration
 * has changed since, it will meet it again, or not.
 */
static void
pusher_halt(Pusher *p)
{
	MmrSync    *sync;

	mmr_worker_start_transaction("stopping");
	sync = pusher_sync(p);
	/* the history is not to wait for the end of this process */
	(void) mmr_conflict_log_halted();
	mmr_halt_sync(sync->id, p->collecting ? mmr_membership_my_id() : p->peer, p->last_message, p->version);
	mmr_worker_commit_transaction();
}

static void
pusher_body(MmrWorker *me)
{
	Pusher	   *p = &pusher;

	*p = (Pusher) {.me = me, .news = {.me = me,.db = mmr_shared_database()}, .sync_id = me->sync_id, .peer = me->node_id};
	p->life = AllocSetContextCreate(TopMemoryContext, "mmrepl pusher", ALLOCSET_SMALL_SIZES);
	p->said = (MmrPeerSaid) {.sync_id = p->sync_id,.peer = p->peer,.cxt = p->life};
	p->cxt = AllocSetContextCreate(p->life, "mmrepl session", ALLOCSET_DEFAULT_SIZES);
	p->backlog = mmr_backlog_create(p->life, p->sync_id, p->peer);
	p->pause_ms = RETRY_FIRST_MS;
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
