/*-------------------------------------------------------------------------
 * worker.h
 *	  What all background workers share: start, signals, connection to the
 *	  database, sleeping, the report of success and failure, start of others.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_WORKER_H
#define MMR_WORKER_H

#include "shared.h"

/*
 * First thing in a worker's main: signals (die for SIGTERM, reload for
 * SIGHUP), attach to slot `slotno` of generation checked through
 * bgw_extra, connect to the slot's database (dboid InvalidOid: shared
 * catalogs only) as the bootstrap superuser, fix the session's settings.
 */
extern MmrWorker *mmr_worker_begin(Datum main_arg);

/* Sleeps until the latch is set or so many ms are over (-1: no limit); rereads the configuration file on SIGHUP. */
extern void mmr_worker_sleep(long timeout_ms);

/* Under the slot's mutex: new state; a failure (keeps sqlstate, message, time); a success (clears them). */
extern void mmr_worker_state(MmrWorkerState state);
extern void mmr_worker_failed(int sqlstate, const char *message, MmrWorkerState state);
extern void mmr_worker_good(void);

/* Registers a dynamic worker for a reserved slot; false (and a WARNING once) if the postmaster has no slot left. */
extern bool mmr_worker_start(MmrWorker *slot);

#endif							/* MMR_WORKER_H */
