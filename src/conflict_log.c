/*-------------------------------------------------------------------------
 * conflict_log.c
 *	  The history of conflicts.
 *
 * Floor 3.  Writes mmrepl.conflict_log.  Runs in apply backends, once per
 * conflict, inside the transaction that settles it.
 *
 * Invariant: no value of a row reaches the server's log from here.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "conflict_log.h"
#include "errors.h"
#include "rowerror.h"
#include "session.h"

static const char *const INSERT_SQL =
	"INSERT INTO mmrepl.conflict_log (sync_id, nspname, relname, key, conflict_type, resolution,"
	" local_row, remote_row, local_ts, local_node, remote_ts, remote_node, error)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

#define NARGS	13

/* Longer rows are not kept: jsonb has limits, and a conflict must not fail for the sake of its history. */
#define MAX_ROW_BYTES	(16 * 1024 * 1024)

static Oid	types[NARGS] = {INT4OID, NAMEOID, NAMEOID, JSONBOID, TEXTOID, TEXTOID,
JSONBOID, JSONBOID, INT8OID, INT4OID, INT8OID, INT4OID, TEXTOID};

static SPIPlanPtr insert_plan = NULL;

/* The conflict at which the last batch of this session was aborted. */
static struct
{
	MemoryContext cxt;
	bool		set;
	Datum		values[NARGS];
	char		nulls[NARGS + 1];
}			halted;

/*
 * A column of type json may hold what jsonb cannot.  That is no reason to fail, so
 * such a text is kept as a string.
 */
Datum
mmr_conflict_log_jsonb(const char *json)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile Datum result = (Datum) 0;
	StringInfoData text;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		result = DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		int			sqlstate = geterrcode();

		if (!mmr_rowerror_is(sqlstate))
			PG_RE_THROW();
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	if (result != (Datum) 0)
		return result;
	initStringInfo(&text);
	appendStringInfoString(&text, "{\"mmrepl.text\": ");
	escape_json(&text, json);
	appendStringInfoChar(&text, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text.data));
}

/* A row as jsonb, by the server's own function. */
static Datum
row_to_jsonb(Datum composite)
{
	Datum		json = DirectFunctionCall1(row_to_json, composite);

	return mmr_conflict_log_jsonb(TextDatumGetCString(json));
}

/* A row, or how large it is if that is more than the history is to hold. */
static Datum
slot_to_jsonb(TupleTableSlot *slot)
{
	Datum		row = ExecFetchSlotHeapTupleDatum(slot);
	Size		size = HeapTupleHeaderGetDatumLength(DatumGetHeapTupleHeader(row));

	if (size > MAX_ROW_BYTES)
		return DirectFunctionCall1(jsonb_in, CStringGetDatum(psprintf("{\"mmrepl.bytes\": %zu}", size)));
	return row_to_jsonb(row);
}

Datum
mmr_conflict_log_key(MmrKey *key, const Datum *values)
{
	TupleDesc	desc = CreateTemplateTupleDesc(key->ncolumns);
	bool		nulls[INDEX_MAX_KEYS] = {0};
	HeapTuple	tuple;
	MmrSession	save;
	Datum		json;

	for (int i = 0; i < key->ncolumns; i++)
	{
		MmrKeyColumn *col = &key->columns[i];

		TupleDescInitEntry(desc, i + 1, NameStr(col->name), col->typid, col->typmod, 0);
	}
	desc = BlessTupleDesc(desc);
	tuple = heap_form_tuple(desc, unconstify(Datum *, values), nulls);
	/* a type of a user's may have a cast to json */
	mmr_session_begin_foreign(&save, key->owner);
	json = row_to_jsonb(heap_copy_tuple_as_datum(tuple, desc));
	mmr_session_end_foreign(&save);
	return json;
}

