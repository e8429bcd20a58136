/*-------------------------------------------------------------------------
 * worker.h
 *	  What all background workers share: start, signals, connection to the
 *	  database, sleeping, the report of success and failure, start and
 *	  dismissal of others.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_WORKER_H
#define MMR_WORKER_H

#include "shared.h"

/*
 * The whole life of a worker, called by its main: mmr_worker_begin, then
 * body.  An ERROR that leaves body is kept in the slot (mmr_worker_failed),
 * logged, and ends the process, which is started again after
 * mmrepl.restart_delay.  When body returns the worker has left for good and
 * its slot is freed.
 */
extern void mmr_worker_run(Datum main_arg, void (*body) (MmrWorker *me)) pg_attribute_noreturn();

/*
 * First thing in a worker's main (mmr_worker_run does it): signals (die for
 * SIGTERM, reload for SIGHUP), attach to slot `slotno` of generation checked
 * through bgw_extra, connect to the slot's database (dboid InvalidOid: shared
 * catalogs only) as the bootstrap superuser, fix the session's settings.
 */
extern MmrWorker *mmr_worker_begin(Datum main_arg);

/* Leaves for good: frees the slot and exits. */
extern void mmr_worker_leave(void) pg_attribute_noreturn();

/*
 * Sleeps until the latch is set or so many ms are over (-1: no limit); rereads
 * the configuration file on SIGHUP.  Does not return if the worker was asked
 * to leave or terminated.  Not inside a transaction.
 */
extern void mmr_worker_sleep(long timeout_ms);

/* The same; also until something comes from the socket: true then. */
extern bool mmr_worker_sleep_on(pgsocket sock, long timeout_ms);

/* A transaction with an active snapshot, shown as `activity` in pg_stat_activity. */
extern void mmr_worker_start_transaction(const char *activity);
extern void mmr_worker_commit_transaction(void);

/*
 * A piece of work in a transaction of its own that holds the extension; gives
 * what `work` gives, false if the extension is not there.  An ERROR ends the
 * transaction, not the worker: false, too, and a line in the log, trouble and
 * the message, unless `said` (MMR_MSGLEN bytes, the caller's, static) has it from
 * the last time; it is forgotten when `work` gives true.
 */
extern bool mmr_worker_try(const char *activity, bool (*work) (void *arg), void *arg, const char *trouble, char *said);

/*
 * Under the slot's mutex: new state; a failure (keeps sqlstate, message,
 * time); a success (clears them all but the time, which is "last bad", sets
 * last_good, and makes the next failure the first in a row).
 */
extern void mmr_worker_state(MmrWorkerState state);
extern void mmr_worker_failed(int sqlstate, const char *message, MmrWorkerState state);
extern void mmr_worker_good(void);

/* Registers a dynamic worker for a reserved slot; false (and a WARNING once) if the postmaster has no slot left. */
extern bool mmr_worker_start(MmrWorker *slot);

/*
 * Sees to it that this worker runs: takes a slot, starts it, starts it again
 * when it is time.  Lowers *next to the time at which to call again.
 */
extern void mmr_worker_keep(MmrWorkerKind kind, Oid dboid, int32 sync_id, int32 node_id, TimestampTz *next);

/*
 * Makes the worker in this slot leave: asks it, and a second later, if it hangs
 * on its peer, terminates it.  True when it is gone; else lowers *next.
 */
extern bool mmr_worker_dismiss(MmrWorker *slot, TimestampTz *next);

/* Milliseconds from now to `next`, for mmr_worker_sleep; at least 1. */
extern long mmr_worker_until(TimestampTz next);

#endif							/* MMR_WORKER_H */
