/*-------------------------------------------------------------------------
 * key.c
 *	  The key of a table as bytes, hash and scan keys.
 *
 * Floor 2.  Reads system catalogs.  Runs everywhere; the encoder is on the
 * capture path (its cost is per captured row).
 * Invariant: equal keys (by the index' operators) have equal hashes, on this
 * node; the bytes of a key mean the same on every node.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/amapi.h"
#include "access/genam.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "key.h"
#include "session.h"
#include "wire.h"

typedef struct KeyEntry
{
	Oid			relid;			/* hash key */
	bool		valid;
	MmrKey	   *key;
} KeyEntry;

static HTAB *keys = NULL;
static uint64 generation = 1;	/* a key of the cache is not what it was */
static uint64 invalidations = 0;	/* of any relation */

/* For what operators of keys allocate; empty between calls. */
static MemoryContext scratch = NULL;

static void
key_invalidate(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	KeyEntry   *entry;

	invalidations++;
	if (relid != InvalidOid)
	{
		entry = hash_search(keys, &relid, HASH_FIND, NULL);
		if (entry == NULL)
			return;
		entry->valid = false;
		generation++;
		return;
	}
	generation++;
	hash_seq_init(&seq, keys);
	while ((entry = hash_seq_search(&seq)) != NULL)
		entry->valid = false;
}

static void
key_cache_init(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(KeyEntry);
	ctl.hcxt = CacheMemoryContext;
	keys = hash_create("mmrepl keys", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	scratch = AllocSetContextCreate(CacheMemoryContext, "mmrepl key scratch", ALLOCSET_SMALL_SIZES);
	CacheRegisterRelcacheCallback(key_invalidate, (Datum) 0);
}

uint64
mmr_key_generation(void)
{
	return generation;
}

const char *
mmr_key_problem(Relation rel, Relation index)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisunique)
		return "it is not unique";
	if (!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return "it is partial";
	if (!form->indimmediate)
		return "it is deferrable";
	if (!form->indisvalid || !form->indisready || !form->indislive)
		return "it is not valid";
	if (index->rd_rel->relam != BTREE_AM_OID)
		return "it is not a btree index";
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		AttrNumber	attnum = form->indkey.values[i];

		if (attnum <= 0)
			return "it has an expression";
		if (!TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attnotnull)
			return "a column of it may be NULL";
	}
	return NULL;
}

/* Codec of a type: raw bytes where they are the binary send format. */
static MmrCodec
key_codec(Oid typid)
{
	switch (typid)
	{
		case INT2OID:
			return MMR_CODEC_INT2;
		case INT4OID:
			return MMR_CODEC_INT4;
		case INT8OID:
			return MMR_CODEC_INT8;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case BYTEAOID:
			return MMR_CODEC_RAW;
		default:
			return MMR_CODEC_GENERIC;
	}
}

/* Does equality of this column imply equal bytes? The opclass knows. */
static bool
key_column_image_equal(Relation index, int i)
{
	Oid			proc = get_opfamily_proc(index->rd_opfamily[i], index->rd_opcintype[i],
										 index->rd_opcintype[i], BTEQUALIMAGE_PROC);

	return OidIsValid(proc) &&
		DatumGetBool(OidFunctionCall1Coll(proc, index->rd_indcollation[i],
										  ObjectIdGetDatum(index->rd_opcintype[i])));
}

/* The type's hash function, if what is equal to the index has equal hashes; else none: slow, right. */
static void
key_find_hash(MmrKey *key, MmrKeyColumn *col, Oid equal_op)
{
	TypeCacheEntry *type = lookup_type_cache(col->typid, TYPECACHE_HASH_EXTENDED_PROC |
											 TYPECACHE_HASH_OPFAMILY);

	if (OidIsValid(type->hash_extended_proc) &&
		get_opfamily_member(type->hash_opf, type->hash_opintype, type->hash_opintype,
							HTEqualStrategyNumber) == equal_op)
		fmgr_info_cxt(type->hash_extended_proc, &col->hash, key->cxt);
	else
		col->hash.fn_oid = InvalidOid;
}

/*
 * Can receiving a value of the type run nobody's code but a superuser's?  The
 * constraints of a domain, be it inside an array, a range or a row, are
 * anybody's.
 */
static bool
key_type_is_plain(Oid typid)
{
	Oid			element;

	if (get_typtype(typid) == TYPTYPE_ENUM)
		return true;
	if (get_typtype(typid) != TYPTYPE_BASE)
		return false;
	element = get_element_type(typid);
	return !OidIsValid(element) || key_type_is_plain(element);
}

