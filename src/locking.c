/*-------------------------------------------------------------------------
 * locking.c
 *	  Strong locks on the user's relations, taken without a queue forming.
 *
 * Floor 1.
 * Reads: pg_locks, pg_stat_activity, pg_prepared_xacts (who is in the way).
 * Runs in: backends that configure, pushers that adopt a configuration.
 *
 * A session that waits for a strong lock makes everybody wait who comes
 * after it, even if they would not disturb the one who has the lock.
 *
 * Our own workers give way: a batch or an initial copy may hold its tables for
 * hours, and whoever removes a sync need not wait for its end.
 *
 * Invariant: nobody waits behind us for longer than LOCKING_PATIENCE at a
 * time, and while we wait we hold no lock that this call has taken.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "locking.h"

#define LOCKING_PATIENCE	300 /* ms, one attempt */
#define LOCKING_TOTAL		3000	/* ms, all attempts, when others may hold locks for us elsewhere */
#define LOCKING_TOTAL_PROBE	10000	/* ms, all attempts, when nobody does */
#define LOCKING_PAUSE		100 /* ms after the first attempt; doubles */
#define LOCKING_PAUSE_MAX	1000

/* Who holds a lock on one of $1 that keeps us out. */
static const char *const sql_blockers =
"SELECT coalesce('Session ' || l.pid || ' (' || coalesce(nullif(a.application_name, ''), a.backend_type, '')"
" || coalesce(', user ' || a.usename, '') || coalesce(', ' || a.state, '')"
" || coalesce(', in a transaction since ' || pg_catalog.date_trunc('second', a.xact_start)::text, '') || ')',"
" 'Prepared transaction ' || coalesce('\"' || p.gid || '\"', 'without a name'))"
" || ' has it locked (' || c.relname || ', ' || l.mode || ').',"
" coalesce('Let it finish, or end it with pg_terminate_backend(' || l.pid || '), and try again.',"
" 'Finish it with COMMIT PREPARED or ROLLBACK PREPARED, and try again.')"
" FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation"
" LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid"
" LEFT JOIN pg_catalog.pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'"
" AND x.virtualtransaction = l.virtualtransaction"
" LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid"
" WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1)"
" AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())"
" AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() AND l.mode = ANY ($2)"
" ORDER BY coalesce(a.xact_start, p.prepared) LIMIT 1";

/* Those of them that are pushers of this db, or sessions of a peer's pusher: what they were doing, they do again. */
static const char *const sql_cancel =
"SELECT pg_catalog.pg_cancel_backend(l.pid)"
" FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid"
" WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1)"
" AND a.datname = pg_catalog.current_database() AND l.database = a.datid"
" AND l.pid <> pg_catalog.pg_backend_pid() AND l.mode = ANY ($2)"
" AND (a.backend_type = 'mmrepl pusher'"
" OR (a.backend_type = 'client backend' AND a.application_name LIKE 'mmrepl push%'))";

static void locking_repeat(const List *relids, LOCKMODE mode, bool keep, int total);
static bool locking_try(const List *relids, LOCKMODE mode, bool keep);
static void locking_raise(const List *relids, LOCKMODE mode, int total) pg_attribute_noreturn();
static bool locking_blocker(const List *relids, LOCKMODE mode, char **who, char **hint);
static void locking_arguments(const List *relids, LOCKMODE mode, Datum *args);
static bool locking_cancel(const List *relids, LOCKMODE mode);

void
mmr_locking_acquire(const List *relids, LOCKMODE mode)
{
	locking_repeat(relids, mode, true, LOCKING_TOTAL);
}

bool
mmr_locking_try(const List *relids, LOCKMODE mode)
{
	return locking_try(relids, mode, true);
}

void
mmr_locking_probe(const List *relids, LOCKMODE mode)
{
	locking_repeat(relids, mode, false, LOCKING_TOTAL_PROBE);
}

static void
locking_repeat(const List *relids, LOCKMODE mode, bool keep, int total)
{
	TimestampTz give_up = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), total);
	long		pause = LOCKING_PAUSE;
	int			tries = 0;

	if (relids == NIL)
		return;
	while (!locking_try(relids, mode, keep))
	{
		if (GetCurrentTimestamp() >= give_up)
			locking_raise(relids, mode, total);
		if (tries++ > 0 && locking_cancel(relids, mode))
			continue;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 pause, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		pause = Min(pause * 2, LOCKING_PAUSE_MAX);
	}
}

