/*-------------------------------------------------------------------------
 * worker.c
 *	  What all background workers share: start, signals, connection to the
 *	  database, sleeping, the report of success and failure, start and
 *	  dismissal of others.
 *
 * Floor 4.
 * Reads and writes slots in shared memory.
 * Runs in background workers only.
 *
 * Invariant: SIGTERM is `die`, so that every wait of the server and of libpq
 * that checks for interrupts ends at once, whatever a peer does.  Workers do
 * not catch errors to go on: they die, and whoever started them paces their
 * return; but for work that may wait while the rest is done (mmr_worker_try).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "guc.h"
#include "worker.h"

/* A worker that was started and does not appear for so long is started again (ms). */
#define WORKER_APPEAR_TIMEOUT	30000

/* A worker that was asked to leave is terminated after this (ms). */
#define WORKER_LEAVE_TIMEOUT	1000

typedef struct WorkerKindInfo
{
	const char *type;			/* bgw_type */
	const char *main;			/* entry point */
} WorkerKindInfo;

static const WorkerKindInfo worker_kinds[] =
{
	[MMR_WORKER_LAUNCHER] = {"mmrepl launcher", "mmrepl_launcher_main"},
	[MMR_WORKER_JANITOR] = {"mmrepl janitor", "mmrepl_janitor_main"},
	[MMR_WORKER_PUSHER] = {"mmrepl pusher", "mmrepl_pusher_main"},
};

/* What ALTER DATABASE or postgresql.conf may say otherwise, but not to us. */
static const char *const worker_settings[][2] =
{
	{"search_path", "pg_catalog"},
	{"statement_timeout", "0"},
	{"transaction_timeout", "0"},
	{"lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"session_replication_role", "origin"},
	{"row_security", "off"},
	{"synchronous_commit", "off"},
	{"DateStyle", "ISO"},
	{"IntervalStyle", "postgres"},
	{"TimeZone", "GMT"},
	{"extra_float_digits", "3"},
	{"bytea_output", "hex"},
	{"xmloption", "content"},
	{"xmlbinary", "base64"},
};

static void
fix_settings(const char *application_name)
{
	for (int i = 0; i < (int) lengthof(worker_settings); i++)
	{
		/* Some exist only in later servers. */
		if (GetConfigOption(worker_settings[i][0], true, false) != NULL)
			SetConfigOption(worker_settings[i][0], worker_settings[i][1],
							PGC_SUSET, PGC_S_OVERRIDE);
	}
	/* rows and keys leave as they are here */
	SetConfigOption("client_encoding", GetDatabaseEncodingName(),
					PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("application_name", application_name,
					PGC_USERSET, PGC_S_OVERRIDE);
}

/* The launcher is registered before there are slots, so it takes its own. */
static MmrWorker *
launcher_slot(uint64 *generation)
{
	MmrWorker  *slot;

	LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
	slot = mmr_shared_find_worker(MMR_WORKER_LAUNCHER, InvalidOid, 0, 0);
	if (slot == NULL)
		slot = mmr_shared_reserve_worker(MMR_WORKER_LAUNCHER, InvalidOid, 0, 0);
	if (slot != NULL)
	{
		slot->launched = GetCurrentTimestamp();
		slot->retry_at = 0;
		*generation = slot->generation;
	}
	LWLockRelease(mmr_shared->lock);
	return slot;
}

MmrWorker *
mmr_worker_begin(Datum main_arg)
{
	int			slotno = DatumGetInt32(main_arg);
	MmrWorker  *slot;
	uint64		generation = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (mmr_shared == NULL || slotno >= mmr_shared->max_workers)
		proc_exit(0);

	if (slotno < 0)
		slot = launcher_slot(&generation);
	else
	{
		slot = &mmr_shared->workers[slotno];
		memcpy(&generation, MyBgworkerEntry->bgw_extra, sizeof(generation));
	}

	/* The slot may have been given to another while we were being started. */
	if (slot == NULL || !mmr_shared_attach(slot, generation))
		proc_exit(0);

	mmr_worker_state(MMR_STATE_STARTING);
	BackgroundWorkerInitializeConnectionByOid(slot->dboid, InvalidOid, 0);
	fix_settings(MyBgworkerEntry->bgw_type);
	pgstat_report_activity(STATE_IDLE, NULL);
	return slot;
}

void
mmr_worker_run(Datum main_arg, void (*body) (MmrWorker *me))
{
	MmrWorker  *me = mmr_worker_begin(main_arg);
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "mmrepl worker",
												  ALLOCSET_DEFAULT_SIZES);

	PG_TRY();
	{
		MemoryContextSwitchTo(context);
		body(me);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(TopMemoryContext);
		edata = CopyErrorData();
		mmr_worker_failed(edata->sqlerrcode, edata->message, MMR_STATE_BAD);
		PG_RE_THROW();
	}
	PG_END_TRY();

	mmr_worker_leave();
}

void
mmr_worker_leave(void)
{
	proc_exit(0);
}

void
mmr_worker_sleep(long timeout_ms)
{
	(void) mmr_worker_sleep_on(PGINVALID_SOCKET, timeout_ms);
}

bool
mmr_worker_sleep_on(pgsocket sock, long timeout_ms)
{
	MmrWorker  *me = mmr_shared_my_worker;
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (timeout_ms >= 0)
		events |= WL_TIMEOUT;
	if (sock != PGINVALID_SOCKET)
		events |= WL_SOCKET_READABLE;

	if (pg_atomic_read_u32(&me->leave) != 0)
		mmr_worker_leave();

	events = WaitLatchOrSocket(MyLatch, events, sock, timeout_ms, PG_WAIT_EXTENSION);
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);

	/*
	 * Terminated while idle, at every shutdown for one: the postmaster's line
	 * about it is enough, there is nothing fatal in it.
	 */
	if (ProcDiePending)
		proc_exit(1);
	CHECK_FOR_INTERRUPTS();

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}

	if (pg_atomic_read_u32(&me->leave) != 0)
		mmr_worker_leave();
	return (events & WL_SOCKET_READABLE) != 0;
}

