/*-------------------------------------------------------------------------
 * life.c
 *	  Is this database's past still the one that its peers have seen (M3)?
 *
 * Floor 5.  Reads and writes mmrepl.life and local_node.refused; on other dbs
 * _life_known and _life_claim.  Runs in the launcher, the janitor, pushers, and
 * confirm_identity.
 *
 * A database that was put back to an earlier state gives out transaction
 * numbers again that its peers count as known.  How far it has got by now
 * tells nothing, for it goes on counting.  So each run of the server has a random number,
 * written down here before any peer hears of it, together with the first
 * transaction number of the run after it.  A peer says which run of ours it
 * heard of last, and the highest number that it has of us.  If that run is not
 * written down here, or had not got so far when the next began, what we gave
 * out then is not here any more: now, and for ever.
 *
 * A copy has the past of the original, but not its run: whoever is not the one
 * that answers at the db's own address is a copy, and so is, when they meet,
 * who finds a peer that has heard of a run of the other.
 *
 * Invariant: a database that has once seen that its past is not what its peers
 * know is marked (local_node.refused) and neither sends nor takes anything.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "errors.h"
#include "guc.h"
#include "life.h"
#include "membership.h"
#include "node.h"
#include "shared.h"
#include "sqlrun.h"
#include "wake.h"
#include "worker.h"

/* Who does not answer in time at the start (s; all of them: ms) is asked when a pusher meets him. */
#define ASK_TIMEOUT		5
#define ASK_ALL			15000

/* Who answers at our own address, if nobody did (ms). */
#define LOOK_AGAIN		30000

/* Who calls for us as soon as the server is up waits for the launcher so long, and looks so often (ms). */
#define RUN_TIMEOUT		10000
#define RUN_LOOK		20

#define KNOWN_SQL "SELECT its_id, server_run, its_run, system_identifier, database_oid, known_run, known_xid FROM mmrepl._life_known($1::int4)"
#define CLAIM_SQL "SELECT mmrepl._life_claim($1::int4, $2::int8, $3::oid, $4::int8, $5::int8, $6::int8)"

/* Why we are not who we think we are. */
#define SAYS_LOST "has applied changes of this database that are not here"
#define SAYS_OTHER "has heard of a life of this database that this one has not had"
#define SAYS_COPY "the server that answers at the connection string of this db is another one"

PG_FUNCTION_INFO_V1(mmrepl_server_run);

static bool verified = false;	/* we answer at our own address, or nobody is asked to */
static TimestampTz looked_at = 0;

/* Somebody to ask. */
typedef struct Other
{
	int32		node_id;
	char	   *name;
	char	   *conninfo;
} Other;

