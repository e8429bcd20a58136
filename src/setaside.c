/*-------------------------------------------------------------------------
 * setaside.c
 *	  Keys whose state from a peer could not be applied here (A11).
 *
 * Floor 4.  Reads and writes mmrepl.apply_error_log.  Runs in apply backends,
 * in pushers (which must not answer for a key that they lack themselves), and
 * in the functions by which operators retry and discard.
 *
 * The version set aside is not put into the change log: what the log holds of a
 * key is what is in the table here, and travels as such.  Here it is kept for
 * as long as the error stands, however long the log has forgotten it:
 * anything older that comes for the key loses.
 *
 * Invariant: a row of the table goes only in the transaction that applies, or
 * finds here, a state of the key that is not older, or by an operator.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "conflict_log.h"
#include "guc.h"
#include "session.h"
#include "setaside.h"
#include "shared.h"

/* The pause before the next try doubles so many times. */
#define MAX_DOUBLINGS	"6"

static const char *const LOAD_SQL =
"SELECT id, sync_id, source_node, relid, key, ts, node, rank, level, settled_node, dot_node, dot_xid"
" FROM mmrepl.apply_error_log ORDER BY id";

/* Of a key's states only the newest is kept. $21: seconds before the next try. */
static const char *const PUT_SQL =
"INSERT INTO mmrepl.apply_error_log AS e (sync_id, source_node, relid, nspname, relname, key, shown_key, op,"
" ts, node, rank, level, settled_node, dot_node, dot_xid, row, sqlstate, message, detail, constraint_name,"
" context, next_at)"
" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $22,"
" pg_catalog.clock_timestamp() + $21 * interval '1 second')"
" ON CONFLICT (relid, pg_catalog.sha256(key)) DO UPDATE SET"
" sync_id = excluded.sync_id, source_node = excluded.source_node, nspname = excluded.nspname,"
" relname = excluded.relname,"
" op = CASE WHEN (excluded.ts, excluded.node, excluded.rank) = (e.ts, e.node, e.rank) THEN e.op ELSE excluded.op END, ts = excluded.ts, node = excluded.node, rank = excluded.rank,"
" level = excluded.level, settled_node = excluded.settled_node, dot_node = excluded.dot_node,"
" dot_xid = excluded.dot_xid, row = excluded.row, sqlstate = excluded.sqlstate, message = excluded.message,"
" detail = excluded.detail, constraint_name = excluded.constraint_name, context = excluded.context,"
" last_at = excluded.last_at, tries = e.tries + 1, next_at = pg_catalog.clock_timestamp()"
"  + $21 * 2 ^ least(e.tries, " MAX_DOUBLINGS ") * interval '1 second'"
" WHERE (excluded.ts, excluded.node, excluded.rank) >= (e.ts, e.node, e.rank)"
" RETURNING id";

static const char *const RESOLVE_SQL =
"DELETE FROM mmrepl.apply_error_log WHERE id = $1 AND (ts, node, rank) <= ($2, $3, $4)";

static const char *const DUE_SQL =
"UPDATE mmrepl.apply_error_log SET next_at = pg_catalog.clock_timestamp()"
" + $2 * 2 ^ least(tries, " MAX_DOUBLINGS ") * interval '1 second'"
" WHERE id IN (SELECT id FROM mmrepl.apply_error_log WHERE id = ANY ($1)"
"  AND next_at <= pg_catalog.clock_timestamp() ORDER BY next_at LIMIT $3) RETURNING id";

typedef struct Bucket
{
	uint64		hash;			/* hash key */
	List	   *standing;
} Bucket;

static struct
{
	MemoryContext cxt;
	HTAB	   *buckets;
	List	   *all;			/* MmrStanding */
	int32		sync_id;		/* 0: nothing read yet, or what was read may be wrong */
	uint64		generation;		/* of the table, as shared memory counts it */
	uint64		keys;			/* of the key cache */
	bool		touched;		/* by this transaction */
	bool		callback;
}			memory;

/* ---- statements, with the owner's rights ---- */