static void
prepare_plan(void)
{
	insert_plan = SPI_prepare(INSERT_SQL, NARGS, types);
	if (insert_plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(insert_plan);
}

/* The row of the history, as parameters of the statement. */
static void
fill_record(const MmrConflictRecord *c, Datum *v, char *n)
{
	memset(n, ' ', NARGS);
	n[NARGS] = '\0';
	v[0] = Int32GetDatum(c->sync_id);
	v[1] = DirectFunctionCall1(namein, CStringGetDatum(get_namespace_name(RelationGetNamespace(c->rel))));
	v[2] = NameGetDatum(&c->rel->rd_rel->relname);
	if (c->key_values != NULL)
		v[3] = mmr_conflict_log_key(c->key, c->key_values);
	else
		n[3] = 'n';
	v[4] = CStringGetTextDatum(mmr_conflict_name(c->conflict));
	v[5] = CStringGetTextDatum(mmr_resolution_name(c->resolution));
	if (c->local != NULL)
		v[6] = slot_to_jsonb(c->local);
	else
		n[6] = 'n';
	if (c->remote != NULL)
		v[7] = slot_to_jsonb(c->remote);
	else if (c->remote_json != NULL)
		v[7] = mmr_conflict_log_jsonb(c->remote_json);
	else
		n[7] = 'n';
	v[8] = Int64GetDatum(c->local_version.ts);
	v[9] = Int32GetDatum(c->local_version.node);
	if (!c->local_known)
		n[8] = n[9] = 'n';
	v[10] = Int64GetDatum(c->remote_version.ts);
	v[11] = Int32GetDatum(c->remote_version.node);
	if (c->error != NULL)
		v[12] = CStringGetTextDatum(c->error);
	else
		n[12] = 'n';
}

/* False: the extension is not there. */
static bool
insert_record(Datum *v, const char *n)
{
	MmrSession	save;

	if (!mmr_session_become_owner(&save))
		return false;
	SPI_connect();
	if (insert_plan == NULL)
		prepare_plan();
	if (SPI_execute_plan(insert_plan, v, n, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write the conflict history");
	SPI_finish();
	mmr_session_restore(&save);
	return true;
}

bool
mmr_conflict_log_halted(void)
{
	if (!halted.set)
		return false;
	halted.set = false;
	PushActiveSnapshot(GetLatestSnapshot());
	(void) insert_record(halted.values, halted.nulls);
	PopActiveSnapshot();
	return true;
}

/* At the end of the session, which comes soon: nobody goes on with it after the error, unless it is a pusher's. */
static void
write_halted(int code, Datum arg)
{
	if (!halted.set)
		return;
	AbortOutOfAnyTransaction();
	StartTransactionCommand();
	(void) mmr_conflict_log_halted();
	CommitTransactionCommand();
}

/* Keeps the record beyond the transaction, which ends here. */
static void
halt_at(const MmrConflictRecord *c, const Datum *v, const char *n)
{
	MemoryContext old;

	if (halted.cxt == NULL)
	{
		before_shmem_exit(write_halted, 0);
		halted.cxt = AllocSetContextCreate(TopMemoryContext, "mmrepl halted", ALLOCSET_SMALL_SIZES);
	}
	halted.set = false;
	MemoryContextReset(halted.cxt);
	old = MemoryContextSwitchTo(halted.cxt);
	for (int i = 0; i < NARGS; i++)
		if (n[i] != 'n')
			halted.values[i] = datumCopy(v[i], get_typbyval(types[i]), get_typlen(types[i]));
	memcpy(halted.nulls, n, NARGS + 1);
	halted.set = true;
	MemoryContextSwitchTo(old);
	ereport(ERROR,
			(errcode(ERRCODE_MMR_HALTED),
			 errmsg("conflict %s in table \"%s.%s\", and its strategy is abort",
					mmr_conflict_name(c->conflict),
					get_namespace_name(RelationGetNamespace(c->rel)), RelationGetRelationName(c->rel))));
}

void
mmr_conflict_log_write(const MmrConflictRecord *c)
{
	Datum		v[NARGS];
	char		n[NARGS + 1];

	fill_record(c, v, n);
	if (c->resolution == MMR_ABORT)
		halt_at(c, v, n);
	(void) insert_record(v, n);
}
