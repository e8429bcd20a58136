/*-------------------------------------------------------------------------
 * rowshow.c
 *	  A row as it came, for people.
 *
 * Floor 4.  Reads system catalogs.  Runs in apply backends, for rows that
 * could not be applied.
 *
 * The table here is not looked at: it may lack the column that is the reason.
 * The sender's description has the names, and the server's own types under
 * their numbers; what came as text stays text.
 *
 * Invariant: runs no code but the server's own.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "rowshow.h"

/* Longer ones are not shown: as the conflict history does. */
#define MAX_SHOWN	(16 * 1024 * 1024)

/* The type to read the column with: the sender's if that is the server's own, else text. */
static Oid
shown_type(MmrRowDescription *d, int i)
{
	if (!d->binary[i])
		return TEXTOID;
	if (d->types[i] >= FirstGenbkiObjectId ||
		!SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(d->types[i])))
		mmr_wire_corrupt("type is unknown");
	return d->types[i];
}

static Datum
shown_value(MmrRowDescription *d, int i, const char *data, int len)
{
	StringInfoData buf;
	Oid			func;
	Oid			ioparam;

	if (!d->binary[i])
	{
		pg_verify_mbstr(GetDatabaseEncoding(), data, len, false);
		return PointerGetDatum(cstring_to_text_with_len(data, len));
	}
	/* receive functions may rely on a terminator */
	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, data, len);
	getTypeBinaryInputInfo(d->types[i], &func, &ioparam);
	return OidReceiveFunctionCall(func, &buf, ioparam, -1);
}

char *
mmr_rowshow_json(MmrRowDescription *d, const char *data, int len)
{
	MmrReader	r = {data, data + len};
	TupleDesc	desc;
	Datum	   *values;
	bool	   *nulls;
	Datum		row;

	if (len > MAX_SHOWN)
		return psprintf("{\"mmrepl.bytes\": %d}", len);
	desc = CreateTemplateTupleDesc(d->ncolumns);
	values = palloc(sizeof(Datum) * (d->ncolumns + 1));
	nulls = palloc(sizeof(bool) * (d->ncolumns + 1));
	for (int i = 0; i < d->ncolumns; i++)
	{
		uint64		n = mmr_get_bounded(&r, MaxAllocSize - VARHDRSZ, "value is too long");

		TupleDescInitEntry(desc, i + 1, d->names[i], shown_type(d, i), -1, 0);
		nulls[i] = n == 0;
		values[i] = n == 0 ? (Datum) 0 : shown_value(d, i, mmr_get_bytes(&r, n - 1), (int) n - 1);
	}
	desc = BlessTupleDesc(desc);
	row = heap_copy_tuple_as_datum(heap_form_tuple(desc, values, nulls), desc);
	return TextDatumGetCString(DirectFunctionCall1(row_to_json, row));
}