static void
key_build_column(MmrKey *key, Relation rel, Relation index, int i)
{
	MmrKeyColumn *col = &key->columns[i];
	AttrNumber	attnum = index->rd_index->indkey.values[i];
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	Oid			opclass_type = index->rd_opcintype[i];
	Oid			func;
	bool		varlena;
	Oid			equal_op;

	col->attnum = attnum;
	col->name = att->attname;
	/* a key is looked up, not stored: what a domain says of its values does not matter */
	col->typmod = att->atttypmod;
	col->typid = getBaseTypeAndTypmod(att->atttypid, &col->typmod);
	col->plain = key_type_is_plain(col->typid);
	col->collation = index->rd_indcollation[i];
	col->byval = att->attbyval;
	col->typlen = att->attlen;
	col->codec = key_codec(col->typid);
	getTypeBinaryOutputInfo(col->typid, &func, &varlena);
	fmgr_info_cxt(func, &col->send, key->cxt);
	getTypeBinaryInputInfo(col->typid, &func, &col->ioparam);
	fmgr_info_cxt(func, &col->receive, key->cxt);

	equal_op = get_opfamily_member(index->rd_opfamily[i], opclass_type, opclass_type,
								   BTEqualStrategyNumber);
	ScanKeyEntryInitialize(&key->scankeys[i], 0, i + 1, BTEqualStrategyNumber,
						   InvalidOid, col->collation, get_opcode(equal_op), (Datum) 0);
	fmgr_info_cxt(get_opcode(equal_op), &col->equal, key->cxt);

	col->image_equal = key_column_image_equal(index, i);
	/* without a length blanks at its end are bytes, but do not count */
	if (col->typid == BPCHAROID && col->typmod < 0)
		col->image_equal = false;
	if (!col->image_equal)
	{
		key->image_equal = false;
		key_find_hash(key, col, equal_op);
	}
}