/* One attempt, in a subtransaction: its end gives the locks back, or keeps them. */
static bool
locking_try(const List *relids, LOCKMODE mode, bool keep)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool got = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOCKING_PATIENCE);
		int			nest = NewGUCNestLevel();
		char		limit[32];
		ListCell   *lc;

		/* autovacuum gives way only to one that waits for deadlock_timeout */
		(void) set_config_option("deadlock_timeout", "50", PGC_SUSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		foreach(lc, relids)
		{
			long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

			snprintf(limit, sizeof(limit), "%ld", Max(left, 10));
			(void) set_config_option("lock_timeout", limit, PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
			LockRelationOid(lfirst_oid(lc), mode);
		}
		AtEOXact_GUC(true, nest);
		got = true;
		if (keep)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		int			state = geterrcode();

		if (state != ERRCODE_LOCK_NOT_AVAILABLE && state != ERRCODE_T_R_DEADLOCK_DETECTED)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return got;
}

static void
locking_raise(const List *relids, LOCKMODE mode, int total)
{
	char	   *who = NULL;
	char	   *hint = NULL;
	bool		found = locking_blocker(relids, mode, &who, &hint);
	Oid			first = linitial_oid(relids);
	char	   *name = get_rel_name(first);

	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 list_length(relids) == 1 ?
			 errmsg("could not lock \"%s\" within %d s", name ? name : "?", total / 1000) :
			 errmsg("could not lock %d relations at once within %d s", list_length(relids), total / 1000),
			 found ? errdetail_internal("%s", who) : 0,
			 found ? errhint("%s", hint) :
			 errhint("Try again when fewer long transactions run.")));
}

static bool
locking_blocker(const List *relids, LOCKMODE mode, char **who, char **hint)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[2] = {OIDARRAYOID, TEXTARRAYOID};
	Datum		args[2];
	bool		found;

	locking_arguments(relids, mode, args);
	pgstat_clear_snapshot();	/* who is there now, not at our first look */
	SPI_connect();
	found = SPI_execute_with_args(sql_blockers, 2, types, args, NULL, true, 1) == SPI_OK_SELECT &&
		SPI_processed == 1;
	if (found)
	{
		char	   *s1 = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		char	   *s2 = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);

		*who = MemoryContextStrdup(context, s1 ? s1 : "");
		*hint = MemoryContextStrdup(context, s2 ? s2 : "");
	}
	SPI_finish();
	return found;
}

/* $1: the relations, $2: names of the modes that conflict with ours. */
static void
locking_arguments(const List *relids, LOCKMODE mode, Datum *args)
{
	Datum	   *oids = palloc(sizeof(Datum) * list_length(relids));
	Datum		modes[MaxLockMode];
	int			n = 0;
	int			nmodes = 0;
	ListCell   *lc;

	foreach(lc, relids)
		oids[n++] = ObjectIdGetDatum(lfirst_oid(lc));
	for (LOCKMODE m = 1; m <= MaxLockMode; m++)
	{
		if (DoLockModesConflict(m, mode))
			modes[nmodes++] = CStringGetTextDatum(GetLockmodeName(DEFAULT_LOCKMETHOD, m));
	}
	args[0] = PointerGetDatum(construct_array(oids, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
	args[1] = PointerGetDatum(construct_array(modes, nmodes, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Did one of ours have to give way? Needs the rights of the extension's owner, else there is nobody. */
static bool
locking_cancel(const List *relids, LOCKMODE mode)
{
	Oid			types[2] = {OIDARRAYOID, TEXTARRAYOID};
	Datum		args[2];
	bool		any;

	locking_arguments(relids, mode, args);
	pgstat_clear_snapshot();	/* who is there now, not at our first look */
	SPI_connect();
	any = SPI_execute_with_args(sql_cancel, 2, types, args, NULL, true, 0) == SPI_OK_SELECT &&
		SPI_processed > 0;
	SPI_finish();
	return any;
}
