/*-------------------------------------------------------------------------
 * comparing.c
 *	  One side of a comparison: what a table of a sync holds here, in few
 *	  bytes; and rows written anew, so that they travel.
 *
 * Floor 6.  Reads user tables, the log, mmrepl.apply_error_log; writes the log
 * (reauthor).  Runs in backends that compare_sync has opened, on every db that
 * takes part, this one included.
 *
 * Rows fall into buckets by the hash of their key.  Whose buckets have the same
 * sums are equal; the rows of the others are listed by key and hash; and
 * those that differ are looked at once more, with the log, because
 * meanwhile they may have become equal, or be on their way.
 *
 * Columns are named by who asks, so their order here does not matter.
 *
 * Invariant: only keys and hashes leave, and only those of members of the
 * sync.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "buffer.h"
#include "capture.h"
#include "clock.h"
#include "errors.h"
#include "key.h"
#include "locking.h"
#include "logreader.h"
#include "membership.h"
#include "position.h"
#include "row.h"
#include "setaside.h"
#include "stability.h"

PG_FUNCTION_INFO_V1(mmrepl_compare_columns);
PG_FUNCTION_INFO_V1(mmrepl_compare_digest);
PG_FUNCTION_INFO_V1(mmrepl_compare_rows);
PG_FUNCTION_INFO_V1(mmrepl_compare_keys);
PG_FUNCTION_INFO_V1(mmrepl_reauthor);

#define MAX_BUCKETS		(1 << 20)

/* A member under comparison. */
typedef struct Compared
{
	MmrSync    *sync;
	Relation	rel;
	MmrKey	   *key;
	MmrRowFormat *format;		/* NULL: rows are not looked at */
	MemoryContext row_cxt;
	StringInfoData bytes;		/* of the row at hand... */
	StringInfoData keybytes;	/* ...and of its key */
} Compared;

/* A key asked for. */
typedef struct Asked
{
	uint64		hash;
	char	   *key;
	int			keylen;
	bool		in_flight;
} Asked;

typedef struct AskedBucket
{
	uint64		hash;			/* hash key */
	List	   *asked;
} AskedBucket;

/* Looks for keys in the log. */
typedef struct LogSearch
{
	Compared   *c;
	HTAB	   *asked;
	MmrStability *stability;
	bool		truncated;
} LogSearch;

/* The member that the first three arguments name, open; NULL if there is no such table here. */
static Compared *
compared_open(FunctionCallInfo fcinfo, LOCKMODE lockmode)
{
	int32		sync_id = PG_GETARG_INT32(0);
	char	   *nspname = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *relname = text_to_cstring(PG_GETARG_TEXT_PP(2));
	Compared   *c = palloc0(sizeof(Compared));
	ListCell   *lc;

	mmr_membership_refresh();
	c->sync = mmr_membership_sync(sync_id);
	if (c->sync == NULL || c->sync->my_role == MMR_ROLE_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_CONFIG),
				 errmsg("sync %d is not in the configuration here", sync_id)));
	foreach(lc, c->sync->tables)
	{
		MmrMember  *m = lfirst(lc);

		if (strcmp(m->nspname, nspname) != 0 || strcmp(m->relname, relname) != 0 ||
			!OidIsValid(m->relid))
			continue;
		c->rel = table_open(m->relid, lockmode);
		c->key = mmr_key_get(c->rel, m->key_index);
		if (c->key == NULL)
			return NULL;
		c->row_cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl compare", ALLOCSET_DEFAULT_SIZES);
		initStringInfo(&c->bytes);
		initStringInfo(&c->keybytes);
		return c;
	}
	return NULL;
}

static Compared *
compared_require(FunctionCallInfo fcinfo, LOCKMODE lockmode)
{
	Compared   *c = compared_open(fcinfo, lockmode);

	if (c == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_SCHEMA),
				 errmsg("table \"%s.%s\" of the sync does not exist here, or has no usable key",
						text_to_cstring(PG_GETARG_TEXT_PP(1)), text_to_cstring(PG_GETARG_TEXT_PP(2)))));
	return c;
}

static List *
text_list(ArrayType *array)
{
	Datum	   *elements;
	int			n;
	List	   *result = NIL;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &n);
	for (int i = 0; i < n; i++)
		result = lappend(result, TextDatumGetCString(elements[i]));
	return result;
}