static uint64
run(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	int			rc = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);

	if (rc < 0)
		elog(ERROR, "mmrepl.apply_error_log: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

static void
begin(MmrSession *save)
{
	if (!mmr_session_become_owner(save))
		mmr_catalog_require();
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

static void
end(MmrSession *save)
{
	SPI_finish();
	PopActiveSnapshot();
	mmr_session_restore(save);
}

static uint64
run_alone(const char *sql, int nargs, Oid *types, Datum *values)
{
	MmrSession	save;
	uint64		n;

	begin(&save);
	n = run(sql, nargs, types, values, NULL);
	end(&save);
	return n;
}

/* ---- memory ---- */

static void
at_xact_end(XactEvent event, void *arg)
{
	MmrDatabase *db;

	if (!memory.touched || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	memory.touched = false;
	memory.sync_id = 0;
	db = mmr_shared_database();
	if (event == XACT_EVENT_COMMIT && db != NULL)
		pg_atomic_fetch_add_u64(&db->errors, 1);
}

void
mmr_setaside_changed(void)
{
	if (!memory.callback)
		RegisterXactCallback(at_xact_end, NULL);
	memory.callback = true;
	/* an entry of its own, made now if there is none: nothing is allocated at the end */
	(void) mmr_shared_database();
	memory.touched = true;
}

static void
memory_reset(void)
{
	HASHCTL		ctl = {0};

	if (memory.cxt == NULL)
		memory.cxt = AllocSetContextCreate(TopMemoryContext, "mmrepl set aside", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(memory.cxt);
	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(Bucket);
	ctl.hcxt = memory.cxt;
	memory.buckets = hash_create("mmrepl set aside", 32, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	memory.all = NIL;
}

static void
memory_add(const MmrStanding *standing)
{
	MemoryContext old = MemoryContextSwitchTo(memory.cxt);
	MmrStanding *s = palloc(sizeof(MmrStanding));
	char	   *key = palloc(standing->keylen + 1);
	bool		found;
	Bucket	   *bucket = hash_search(memory.buckets, &standing->hash, HASH_ENTER, &found);

	*s = *standing;
	memcpy(key, standing->key, standing->keylen);
	s->key = key;
	bucket->standing = lappend(found ? bucket->standing : NIL, s);
	memory.all = lappend(memory.all, s);
	MemoryContextSwitchTo(old);
}

/* The key of a member; NULL if it is none, or has no usable one. */
static MmrKey *
member_key(MmrSync *sync, Oid relid)
{
	MmrMember  *member = mmr_membership_table(sync, relid);
	Relation	rel;
	MmrKey	   *key;

	if (member == NULL || (rel = try_table_open(relid, AccessShareLock)) == NULL)
		return NULL;
	key = mmr_key_get(rel, member->key_index);
	table_close(rel, AccessShareLock);
	return key;
}

static Datum
get(uint64 row, int col)
{
	bool		isnull;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col, &isnull);
}

static void
load_row(MmrSync *sync, uint64 row)
{
	MmrStanding s = {0};
	bytea	   *key = DatumGetByteaPP(get(row, 5));
	MmrKey	   *table_key;

	s.relid = DatumGetObjectId(get(row, 4));
	table_key = member_key(sync, s.relid);
	if (table_key == NULL)
		return;
	s.id = DatumGetInt64(get(row, 1));
	s.sync_id = DatumGetInt32(get(row, 2));
	s.source_node = DatumGetInt32(get(row, 3));
	s.key = VARDATA_ANY(key);
	s.keylen = VARSIZE_ANY_EXHDR(key);
	s.version.ts = DatumGetInt64(get(row, 6));
	s.version.node = DatumGetInt32(get(row, 7));
	s.version.rank = DatumGetInt32(get(row, 8));
	s.settled.level = (uint8) DatumGetInt32(get(row, 9));
	s.settled.node = DatumGetInt32(get(row, 10));
	s.dot.node = DatumGetInt32(get(row, 11));
	s.dot.xid = (uint64) DatumGetInt64(get(row, 12));
	s.hash = mmr_key_hash(table_key, s.key, s.keylen);
	memory_add(&s);
}

void
mmr_setaside_refresh(MmrSync *sync)
{
	MmrDatabase *db = mmr_shared_database();
	uint64		generation = db ? pg_atomic_read_u64(&db->errors) : 0;
	MmrSession	save;

	if (memory.sync_id == sync->id && memory.generation == generation && db != NULL &&
		(memory.all == NIL || memory.keys == mmr_key_generation()))
		return;
	memory.sync_id = 0;
	memory_reset();
	begin(&save);
	(void) run(LOAD_SQL, 0, NULL, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
		load_row(sync, i);
	end(&save);
	memory.generation = generation;
	memory.keys = mmr_key_generation();
	memory.sync_id = sync->id;
}

bool
mmr_setaside_none(void)
{
	return memory.all == NIL;
}

int
mmr_setaside_count(void)
{
	ListCell   *lc;
	int			n = 0;

	foreach(lc, memory.all)
		n += !((MmrStanding *) lfirst(lc))->gone;
	return n;
}

MmrStanding *
mmr_setaside_find(MmrKey *key, uint64 hash, const char *data, int len)
{
	Bucket	   *bucket;
	ListCell   *lc;

	if (memory.all == NIL)
		return NULL;
	bucket = hash_search(memory.buckets, &hash, HASH_FIND, NULL);
	foreach(lc, bucket != NULL ? bucket->standing : NIL)
	{
		MmrStanding *s = lfirst(lc);

		if (!s->gone && s->relid == key->relid && mmr_key_equal(key, s->key, s->keylen, data, len))
			return s;
	}
	return NULL;
}

bool
mmr_setaside_of_table(Oid relid)
{
	ListCell   *lc;

	foreach(lc, memory.all)
	{
		MmrStanding *s = lfirst(lc);

		if (!s->gone && s->relid == relid)
			return true;
	}
	return false;
}

bool
mmr_setaside_orphaned(MmrSync *sync, int32 node)
{
	MmrSyncNode *part = mmr_membership_sync_node(sync, node);

	return part == NULL || part->role != MMR_ROLE_SOURCE;
}

List *
mmr_setaside_of(MmrSync *sync, int32 source)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, memory.all)
	{
		MmrStanding *s = lfirst(lc);

		if (!s->gone && s->sync_id == sync->id &&
			(s->source_node == source || mmr_setaside_orphaned(sync, s->source_node)))
			result = lappend(result, s);
	}
	return result;
}

/* ---- writing ---- */

#define NPUT	22

static void
put_values(const MmrSetAside *s, Datum *v, char *n)
{
	const MmrChange *c = s->change;
	const ErrorData *e = s->error;
	Datum		key[INDEX_MAX_KEYS];

	memset(n, ' ', NPUT);
	v[0] = Int32GetDatum(s->sync_id);
	v[1] = Int32GetDatum(s->source_node);
	v[2] = ObjectIdGetDatum(RelationGetRelid(s->rel));
	v[3] = CStringGetTextDatum(get_namespace_name(RelationGetNamespace(s->rel)));
	v[4] = CStringGetTextDatum(RelationGetRelationName(s->rel));
	v[5] = PointerGetDatum(cstring_to_text_with_len(c->key, c->keylen));
	mmr_key_decode(s->table_key, c->key, c->keylen, key);
	v[6] = mmr_conflict_log_key(s->table_key, key);
	v[7] = Int32GetDatum(c->op);
	v[8] = Int64GetDatum(c->version.ts);
	v[9] = Int32GetDatum(c->version.node);
	v[10] = Int32GetDatum(c->version.rank);
	v[11] = Int32GetDatum(c->settled.level);
	v[12] = Int32GetDatum(c->settled.node);
	v[13] = Int32GetDatum(c->dot.node);
	v[14] = Int64GetDatum((int64) c->dot.xid);
	n[15] = s->row ? ' ' : 'n';
	v[15] = s->row ? mmr_conflict_log_jsonb(s->row) : (Datum) 0;
	v[16] = CStringGetTextDatum(unpack_sql_state(e->sqlerrcode));
	v[17] = CStringGetTextDatum(e->message ? e->message : "");
	n[18] = e->detail ? ' ' : 'n';
	v[18] = e->detail ? CStringGetTextDatum(e->detail) : (Datum) 0;
	n[19] = e->constraint_name ? ' ' : 'n';
	v[19] = e->constraint_name ? CStringGetTextDatum(e->constraint_name) : (Datum) 0;
	v[20] = Float8GetDatum(mmr_guc_restart_delay / 1000.0);
	n[21] = e->context ? ' ' : 'n';
	v[21] = e->context ? CStringGetTextDatum(e->context) : (Datum) 0;
}

void
mmr_setaside_put(const MmrSetAside *s)
{
	Oid			types[NPUT] = {INT4OID, INT4OID, OIDOID, TEXTOID, TEXTOID, BYTEAOID, JSONBOID, INT4OID,
		INT8OID, INT4OID, INT4OID, INT4OID, INT4OID, INT4OID, INT8OID, JSONBOID, TEXTOID, TEXTOID,
	TEXTOID, TEXTOID, FLOAT8OID, TEXTOID};
	Datum		v[NPUT];
	char		n[NPUT];
	MmrSession	save;
	MmrStanding *known = mmr_setaside_find(s->table_key, s->hash, s->change->key, s->change->keylen);
	MmrStanding now = {0};

	put_values(s, v, n);
	/* the key as it was written down first: it may have more than one spelling */
	if (known != NULL)
		v[5] = PointerGetDatum(cstring_to_text_with_len(known->key, known->keylen));
	mmr_setaside_changed();
	begin(&save);
	if (run(PUT_SQL, NPUT, types, v, n) > 0)
		now.id = DatumGetInt64(get(0, 1));
	end(&save);
	/* nothing was written: another session has set a newer state of the key aside */
	if (now.id == 0)
		return;
	if (known != NULL)
		known->gone = true;
	now.sync_id = s->sync_id;
	now.source_node = s->source_node;
	now.relid = s->table_key->relid;
	now.hash = s->hash;
	now.key = s->change->key;
	now.keylen = s->change->keylen;
	now.version = s->change->version;
	now.dot = s->change->dot;
	now.settled = s->change->settled;
	memory_add(&now);
}

void
mmr_setaside_resolve(MmrStanding *s)
{
	Oid			types[4] = {INT8OID, INT8OID, INT4OID, INT4OID};
	Datum		v[4];

	v[0] = Int64GetDatum(s->id);
	v[1] = Int64GetDatum(s->version.ts);
	v[2] = Int32GetDatum(s->version.node);
	v[3] = Int32GetDatum(s->version.rank);
	mmr_setaside_changed();
	(void) run_alone(RESOLVE_SQL, 4, types, v);
	s->gone = true;
}

List *
mmr_setaside_take_due(List *standing, int limit)
{
	Oid			types[3] = {INT8ARRAYOID, FLOAT8OID, INT4OID};
	Datum	   *ids = palloc(sizeof(Datum) * (list_length(standing) + 1));
	Datum		v[3];
	List	   *due = NIL;
	ListCell   *lc;
	MemoryContext caller = CurrentMemoryContext;
	MmrSession	save;

	if (standing == NIL)
		return NIL;
	foreach(lc, standing)
		ids[foreach_current_index(lc)] = Int64GetDatum(((MmrStanding *) lfirst(lc))->id);
	v[0] = PointerGetDatum(construct_array(ids, list_length(standing), INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	v[1] = Float8GetDatum(mmr_guc_restart_delay / 1000.0);
	v[2] = Int32GetDatum(limit);
	begin(&save);
	(void) run(DUE_SQL, 3, types, v, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int64		id = DatumGetInt64(get(i, 1));
		MemoryContext old = MemoryContextSwitchTo(caller);

		foreach(lc, standing)
			if (((MmrStanding *) lfirst(lc))->id == id)
				due = lappend(due, lfirst(lc));
		MemoryContextSwitchTo(old);
	}
	end(&save);
	return due;
}