void
mmr_life_begin(void)
{
	uint64		run;

	/* the launcher alone was started anew */
	if (mmr_shared->run != 0)
		return;
	if (!pg_strong_random(&run, sizeof(run)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random number")));
	/* who was quicker has told (capture.c): sessions of a standby that is promoted write before any worker starts */
	mmr_shared_gave_out(U64FromFullTransactionId(ReadNextFullTransactionId()));
	pg_write_barrier();
	mmr_shared->run = (run >> 1) | 1;
}

static char *
number(int64 n)
{
	return psprintf(INT64_FORMAT, n);
}

/* The launcher gives it, a moment after the server has started or was promoted. */
static void
wait_for_run(void)
{
	for (int waited = 0; mmr_shared->run == 0 && waited < RUN_TIMEOUT; waited += RUN_LOOK)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, RUN_LOOK, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Writes this run down, once.  What peers will count on must not be lost in a crash. */
static void
write_down(void)
{
	const char *args[2];

	wait_for_run();
	args[0] = number(mmr_shared->run);
	args[1] = number(pg_atomic_read_u64(&mmr_shared->first_xid));
	if (mmr_shared->run == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mmrepl's launcher has not started yet"),
				 errhint("Try again.")));
	if (mmr_sqlrun_exec("SELECT 1 FROM mmrepl.life WHERE run = $1::int8", 1, args) > 0)
		return;
	(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	mmr_sqlrun_exec("UPDATE mmrepl.life SET ended = $1::int8 WHERE ended IS NULL", 1, args + 1);
	mmr_sqlrun_exec("INSERT INTO mmrepl.life (run) VALUES ($1::int8)", 1, args);
}

void
mmr_life_begin_anew(void)
{
	mmr_sqlrun_exec("DELETE FROM mmrepl.life", 0, NULL);
	mmr_sqlrun_exec("UPDATE mmrepl.local_node SET refused = NULL", 0, NULL);
	write_down();
}

/* ---- what others know ---- */

/* The columns of KNOWN_SQL. */
enum
{
	ITS_ID,
	SERVER_RUN,					/* the server's */
	ITS_RUN,					/* written down, so that it can be counted on */
	SYSTEM_IDENTIFIER,
	DATABASE_OID,
	KNOWN_RUN,
	KNOWN_XID,
	N_KNOWN
};

/* What the one at the other end says: columns, in the caller's context. */
static char **
asked(MmrLink *link)
{
	char	   *me = psprintf("%d", mmr_membership_my_id());
	PGresult   *result = mmr_link_exec(link, KNOWN_SQL, 1, (const char *const *) &me);
	char	  **v = palloc0(sizeof(char *) * N_KNOWN);

	for (int i = 0; i < N_KNOWN; i++)
		v[i] = PQntuples(result) == 1 && !PQgetisnull(result, 0, i) ? pstrdup(PQgetvalue(result, 0, i)) : NULL;
	PQclear(result);
	return v;
}

/* The one that answers at our own address. */
static char *
problem_with_me(char **v, const char *name)
{
	int64		sysid;
	Oid			dboid;
	int32		timeline;

	mmr_node_identity(&sysid, &dboid, &timeline);
	/* what stands there by itself is nobody's copy: the others will find that out */
	if (v[ITS_ID] == NULL || pg_strtoint32(v[ITS_ID]) != mmr_membership_my_id() ||
		pg_strtoint64(v[SYSTEM_IDENTIFIER]) != sysid ||
		(v[SERVER_RUN] != NULL && (uint64) pg_strtoint64(v[SERVER_RUN]) == mmr_shared->run))
		return NULL;
	return psprintf("%s (%s)", SAYS_COPY, name);
}

/* A peer; NULL: nothing is wrong. */
static char *
problem_with(char **v, int32 node_id, const char *name)
{
	char	   *ended;
	int64		limit;

	/* another one, or one that has not taken part yet: the handshake tells */
	if (v[ITS_ID] == NULL || pg_strtoint32(v[ITS_ID]) != node_id || v[KNOWN_RUN] == NULL)
		return NULL;
	ended = mmr_sqlrun_text("SELECT coalesce(ended, -1) FROM mmrepl.life WHERE run = $1::int8", 1,
							(const char *const *) &v[KNOWN_RUN]);
	if (ended == NULL)
		return psprintf("%s %s", name, SAYS_OTHER);
	if (v[KNOWN_XID] == NULL)
		return NULL;
	limit = pg_strtoint64(ended);
	if (limit < 0)
		limit = U64FromFullTransactionId(ReadNextFullTransactionId());
	return pg_strtoint64(v[KNOWN_XID]) > limit ? psprintf("%s %s", name, SAYS_LOST) : NULL;
}

static void raise_refused(const char *why) pg_attribute_noreturn();

static void
raise_refused(const char *why)
{
	bool		copy = strstr(why, SAYS_COPY) != NULL;

	ereport(ERROR,
			(errcode(ERRCODE_MMR_IDENTITY),
			 errmsg_internal("%s", why),
			 errdetail(copy ? "This database is a copy of that one, or was replaced by it." :
					   "This database was put back to an earlier state, by a backup, a snapshot, or a standby that was behind; or another server has taken its place."),
			 errhint(copy ? MMR_COPY_HINT : MMR_LOST_HINT)));
}

/* The mark, which stays; and everything ends. */
static void
mark(const char *why)
{
	(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	mmr_sqlrun_exec("UPDATE mmrepl.local_node SET refused = $1", 1, &why);
	mmr_wake_at_commit();
	mmr_wake_end_apply_at_commit();
}

/* Asks one of them; false: it does not answer. */
static bool
ask(const Other *other, char **problem)
{
	MemoryContext cxt = CurrentMemoryContext;
	char	  **volatile v = NULL;
	const char *volatile name = NULL;

	*problem = NULL;
	PG_TRY();
	{
		MmrLink    *link = mmr_link_open(other->conninfo, "config", Min(mmr_guc_connect_timeout, ASK_TIMEOUT));

		name = pstrdup(mmr_link_name(link));
		v = asked(link);
		mmr_link_close(link);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED || edata->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
			PG_RE_THROW();
		FlushErrorState();
		mmr_link_close_all();
		ereport(DEBUG1,
				(errmsg("db \"%s\" does not tell what it knows of this db: %s", other->name, edata->message)));
		FreeErrorData(edata);
	}
	PG_END_TRY();
	if (v == NULL)
		return false;
	*problem = other->node_id == mmr_membership_my_id() ? problem_with_me(v, name) : problem_with(v, other->node_id, name);
	return true;
}

/* This db first, then all it knows. */
static List *
all_dbs(void)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, mmr_membership_nodes())
	{
		MmrNode    *node = lfirst(lc);
		Other	   *other = palloc(sizeof(Other));

		other->node_id = node->id;
		other->name = pstrdup(node->name);
		other->conninfo = pstrdup(node->conninfo);
		result = node->id == mmr_membership_my_id() ? lcons(other, result) : lappend(result, other);
	}
	return result;
}

/* ---- at the start ---- */

/* Asks them; gives what is wrong, and has set the mark then.  Transactions of its own. */
static char *
ask_all(List *dbs)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ASK_ALL);
	ListCell   *lc;

	foreach(lc, dbs)
	{
		Other	   *other = lfirst(lc);
		MemoryContext cxt = CurrentMemoryContext;
		char	   *problem;
		bool		answered;

		if (GetCurrentTimestamp() >= until)
			break;
		mmr_worker_start_transaction("asking what others know of this db");
		MemoryContextSwitchTo(cxt);
		if (!mmr_catalog_hold())
		{
			mmr_worker_commit_transaction();
			return NULL;
		}
		mmr_membership_refresh();
		answered = ask(other, &problem);
		if (problem != NULL)
			mark(problem);
		else if (answered && other->node_id == mmr_membership_my_id())
			verified = true;
		mmr_worker_commit_transaction();
		MemoryContextSwitchTo(cxt);
		if (problem != NULL)
			return problem;
	}
	return NULL;
}