static MmrKey *
key_build(Relation rel, Oid indexid)
{
	MemoryContext cxt;
	MemoryContext old;
	Relation	index;
	MmrKey	   *key;
	int			n;

	/* an index that is not this table's, or not any more, is no key */
	if (!OidIsValid(indexid) || !list_member_oid(RelationGetIndexList(rel), indexid))
		return NULL;
	index = index_open(indexid, AccessShareLock);
	if (mmr_key_problem(rel, index) != NULL)
	{
		index_close(index, AccessShareLock);
		return NULL;
	}

	cxt = AllocSetContextCreate(CacheMemoryContext, "mmrepl key", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	n = index->rd_index->indnkeyatts;
	key = palloc0(offsetof(MmrKey, columns) + sizeof(MmrKeyColumn) * n);
	key->cxt = cxt;
	key->relid = RelationGetRelid(rel);
	key->indexid = indexid;
	key->owner = rel->rd_rel->relowner;
	key->image_equal = true;
	key->ncolumns = n;
	key->scankeys = palloc0(sizeof(ScanKeyData) * n);
	for (int i = 0; i < n; i++)
		key_build_column(key, rel, index, i);
	MemoryContextSwitchTo(old);
	index_close(index, AccessShareLock);
	return key;
}

/* Do both tell the same rows apart in the same bytes? */
static bool
key_same(const MmrKey *a, const MmrKey *b)
{
	if (a->indexid != b->indexid || a->owner != b->owner || a->image_equal != b->image_equal || a->ncolumns != b->ncolumns)
		return false;
	for (int i = 0; i < a->ncolumns; i++)
	{
		const MmrKeyColumn *x = &a->columns[i];
		const MmrKeyColumn *y = &b->columns[i];

		if (x->attnum != y->attnum || x->plain != y->plain || x->typid != y->typid || x->typmod != y->typmod ||
			x->collation != y->collation || x->send.fn_oid != y->send.fn_oid ||
			x->receive.fn_oid != y->receive.fn_oid || x->ioparam != y->ioparam ||
			x->hash.fn_oid != y->hash.fn_oid || x->equal.fn_oid != y->equal.fn_oid ||
			strcmp(NameStr(x->name), NameStr(y->name)) != 0)
			return false;
	}
	return true;
}

MmrKey *
mmr_key_get(Relation rel, Oid indexid)
{
	Oid			relid = RelationGetRelid(rel);
	KeyEntry   *entry;
	bool		found;
	uint64		before;
	MmrKey	   *key;

	if (keys == NULL)
		key_cache_init();
	entry = hash_search(keys, &relid, HASH_FIND, NULL);
	if (entry != NULL && entry->valid && (entry->key == NULL || entry->key->indexid == indexid))
		return entry->key;

	/* building reads catalogs, which may bring an invalidation: then it is not kept as valid */
	before = invalidations;
	key = key_build(rel, indexid);
	entry = hash_search(keys, &relid, HASH_ENTER, &found);
	if (found && entry->key != NULL && key != NULL && key_same(entry->key, key))
	{
		/* most invalidations are VACUUM's: the key in use stays as it is */
		MemoryContextDelete(key->cxt);
		key = entry->key;
	}
	else if (found && entry->key != NULL)
	{
		/* whoever is using it may be up the stack; who remembers it for longer looks at the generation */
		MemoryContextSetParent(entry->key->cxt, TopTransactionContext);
		generation++;
	}
	entry->key = key;
	entry->valid = key != NULL && before == invalidations;
	return key;
}

/* Binary send of a value in the database's encoding, whatever the client's. */
static bytea *
key_send(FmgrInfo *send, Datum value)
{
	int			client = pg_get_client_encoding();
	bytea	   *result;

	if (likely(client == GetDatabaseEncoding()))
		return SendFunctionCall(send, value);
	SetClientEncoding(GetDatabaseEncoding());
	PG_TRY();
	{
		result = SendFunctionCall(send, value);
	}
	PG_FINALLY();
	{
		SetClientEncoding(client);
	}
	PG_END_TRY();
	return result;
}

static Datum
key_receive_encoded(MmrKeyColumn *col, StringInfo buf)
{
	int			client = pg_get_client_encoding();
	Datum		result;

	if (likely(client == GetDatabaseEncoding()))
		return ReceiveFunctionCall(&col->receive, buf, col->ioparam, col->typmod);
	SetClientEncoding(GetDatabaseEncoding());
	PG_TRY();
	{
		result = ReceiveFunctionCall(&col->receive, buf, col->ioparam, col->typmod);
	}
	PG_FINALLY();
	{
		SetClientEncoding(client);
	}
	PG_END_TRY();
	return result;
}

/* Whoever looks at the key, a superuser's worker for one: code of others runs as the table's owner (A9). */
static Datum
key_receive(MmrKey *key, MmrKeyColumn *col, StringInfo buf)
{
	MmrSession	save;
	Datum		result;

	if (likely(col->plain))
		return key_receive_encoded(col, buf);
	mmr_session_begin_foreign(&save, key->owner);
	result = key_receive_encoded(col, buf);
	mmr_session_end_foreign(&save);
	return result;
}

/* Room for so many bytes more. */
static inline char *
key_room(StringInfo out, int len)
{
	if (unlikely(out->len + len >= out->maxlen))
		enlargeStringInfo(out, len);
	return out->data + out->len;
}

static void
key_encode_bytes(StringInfo out, const char *data, int len)
{
	char	   *p = mmr_put_varint(key_room(out, len + MMR_VARINT_MAX), len);

	memcpy(p, data, len);
	out->len = p + len - out->data;
}

static void
key_encode_column(MmrKeyColumn *col, Datum value, StringInfo out)
{
	int64		i;

	switch (col->codec)
	{
		case MMR_CODEC_INT2:
			i = DatumGetInt16(value);
			break;
		case MMR_CODEC_INT4:
			i = DatumGetInt32(value);
			break;
		case MMR_CODEC_INT8:
			i = DatumGetInt64(value);
			break;
		case MMR_CODEC_RAW:
			{
				struct varlena *v = PG_DETOAST_DATUM_PACKED(value);

				key_encode_bytes(out, VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
				if ((Pointer) v != DatumGetPointer(value))
					pfree(v);
				return;
			}
		default:
			{
				bytea	   *sent = key_send(&col->send, value);

				key_encode_bytes(out, VARDATA(sent), VARSIZE(sent) - VARHDRSZ);
				pfree(sent);
				return;
			}
	}
	out->len = mmr_put_varint(key_room(out, MMR_VARINT_MAX), mmr_zigzag(i)) - out->data;
}

void
mmr_key_encode(MmrKey *key, TupleTableSlot *slot, StringInfo out)
{
	for (int i = 0; i < key->ncolumns; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, key->columns[i].attnum, &isnull);

		if (unlikely(isnull))
			elog(ERROR, "key column \"%s\" is null", NameStr(key->columns[i].name));
		key_encode_column(&key->columns[i], value, out);
	}
}

void
mmr_key_encode_values(MmrKey *key, const Datum *values, StringInfo out)
{
	for (int i = 0; i < key->ncolumns; i++)
		key_encode_column(&key->columns[i], values[i], out);
}

static Datum
key_decode_column(MmrKey *key, MmrKeyColumn *col, MmrReader *r)
{
	int64		i;
	uint64		len;
	const char *data;

	if (col->codec <= MMR_CODEC_INT8)
	{
		i = mmr_get_zigzag(r);
		if ((col->codec == MMR_CODEC_INT2 && i != (int16) i) ||
			(col->codec == MMR_CODEC_INT4 && i != (int32) i))
			mmr_wire_corrupt("key is out of range");
		return col->codec == MMR_CODEC_INT2 ? Int16GetDatum((int16) i) :
			col->codec == MMR_CODEC_INT4 ? Int32GetDatum((int32) i) : Int64GetDatum(i);
	}
	len = mmr_get_bounded(r, MaxAllocSize - VARHDRSZ - 1, "key is too long");
	data = mmr_get_bytes(r, len);
	if (col->codec == MMR_CODEC_RAW)
	{
		struct varlena *v = palloc(len + VARHDRSZ);

		if (col->typid != BYTEAOID)
			pg_verify_mbstr(GetDatabaseEncoding(), data, (int) len, false);
		SET_VARSIZE(v, len + VARHDRSZ);
		memcpy(VARDATA(v), data, len);
		return PointerGetDatum(v);
	}
	else
	{
		StringInfoData buf;
		Datum		value;

		/* receive functions may rely on a terminator */
		initStringInfo(&buf);
		appendBinaryStringInfo(&buf, data, (int) len);
		value = key_receive(key, col, &buf);
		if (buf.cursor != buf.len)
			mmr_wire_corrupt("key has a wrong length");
		pfree(buf.data);
		return value;
	}
}

void
mmr_key_decode(MmrKey *key, const char *data, int len, Datum *values)
{
	MmrReader	r = {data, data + len};

	for (int i = 0; i < key->ncolumns; i++)
		values[i] = key_decode_column(key, &key->columns[i], &r);
	if (!mmr_reader_done(&r))
		mmr_wire_corrupt("key has too many columns");
}

int64
mmr_key_place(MmrKey *key, const char *data, int len)
{
	MmrReader	r = {data, data + len};

	return key->columns[0].codec <= MMR_CODEC_INT8 ? mmr_get_zigzag(&r) : 0;
}

/* Hash from a seed: the same on every server if the seed is. */
static uint64
key_hash_seeded(MmrKey *key, const char *data, int len, uint64 seed)
{
	MmrReader	r = {data, data + len};
	uint64		h = seed;
	MemoryContext old;

	if (likely(key->image_equal))
		return hash_bytes_extended((const unsigned char *) data, len, seed);

	old = MemoryContextSwitchTo(scratch);
	for (int i = 0; i < key->ncolumns; i++)
	{
		MmrKeyColumn *col = &key->columns[i];
		const char *start = r.ptr;
		Datum		value = key_decode_column(key, col, &r);

		if (col->image_equal)
			h = hash_combine64(h, hash_bytes_extended((const unsigned char *) start,
													  r.ptr - start, 0));
		else if (OidIsValid(col->hash.fn_oid))
			h = hash_combine64(h, DatumGetUInt64(FunctionCall2Coll(&col->hash, col->collation,
																   value, UInt64GetDatum(0))));
	}
	if (!mmr_reader_done(&r))
		mmr_wire_corrupt("key has too many columns");
	MemoryContextSwitchTo(old);
	MemoryContextReset(scratch);
	return h;
}

uint64
mmr_key_hash(MmrKey *key, const char *data, int len)
{
	return key_hash_seeded(key, data, len, key->relid);
}

uint64
mmr_key_hash_anywhere(MmrKey *key, const char *data, int len)
{
	return key_hash_seeded(key, data, len, 0);
}

bool
mmr_key_equal(MmrKey *key, const char *a, int alen, const char *b, int blen)
{
	Datum		va[INDEX_MAX_KEYS];
	Datum		vb[INDEX_MAX_KEYS];
	MemoryContext old;
	bool		equal = true;

	if (alen == blen && memcmp(a, b, alen) == 0)
		return true;
	if (key->image_equal)
		return false;
	old = MemoryContextSwitchTo(scratch);
	mmr_key_decode(key, a, alen, va);
	mmr_key_decode(key, b, blen, vb);
	for (int i = 0; equal && i < key->ncolumns; i++)
		equal = DatumGetBool(FunctionCall2Coll(&key->columns[i].equal, key->columns[i].collation,
											   va[i], vb[i]));
	MemoryContextSwitchTo(old);
	MemoryContextReset(scratch);
	return equal;
}

uint64
mmr_key_fingerprint(MmrKey *key)
{
	uint64		h = hash_combine64(key->relid, key->image_equal);

	for (int i = 0; i < key->ncolumns; i++)
	{
		MmrKeyColumn *col = &key->columns[i];

		h = hash_combine64(h, col->image_equal);
		h = hash_combine64(h, ((uint64) col->typid << 32) | col->collation);
		h = hash_combine64(h, ((uint64) col->receive.fn_oid << 32) | col->hash.fn_oid);
		h = hash_combine64(h, col->codec);
	}
	return Max(h, 1);
}
