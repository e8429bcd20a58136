/*-------------------------------------------------------------------------
 * kept.c
 *	  What a db had written before a rejoin and perhaps sent to nobody.
 *
 * Floor 5.  Reads and empties mmrepl.kept; writes user tables, as an ordinary
 * writer with the rights of the table's owner, so that it is captured; the
 * conflict history.  Runs in the janitor.
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
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "catalog/pg_class.h"

#include "kept.h"
#include "membership.h"
#include "sqlrun.h"
#include "worker.h"

#define ROWS_AT_ONCE	500

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

/* As its owner would; false: a row is in the way. */
static bool
insert_row(const char *nspname, const char *relname, const char *content)
{
	Oid			nspid = get_namespace_oid(nspname, true);
	Oid			relid = OidIsValid(nspid) ? get_relname_relid(relname, nspid) : InvalidOid;
	Oid			owner = OidIsValid(relid) ? owner_of(relid) : InvalidOid;
	char	   *table = quote_qualified_identifier(nspname, relname);
	char	   *columns;
	char	   *sql;
	Oid			user;
	int			context;
	int			rc;
	bool		done;

	if (!OidIsValid(owner))
		return false;
	columns = columns_of(relid);
	sql = psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM (SELECT (%s::%s).*) AS r ON CONFLICT DO NOTHING",
				   table, columns, columns, quote_literal_cstr(content), table);
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_RESTRICTED_OPERATION);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rc = SPI_execute(sql, false, 0);
	done = rc == SPI_OK_INSERT && SPI_processed > 0;
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	return done;
}

/* In a subtransaction: what its table refuses is lost, too. */
static bool
try_insert(char *const *row)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		done = insert_row(row[1], row[2], row[3]);
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
		ereport(LOG,
				(errcode(edata->sqlerrcode),
				 errmsg("a row of table \"%s.%s\" from before the rejoin cannot be written again: %s", row[1], row[2],
						edata->message)));
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return done;
}

/* The next rows; false: none is left, or it is not time yet. */
static bool
kept_some(void)
{
	char	  **row;
	int			n = 0;
	int			again = 0;

	mmr_worker_start_transaction("writing again what a rejoin has kept");
	if (mmr_worker_hold_extension() &&
		mmr_sqlrun_exec("SELECT 1 FROM mmrepl.kept LIMIT 1", 0, NULL) > 0 &&
		mmr_sqlrun_exec("SELECT 1 FROM mmrepl.sync_state WHERE NOT opened OR copied = 0", 0, NULL) == 0)
	{
		while (n < ROWS_AT_ONCE &&
			   (row = mmr_sqlrun_row("SELECT id, nspname, relname, content FROM mmrepl.kept ORDER BY id LIMIT 1", 0, NULL)) != NULL)
		{
			const char *args[1] = {row[0]};

			/* first of all: what is written from here on draws from sequences that may have gone back */
			if (row[1][0] == '\0')
				mmr_sqlrun_exec("SELECT mmrepl._advance_sequences()", 0, NULL);
			else if (row[3] != NULL && try_insert(row))
				again++;
			else
				mmr_sqlrun_exec("SELECT mmrepl._kept_is_lost($1::int8)", 1, args);
			mmr_sqlrun_exec("DELETE FROM mmrepl.kept WHERE id = $1::int8", 1, args);
			n++;
		}
		if (n > 1)
			ereport(LOG,
					(errmsg("%d of %d rows from before the rejoin were written again", again, n - 1),
					 errdetail("The others are in the conflict history, unless they are the same.")));
	}
	mmr_worker_commit_transaction();
	return n > 0;
}

void
mmr_kept_round(void)
{
	while (kept_some())
		CHECK_FOR_INTERRUPTS();
}
