/*-------------------------------------------------------------------------
 * row.c
 *	  Rows to bytes and back.
 *
 * Floor 3.  Reads system catalogs when a format is made.  Runs in pushers
 * (encode) and apply backends (decode), once per row on both sides.
 *
 * Invariant: what decode makes of the bytes of encode is the same value, on
 * every node whose column has that name and a type that fits.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "errors.h"
#include "row.h"

/* How a column becomes bytes. */
typedef enum RowCodec
{
	ROW_INT1,					/* bool, "char": one byte */
	ROW_INT2,
	ROW_INT4,					/* ints, oid, float4, date: by value, network order */
	ROW_INT8,					/* bigint, float8, time, timestamps */
	ROW_RAW,					/* varlena that is its own binary format */
	ROW_BINARY,					/* send and receive functions */
	ROW_TEXT					/* output and input functions */
} RowCodec;

typedef struct RowColumn
{
	AttrNumber	attnum;			/* local */
	RowCodec	codec;
	bool		is_text;		/* RAW: check the encoding */
	Oid			typid;
	int32		typmod;
	int			limit;			/* RAW: longest in bytes that needs no look at typmod */
	bool		padded;			/* RAW: shorter needs one, too */
	FmgrInfo	func;			/* send or output; receive or input */
	Oid			ioparam;
} RowColumn;

struct MmrRowFormat
{
	int			ncolumns;
	int			natts;
	bool	   *sent;			/* by attribute number - 1 */
	RowColumn	columns[FLEXIBLE_ARRAY_MEMBER];
};

static RowCodec
row_codec(Oid typid)
{
	switch (typid)
	{
		case BOOLOID:
		case CHAROID:
			return ROW_INT1;
		case INT2OID:
			return ROW_INT2;
		case INT4OID:
		case OIDOID:
		case FLOAT4OID:
		case DATEOID:
			return ROW_INT4;
		case INT8OID:
		case FLOAT8OID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return ROW_INT8;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case BYTEAOID:
			return ROW_RAW;
		default:
			return ROW_BINARY;
	}
}

/* Has the type a binary format, and is that, like its number, the same on every server? */
static bool
row_binary_portable(Oid typid)
{
	HeapTuple	tuple;
	Form_pg_type type;
	Oid			element;
	bool		portable;

	if (typid >= FirstGenbkiObjectId)
		return false;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(typid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", typid);
	type = (Form_pg_type) GETSTRUCT(tuple);
	portable = OidIsValid(type->typsend) && OidIsValid(type->typreceive) &&
		type->typtype != TYPTYPE_COMPOSITE;
	ReleaseSysCache(tuple);
	switch (typid)
	{
			/* numbers of objects of this very database */
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
			return false;
		default:
			break;
	}
	/* arrays name their elements' type by number */
	element = portable ? get_element_type(typid) : InvalidOid;
	return portable && (!OidIsValid(element) || row_binary_portable(element));
}

static MmrRowFormat *
row_format_alloc(Relation rel, int ncolumns, MemoryContext cxt)
{
	MmrRowFormat *f = MemoryContextAllocZero(cxt, offsetof(MmrRowFormat, columns) +
											 sizeof(RowColumn) * ncolumns);

	f->natts = RelationGetNumberOfAttributes(rel);
	f->sent = MemoryContextAllocZero(cxt, f->natts + 1);
	return f;
}

static Form_pg_attribute
row_find_column(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att;
	}
	return NULL;
}

/* How a local column is sent: added to the format. */
static void
row_add_column(MmrRowFormat *f, Form_pg_attribute att, bool all_text, MemoryContext cxt)
{
	RowColumn  *col = &f->columns[f->ncolumns++];
	Oid			func;
	bool		varlena;

	f->sent[att->attnum - 1] = true;
	col->attnum = att->attnum;
	col->typid = att->atttypid;
	if (!all_text && row_binary_portable(att->atttypid))
	{
		col->codec = row_codec(att->atttypid);
		if (col->codec == ROW_BINARY)
		{
			getTypeBinaryOutputInfo(att->atttypid, &func, &varlena);
			fmgr_info_cxt(func, &col->func, cxt);
		}
	}
	else
	{
		col->codec = ROW_TEXT;
		getTypeOutputInfo(att->atttypid, &func, &varlena);
		fmgr_info_cxt(func, &col->func, cxt);
	}
}

