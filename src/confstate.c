/*-------------------------------------------------------------------------
 * confstate.c
 *	  Which version of which configuration a db holds.
 *
 * Floor 4.  Reads and locks mmrepl.local_node.  Runs in: backends that
 * configure, pushers.
 *
 * Invariant: whoever has locked the row, and nobody else, changes the
 * configuration of this database.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "confstate.h"
#include "errors.h"
#include "node.h"
#include "sqlrun.h"

PG_FUNCTION_INFO_V1(mmrepl_config_state);

MmrConfState *
mmr_confstate_make(char *const *row)
{
	MmrConfState	   *state = palloc0(sizeof(MmrConfState));

	state->node_id = row[0] ? pg_strtoint32(row[0]) : 0;
	state->config_id = row[1];
	state->version = row[2] ? pg_strtoint64(row[2]) : 0;
	state->author = row[3] ? pg_strtoint32(row[3]) : 0;
	state->system_identifier = row[4] ? pg_strtoint64(row[4]) : 0;
	state->database_oid = row[5] ? (Oid) strtoul(row[5], NULL, 10) : InvalidOid;
	return state;
}

int
mmr_confstate_compare(const MmrConfState *a, const MmrConfState *b)
{
	if (a->version != b->version)
		return a->version > b->version ? 1 : -1;
	if (a->author != b->author)
		return a->author > b->author ? 1 : -1;
	return 0;
}

MmrConfState *
mmr_confstate_here(int wait)
{
	char	  **row;
	MmrConfState	   *state;
	int32		timeline;
	int			nestlevel = NewGUCNestLevel();
	MemoryContext context = CurrentMemoryContext;

	if (wait > 0)
	{
		char		buf[32];

		snprintf(buf, sizeof(buf), "%d", wait);
		(void) set_config_option("lock_timeout", buf, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
	PG_TRY();
	{
		row = mmr_sqlrun_row(psprintf("SELECT node_id, config_id, config_version, config_author, NULL, NULL"
									  " FROM mmrepl.local_node%s", wait != 0 ? " FOR UPDATE" : ""),
							 0, NULL);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("the configuration is being changed by another session"),
				 errhint("Wait until that is done and try again. It may also be a transaction left open, here or on another db.")));
	}
	PG_END_TRY();
	AtEOXact_GUC(true, nestlevel);

	if (row == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("mmrepl.local_node is empty"),
				 errhint("Drop the extension and create it again.")));
	state = mmr_confstate_make(row);
	mmr_node_identity(&state->system_identifier, &state->database_oid, &timeline);
	return state;
}

MmrConfState *
mmr_confstate_of_result(PGresult *result)
{
	char	   *row[6];

	for (int i = 0; i < 6; i++)
		row[i] = PQgetisnull(result, 0, i) ? NULL : pstrdup(PQgetvalue(result, 0, i));
	PQclear(result);
	return mmr_confstate_make(row);
}

/* mmrepl._config_state(lock bool, OUT ...) */
Datum
mmrepl_config_state(PG_FUNCTION_ARGS)
{
	MmrConfState	   *state = mmr_confstate_here(PG_GETARG_BOOL(0) ? -1 : 0);
	TupleDesc	desc;
	Datum		values[6];
	bool		nulls[6] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int32GetDatum(state->node_id);
	nulls[1] = state->config_id == NULL;
	values[1] = nulls[1] ? (Datum) 0 :
		DirectFunctionCall1(uuid_in, CStringGetDatum(state->config_id));
	values[2] = Int64GetDatum(state->version);
	values[3] = Int32GetDatum(state->author);
	values[4] = Int64GetDatum(state->system_identifier);
	values[5] = ObjectIdGetDatum(state->database_oid);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