/* Argument 3: the columns to look at. */
static void
compared_columns(Compared *c, FunctionCallInfo fcinfo)
{
	c->format = mmr_row_format_columns(c->rel, text_list(PG_GETARG_ARRAYTYPE_P(3)), CurrentMemoryContext);
}

/* Key and hash of the row in the slot. */
static uint64
compared_row(Compared *c, TupleTableSlot *slot, uint64 *row_hash)
{
	resetStringInfo(&c->keybytes);
	resetStringInfo(&c->bytes);
	mmr_key_encode(c->key, slot, &c->keybytes);
	mmr_row_encode(c->format, slot, &c->bytes);
	*row_hash = hash_bytes_extended((unsigned char *) c->bytes.data, c->bytes.len, 0);
	return mmr_key_hash_anywhere(c->key, c->keybytes.data, c->keybytes.len);
}

/* Gives every row to the callback, in a memory context that is emptied after each. */
static void
compared_scan(Compared *c, void (*row) (Compared *c, void *arg, uint64 key_hash, uint64 row_hash), void *arg)
{
	TupleTableSlot *slot = table_slot_create(c->rel, NULL);
	TableScanDesc scan = table_beginscan(c->rel, GetActiveSnapshot(), 0, NULL);
	MemoryContext old = MemoryContextSwitchTo(c->row_cxt);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		uint64		row_hash;
		uint64		key_hash = compared_row(c, slot, &row_hash);

		row(c, arg, key_hash, row_hash);
		MemoryContextReset(c->row_cxt);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(old);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

static int
bucket_count(int n)
{
	if (n < 1 || n > MAX_BUCKETS || (n & (n - 1)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of buckets must be a power of two up to %d", MAX_BUCKETS)));
	return n;
}

/*
 * mmrepl._compare_columns(sync_id int4, nspname text, relname text) returns
 * text[]: rows (an estimate), then the columns that can be compared; NULL if
 * the table is not here or has no usable key
 */
Datum
mmrepl_compare_columns(PG_FUNCTION_ARGS)
{
	Compared   *c = compared_open(fcinfo, AccessShareLock);
	ArrayBuildState *result = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	TupleDesc	desc;

	if (c == NULL)
		PG_RETURN_NULL();
	desc = RelationGetDescr(c->rel);
	accumArrayResult(result, CStringGetTextDatum(psprintf("%.0f", Max(0, c->rel->rd_rel->reltuples))),
					 false, TEXTOID, CurrentMemoryContext);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && att->attgenerated == '\0')
			accumArrayResult(result, CStringGetTextDatum(NameStr(att->attname)), false, TEXTOID,
							 CurrentMemoryContext);
	}
	table_close(c->rel, AccessShareLock);
	PG_RETURN_DATUM(makeArrayResult(result, CurrentMemoryContext));
}

/* ---- sums ---- */

typedef struct Digest
{
	int			buckets;
	uint64	   *sums;			/* by bucket: sum, count */
} Digest;

static void
digest_row(Compared *c, void *arg, uint64 key_hash, uint64 row_hash)
{
	Digest	   *d = arg;
	int			bucket = key_hash & (d->buckets - 1);

	(void) c;
	d->sums[2 * bucket] += hash_combine64(key_hash, row_hash);
	d->sums[2 * bucket + 1]++;
}

/*
 * mmrepl._compare_digest(sync_id int4, nspname text, relname text, columns
 * text[], buckets int4) returns int8[]: sum and count of each bucket
 */
Datum
mmrepl_compare_digest(PG_FUNCTION_ARGS)
{
	Compared   *c = compared_require(fcinfo, AccessShareLock);
	Digest		d;
	Datum	   *values;

	compared_columns(c, fcinfo);
	d.buckets = bucket_count(PG_GETARG_INT32(4));
	d.sums = palloc0(sizeof(uint64) * 2 * d.buckets);
	compared_scan(c, digest_row, &d);
	table_close(c->rel, AccessShareLock);
	values = palloc(sizeof(Datum) * 2 * d.buckets);
	for (int i = 0; i < 2 * d.buckets; i++)
		values[i] = Int64GetDatum((int64) d.sums[i]);
	PG_RETURN_DATUM(PointerGetDatum(construct_array(values, 2 * d.buckets, INT8OID, sizeof(int64),
													FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)));
}

/* ---- rows of some buckets ---- */

typedef struct Listing
{
	int			buckets;
	bool	   *wanted;
	ReturnSetInfo *rsinfo;
} Listing;

static void
list_row(Compared *c, void *arg, uint64 key_hash, uint64 row_hash)
{
	Listing    *l = arg;
	Datum		v[2];
	bool		n[2] = {false, false};

	if (!l->wanted[key_hash & (l->buckets - 1)])
		return;
	v[0] = PointerGetDatum(cstring_to_text_with_len(c->keybytes.data, c->keybytes.len));
	v[1] = Int64GetDatum((int64) row_hash);
	tuplestore_putvalues(l->rsinfo->setResult, l->rsinfo->setDesc, v, n);
}

/*
 * mmrepl._compare_rows(sync_id int4, nspname text, relname text, columns
 * text[], buckets int4, wanted int4[]) returns setof (key bytea, hash int8)
 */
Datum
mmrepl_compare_rows(PG_FUNCTION_ARGS)
{
	Compared   *c = compared_require(fcinfo, AccessShareLock);
	Listing		l;
	Datum	   *wanted;
	int			nwanted;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	compared_columns(c, fcinfo);
	l.buckets = bucket_count(PG_GETARG_INT32(4));
	l.wanted = palloc0(l.buckets);
	l.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(5), INT4OID, sizeof(int32), true, TYPALIGN_INT,
					  &wanted, NULL, &nwanted);
	for (int i = 0; i < nwanted; i++)
		l.wanted[DatumGetInt32(wanted[i]) & (l.buckets - 1)] = true;
	compared_scan(c, list_row, &l);
	table_close(c->rel, AccessShareLock);
	return (Datum) 0;
}

