/*-------------------------------------------------------------------------
 * shared.c
 *	  All shared memory of mmrepl: request, start-up, entries of databases,
 *	  slots of workers, wake-ups.
 *
 * Floor 1.
 * Reads and writes shared memory only.
 * Runs in every kind of process.
 *
 * Invariant: a slot's kind, database, sync, node, pid and latch change only
 * under MmrShared.lock held exclusively, and a latch is set only under that
 * lock, so nobody ever wakes the wrong process.  A crash restart makes it
 * all anew: nothing here may be the only copy of anything that matters.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "errors.h"
#include "guc.h"
#include "shared.h"

#define SHARED_TRANCHE	"mmrepl"

/* A worker that keeps failing waits at most so many times restart_delay. */
#define SHARED_MAX_BACKOFF	10

/* A worker that found a foreign identity: once an hour, or when the configuration changes (ms). */
#define SHARED_IDENTITY_DELAY	(3600 * 1000)

MmrShared  *mmr_shared = NULL;
MmrWorker  *mmr_shared_my_worker = NULL;

static uint64 my_generation;
static MmrDatabase *my_database = NULL;
static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/* Of the postmaster, which outlives its shared memory. */
static int	crashes = -1;		/* in a row; -1 at its start */
static TimestampTz crashed_at;

static void shared_detach(int code, Datum arg);

static Size
shared_size(void)
{
	Size		size = MAXALIGN(sizeof(MmrShared));

	size = add_size(size, MAXALIGN(mul_size(mmr_guc_max_databases, sizeof(MmrDatabase))));
	size = add_size(size, mul_size(mmr_guc_max_workers, sizeof(MmrWorker)));
	return size;
}

static void
shared_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche(SHARED_TRANCHE, 1);
}

/* Entry of a database as it is when nothing is known: every segment may hold something. */
static void
init_database(MmrDatabase *db, Oid dboid)
{
	db->dboid = dboid;
	pg_atomic_write_u32(&db->present, 0);
	pg_atomic_write_u32(&db->clock_ready, 0);
	pg_atomic_write_u32(&db->current_segment, 0);
	for (int i = 0; i < MMR_SEGMENTS; i++)
	{
		pg_atomic_write_u32(&db->segment_used[i], 1);
		pg_atomic_write_u32(&db->segment_indexed[i], 1);
	}
	for (int i = 0; i < MMR_MARKS; i++)
		pg_atomic_write_u32(&db->marks[i], 0);
	pg_atomic_write_u64(&db->commits, 0);
	pg_atomic_write_u64(&db->changes, 0);
	pg_atomic_write_u64(&db->applied, 0);
	pg_atomic_write_u64(&db->contexts, 0);
	pg_atomic_write_u64(&db->errors, 0);
	pg_atomic_write_u64(&db->config_generation, 0);
	pg_atomic_write_u64(&db->wakes, 0);
	pg_atomic_write_u64(&db->settled, 0);
}

