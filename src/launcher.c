/*-------------------------------------------------------------------------
 * launcher.c
 *	  One per server: starts a janitor in each database that may have mmrepl.
 *
 * Floor 10.
 * Reads pg_database; reads and writes slots in shared memory.
 * Runs in its own background worker, connected to no database, so it is in
 * nobody's way (CREATE DATABASE ... TEMPLATE, DROP DATABASE).
 *
 * Invariant: whether a database has the extension only a janitor in it can
 * tell.  One that finds nothing to do leaves for good, and the launcher starts
 * another only when that database's `wakes` has moved since.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "guc.h"
#include "launcher.h"
#include "life.h"
#include "worker.h"

/* Looks at pg_database at least so often (ms): new databases do not announce themselves. */
#define LAUNCHER_NAP		60000

/* So many databases at a time are looked into for the first time. */
#define LAUNCHER_PROBES		4

extern PGDLLEXPORT void mmrepl_launcher_main(Datum main_arg) pg_attribute_noreturn();

/* What the launcher remembers of a database. */
typedef struct KnownDatabase
{
	Oid			dboid;			/* hash key */
	bool		seen;			/* in the last scan of pg_database */
	bool		open;			/* allows connections, is no template */
	bool		probed;			/* a janitor of ours has been there */
} KnownDatabase;

static HTAB *known;

void
mmr_launcher_init(void)
{
	BackgroundWorker worker = {0};

	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = Max(1, mmr_guc_restart_delay / 1000);
	worker.bgw_main_arg = Int32GetDatum(-1);
	strlcpy(worker.bgw_library_name, MMR_LIBRARY, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "mmrepl_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "mmrepl launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "mmrepl launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

static bool
database_exists(Oid dboid, void *arg)
{
	return hash_search(known, &dboid, HASH_FIND, NULL) != NULL;
}

static bool
database_open(Oid dboid)
{
	KnownDatabase *entry = hash_search(known, &dboid, HASH_FIND, NULL);

	return entry != NULL && entry->open;
}

/* Brings `known` up to date with pg_database. */
static void
scan_databases(void)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	HASH_SEQ_STATUS status;
	KnownDatabase *entry;

	hash_seq_init(&status, known);
	while ((entry = hash_seq_search(&status)) != NULL)
		entry->seen = false;

	mmr_worker_start_transaction("looking for databases");
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		bool		found;

		entry = hash_search(known, &form->oid, HASH_ENTER, &found);
		entry->seen = true;
		entry->open = form->datallowconn && !form->datistemplate;
		if (!found)
			entry->probed = false;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	mmr_worker_commit_transaction();

	hash_seq_init(&status, known);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (!entry->seen)
			hash_search(known, &entry->dboid, HASH_REMOVE, NULL);
	}
}

/* Dismisses what still has a slot in a database that is gone, or closed to us. */
static void
dismiss_strays(TimestampTz *next)
{
	for (int i = 0; i < mmr_shared->max_workers; i++)
	{
		MmrWorker  *slot = &mmr_shared->workers[i];
		bool		stray;

		LWLockAcquire(mmr_shared->lock, LW_SHARED);
		switch (slot->kind)
		{
			case MMR_WORKER_JANITOR:
			case MMR_WORKER_PUSHER:
				stray = !database_open(slot->dboid);
				break;
			case MMR_WORKER_APPLY:
				stray = !database_exists(slot->dboid, NULL);
				break;
			default:
				stray = false;
		}
		LWLockRelease(mmr_shared->lock);

		if (stray)
			mmr_worker_dismiss(slot, next);
	}
}

/* Has the database a janitor's slot, and is its janitor still finding out? */
static bool
has_janitor(Oid dboid, bool *starting)
{
	MmrWorker  *slot;

	*starting = false;
	LWLockAcquire(mmr_shared->lock, LW_SHARED);
	slot = mmr_shared_find_worker(MMR_WORKER_JANITOR, dboid, 0, 0);
	if (slot != NULL)
		*starting = slot->state == MMR_STATE_STARTING;
	LWLockRelease(mmr_shared->lock);
	return slot != NULL;
}

/* Sees to the janitors of all databases. */
static void
keep_janitors(TimestampTz *next)
{
	HASH_SEQ_STATUS status;
	KnownDatabase *entry;
	int			probes = 0;
	bool		starting;

	hash_seq_init(&status, known);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->open && has_janitor(entry->dboid, &starting))
		{
			mmr_worker_keep(MMR_WORKER_JANITOR, entry->dboid, 0, 0, next);
			if (starting)
				probes++;
		}
	}

	hash_seq_init(&status, known);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		MmrDatabase *db;

		if (!entry->open || has_janitor(entry->dboid, &starting))
			continue;

		if (entry->probed)
		{
			db = mmr_shared_find_database(entry->dboid);
			if (db == NULL ||
				pg_atomic_read_u64(&db->wakes) == pg_atomic_read_u64(&db->settled))
				continue;
		}
		else if (probes >= LAUNCHER_PROBES)
			continue;			/* a janitor that has found out wakes us */

		mmr_worker_keep(MMR_WORKER_JANITOR, entry->dboid, 0, 0, next);
		entry->probed = has_janitor(entry->dboid, &starting);
		probes++;
	}
}

/* The server has crashed: whoever did it, it shall not be us again at once. */
static void
launcher_pace(void)
{
	TimestampTz until = mmr_shared->start_at;

	if (GetCurrentTimestamp() >= until)
		return;
	ereport(LOG,
			(errmsg("replication starts again in %ld ms", mmr_worker_until(until)),
			 errdetail("A process of the server has crashed."),
			 errhint("See mmrepl.restart_delay.")));
	while (GetCurrentTimestamp() < until)
		mmr_worker_sleep(mmr_worker_until(until));
}

static void
launcher_body(MmrWorker *me)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(KnownDatabase);
	ctl.hcxt = CurrentMemoryContext;
	known = hash_create("mmrepl databases", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	mmr_life_begin();
	launcher_pace();
	for (;;)
	{
		TimestampTz next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LAUNCHER_NAP);

		scan_databases();
		mmr_shared_forget_databases(database_exists, NULL);
		dismiss_strays(&next);
		keep_janitors(&next);
		mmr_worker_good();
		mmr_worker_state(MMR_STATE_IDLE);
		mmr_worker_sleep(mmr_worker_until(next));
	}
}

void
mmrepl_launcher_main(Datum main_arg)
{
	mmr_worker_run(main_arg, launcher_body);
}
