/*-------------------------------------------------------------------------
 * setback.c
 *	  What keeps a pusher from its work: an error that has ended its session,
 *	  a table that is not as it was.
 *
 * Floor 4.  Runs in pushers.
 *
 * Invariant: no row of a peer's gets into the log here, whatever the peer says.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "errors.h"
#include "setback.h"

bool
mmr_setback_transient(int sqlstate)
{
	return ERRCODE_TO_CATEGORY(sqlstate) == MAKE_SQLSTATE('4', '0', '0', '0', '0') ||
		sqlstate == ERRCODE_LOCK_NOT_AVAILABLE || sqlstate == ERRCODE_MMR_POSITION ||
		sqlstate == ERRCODE_QUERY_CANCELED;
}

MmrWorkerState
mmr_setback_state(int sqlstate)
{
	if (sqlstate == ERRCODE_MMR_HALTED)
		return MMR_STATE_HALTED;
	if (mmr_setback_transient(sqlstate) || sqlstate == ERRCODE_MMR_CLOCK_SKEW ||
		sqlstate == ERRCODE_MMR_STOPPED)
		return MMR_STATE_WAITING;
	return MMR_STATE_BAD;
}

void
mmr_setback_log(const ErrorData *edata, bool careful_next)
{
	/* what the peer says of a constraint or a value shows the row: that is for its own log to decide */
	bool		has_values = ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_DATA_EXCEPTION ||
		ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION;

	ereport(LOG,
			(errcode(edata->sqlerrcode),
			 errmsg("pushing failed: %s", edata->message),
			 careful_next ? errdetail("The batch is sent again: rows that cannot be applied are set aside, or stop the sync, as its on_error says.") :
			 edata->detail && !has_values ? errdetail("%s", edata->detail) : 0,
			 edata->hint ? errhint("%s", edata->hint) : 0));
}

/* The others go on, but nobody shall believe that all is well. */
void
mmr_setback_of_members(MmrSync *sync, char *message, size_t size)
{
	ListCell   *lc;

	message[0] = '\0';
	foreach(lc, sync->tables)
	{
		MmrMember  *m = lfirst(lc);

		if (!OidIsValid(m->relid) || !OidIsValid(m->key_index))
			snprintf(message, size, "table \"%s.%s\" of the sync %s here", m->nspname,
					 m->relname, OidIsValid(m->relid) ? "has no usable key" : "does not exist");
	}
}
