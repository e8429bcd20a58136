/*-------------------------------------------------------------------------
 * ddl.c
 *	  What has to be done when a user's utility statement concerns mmrepl.
 *
 * Floor 11.
 * Reads and writes through the keepers it calls.
 * Runs in: backends that run DROP EXTENSION mmrepl, before it is run, and
 * those that run COMMIT PREPARED, whose own transaction has captured nothing.  (An
 * event trigger would be one more thing that fails when the library is gone;
 * the object access hook comes when our tables have been dropped.)
 *
 * Invariant: DROP EXTENSION is never refused because of what we do here.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "alarm.h"
#include "catalog.h"
#include "ddl.h"
#include "mmrepl.h"
#include "sequence.h"

static ProcessUtility_hook_type prev_utility_hook = NULL;

static bool ddl_drops_us(PlannedStmt *pstmt);
static bool ddl_commits_prepared(PlannedStmt *pstmt);
static void ddl_before_drop(void);
static void ddl_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
						ProcessUtilityContext context, ParamListInfo params,
						QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc);

void
mmr_ddl_init(void)
{
	prev_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = ddl_utility;
}

static void
ddl_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
			ProcessUtilityContext context, ParamListInfo params,
			QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	bool		prepared = ddl_commits_prepared(pstmt);

	if (ddl_drops_us(pstmt))
		ddl_before_drop();
	if (prev_utility_hook)
		prev_utility_hook(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	if (prepared)
		mmr_alarm_committed(0);
}

/* COMMIT PREPARED: it can be seen by now; what it changed only the log knows. */
static bool
ddl_commits_prepared(PlannedStmt *pstmt)
{
	TransactionStmt *stmt = (TransactionStmt *) pstmt->utilityStmt;

	return stmt != NULL && IsA(stmt, TransactionStmt) && stmt->kind == TRANS_STMT_COMMIT_PREPARED;
}

/* DROP EXTENSION ... mmrepl ..., by somebody who may. */
static bool
ddl_drops_us(PlannedStmt *pstmt)
{
	DropStmt   *stmt = (DropStmt *) pstmt->utilityStmt;
	ListCell   *lc;

	if (stmt == NULL || !IsA(stmt, DropStmt) || stmt->removeType != OBJECT_EXTENSION)
		return false;
	foreach(lc, stmt->objects)
	{
		if (strcmp(strVal(lfirst(lc)), MMR_EXTENSION) == 0)
			return !RecoveryInProgress() && !XactReadOnly && mmr_catalog_present() &&
				has_privs_of_role(GetUserId(), mmr_catalog_owner());
	}
	return false;
}

/* Tables are left clean by dependencies; sequences have to be set back while it is known what they were. */
static void
ddl_before_drop(void)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		mmr_sequence_restore_all();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		ereport(WARNING,
				(errmsg("interleaved sequences stay as they are: %s", error->message),
				 errhint("Set their INCREMENT with ALTER SEQUENCE.")));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
}