/* ---- keys that differ, once more ---- */

static void
search_run(void *arg, int segment, uint64 xid, const char *data, int len)
{
	LogSearch  *s = arg;
	MmrRun		run;
	MmrChange	change;
	MmrHold		hold;

	(void) segment;
	/* what every peer is known to have is on its way to nobody */
	if (mmr_stability_of_run(s->stability, xid, data, len, &hold))
		return;
	mmr_changelog_open_run(&run, xid, data, len);
	while (mmr_changelog_next(&run, &change))
	{
		uint64		hash;
		AskedBucket *bucket;
		ListCell   *lc;

		if (change.relid != s->c->key->relid)
			continue;
		if (change.op == MMR_OP_TRUNCATE)
		{
			s->truncated = true;
			continue;
		}
		hash = mmr_key_hash_anywhere(s->c->key, change.key, change.keylen);
		bucket = hash_search(s->asked, &hash, HASH_FIND, NULL);
		foreach(lc, bucket ? bucket->asked : NIL)
		{
			Asked	   *a = lfirst(lc);

			a->in_flight |= mmr_key_equal(s->c->key, a->key, a->keylen, change.key, change.keylen);
		}
	}
}

/* Are there entries of these keys in the log that some peer may not have yet? */
static void
search_log(Compared *c, Asked *asked, int n)
{
	LogSearch	s = {c, NULL, NULL, false};
	HASHCTL		ctl = {0};
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl compare log", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	MmrPosition *pos = mmr_position_active();

	s.stability = mmr_stability_load();
	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(AskedBucket);
	ctl.hcxt = cxt;
	s.asked = hash_create("mmrepl compare", n + 1, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < n; i++)
	{
		bool		found;
		AskedBucket *bucket = hash_search(s.asked, &asked[i].hash, HASH_ENTER, &found);

		bucket->asked = lappend(found ? bucket->asked : NIL, &asked[i]);
	}
	(void) mmr_logreader_scan(mmr_logreader_create(cxt), GetActiveSnapshot(), pos, search_run, NULL, &s);
	for (int i = 0; i < n; i++)
		asked[i].in_flight |= s.truncated;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* Argument `argno`: keys. */
static Asked *
read_keys(Compared *c, FunctionCallInfo fcinfo, int argno, int *n)
{
	Datum	   *elements;
	Asked	   *asked;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argno), BYTEAOID, -1, false, TYPALIGN_INT, &elements, NULL, n);
	asked = palloc0(sizeof(Asked) * (*n + 1));
	for (int i = 0; i < *n; i++)
	{
		bytea	   *key = DatumGetByteaPP(elements[i]);

		asked[i].key = VARDATA_ANY(key);
		asked[i].keylen = VARSIZE_ANY_EXHDR(key);
		asked[i].hash = mmr_key_hash_anywhere(c->key, asked[i].key, asked[i].keylen);
	}
	return asked;
}