MmrRowFormat *
mmr_row_format_local(Relation rel, bool all_text, MemoryContext cxt)
{
	TupleDesc	desc = RelationGetDescr(rel);
	MmrRowFormat *f = row_format_alloc(rel, desc->natts, cxt);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && att->attgenerated == '\0')
			row_add_column(f, att, all_text, cxt);
	}
	return f;
}

MmrRowFormat *
mmr_row_format_columns(Relation rel, List *names, MemoryContext cxt)
{
	MmrRowFormat *f = row_format_alloc(rel, list_length(names), cxt);
	ListCell   *lc;

	foreach(lc, names)
	{
		Form_pg_attribute att = row_find_column(rel, lfirst(lc));

		if (att == NULL || att->attgenerated != '\0')
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of table \"%s\" does not exist", (char *) lfirst(lc),
							RelationGetRelationName(rel))));
		row_add_column(f, att, false, cxt);
	}
	return f;
}

void
mmr_row_describe(MmrRowFormat *f, uint32 number, Relation rel, MmrKey *key, StringInfo out)
{
	TupleDesc	desc = RelationGetDescr(rel);
	char	   *nspname = get_namespace_name(RelationGetNamespace(rel));

	mmr_append_varint(out, number);
	mmr_append_string(out, nspname);
	mmr_append_string(out, RelationGetRelationName(rel));
	mmr_append_varint(out, key->ncolumns);
	for (int i = 0; i < key->ncolumns; i++)
		mmr_append_string(out, NameStr(key->columns[i].name));
	mmr_append_varint(out, f->ncolumns);
	for (int i = 0; i < f->ncolumns; i++)
	{
		RowColumn  *col = &f->columns[i];

		mmr_append_string(out, NameStr(TupleDescAttr(desc, col->attnum - 1)->attname));
		appendStringInfoChar(out, col->codec != ROW_TEXT);
		mmr_append_varint(out, col->typid);
	}
}

/* Appends length + 1 and returns where so many bytes go. */
static inline char *
row_space(StringInfo out, int len)
{
	char	   *p;

	enlargeStringInfo(out, len + MMR_VARINT_MAX);
	p = mmr_put_varint(out->data + out->len, (uint64) len + 1);
	out->len = p + len - out->data;
	return p;
}

static void
row_encode_column(RowColumn *col, Datum value, StringInfo out)
{
	switch (col->codec)
	{
		case ROW_INT1:
			*row_space(out, 1) = DatumGetChar(value);
			break;
		case ROW_INT2:
			{
				uint16		n = pg_hton16(DatumGetUInt16(value));

				memcpy(row_space(out, 2), &n, 2);
				break;
			}
		case ROW_INT4:
			{
				uint32		n = pg_hton32(DatumGetUInt32(value));

				memcpy(row_space(out, 4), &n, 4);
				break;
			}
		case ROW_INT8:
			{
				uint64		n = pg_hton64(DatumGetUInt64(value));

				memcpy(row_space(out, 8), &n, 8);
				break;
			}
		case ROW_RAW:
			{
				struct varlena *v = PG_DETOAST_DATUM_PACKED(value);
				int			len = VARSIZE_ANY_EXHDR(v);

				memcpy(row_space(out, len), VARDATA_ANY(v), len);
				if ((Pointer) v != DatumGetPointer(value))
					pfree(v);
				break;
			}
		case ROW_BINARY:
			{
				bytea	   *b = SendFunctionCall(&col->func, value);
				int			len = VARSIZE(b) - VARHDRSZ;

				memcpy(row_space(out, len), VARDATA(b), len);
				pfree(b);
				break;
			}
		case ROW_TEXT:
			{
				char	   *s = OutputFunctionCall(&col->func, value);
				int			len = strlen(s);

				memcpy(row_space(out, len), s, len);
				pfree(s);
				break;
			}
	}
}

