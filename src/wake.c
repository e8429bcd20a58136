/*-------------------------------------------------------------------------
 * wake.c
 *	  Wakes the workers when a change of configuration commits, and when the
 *	  extension is created or dropped.
 *
 * Floor 2.
 * Writes the database's entry in shared memory (config_generation, config_changing, wakes).
 * Runs in client backends and in the sessions that peers have opened.
 *
 * Invariant: workers are woken after the commit is visible, never before, or
 * they would look, see nothing new, and sleep again.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"

#include "guc.h"
#include "shared.h"
#include "wake.h"

PG_FUNCTION_INFO_V1(mmrepl_wake);

static bool wake_pending = false;
static MmrDatabase *changing = NULL;	/* counted in its config_changing */
static bool end_apply_pending = false;
static object_access_hook_type prev_object_access_hook = NULL;

/* SIGTERM to the sessions of this database in which peers apply. */
static void
end_apply(void)
{
	LWLockAcquire(mmr_shared->lock, LW_SHARED);
	for (int i = 0; i < mmr_shared->max_workers; i++)
	{
		MmrWorker  *worker = &mmr_shared->workers[i];

		if (worker->kind == MMR_WORKER_APPLY && worker->dboid == MyDatabaseId &&
			worker->pid != 0 && worker->pid != MyProcPid)
			kill(worker->pid, SIGTERM);
	}
	LWLockRelease(mmr_shared->lock);
}

static void
wake_xact_callback(XactEvent event, void *arg)
{
	MmrDatabase *db;

	if (!wake_pending && !end_apply_pending)
		return;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			/* others see the change before COMMIT tells us: until then nobody is to trust the generation */
			if (wake_pending && changing == NULL && (changing = mmr_shared_database()) != NULL)
				pg_atomic_fetch_add_u32(&changing->config_changing, 1);
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:

			/*
			 * After PREPARE the change comes later, in some other session;
			 * the workers' own slow rounds find it.
			 */
			if (wake_pending)
			{
				db = mmr_shared_database();
				if (db != NULL)
				{
					pg_atomic_fetch_add_u64(&db->config_generation, 1);
					pg_atomic_fetch_add_u64(&db->wakes, 1);
				}
				mmr_shared_retry_now(MyDatabaseId);
			}
			if (end_apply_pending)
				end_apply();
			/* FALLTHROUGH */
		case XACT_EVENT_ABORT:
			wake_pending = false;
			end_apply_pending = false;
			if (changing != NULL)
			{
				pg_write_barrier();
				pg_atomic_fetch_sub_u32(&changing->config_changing, 1);
				changing = NULL;
			}
			break;
		default:
			break;
	}
}

/* DROP EXTENSION mmrepl: its workers have to leave this database. */
static void
wake_object_access(ObjectAccessType access, Oid classId, Oid objectId,
				   int subId, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, classId, objectId, subId, arg);

	if (access == OAT_DROP && classId == ExtensionRelationId &&
		objectId == get_extension_oid(MMR_EXTENSION, true))
	{
		mmr_wake_at_commit();
		mmr_wake_end_apply_at_commit();
	}
}

void
mmr_wake_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	RegisterXactCallback(wake_xact_callback, NULL);
	prev_object_access_hook = object_access_hook;
	object_access_hook = wake_object_access;
}

void
mmr_wake_at_commit(void)
{
	/* Without shared memory there are no workers, and no callback either. */
	if (mmr_shared != NULL)
		wake_pending = true;
}

void
mmr_wake_end_apply_at_commit(void)
{
	if (mmr_shared != NULL)
		end_apply_pending = true;
}

/* mmrepl._wake(): last statement of the extension's script. */
Datum
mmrepl_wake(PG_FUNCTION_ARGS)
{
	if (mmr_shared != NULL && mmr_shared_database() == NULL)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no worker of mmrepl can run in this database"),
				 errdetail("There are already %d databases with mmrepl.",
						   mmr_guc_max_databases),
				 errhint("Raise mmrepl.max_databases and restart the server.")));
	mmr_wake_at_commit();
	PG_RETURN_VOID();
}