void
mmr_worker_start_transaction(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);
}

void
mmr_worker_commit_transaction(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

bool
mmr_worker_try(const char *activity, bool (*work) (void *arg), void *arg, const char *trouble, char *said)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool result = false;

	PG_TRY();
	{
		mmr_worker_start_transaction(activity);
		if (mmr_catalog_hold())
			result = work(arg);
		mmr_worker_commit_transaction();
		if (result)
			said[0] = '\0';
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		/* what tables were locked with (locking.h) may have failed in a subtransaction */
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(cxt);
		result = false;
		if (strncmp(said, edata->message, MMR_MSGLEN - 1) != 0)
			ereport(LOG,
					(errcode(edata->sqlerrcode),
					 errmsg("%s: %s", trouble, edata->message),
					 edata->detail ? errdetail_internal("%s", edata->detail) : 0,
					 edata->hint ? errhint("%s", edata->hint) : 0));
		strlcpy(said, edata->message, MMR_MSGLEN);
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	return result;
}

void
mmr_worker_state(MmrWorkerState state)
{
	MmrWorker  *me = mmr_shared_my_worker;

	SpinLockAcquire(&me->mutex);
	me->state = state;
	SpinLockRelease(&me->mutex);
}

void
mmr_worker_failed(int sqlstate, const char *message, MmrWorkerState state)
{
	MmrWorker  *me = mmr_shared_my_worker;
	TimestampTz now = GetCurrentTimestamp();
	char		text[MMR_MSGLEN];
	int			len;

	/* Cut at a character, outside of the spinlock. */
	if (message == NULL)
		message = "unknown error";
	len = pg_mbcliplen(message, strlen(message), MMR_MSGLEN - 1);
	memcpy(text, message, len);
	text[len] = '\0';

	SpinLockAcquire(&me->mutex);
	me->state = state;
	me->sqlstate = sqlstate;
	memcpy(me->last_error, text, len + 1);
	me->last_error_at = now;
	SpinLockRelease(&me->mutex);

	/* Who waits for the peer may want to tell why it takes so long. */
	ConditionVariableBroadcast(&me->served);
}

void
mmr_worker_good(void)
{
	MmrWorker  *me = mmr_shared_my_worker;
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&me->mutex);
	me->sqlstate = 0;
	me->last_error[0] = '\0';
	me->last_good = now;
	SpinLockRelease(&me->mutex);
	me->failures = 0;
}

/* Marks a slot whose worker could not even be registered; caller holds the lock exclusively. */
static void
mark_not_started(MmrWorker *slot, const char *message)
{
	TimestampTz now = GetCurrentTimestamp();

	slot->retry_at = TimestampTzPlusMilliseconds(now, mmr_guc_restart_delay);
	SpinLockAcquire(&slot->mutex);
	slot->state = MMR_STATE_BAD;
	slot->sqlstate = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
	strlcpy(slot->last_error, message, MMR_MSGLEN);
	slot->last_error_at = now;
	SpinLockRelease(&slot->mutex);
}