void
mmr_row_encode(MmrRowFormat *f, TupleTableSlot *slot, StringInfo out)
{
	int			start;
	uint32		len;

	/* the length goes in front when it is known: four bytes keep its place */
	enlargeStringInfo(out, sizeof(uint32));
	start = out->len;
	out->len += sizeof(uint32);

	slot_getallattrs(slot);
	for (int i = 0; i < f->ncolumns; i++)
	{
		RowColumn  *col = &f->columns[i];

		if (slot->tts_isnull[col->attnum - 1])
			appendStringInfoCharMacro(out, '\0');
		else
			row_encode_column(col, slot->tts_values[col->attnum - 1], out);
	}
	len = pg_hton32(out->len - start - sizeof(uint32));
	memcpy(out->data + start, &len, sizeof(uint32));
}

MmrRowDescription *
mmr_row_read_description(MmrReader *r)
{
	MmrRowDescription *d = palloc0(sizeof(MmrRowDescription));

	d->number = (uint32) mmr_get_bounded(r, PG_UINT32_MAX, "table number is out of range");
	d->nspname = mmr_get_string(r);
	d->relname = mmr_get_string(r);
	d->nkeys = (int) mmr_get_bounded(r, INDEX_MAX_KEYS, "key has too many columns");
	d->keys = palloc(sizeof(char *) * (d->nkeys + 1));
	for (int i = 0; i < d->nkeys; i++)
		d->keys[i] = mmr_get_string(r);
	d->ncolumns = (int) mmr_get_bounded(r, MaxHeapAttributeNumber, "table has too many columns");
	d->names = palloc(sizeof(char *) * (d->ncolumns + 1));
	d->types = palloc(sizeof(Oid) * (d->ncolumns + 1));
	d->binary = palloc(sizeof(bool) * (d->ncolumns + 1));
	for (int i = 0; i < d->ncolumns; i++)
	{
		d->names[i] = mmr_get_string(r);
		d->binary[i] = mmr_get_byte(r) != 0;
		d->types[i] = (Oid) mmr_get_bounded(r, OID_MAX, "type is out of range");
	}
	return d;
}

static void
row_bind_column(MmrRowFormat *f, MmrRowDescription *d, int i, Relation rel, MemoryContext cxt)
{
	Form_pg_attribute att = row_find_column(rel, d->names[i]);
	RowColumn  *col = &f->columns[i];
	Oid			func;

	if (att == NULL || att->attgenerated != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_MMR_SCHEMA),
				 errmsg("column \"%s\" of table \"%s.%s\" comes from a peer but %s here",
						d->names[i], d->nspname, d->relname,
						att == NULL ? "does not exist" : "is generated"),
				 errhint("Give the table the same columns on all nodes.")));
	if (d->binary[i] && att->atttypid != d->types[i])
		ereport(ERROR,
				(errcode(ERRCODE_MMR_SCHEMA),
				 errmsg("column \"%s\" of table \"%s.%s\" has type %s here but %s at a peer",
						d->names[i], d->nspname, d->relname,
						format_type_be(att->atttypid), format_type_be(d->types[i])),
				 errhint("Give the column the same type on all nodes.")));
	col->attnum = att->attnum;
	col->typid = att->atttypid;
	col->typmod = att->atttypmod;
	col->is_text = att->atttypid != BYTEAOID;
	f->sent[att->attnum - 1] = true;
	if (!d->binary[i])
	{
		col->codec = ROW_TEXT;
		getTypeInputInfo(att->atttypid, &func, &col->ioparam);
		fmgr_info_cxt(func, &col->func, cxt);
		return;
	}
	col->codec = row_codec(att->atttypid);
	/* timestamp(3): the sender's may be finer */
	if (col->codec == ROW_INT8 && att->atttypmod >= 0)
		col->codec = ROW_BINARY;
	/* varchar(n), char(n): so many bytes are no more characters */
	col->limit = INT_MAX;
	if (col->codec == ROW_RAW && att->atttypmod >= VARHDRSZ)
	{
		col->limit = att->atttypmod - VARHDRSZ;
		col->padded = att->atttypid == BPCHAROID;
	}
	if (col->codec == ROW_BINARY || col->limit < INT_MAX)
	{
		getTypeBinaryInputInfo(att->atttypid, &func, &col->ioparam);
		fmgr_info_cxt(func, &col->func, cxt);
	}
}