static void
shared_fill(void)
{
	char	   *base = (char *) mmr_shared;
	Size		databases_size = MAXALIGN(mul_size(mmr_guc_max_databases, sizeof(MmrDatabase)));

	memset(base, 0, shared_size());

	mmr_shared->lock = &(GetNamedLWLockTranche(SHARED_TRANCHE)->lock);
	pg_atomic_init_u64(&mmr_shared->clock_last, 0);
	pg_atomic_init_u64(&mmr_shared->first_xid, PG_UINT64_MAX);
	pg_atomic_init_u64(&mmr_shared->launcher_wanted, 0);
	pg_atomic_init_u32(&mmr_shared->workers_top, 0);
	mmr_shared->max_databases = mmr_guc_max_databases;
	mmr_shared->max_workers = mmr_guc_max_workers;
	mmr_shared->databases = (MmrDatabase *) (base + MAXALIGN(sizeof(MmrShared)));
	mmr_shared->workers = (MmrWorker *)
		(base + MAXALIGN(sizeof(MmrShared)) + databases_size);

	for (int i = 0; i < mmr_shared->max_databases; i++)
	{
		MmrDatabase *db = &mmr_shared->databases[i];

		pg_atomic_init_u32(&db->present, 0);
		pg_atomic_init_u32(&db->clock_ready, 0);
		pg_atomic_init_u32(&db->current_segment, 0);
		for (int j = 0; j < MMR_SEGMENTS; j++)
		{
			pg_atomic_init_u32(&db->segment_used[j], 1);
			pg_atomic_init_u32(&db->segment_indexed[j], 1);
		}
		for (int j = 0; j < MMR_MARKS; j++)
			pg_atomic_init_u32(&db->marks[j], 0);
		pg_atomic_init_u64(&db->commits, 0);
		pg_atomic_init_u64(&db->changes, 0);
		pg_atomic_init_u64(&db->applied, 0);
		pg_atomic_init_u64(&db->contexts, 0);
		pg_atomic_init_u64(&db->copies, 0);
		pg_atomic_init_u64(&db->errors, 0);
		pg_atomic_init_u64(&db->config_generation, 0);
		pg_atomic_init_u32(&db->config_changing, 0);
		pg_atomic_init_u64(&db->wakes, 0);
		pg_atomic_init_u64(&db->settled, 0);
	}

	for (int i = 0; i < mmr_shared->max_workers; i++)
	{
		MmrWorker  *worker = &mmr_shared->workers[i];

		pg_atomic_init_u32(&worker->leave, 0);
		pg_atomic_init_u32(&worker->sleeping, 0);
		pg_atomic_init_u64(&worker->wanted, 0);
		pg_atomic_init_u64(&worker->done, 0);
		ConditionVariableInit(&worker->served);
		SpinLockInit(&worker->mutex);
	}
}

/*
 * Shared memory is made, for the first time or after a crash.  If it was a
 * worker of ours that crashed, it will do so again: each time it has to wait
 * longer, and sessions can be served meanwhile.
 */
static void
shared_pace(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		delay = mmr_guc_restart_delay;

	if (++crashes == 0)
		return;
	if (TimestampDifferenceExceeds(crashed_at, now, 2 * SHARED_MAX_BACKOFF * mmr_guc_restart_delay))
		crashes = 1;
	crashed_at = now;
	for (int i = 1; i < crashes && delay < (int64) SHARED_MAX_BACKOFF * mmr_guc_restart_delay; i++)
		delay *= 2;
	delay = Min(delay, (int64) SHARED_MAX_BACKOFF * mmr_guc_restart_delay);
	mmr_shared->start_at = TimestampTzPlusMilliseconds(now, delay);
}

static void
shared_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	mmr_shared_my_worker = NULL;
	my_database = NULL;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	mmr_shared = ShmemInitStruct("mmrepl", shared_size(), &found);
	if (!found)
	{
		shared_fill();
		shared_pace();
	}
	LWLockRelease(AddinShmemInitLock);
}

void
mmr_shared_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shared_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shared_startup;
}

void
mmr_shared_require(void)
{
	if (mmr_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_NOT_PRELOADED),
				 errmsg("the library mmrepl must be loaded when the server starts"),
				 errhint("Add mmrepl to shared_preload_libraries and restart the server.")));
}

/* Caller holds the lock, or lives with an entry coming or going meanwhile. */
static MmrDatabase *
find_database(Oid dboid)
{
	for (int i = 0; i < mmr_shared->max_databases; i++)
	{
		if (mmr_shared->databases[i].dboid == dboid)
			return &mmr_shared->databases[i];
	}
	return NULL;
}

MmrDatabase *
mmr_shared_find_database(Oid dboid)
{
	MmrDatabase *db;

	if (mmr_shared == NULL || !OidIsValid(dboid))
		return NULL;

	LWLockAcquire(mmr_shared->lock, LW_SHARED);
	db = find_database(dboid);
	LWLockRelease(mmr_shared->lock);
	return db;
}

