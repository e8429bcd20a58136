/*-------------------------------------------------------------------------
 * api_status.c
 *	  SQL: what shared memory knows, for the views.
 *
 * Floor 11.
 * Reads shared memory.
 * Runs in client backends, also of roles that may only monitor.
 *
 * Invariant: nothing secret leaves through here: of a conninfo only host,
 * port and database name are shown.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "clock.h"
#include "guc.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(mmrepl_workers);
PG_FUNCTION_INFO_V1(mmrepl_database_state);
PG_FUNCTION_INFO_V1(mmrepl_conninfo_shown);

/*
 * An idle pusher looks at its peer once in ten heartbeat_intervals.  One that
 * has not for so many of them, and so many ms, hangs.
 */
#define STATUS_STALL_HEARTBEATS 30
#define STATUS_STALL_MIN		10000

#define WORKERS_COLS	36

/* Values of one row, filled from left to right. */
typedef struct RowBuilder
{
	Datum		values[WORKERS_COLS];
	bool		nulls[WORKERS_COLS];
	int			n;
} RowBuilder;

static void
add(RowBuilder *row, Datum value, bool isnull)
{
	Assert(row->n < WORKERS_COLS);
	row->values[row->n] = value;
	row->nulls[row->n] = isnull;
	row->n++;
}

static void
add_int4(RowBuilder *row, int32 value)
{
	add(row, Int32GetDatum(value), false);
}

static void
add_int8(RowBuilder *row, int64 value)
{
	add(row, Int64GetDatum(value), false);
}

/* 0: never */
static void
add_time(RowBuilder *row, TimestampTz value)
{
	add(row, TimestampTzGetDatum(value), value == 0);
}

static void
add_text(RowBuilder *row, const char *value)
{
	if (value == NULL || value[0] == '\0')
		add(row, (Datum) 0, true);
	else
		add(row, CStringGetTextDatum(value), false);
}

static const char *
kind_name(MmrWorkerKind kind)
{
	switch (kind)
	{
		case MMR_WORKER_NONE:
			break;
		case MMR_WORKER_LAUNCHER:
			return "launcher";
		case MMR_WORKER_JANITOR:
			return "janitor";
		case MMR_WORKER_PUSHER:
			return "pusher";
		case MMR_WORKER_APPLY:
			return "apply";
	}
	return "unknown";
}

/* The state in a word; a worker that claims to be well and does not move is not. */
static const char *
state_name(const MmrWorker *worker)
{
	int			limit = Max(STATUS_STALL_HEARTBEATS * mmr_guc_heartbeat_interval,
							STATUS_STALL_MIN);

	if (worker->kind == MMR_WORKER_PUSHER && worker->state == MMR_STATE_IDLE &&
		TimestampDifferenceExceeds(worker->last_good, GetCurrentTimestamp(), limit))
		return "stalled";
	return mmr_shared_state_name(worker->state);
}

/* The order of columns is that of mmrepl._workers() in 80_views.sql. */
static void
build_worker_row(RowBuilder *row, const MmrWorker *worker)
{
	const MmrCopyProgress *copy = &worker->copy;

	row->n = 0;
	add_text(row, kind_name(worker->kind));
	add(row, ObjectIdGetDatum(worker->dboid), !OidIsValid(worker->dboid));
	add(row, Int32GetDatum(worker->sync_id), worker->sync_id == 0);
	add(row, Int32GetDatum(worker->node_id), worker->node_id == 0);
	add(row, Int32GetDatum(worker->pid), worker->pid == 0);
	add_text(row, state_name(worker));
	add_time(row, worker->since);
	add_time(row, worker->launched);
	add_time(row, worker->retry_at);
	add_int4(row, worker->failures);
	add_text(row, worker->sqlstate == 0 ? NULL : unpack_sql_state(worker->sqlstate));
	add_text(row, worker->last_error);
	add_time(row, worker->last_error_at);
	add_time(row, worker->last_good);
	add_time(row, worker->pending_since);
	add_int8(row, worker->pending);
	add_int8(row, worker->batches);
	add_int8(row, worker->rows_inserted);
	add_int8(row, worker->rows_updated);
	add_int8(row, worker->rows_deleted);
	add_int8(row, worker->truncates);
	add_int8(row, worker->conflicts);
	add_int8(row, worker->bytes_sent);
	add_int8(row, worker->last_inserted);
	add_int8(row, worker->last_updated);
	add_int8(row, worker->last_deleted);
	add_time(row, worker->last_changes);

	add_int4(row, copy->tables_total);
	add_int4(row, copy->tables_done);
	add_int8(row, copy->rows_total);
	add_int8(row, copy->rows_done);
	add_int8(row, copy->bytes_total);
	add_int8(row, copy->bytes_done);
	add_time(row, copy->started);
	add_time(row, copy->finished);
	add_text(row, copy->table);
}