/* The whole of it; only_me: at our own address alone. */
static void
look(bool only_me)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext cxt = AllocSetContextCreate(old, "mmrepl life", ALLOCSET_SMALL_SIZES);
	List	   *dbs = NIL;
	char	   *problem;

	mmr_worker_start_transaction("looking who this db is");
	if (mmr_catalog_hold())
	{
		mmr_membership_refresh();
		if (mmr_membership_my_id() != 0)
			write_down();
		MemoryContextSwitchTo(cxt);
		dbs = mmr_membership_my_id() != 0 ? all_dbs() : NIL;
	}
	mmr_worker_commit_transaction();
	MemoryContextSwitchTo(cxt);
	looked_at = GetCurrentTimestamp();
	if (only_me && dbs != NIL)
		dbs = list_make1(linitial(dbs));
	problem = ask_all(dbs);
	MemoryContextSwitchTo(old);
	if (problem != NULL)
		raise_refused(problem);
	MemoryContextDelete(cxt);
}

void
mmr_life_start(void)
{
	verified = false;
	look(false);
}

void
mmr_life_round(void)
{
	if (!verified && TimestampDifferenceExceeds(looked_at, GetCurrentTimestamp(), LOOK_AGAIN))
		look(true);
}

/* ---- pushers ---- */

void
mmr_life_claim(MmrLink *link, int32 peer)
{
	char	   *problem = NULL;
	char	  **v;
	const char *args[6];
	char	  **known;
	PGresult   *result;
	MmrNode    *me;

	mmr_worker_start_transaction("telling who this db is");
	if (!mmr_catalog_hold())
		mmr_worker_leave();
	mmr_membership_refresh();
	me = mmr_membership_node(mmr_membership_my_id());
	if (me == NULL)
		mmr_worker_leave();
	v = asked(link);
	problem = problem_with(v, peer, mmr_link_name(link));
	if (problem != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		char	   *kept = pstrdup(problem);

		MemoryContextSwitchTo(old);
		mark(problem);
		mmr_worker_commit_transaction();
		raise_refused(kept);
	}
	/* what we know of it, for it to see whether that is so; then what it is now */
	args[0] = psprintf("%d", peer);
	known = mmr_sqlrun_row("SELECT known_run, known_xid FROM mmrepl._life_known($1::int4)", 1, args);
	args[0] = psprintf("%d", me->id);
	args[1] = number(me->system_identifier);
	args[2] = psprintf("%u", me->database_oid);
	args[3] = number(mmr_shared->run);
	args[4] = known ? known[0] : NULL;
	args[5] = known ? known[1] : NULL;
	result = mmr_link_exec(link, CLAIM_SQL, 6, args);
	/* it has seen that what we know of it is so: a run that came after another past must not take its place here */
	if (PQgetvalue(result, 0, 0)[0] == 't' && v[ITS_RUN] != NULL)
	{
		args[0] = psprintf("%d", peer);
		args[1] = v[ITS_RUN];
		mmr_sqlrun_exec("SELECT mmrepl._life_note($1::int4, $2::int8)", 2, args);
	}
	PQclear(result);
	mmr_worker_commit_transaction();
}

/* ---- confirm_identity ---- */

void
mmr_life_confirm(const char *refused)
{
	bool		all = refused != NULL && strstr(refused, SAYS_COPY) == NULL;
	ListCell   *lc;

	write_down();
	foreach(lc, all_dbs())
	{
		Other	   *other = lfirst(lc);
		char	   *problem;
		bool		answered = ask(other, &problem);

		if (problem != NULL)
			raise_refused(problem);
		if (!answered && all && other->node_id != mmr_membership_my_id())
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("db \"%s\" does not answer, and may know of changes that are not here", other->name),
					 errhint("Help it first, or call mmrepl.rejoin().")));
	}
}

/* mmrepl._server_run() returns int8 */
Datum
mmrepl_server_run(PG_FUNCTION_ARGS)
{
	if (mmr_shared == NULL || mmr_shared->run == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64((int64) mmr_shared->run);
}