MmrDatabase *
mmr_shared_database(void)
{
	/* An entry stays as long as its database does, so it can be kept here. */
	if (my_database != NULL)
		return my_database;
	if (mmr_shared == NULL || !OidIsValid(MyDatabaseId))
		return NULL;

	my_database = mmr_shared_find_database(MyDatabaseId);
	if (my_database != NULL)
		return my_database;

	LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
	my_database = find_database(MyDatabaseId);
	if (my_database == NULL)
	{
		my_database = find_database(InvalidOid);
		if (my_database != NULL)
			init_database(my_database, MyDatabaseId);
	}
	LWLockRelease(mmr_shared->lock);
	return my_database;
}

void
mmr_shared_forget_databases(bool (*exists) (Oid dboid, void *arg), void *arg)
{
	/* Only the launcher frees entries, so it can look without the lock. */
	for (int i = 0; i < mmr_shared->max_databases; i++)
	{
		MmrDatabase *db = &mmr_shared->databases[i];

		if (OidIsValid(db->dboid) && !exists(db->dboid, arg))
		{
			LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
			init_database(db, InvalidOid);
			LWLockRelease(mmr_shared->lock);
		}
	}
}

void
mmr_shared_wake(Oid dboid, MmrWorkerKind kind)
{
	if (mmr_shared == NULL)
		return;

	LWLockAcquire(mmr_shared->lock, LW_SHARED);
	for (int i = 0; i < mmr_shared->max_workers; i++)
	{
		MmrWorker  *worker = &mmr_shared->workers[i];

		if (worker->kind != MMR_WORKER_NONE && worker->dboid == dboid &&
			(kind == MMR_WORKER_NONE || worker->kind == kind) &&
			worker->latch != NULL)
			SetLatch(worker->latch);
	}
	LWLockRelease(mmr_shared->lock);
}

void
mmr_shared_retry_now(Oid dboid)
{
	if (mmr_shared == NULL)
		return;

	LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < mmr_shared->max_workers; i++)
	{
		MmrWorker  *worker = &mmr_shared->workers[i];

		if (worker->kind != MMR_WORKER_NONE && worker->dboid == dboid)
		{
			if (worker->retry_at != 0)
				worker->retry_at = 1;
			if (worker->latch != NULL)
				SetLatch(worker->latch);
		}
	}
	LWLockRelease(mmr_shared->lock);
	mmr_shared_wake_launcher();
}

void
mmr_shared_wake_launcher(void)
{
	if (mmr_shared == NULL)
		return;

	pg_atomic_fetch_add_u64(&mmr_shared->launcher_wanted, 1);
	LWLockAcquire(mmr_shared->lock, LW_SHARED);
	if (mmr_shared->launcher_latch != NULL)
		SetLatch(mmr_shared->launcher_latch);
	LWLockRelease(mmr_shared->lock);
}

MmrWorker *
mmr_shared_find_worker(MmrWorkerKind kind, Oid dboid, int32 sync_id, int32 node_id)
{
	Assert(LWLockHeldByMe(mmr_shared->lock));

	for (int i = 0; i < mmr_shared->max_workers; i++)
	{
		MmrWorker  *worker = &mmr_shared->workers[i];

		if (worker->kind == kind && worker->dboid == dboid &&
			worker->sync_id == sync_id && worker->node_id == node_id)
			return worker;
	}
	return NULL;
}