/* mmrepl._workers(): every slot that is taken, of all databases. */
Datum
mmrepl_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	RowBuilder	row;

	InitMaterializedSRF(fcinfo, 0);
	if (mmr_shared == NULL)
		PG_RETURN_VOID();

	for (int i = 0; i < mmr_shared->max_workers; i++)
	{
		MmrWorker  *slot = &mmr_shared->workers[i];
		MmrWorker	worker;

		LWLockAcquire(mmr_shared->lock, LW_SHARED);
		SpinLockAcquire(&slot->mutex);
		memcpy(&worker, slot, sizeof(MmrWorker));
		SpinLockRelease(&slot->mutex);
		LWLockRelease(mmr_shared->lock);

		if (worker.kind == MMR_WORKER_NONE)
			continue;
		build_worker_row(&row, &worker);
		Assert(row.n == rsinfo->setDesc->natts);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row.values, row.nulls);
	}
	PG_RETURN_VOID();
}

/* mmrepl._database_state(): this database's entry, and whether there can be one. */
Datum
mmrepl_database_state(PG_FUNCTION_ARGS)
{
	TupleDesc	tupdesc;
	RowBuilder	row = {0};
	MmrDatabase *db = mmr_shared_find_database(MyDatabaseId);
	int32		used = 0;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	if (db != NULL)
	{
		for (int i = 0; i < MMR_SEGMENTS; i++)
			used += pg_atomic_read_u32(&db->segment_used[i]) != 0;
	}

	add(&row, BoolGetDatum(mmr_shared != NULL), false);
	add(&row, Int32GetDatum(used), db == NULL);
	add_int8(&row, db == NULL ? 0 : pg_atomic_read_u64(&db->commits));
	add_int8(&row, db == NULL ? 0 : pg_atomic_read_u64(&db->changes));
	add_int8(&row, db == NULL ? 0 : pg_atomic_read_u64(&db->applied));
	add_int8(&row, db == NULL ? 0 : pg_atomic_read_u64(&db->contexts));
	add_int8(&row, mmr_clock_last());

	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
													  row.values, row.nulls)));
}

/* mmrepl._conninfo_shown(conninfo): the parts that are no secret. */
Datum
mmrepl_conninfo_shown(PG_FUNCTION_ARGS)
{
	char	   *conninfo = text_to_cstring(PG_GETARG_TEXT_PP(0));
	TupleDesc	tupdesc;
	PQconninfoOption *options;
	char	   *host = NULL,
			   *hostaddr = NULL,
			   *port = NULL,
			   *dbname = NULL;
	RowBuilder	row = {0};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	/* What it says about a mistake may quote the conninfo: not asked for. */
	options = PQconninfoParse(conninfo, NULL);
	if (options != NULL)
	{
		for (PQconninfoOption *o = options; o->keyword != NULL; o++)
		{
			if (o->val == NULL)
				continue;
			if (strcmp(o->keyword, "host") == 0)
				host = pstrdup(o->val);
			else if (strcmp(o->keyword, "hostaddr") == 0)
				hostaddr = pstrdup(o->val);
			else if (strcmp(o->keyword, "port") == 0)
				port = pstrdup(o->val);
			else if (strcmp(o->keyword, "dbname") == 0)
				dbname = pstrdup(o->val);
		}
		PQconninfoFree(options);
	}

	add_text(&row, host != NULL ? host : hostaddr);
	add_text(&row, port);
	add_text(&row, dbname);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
													  row.values, row.nulls)));
}