/* The row of that key into the slot. */
static bool
find_row(Compared *c, IndexScanDesc scan, Asked *a, TupleTableSlot *slot)
{
	Datum		values[INDEX_MAX_KEYS];
	MemoryContext old = MemoryContextSwitchTo(c->row_cxt);

	mmr_key_decode(c->key, a->key, a->keylen, values);
	for (int i = 0; i < c->key->ncolumns; i++)
		c->key->scankeys[i].sk_argument = values[i];
	/* the scan remembers things from one look to the next */
	MemoryContextSwitchTo(old);
	index_rescan(scan, c->key->scankeys, c->key->ncolumns, NULL, 0);
	return index_getnext_slot(scan, ForwardScanDirection, slot);
}

/*
 * mmrepl._compare_keys(sync_id int4, nspname text, relname text, columns
 * text[], keys bytea[]) returns setof (hash int8, in_flight bool, set_aside bool):
 * in the order of the keys; hash: NULL if there is no such row
 */
Datum
mmrepl_compare_keys(PG_FUNCTION_ARGS)
{
	Compared   *c = compared_require(fcinfo, AccessShareLock);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			n;
	Asked	   *asked;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	compared_columns(c, fcinfo);
	asked = read_keys(c, fcinfo, 4, &n);
	mmr_setaside_refresh(c->sync);
	/* rows and log as of one snapshot, taken now */
	PushActiveSnapshot(GetLatestSnapshot());
	search_log(c, asked, n);
	index = index_open(c->key->indexid, AccessShareLock);
	slot = table_slot_create(c->rel, NULL);
	scan = index_beginscan(c->rel, index, GetActiveSnapshot(), c->key->ncolumns, 0);
	for (int i = 0; i < n; i++)
	{
		Datum		v[3];
		bool		nulls[3] = {false, false, false};
		uint64		row_hash = 0;

		nulls[0] = !find_row(c, scan, &asked[i], slot);
		if (!nulls[0])
			(void) compared_row(c, slot, &row_hash);
		v[0] = Int64GetDatum((int64) row_hash);
		v[1] = BoolGetDatum(asked[i].in_flight);
		v[2] = BoolGetDatum(mmr_setaside_find(c->key, mmr_key_hash(c->key, asked[i].key, asked[i].keylen),
											  asked[i].key, asked[i].keylen) != NULL);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, nulls);
		ExecClearTuple(slot);
		MemoryContextReset(c->row_cxt);
		CHECK_FOR_INTERRUPTS();
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	PopActiveSnapshot();
	table_close(c->rel, AccessShareLock);
	return (Datum) 0;
}

/* ---- rows written anew ---- */

/*
 * mmrepl._reauthor(sync_id int4, nspname text, relname text, keys bytea[])
 * returns int8: these keys count as written here, now, as they are
 *
 * Under a lock that keeps writers out: a write under way would have an older
 * version, and its row would travel under this one's (C1).
 */
Datum
mmrepl_reauthor(PG_FUNCTION_ARGS)
{
	Compared   *c = compared_require(fcinfo, AccessShareLock);
	int			n;
	Asked	   *asked = read_keys(c, fcinfo, 3, &n);
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;

	if (c->sync->my_role != MMR_ROLE_SOURCE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this db is not a source of sync \"%s\": nothing travels from here", c->sync->name)));
	mmr_locking_acquire(list_make1_oid(RelationGetRelid(c->rel)), ShareRowExclusiveLock);
	(void) GetTopTransactionId();
	mmr_capture_prepare_clock();
	PushActiveSnapshot(GetLatestSnapshot());
	index = index_open(c->key->indexid, AccessShareLock);
	slot = table_slot_create(c->rel, NULL);
	scan = index_beginscan(c->rel, index, GetActiveSnapshot(), c->key->ncolumns, 0);
	for (int i = 0; i < n; i++)
	{
		MmrChange	change = {0};

		change.op = find_row(c, scan, &asked[i], slot) ? MMR_OP_UPDATE : MMR_OP_DELETE;
		change.relid = RelationGetRelid(c->rel);
		change.version.ts = mmr_clock_tick();
		change.key = asked[i].key;
		change.keylen = asked[i].keylen;
		mmr_buffer_add(mmr_membership_my_id(), &change);
		ExecClearTuple(slot);
		MemoryContextReset(c->row_cxt);
		CHECK_FOR_INTERRUPTS();
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	PopActiveSnapshot();
	table_close(c->rel, NoLock);
	PG_RETURN_INT64(n);
}