/* A slot as it is at the beginning; its condition variable and mutex stay as they are. */
static void
fill_slot(MmrWorker *worker, MmrWorkerKind kind, Oid dboid, int32 sync_id, int32 node_id)
{
	worker->kind = kind;
	worker->dboid = dboid;
	worker->sync_id = sync_id;
	worker->node_id = node_id;
	worker->generation = ++mmr_shared->generation;
	worker->pid = 0;
	worker->latch = NULL;
	worker->since = GetCurrentTimestamp();
	worker->launched = 0;
	worker->leave_at = 0;
	worker->retry_at = 0;
	worker->failures = 0;
	pg_atomic_write_u32(&worker->leave, 0);
	pg_atomic_write_u32(&worker->sleeping, 0);
	pg_atomic_write_u64(&worker->wanted, 0);
	pg_atomic_write_u64(&worker->done, 0);

	SpinLockAcquire(&worker->mutex);
	memset(&worker->state, 0, sizeof(MmrWorker) - offsetof(MmrWorker, state));
	SpinLockRelease(&worker->mutex);
}

MmrWorker *
mmr_shared_reserve_worker(MmrWorkerKind kind, Oid dboid, int32 sync_id, int32 node_id)
{
	Assert(LWLockHeldByMeInMode(mmr_shared->lock, LW_EXCLUSIVE));

	for (int round = 0; round < 2; round++)
	{
		for (int i = 0; i < mmr_shared->max_workers; i++)
		{
			MmrWorker  *worker = &mmr_shared->workers[i];

			/* When none is free, what is kept of a session that ended has to go. */
			if (worker->kind == MMR_WORKER_NONE ||
				(round == 1 && worker->kind == MMR_WORKER_APPLY && worker->pid == 0))
			{
				fill_slot(worker, kind, dboid, sync_id, node_id);
				if (pg_atomic_read_u32(&mmr_shared->workers_top) <= (uint32) i)
					pg_atomic_write_u32(&mmr_shared->workers_top, i + 1);
				return worker;
			}
		}
	}
	return NULL;
}

void
mmr_shared_free_worker(MmrWorker *worker)
{
	Assert(LWLockHeldByMeInMode(mmr_shared->lock, LW_EXCLUSIVE));

	worker->kind = MMR_WORKER_NONE;
	worker->dboid = InvalidOid;
	worker->pid = 0;
	worker->latch = NULL;
	worker->generation = ++mmr_shared->generation;
	pg_atomic_write_u32(&worker->sleeping, 0);
}

bool
mmr_shared_attach(MmrWorker *worker, uint64 generation)
{
	LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
	if (worker->kind == MMR_WORKER_NONE || worker->pid != 0 ||
		worker->generation != generation)
	{
		LWLockRelease(mmr_shared->lock);
		return false;
	}
	worker->pid = MyProcPid;
	worker->latch = MyLatch;
	if (worker->kind == MMR_WORKER_LAUNCHER)
		mmr_shared->launcher_latch = MyLatch;
	LWLockRelease(mmr_shared->lock);

	mmr_shared_my_worker = worker;
	my_generation = generation;
	before_shmem_exit(shared_detach, (Datum) 0);
	return true;
}

/* When a worker that failed, for the so-manieth time in a row, may be started again. */
static TimestampTz
next_start(TimestampTz now, int failures, int sqlstate)
{
	int64		factor = 1;

	/* A database that is not who it was waits for an operator. */
	if (sqlstate == ERRCODE_MMR_IDENTITY)
		return TimestampTzPlusMilliseconds(now, SHARED_IDENTITY_DELAY);

	while (--failures > 0 && factor < SHARED_MAX_BACKOFF)
		factor *= 2;
	return TimestampTzPlusMilliseconds(now,
									   Min(factor, SHARED_MAX_BACKOFF) * mmr_guc_restart_delay);
}

