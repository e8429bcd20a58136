/*-------------------------------------------------------------------------
 * shared.h
 *	  All shared memory of mmrepl: the clock's last tick, one entry per
 *	  database that has the extension, one slot per worker.
 *
 * Floor 1.  Lock order: MmrShared.lock, then a slot's mutex.  Neither is ever
 * held across SPI, libpq, or anything that may ereport(ERROR).
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SHARED_H
#define MMR_SHARED_H

#include "mmrepl.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

/* Stretches of the change log fall into so many groups. */
#define MMR_MARKS		1024

/* State of one database of this cluster. Never moves once given. */
typedef struct MmrDatabase
{
	Oid			dboid;			/* InvalidOid: free entry */
	pg_atomic_uint32 present;	/* 1: extension seen here, 2: known absent, 0: unknown */
	pg_atomic_uint32 clock_ready;	/* 1 once the clock has been raised above this database's log and progress */
	pg_atomic_uint32 current_segment;	/* where capture appends */
	pg_atomic_uint32 segment_used[MMR_SEGMENTS];	/* 0 only if the segment is certainly empty */
	pg_atomic_uint32 segment_indexed[MMR_SEGMENTS];	/* 0 only if it certainly has no index */
	pg_atomic_uint32 marks[MMR_MARKS];	/* grow when something is appended there (changelog.h) */
	pg_atomic_uint64 commits;	/* commits that captured something */
	pg_atomic_uint64 changes;	/* changes those captured */
	pg_atomic_uint64 applied;	/* batches applied here that told of changes: our context is worth sending */
	pg_atomic_uint64 contexts;	/* batches of any kind applied here: what purge depends on */
	pg_atomic_uint64 copies;	/* initial copies applied here; grows before any lock of theirs is released */
	pg_atomic_uint64 errors;	/* grows when what is set aside has changed */
	pg_atomic_uint64 config_generation; /* bumped after each committed change of configuration */
	pg_atomic_uint32 config_changing;	/* transactions that change it and are about to commit, or have, and not bumped it yet */
	pg_atomic_uint64 wakes;		/* reasons for a janitor to look: bumped by mmr_wake_at_commit */
	pg_atomic_uint64 settled;	/* the value of wakes which the last janitor had seen when it left for good */
} MmrDatabase;

typedef enum MmrWorkerKind
{
	MMR_WORKER_NONE = 0,
	MMR_WORKER_LAUNCHER,
	MMR_WORKER_JANITOR,
	MMR_WORKER_PUSHER,
	MMR_WORKER_APPLY			/* a backend that a peer's pusher has opened here */
} MmrWorkerKind;

/* Whom to wake: not this one; when something was committed; also when a peer's batch was applied. */
#define MMR_SLEEP_NOT	0
#define MMR_SLEEP_NAP	1
#define MMR_SLEEP_REST	2

typedef enum MmrWorkerState
{
	MMR_STATE_STARTING = 0,		/* "starting" */
	MMR_STATE_CONNECTING,		/* "connecting" */
	MMR_STATE_IDLE,				/* "good": all that is committed here is there */
	MMR_STATE_PUSHING,			/* "pushing": a batch is under way */
	MMR_STATE_COPYING,			/* "copying": initial copy is under way */
	MMR_STATE_PAUSED,			/* "paused" */
	MMR_STATE_WAITING,			/* "waiting": has to try again later, see last_error */
	MMR_STATE_BAD,				/* "bad": failed, see last_error */
	MMR_STATE_HALTED			/* "halted": does not try again before resume(), see last_error */
} MmrWorkerState;

/* Initial copy of one sync to one peer, as seen by the sender. */
typedef struct MmrCopyProgress
{
	int32		tables_total;
	int32		tables_done;
	int64		rows_total;		/* estimate */
	int64		rows_done;
	int64		bytes_total;	/* estimate */
	int64		bytes_done;
	TimestampTz started;
	TimestampTz finished;		/* 0 while it runs */
	char		table[2 * NAMEDATALEN + 2]; /* being copied: schema.table */
} MmrCopyProgress;

/*
 * One worker.  Fields below the mutex are written by the worker itself and
 * read by anybody, under the mutex.
 */