void
mmr_row_same_key(MmrRowDescription *d, MmrKey *key)
{
	bool		same_key = d->nkeys == key->ncolumns;

	for (int i = 0; same_key && i < d->nkeys; i++)
		same_key = strcmp(d->keys[i], NameStr(key->columns[i].name)) == 0;
	if (!same_key)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_SCHEMA),
				 errmsg("table \"%s.%s\" has another key at a peer than here",
						d->nspname, d->relname),
				 errhint("Give the key the same columns, in the same order, on all nodes.")));
}

MmrRowFormat *
mmr_row_format_remote(MmrRowDescription *d, Relation rel, MmrKey *key, MemoryContext cxt)
{
	MmrRowFormat *f = row_format_alloc(rel, d->ncolumns, cxt);

	mmr_row_same_key(d, key);
	f->ncolumns = d->ncolumns;
	for (int i = 0; i < d->ncolumns; i++)
		row_bind_column(f, d, i, rel, cxt);
	for (int i = 0; i < key->ncolumns; i++)
		if (!mmr_row_sends(f, key->columns[i].attnum))
			mmr_wire_corrupt("key column is not sent");
	return f;
}

static void
row_length(int len, int want)
{
	if (len != want)
		mmr_wire_corrupt("value has a wrong length");
}

static Datum
row_receive(RowColumn *col, const char *data, int len)
{
	StringInfoData buf;
	Datum		value;

	/* receive functions may rely on a terminator */
	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, data, len);
	value = ReceiveFunctionCall(&col->func, &buf, col->ioparam, col->typmod);
	if (buf.cursor != buf.len)
		mmr_wire_corrupt("value has a wrong length");
	pfree(buf.data);
	return value;
}

static Datum
row_decode_column(RowColumn *col, const char *data, int len)
{
	switch (col->codec)
	{
		case ROW_INT1:
			row_length(len, 1);
			return col->typid == BOOLOID ? BoolGetDatum(*data != 0) : CharGetDatum(*data);
		case ROW_INT2:
			{
				uint16		n;

				row_length(len, 2);
				memcpy(&n, data, 2);
				return Int16GetDatum((int16) pg_ntoh16(n));
			}
		case ROW_INT4:
			{
				uint32		n;

				row_length(len, 4);
				memcpy(&n, data, 4);
				n = pg_ntoh32(n);
				return col->typid == OIDOID ? ObjectIdGetDatum(n) : Int32GetDatum((int32) n);
			}
		case ROW_INT8:
			{
				uint64		n;

				row_length(len, 8);
				memcpy(&n, data, 8);
				return Int64GetDatum((int64) pg_ntoh64(n));
			}
		case ROW_RAW:
			{
				struct varlena *v;

				if (len > col->limit || (col->padded && len < col->limit))
					return row_receive(col, data, len);
				v = palloc(len + VARHDRSZ);
				if (col->is_text)
					pg_verify_mbstr(GetDatabaseEncoding(), data, len, false);
				SET_VARSIZE(v, len + VARHDRSZ);
				memcpy(VARDATA(v), data, len);
				return PointerGetDatum(v);
			}
		case ROW_BINARY:
			return row_receive(col, data, len);
		case ROW_TEXT:
			{
				char	   *s;
				Datum		value;

				pg_verify_mbstr(GetDatabaseEncoding(), data, len, false);
				s = pnstrdup(data, len);
				value = InputFunctionCall(&col->func, s, col->ioparam, col->typmod);
				pfree(s);
				return value;
			}
	}
	return (Datum) 0;			/* not reached */
}

void
mmr_row_decode(MmrRowFormat *f, const char *data, int len, TupleTableSlot *slot)
{
	MmrReader	r = {data, data + len};

	for (int i = 0; i < f->ncolumns; i++)
	{
		RowColumn  *col = &f->columns[i];
		uint64		n = mmr_get_bounded(&r, MaxAllocSize - VARHDRSZ, "value is too long");
		int			at = col->attnum - 1;

		slot->tts_isnull[at] = n == 0;
		slot->tts_values[at] = n == 0 ? (Datum) 0 :
			row_decode_column(col, mmr_get_bytes(&r, n - 1), (int) n - 1);
	}
	if (!mmr_reader_done(&r))
		mmr_wire_corrupt("row is too long");
}

bool
mmr_row_sends(MmrRowFormat *f, AttrNumber attnum)
{
	return attnum > 0 && attnum <= f->natts && f->sent[attnum - 1];
}