static void
shared_detach(int code, Datum arg)
{
	MmrWorker  *worker = mmr_shared_my_worker;
	TimestampTz now = GetCurrentTimestamp();
	MmrWorkerKind kind;
	Oid			dboid;
	int			sqlstate;

	if (worker == NULL)
		return;
	mmr_shared_my_worker = NULL;

	LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
	kind = worker->kind;
	dboid = worker->dboid;
	if (worker->generation == my_generation)
	{
		worker->pid = 0;
		worker->latch = NULL;
		pg_atomic_write_u32(&worker->sleeping, 0);
		if (kind == MMR_WORKER_LAUNCHER)
			mmr_shared->launcher_latch = NULL;

		if (kind == MMR_WORKER_APPLY)
		{
			/* Kept, with the time, so that status knows since when the peer is silent. */
			if (mmr_shared_find_worker(kind, dboid, worker->sync_id, worker->node_id) != worker)
				mmr_shared_free_worker(worker);
			else
				worker->retry_at = now;
		}
		else if (code == 0 || pg_atomic_read_u32(&worker->leave) != 0)
			mmr_shared_free_worker(worker);
		else
		{
			SpinLockAcquire(&worker->mutex);
			if (worker->state != MMR_STATE_BAD && worker->state != MMR_STATE_WAITING)
			{
				/* Not an ERROR that mmr_worker_run saw. */
				worker->state = MMR_STATE_BAD;
				worker->sqlstate = ERRCODE_ADMIN_SHUTDOWN;
				strlcpy(worker->last_error, "worker was terminated", MMR_MSGLEN);
				worker->last_error_at = now;
			}
			sqlstate = worker->sqlstate;
			SpinLockRelease(&worker->mutex);
			worker->retry_at = next_start(now, ++worker->failures, sqlstate);
		}
	}
	LWLockRelease(mmr_shared->lock);

	ConditionVariableBroadcast(&worker->served);
	if (kind == MMR_WORKER_PUSHER)
		mmr_shared_wake(dboid, MMR_WORKER_JANITOR);
	else if (kind == MMR_WORKER_JANITOR)
		mmr_shared_wake_launcher();
}

MmrWorker *
mmr_shared_register_apply(int32 sync_id, int32 node_id)
{
	MmrWorker  *worker = mmr_shared_my_worker;
	uint64		generation;

	if (mmr_shared == NULL)
		return NULL;
	if (worker != NULL)
	{
		/* One session serves one sync of one sender at a time. */
		if (worker->kind == MMR_WORKER_APPLY &&
			(worker->sync_id != sync_id || worker->node_id != node_id))
		{
			LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
			worker->sync_id = sync_id;
			worker->node_id = node_id;
			LWLockRelease(mmr_shared->lock);
		}
		return worker;
	}

	LWLockAcquire(mmr_shared->lock, LW_EXCLUSIVE);
	worker = mmr_shared_find_worker(MMR_WORKER_APPLY, MyDatabaseId, sync_id, node_id);
	if (worker != NULL && worker->pid == 0)
		fill_slot(worker, MMR_WORKER_APPLY, MyDatabaseId, sync_id, node_id);
	else
		worker = mmr_shared_reserve_worker(MMR_WORKER_APPLY, MyDatabaseId, sync_id, node_id);
	generation = worker != NULL ? worker->generation : 0;
	LWLockRelease(mmr_shared->lock);

	if (worker == NULL || !mmr_shared_attach(worker, generation))
		return NULL;
	return worker;
}

const char *
mmr_shared_state_name(MmrWorkerState state)
{
	switch (state)
	{
		case MMR_STATE_STARTING:
			return "starting";
		case MMR_STATE_CONNECTING:
			return "connecting";
		case MMR_STATE_IDLE:
			return "good";
		case MMR_STATE_PUSHING:
			return "pushing";
		case MMR_STATE_COPYING:
			return "copying";
		case MMR_STATE_PAUSED:
			return "paused";
		case MMR_STATE_WAITING:
			return "waiting";
		case MMR_STATE_BAD:
			return "bad";
		case MMR_STATE_HALTED:
			return "halted";
	}
	return "unknown";
}

bool
mmr_shared_config_is(uint64 generation)
{
	MmrDatabase *db = mmr_shared_database();

	if (db == NULL)
		return true;
	/* in this order: who has committed counts himself out after the bump */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&db->config_changing) > 0)
		return false;
	pg_read_barrier();
	return pg_atomic_read_u64(&db->config_generation) == generation;
}