bool
mmr_worker_start(MmrWorker *slot)
{
	static bool warned = false;
	const WorkerKindInfo *kind;
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;
	uint64		generation;

	LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
	kind = &worker_kinds[slot->kind];
	generation = slot->generation = ++mmr_shared->generation;
	slot->launched = GetCurrentTimestamp();
	slot->retry_at = 0;
	if (slot->kind == MMR_WORKER_PUSHER)
		snprintf(worker.bgw_name, sizeof(worker.bgw_name),
				 "%s of database %u, sync %d, db %d",
				 kind->type, slot->dboid, slot->sync_id, slot->node_id);
	else
		snprintf(worker.bgw_name, sizeof(worker.bgw_name),
				 "%s of database %u", kind->type, slot->dboid);
	LWLockRelease(mmr_shared->lock);

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = Int32GetDatum((int32) (slot - mmr_shared->workers));
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, MMR_LIBRARY, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, kind->main, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_type, kind->type, sizeof(worker.bgw_type));
	memcpy(worker.bgw_extra, &generation, sizeof(generation));

	if (RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		pfree(handle);
		warned = false;
		return true;
	}

	LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
	mark_not_started(slot, "no background worker slot is free (max_worker_processes)");
	LWLockRelease(mmr_shared->lock);

	if (!warned)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start worker \"%s\"", worker.bgw_name),
				 errdetail("No background worker slot is free; it is tried again and again."),
				 errhint("Raise max_worker_processes and restart the server.")));
	warned = true;
	return false;
}

static void
lower(TimestampTz *next, TimestampTz to)
{
	if (to < *next)
		*next = to;
}

void
mmr_worker_keep(MmrWorkerKind kind, Oid dboid, int32 sync_id, int32 node_id,
				TimestampTz *next)
{
	static bool warned = false;
	TimestampTz now = GetCurrentTimestamp();
	MmrWorker  *slot;
	TimestampTz start_at = 0;
	bool		running;

	LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
	slot = mmr_shared_find_worker(kind, dboid, sync_id, node_id);
	if (slot == NULL)
		slot = mmr_shared_reserve_worker(kind, dboid, sync_id, node_id);
	if (slot == NULL)
	{
		LWLockRelease(mmr_shared->lock);
		lower(next, TimestampTzPlusMilliseconds(now, mmr_guc_restart_delay));
		if (!warned)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("could not start a worker of type \"%s\"", worker_kinds[kind].type),
					 errdetail("All %d slots for workers are taken.", mmr_shared->max_workers),
					 errhint("Raise mmrepl.max_workers and restart the server.")));
		warned = true;
		return;
	}
	/* It was to leave, and is wanted again: if it is gone already, take it anew. */
	pg_atomic_write_u32(&slot->leave, 0);
	slot->leave_at = 0;

	running = slot->pid != 0;
	if (slot->retry_at != 0)
		start_at = slot->retry_at;
	else if (slot->launched != 0)
		start_at = TimestampTzPlusMilliseconds(slot->launched, WORKER_APPEAR_TIMEOUT);
	LWLockRelease(mmr_shared->lock);

	if (running)
		return;
	if (start_at <= now)
	{
		/* Only its keeper starts the worker of a slot, so there is no race here. */
		if (!mmr_worker_start(slot))
			start_at = TimestampTzPlusMilliseconds(now, mmr_guc_restart_delay);
		else
			start_at = TimestampTzPlusMilliseconds(now, WORKER_APPEAR_TIMEOUT);
	}
	lower(next, start_at);
}

bool
mmr_worker_dismiss(MmrWorker *slot, TimestampTz *next)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		gone = false;

	LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
	if (slot->kind == MMR_WORKER_NONE)
		gone = true;
	else if (slot->pid == 0)
	{
		/* One that is being started will find the slot taken away, and leave. */
		mmr_shared_free_worker(slot);
		gone = true;
	}
	else
	{
		if (slot->leave_at == 0)
		{
			slot->leave_at = TimestampTzPlusMilliseconds(now, WORKER_LEAVE_TIMEOUT);
			pg_atomic_write_u32(&slot->leave, 1);
			SetLatch(slot->latch);
		}
		else if (now >= slot->leave_at)
		{
			kill(slot->pid, SIGTERM);
			slot->leave_at = TimestampTzPlusMilliseconds(now, WORKER_LEAVE_TIMEOUT);
		}
		lower(next, slot->leave_at);
	}
	LWLockRelease(mmr_shared->lock);

	if (gone)
		ConditionVariableBroadcast(&slot->served);
	return gone;
}

long
mmr_worker_until(TimestampTz next)
{
	long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next);

	return Max(ms, 1);
}
