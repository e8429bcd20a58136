/*-------------------------------------------------------------------------
 * kept.c
 *	  What a db had written before a rejoin and perhaps sent to nobody.
 *
 * Floor 5.  Reads and empties mmrepl.kept; writes user tables, as an ordinary
 * writer with the rights of the table's owner, so that it is captured; the
 * conflict history.  Runs in the janitor; reading before the rejoin, in client backends.
 *
 * A row whose key the copy has brought is not written: the others went on
 * without it.  It goes to the history, if it is not the same.
 *
 * Invariant: a row leaves mmrepl.kept in the transaction that writes it or
 * tells of it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "guc.h"
#include "kept.h"
#include "rowerror.h"
#include "session.h"
#include "sqlrun.h"
#include "worker.h"

#define ROWS_AT_ONCE	500

PG_FUNCTION_INFO_V1(mmrepl_rows_as_owner);

static Oid
owner_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/* Columns that can be written: "a", "b" */
static char *
columns_of(Oid relid)
{
	const char *arg = psprintf("%u", relid);

	return mmr_sqlrun_text("SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum) FROM pg_catalog.pg_attribute"
						   " WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''", 1, &arg);
}

/*
 * mmrepl._rows_as_owner(tbl regclass, query text, keys jsonb[]) returns setof
 * (key jsonb, content text)
 */
Datum
mmrepl_rows_as_owner(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			owner = owner_of(PG_GETARG_OID(0));
	char	   *query = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Oid			types[1] = {JSONBARRAYOID};
	Datum		args[1] = {PG_GETARG_DATUM(2)};
	MmrSession	save;

	InitMaterializedSRF(fcinfo, 0);
	if (!OidIsValid(owner))
		return (Datum) 0;
	mmr_session_begin_foreign(&save, owner);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(query, 1, types, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "rows of a table were to be read by a query");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		values[2];
		bool		nulls[2];

		for (int c = 0; c < 2; c++)
			values[c] = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, c + 1, &nulls[c]);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	SPI_finish();
	mmr_session_end_foreign(&save);
	return (Datum) 0;
}

/* As its owner would; false: a row is in the way. */
static bool
insert_row(char *const *row)
{
	char	   *nspname = row[1];
	char	   *relname = row[2];
	Oid			nspid = get_namespace_oid(nspname, true);
	Oid			relid = OidIsValid(nspid) ? get_relname_relid(relname, nspid) : InvalidOid;
	Oid			owner = OidIsValid(relid) ? owner_of(relid) : InvalidOid;
	char	   *table = quote_qualified_identifier(nspname, relname);
	char	   *columns;
	char	   *sql;
	MmrSession	save;
	bool		done;

	if (!OidIsValid(owner))
		return false;
	columns = columns_of(relid);
	sql = psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM (SELECT (%s::%s).*) AS r ON CONFLICT DO NOTHING",
				   table, columns, columns, quote_literal_cstr(row[3]), table);
	mmr_session_begin_foreign(&save, owner);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	done = SPI_execute(sql, false, 0) == SPI_OK_INSERT && SPI_processed > 0;
	SPI_finish();
	mmr_session_end_foreign(&save);
	return done;
}

static bool
tell_row(char *const *row)
{
	const char *args[2] = {row[0], "f"};

	mmr_sqlrun_exec("SELECT mmrepl._kept_is_lost($1::int8, $2::bool)", 2, args);
	return true;
}

/* In a subtransaction; false also if it raises an error. */
static bool
try_row(bool (*work) (char *const *row), char *const *row)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		done = work(row);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		/* what passes by itself is no reason to give a row up */
		if (!mmr_rowerror_is(edata->sqlerrcode))
			ReThrowError(edata);
		done = false;
		ereport(LOG,
				(errcode(edata->sqlerrcode),
				 errmsg("a row of table \"%s.%s\" from before the rejoin cannot be %s: %s", row[1], row[2],
						work == insert_row ? "written again" : "shown as it was", edata->message)));
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return done;
}

/* The next rows; false: none is left, or it is not time yet. */
static bool
kept_some(void *arg)
{
	char	  **row;
	int			n = 0;
	int			again = 0;

	(void) arg;
	/* nobody's open transaction keeps the janitor from the rest */
	(void) set_config_option("lock_timeout", psprintf("%d", mmr_guc_lock_timeout), PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	if (mmr_sqlrun_exec("SELECT 1 FROM mmrepl.kept LIMIT 1", 0, NULL) > 0 &&
		mmr_sqlrun_exec("SELECT 1 FROM mmrepl.sync WHERE mmrepl._closed_to_clients(sync_id)", 0, NULL) == 0)
	{
		while (n < ROWS_AT_ONCE &&
			   (row = mmr_sqlrun_row("SELECT id, nspname, relname, content, overtaken FROM mmrepl.kept ORDER BY id LIMIT 1", 0, NULL)) != NULL)
		{
			const char *args[2] = {row[0], "t"};

			/* first of all: what is written from here on draws from sequences that may have gone back */
			if (row[1][0] == '\0')
			{
				mmr_sqlrun_exec("SELECT mmrepl._advance_sequences()", 0, NULL);
				mmr_sqlrun_exec("SELECT mmrepl._kept_is_overtaken()", 0, NULL);
			}
			else if (row[3] != NULL && row[4][0] == 'f' && try_row(insert_row, row))
				again++;
			else if (!try_row(tell_row, row))
				/* jsonb cannot hold it, or its owner's code refuses */
				mmr_sqlrun_exec("SELECT mmrepl._kept_is_lost($1::int8, $2::bool)", 2, args);
			mmr_sqlrun_exec("DELETE FROM mmrepl.kept WHERE id = $1::int8", 1, args);
			n++;
		}
		if (n > 1)
			ereport(LOG,
					(errmsg("%d of %d rows from before the rejoin were written again", again, n - 1),
					 errdetail("The others are in the conflict history, unless they are the same.")));
	}
	return n > 0;
}

void
mmr_kept_round(void)
{
	static char said[MMR_MSGLEN];

	while (mmr_worker_try("writing again what a rejoin has kept", kept_some, NULL, "rows from before the rejoin cannot be written again yet", said))
		CHECK_FOR_INTERRUPTS();
}
