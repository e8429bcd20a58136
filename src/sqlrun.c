/*-------------------------------------------------------------------------
 * sqlrun.c
 *	  Statements on mmrepl's own tables, run with the owner's rights.
 *
 * Floor 2.
 * Reads and writes what the statements name.
 * Runs in: backends that configure, and workers that adopt a configuration.
 *
 * Invariant: statements are fixed texts; what comes from a user or from the
 * wire is always a parameter.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "catalog.h"
#include "session.h"
#include "sqlrun.h"

#define MAX_ARGS	16

/* Leaves the result in SPI_tuptable, in an open SPI connection. */
static void
begin(MmrSession *session, const char *sql, int nargs, const char *const *args)
{
	Oid			types[MAX_ARGS];
	Datum		values[MAX_ARGS];
	char		nulls[MAX_ARGS];
	int			rc;

	Assert(nargs <= MAX_ARGS);
	if (!mmr_session_become_owner(session))
		mmr_catalog_require();
	/* foreign keys work also for who loads a dump by hand */
	if (SessionReplicationRole != SESSION_REPLICATION_ROLE_ORIGIN)
		(void) set_config_option("session_replication_role", "origin",
								 PGC_SUSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	for (int i = 0; i < nargs; i++)
	{
		types[i] = TEXTOID;
		values[i] = args[i] ? CStringGetTextDatum(args[i]) : (Datum) 0;
		nulls[i] = args[i] ? ' ' : 'n';
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rc = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "%s failed: %s", sql, SPI_result_code_string(rc));
}

static void
end(const MmrSession *session)
{
	SPI_finish();
	mmr_session_restore(session);
}

/* A value in the caller's memory. */
static char *
value(uint64 row, int col, MemoryContext caller)
{
	char	   *s = SPI_getvalue(SPI_tuptable->vals[row],
								 SPI_tuptable->tupdesc, col);

	return s ? MemoryContextStrdup(caller, s) : NULL;
}

uint64
mmr_sqlrun_exec(const char *sql, int nargs, const char *const *args)
{
	MmrSession	session;
	uint64		processed;

	begin(&session, sql, nargs, args);
	processed = SPI_processed;
	end(&session);
	return processed;
}

char *
mmr_sqlrun_text(const char *sql, int nargs, const char *const *args)
{
	char	  **row = mmr_sqlrun_row(sql, nargs, args);

	return row ? row[0] : NULL;
}

List *
mmr_sqlrun_texts(const char *sql, int nargs, const char *const *args)
{
	MemoryContext caller = CurrentMemoryContext;
	MmrSession	session;
	List	   *result = NIL;

	begin(&session, sql, nargs, args);
	for (uint64 i = 0; SPI_tuptable != NULL && i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		result = lappend(result, value(i, 1, caller));
		MemoryContextSwitchTo(old);
	}
	end(&session);
	return result;
}

char **
mmr_sqlrun_row(const char *sql, int nargs, const char *const *args)
{
	MemoryContext caller = CurrentMemoryContext;
	MmrSession	session;
	char	  **result = NULL;

	begin(&session, sql, nargs, args);
	if (SPI_tuptable != NULL && SPI_processed > 0)
	{
		int			natts = SPI_tuptable->tupdesc->natts;

		result = MemoryContextAllocZero(caller, natts * sizeof(char *));
		for (int i = 0; i < natts; i++)
			result[i] = value(0, i + 1, caller);
	}
	end(&session);
	return result;
}
