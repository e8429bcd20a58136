/*-------------------------------------------------------------------------
 * api_error.c
 *	  SQL: rows that cannot be applied: try again, give up.
 *
 * Floor 11.
 * Writes mmrepl.apply_error_log.
 * Runs in client backends.
 *
 * Invariant: what is discarded is forgotten in the same transaction by which
 * sessions that apply learn of it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "catalog.h"
#include "membership.h"
#include "setaside.h"
#include "sqlrun.h"

PG_FUNCTION_INFO_V1(mmrepl_retry_apply_error);
PG_FUNCTION_INFO_V1(mmrepl_discard_apply_error);

static void
require_admin(void)
{
	mmr_catalog_require();
	if (!has_privs_of_role(GetUserId(), mmr_catalog_owner()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to deal with rows that cannot be applied"),
				 errhint("It takes a superuser or the owner of the extension.")));
}

/* Runs the statement for the error or the sync that the arguments name; $1 its id, $2 the sync's. */
static int64
run_for(FunctionCallInfo fcinfo, const char *sql)
{
	const char *args[2] = {NULL, NULL};
	uint64		n;

	require_admin();
	if (PG_ARGISNULL(0) == PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("either an id or a sync must be given"),
				 errhint("The view mmrepl.apply_error has both.")));
	if (!PG_ARGISNULL(0))
		args[0] = psprintf(INT64_FORMAT, PG_GETARG_INT64(0));
	else
	{
		char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
		MmrSync    *sync;

		mmr_membership_refresh();
		sync = mmr_membership_sync_by_name(name);
		if (sync == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("sync \"%s\" does not exist", name),
					 errhint("The view mmrepl.syncs shows those there are.")));
		args[1] = psprintf("%d", sync->id);
	}
	mmr_setaside_changed();
	n = mmr_sqlrun_exec(sql, 2, args);
	if (n == 0 && args[0] != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no row %s that cannot be applied", args[0]),
				 errdetail("It may have been applied meanwhile, or discarded.")));
	return (int64) n;
}

/* mmrepl.retry_apply_error(id int8, sync text) returns int8 */
Datum
mmrepl_retry_apply_error(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(run_for(fcinfo, "UPDATE mmrepl.apply_error_log SET next_at = pg_catalog.clock_timestamp()"
							" WHERE id = $1::int8 OR sync_id = $2::int4"));
}

/* mmrepl.discard_apply_error(id int8, sync text) returns int8 */
Datum
mmrepl_discard_apply_error(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(run_for(fcinfo, "DELETE FROM mmrepl.apply_error_log"
							" WHERE id = $1::int8 OR sync_id = $2::int4"));
}