typedef struct MmrWorker
{
	MmrWorkerKind kind;			/* NONE: free; kind..generation under MmrShared.lock */
	Oid			dboid;
	int32		sync_id;		/* pusher, apply */
	int32		node_id;		/* pusher: the peer; apply: the sender */
	uint64		generation;		/* grows with each use of the slot */
	pid_t		pid;			/* 0 until it has attached */
	Latch	   *latch;			/* NULL until it has attached; SetLatch under MmrShared.lock */
	TimestampTz since;			/* the slot's beginning, kept over restarts of the worker */
	TimestampTz launched;		/* last start */
	TimestampTz leave_at;		/* not 0: asked to leave, SIGTERM after that */
	int			failures;		/* in a row, for the pace of restarts */
	TimestampTz retry_at;		/* not to be started again before; 0: starting, running, or never started; apply: when it ended */

	pg_atomic_uint32 leave;		/* 1: has to leave; mmr_worker_sleep sees to it */
	pg_atomic_uint32 sleeping;	/* pusher, janitor: MMR_SLEEP_*, when it wants its latch set */
	pg_atomic_uint64 wanted;	/* tickets taken by kick and wait_for_sync */
	pg_atomic_uint64 done;		/* tickets served: all committed before was applied there */
	ConditionVariable served;	/* broadcast when done moves or the worker fails */

	slock_t		mutex;
	MmrWorkerState state;
	int			sqlstate;		/* of last_error, 0 if none */
	char		last_error[MMR_MSGLEN];
	TimestampTz last_error_at;	/* "last bad" */
	TimestampTz last_good;		/* last acknowledged batch, or check that found nothing to send */
	TimestampTz pending_since;	/* 0 when nothing waits */
	int64		pending;		/* changes known to wait */
	int64		batches;
	int64		rows_inserted;	/* of all batches since the worker's slot began, as the peer counted them */
	int64		rows_updated;
	int64		rows_deleted;
	int64		truncates;
	int64		conflicts;
	int64		bytes_sent;
	int64		last_inserted;	/* of the last batch that had changes */
	int64		last_updated;
	int64		last_deleted;
	TimestampTz last_changes;	/* when that was */
	MmrCopyProgress copy;
} MmrWorker;

typedef struct MmrShared
{
	LWLock	   *lock;
	pg_atomic_uint64 clock_last;	/* last tick of the hybrid clock, microseconds since 2000 */
	Latch	   *launcher_latch;
	pg_atomic_uint64 launcher_wanted;	/* bumped when a database or worker needs the launcher */
	uint64		generation;
	uint64		run;			/* of the server: a random number, 0 until the launcher has begun (life.h) */
	pg_atomic_uint64 first_xid; /* lowest transaction number of it that is known of */
	TimestampTz start_at;		/* workers start from then on: a server that crashes again and again shall not by us */
	pg_atomic_uint32 workers_top;	/* slots from here on were never used */
	int			max_databases;
	int			max_workers;
	MmrDatabase *databases;
	MmrWorker  *workers;
} MmrShared;

/* NULL when the library is not in shared_preload_libraries. */
extern MmrShared *mmr_shared;

/* The server has given out that transaction number in this run. */
static inline void
mmr_shared_gave_out(uint64 xid)
{
	uint64		first = pg_atomic_read_u64(&mmr_shared->first_xid);

	while (xid < first && !pg_atomic_compare_exchange_u64(&mmr_shared->first_xid, &first, xid))
		;
}

/* From _PG_init only: hooks for request and start-up. */
extern void mmr_shared_init(void);

/* ERROR (ERRCODE_MMR_NOT_PRELOADED) with a hint unless shared memory is there. */
extern void mmr_shared_require(void);

/* This database's entry, made at the first call. NULL if the library is not preloaded or no entry is free. */
extern MmrDatabase *mmr_shared_database(void);

/* Is the configuration of this database that of this generation still, for whoever has taken a snapshot just now? */
extern bool mmr_shared_config_is(uint64 generation);

/* Entry of another database, or NULL; makes none. */
extern MmrDatabase *mmr_shared_find_database(Oid dboid);

/* Sets the latch of every worker of this database with that kind (NONE: all kinds). No ERROR. */
extern void mmr_shared_wake(Oid dboid, MmrWorkerKind kind);

/* Ends the back-off of this database's workers: wakes all, and those that wait for a restart are started now. No ERROR. */
extern void mmr_shared_retry_now(Oid dboid);

/* Sets the launcher's latch. No ERROR. */
extern void mmr_shared_wake_launcher(void);

/* The slot this process has attached to, or NULL. */
extern MmrWorker *mmr_shared_my_worker;

/* Finds a worker; caller holds MmrShared.lock. NULL if there is none. */
extern MmrWorker *mmr_shared_find_worker(MmrWorkerKind kind, Oid dboid, int32 sync_id, int32 node_id);

/* Takes a free slot for a worker to come, or NULL; caller holds MmrShared.lock exclusively. */
extern MmrWorker *mmr_shared_reserve_worker(MmrWorkerKind kind, Oid dboid, int32 sync_id, int32 node_id);

/*
 * Makes the slot ours (sets pid, latch) if it still is of that generation;
 * false if not.  before_shmem_exit frees it when the process exits with 0,
 * and keeps it for a restart (retry_at, failures) otherwise; either way it
 * broadcasts `served` and wakes whoever starts such workers.
 */
extern bool mmr_shared_attach(MmrWorker *worker, uint64 generation);

/* Frees a slot that no process has; caller holds MmrShared.lock exclusively. */
extern void mmr_shared_free_worker(MmrWorker *worker);

/* Frees entries of databases for which `exists` says no. For the launcher. */
extern void mmr_shared_forget_databases(bool (*exists) (Oid dboid, void *arg), void *arg);

/* For apply backends: take a slot (none free: returns NULL, apply works all the same). Released at exit. */
extern MmrWorker *mmr_shared_register_apply(int32 sync_id, int32 node_id);

/* Word for a state, as status shows it. */
extern const char *mmr_shared_state_name(MmrWorkerState state);

#endif							/* MMR_SHARED_H */
