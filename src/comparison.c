/*-------------------------------------------------------------------------
 * comparison.c
 *	  Tables of a sync here against those of another db, row by row.
 *
 * Floor 7.
 * Reads and writes through mmrepl._compare_* and _reauthor (comparing.c) on this
 * db and the others, by connections of its own.
 * Runs in client backends.
 *
 * This db is asked like any other, over its own connection string: what is
 * compared is what is committed, under the same settings on both sides.
 *
 * A table is summed up once a side, in buckets; only rows of buckets that
 * differ are listed, so many at a time that memory is bounded; only rows that
 * differ are looked at again, with what the logs know: one that is on its way
 * is no difference yet.
 *
 * Invariant: what is reported without in_flight differed twice, and no log
 * had an entry of it that was still on its way.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "comparison.h"
#include "guc.h"

#define ROWS_PER_BUCKET	256
#define MAX_BUCKETS		65536
/* Rows listed at a time, and keys looked at again at a time. */
#define LIST_ROWS		200000
#define CHECK_KEYS		5000

/* A row that is not the same on both sides. */
typedef struct Suspect
{
	uint64		hash;			/* of the key */
	char	   *key;
	int			keylen;
	int64		row_hash;		/* here */
	bool		met;			/* equal there */
} Suspect;

typedef struct SuspectBucket
{
	uint64		hash;			/* hash key */
	List	   *suspects;
} SuspectBucket;

/* ---- asking a side ---- */

static void
side_open(MmrSide *side, MmrNode *node)
{
	side->node = node;
	side->link = mmr_link_open(node->conninfo, "compare", mmr_guc_connect_timeout);
}

/* Calls a function of comparing.c for the table at hand; arguments behind its name are $4 and so on. */
static PGresult *
ask(MmrComparison *c, MmrSide *side, const char *call, int nargs, const char *const *args)
{
	const char *values[8];

	Assert(nargs <= 5);
	values[0] = psprintf("%d", c->sync->id);
	values[1] = c->member->nspname;
	values[2] = c->member->relname;
	for (int i = 0; i < nargs; i++)
		values[3 + i] = args[i];
	return mmr_link_exec(side->link, call, 3 + nargs, values);
}

/* Columns of the table on that side, names; *rows: about how many rows.  NIL: it is not there. */
static List *
side_columns(MmrComparison *c, MmrSide *side, double *rows)
{
	PGresult   *res = ask(c, side, "SELECT unnest(mmrepl._compare_columns($1::int4, $2, $3))", 0, NULL);
	List	   *result = NIL;

	*rows = PQntuples(res) > 0 ? atof(PQgetvalue(res, 0, 0)) : 0;
	for (int i = 1; i < PQntuples(res); i++)
		result = lappend(result, pstrdup(PQgetvalue(res, i, 0)));
	PQclear(res);
	return result;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

static void
append_element(StringInfo out, const char *text)
{
	appendStringInfoChar(out, out->len > 1 ? ',' : ' ');
	appendStringInfoChar(out, '"');
	for (; *text; text++)
	{
		if (*text == '"' || *text == '\\')
			appendStringInfoChar(out, '\\');
		appendStringInfoChar(out, *text);
	}
	appendStringInfoChar(out, '"');
}

/* The columns that both sides have, sorted by name; false: nothing to compare. */
static bool
settle_columns(MmrComparison *c)
{
	double		rows_here;
	double		rows_there;
	List	   *here = side_columns(c, &c->here, &rows_here);
	List	   *there = side_columns(c, &c->there, &rows_there);
	StringInfoData out;
	ListCell   *lc,
			   *lc2;

	if (here == NIL || there == NIL)
	{
		ereport(WARNING,
				(errmsg("table \"%s.%s\" is not compared with db \"%s\"", c->member->nspname,
						c->member->relname, c->there.node->name),
				 errdetail("On db \"%s\" it does not exist, or has no usable key.",
						   here == NIL ? c->here.node->name : c->there.node->name)));
		return false;
	}
	list_sort(here, compare_names);
	initStringInfo(&out);
	appendStringInfoChar(&out, '{');
	foreach(lc, here)
		foreach(lc2, there)
			if (strcmp(lfirst(lc), lfirst(lc2)) == 0)
				append_element(&out, lfirst(lc));
	appendStringInfoChar(&out, '}');
	c->columns = out.data;
	for (c->buckets = 64; c->buckets < MAX_BUCKETS &&
		 c->buckets < Max(rows_here, rows_there) / ROWS_PER_BUCKET;)
		c->buckets *= 2;
	return true;
}

/* ---- sums ---- */

/* Sum and count of each bucket. */
static int64 *
side_digest(MmrComparison *c, MmrSide *side)
{
	const char *args[2] = {c->columns, psprintf("%d", c->buckets)};
	PGresult   *res = ask(c, side, "SELECT array_to_string(mmrepl._compare_digest($1::int4, $2, $3, $4::text[], $5::int4), ' ')",
						  2, args);
	int64	   *sums = palloc0(sizeof(int64) * 2 * c->buckets);
	char	   *p = PQgetvalue(res, 0, 0);

	for (int i = 0; i < 2 * c->buckets; i++)
		sums[i] = strtoi64(p, &p, 10);
	PQclear(res);
	return sums;
}

/* ---- rows of buckets that differ ---- */

static Suspect *
find_suspect(MmrComparison *c, uint64 hash, const char *key, int keylen)
{
	SuspectBucket *bucket = hash_search(c->rows, &hash, HASH_FIND, NULL);
	ListCell   *lc;

	foreach(lc, bucket ? bucket->suspects : NIL)
	{
		Suspect    *s = lfirst(lc);

		if (mmr_key_equal(c->key, s->key, s->keylen, key, keylen))
			return s;
	}
	return NULL;
}

static Suspect *
add_suspect(MmrComparison *c, uint64 hash, const char *key, int keylen)
{
	Suspect    *s = palloc0(sizeof(Suspect));
	bool		found;
	SuspectBucket *bucket = hash_search(c->rows, &hash, HASH_ENTER, &found);

	s->hash = hash;
	s->keylen = keylen;
	s->key = palloc(keylen + 1);
	memcpy(s->key, key, keylen);
	bucket->suspects = lappend(found ? bucket->suspects : NIL, s);
	c->suspects = lappend(c->suspects, s);
	return s;
}

static bytea *
read_bytea(PGresult *res, int row, int col)
{
	return DatumGetByteaPP(DirectFunctionCall1(byteain, CStringGetDatum(PQgetvalue(res, row, col))));
}

/* Rows of these buckets; what differs stays in c->suspects. */
static void
list_side(MmrComparison *c, MmrSide *side, const char *buckets)
{
	const char *args[3] = {c->columns, psprintf("%d", c->buckets), buckets};
	PGresult   *res = ask(c, side, "SELECT r.key, r.hash FROM mmrepl._compare_rows($1::int4, $2, $3, $4::text[], $5::int4, $6::int4[]) r",
						  3, args);

	for (int i = 0; i < PQntuples(res); i++)
	{
		bytea	   *key = read_bytea(res, i, 0);
		int64		row_hash = pg_strtoint64(PQgetvalue(res, i, 1));
		uint64		hash = mmr_key_hash_anywhere(c->key, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
		Suspect    *s = NULL;

		if (side == &c->there)
			s = find_suspect(c, hash, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
		if (s != NULL)
			s->met = s->row_hash == row_hash;
		else
			add_suspect(c, hash, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key))->row_hash = row_hash;
		pfree(key);
		CHECK_FOR_INTERRUPTS();
	}
	PQclear(res);
}

/* ---- rows that differ, once more ---- */

static void
append_key(StringInfo out, const char *key, int keylen)
{
	appendStringInfoString(out, out->len > 1 ? ",\"\\\\x" : "\"\\\\x");
	enlargeStringInfo(out, 2 * keylen + 1);
	out->len += hex_encode(key, keylen, out->data + out->len);
	out->data[out->len] = '\0';
	appendStringInfoChar(out, '"');
}

/* Looks at the same keys: there, here, and there again. */
enum
{
	BEFORE,
	HERE,
	AFTER,
	LOOKS
};

static bool
same_row(PGresult *a, PGresult *b, int row)
{
	return PQgetisnull(a, row, 0) == PQgetisnull(b, row, 0) &&
		strcmp(PQgetvalue(a, row, 0), PQgetvalue(b, row, 0)) == 0;
}

static void
judge(MmrComparison *c, Suspect *s, PGresult **looks, int row)
{
	bool		in_flight = false;
	bool		set_aside = false;

	if (same_row(looks[HERE], looks[BEFORE], row) || same_row(looks[HERE], looks[AFTER], row))
		return;
	for (int i = 0; i < LOOKS; i++)
	{
		in_flight |= PQgetvalue(looks[i], row, 1)[0] == 't';
		set_aside |= PQgetvalue(looks[i], row, 2)[0] == 't';
	}
	c->finding(c, s->key, s->keylen, PQgetisnull(looks[HERE], row, 0) ? "missing here" :
			   PQgetisnull(looks[AFTER], row, 0) ? "missing there" : "differs", in_flight, set_aside);
}

#define CHECK_SQL \
	"SELECT k.hash, k.in_flight, k.set_aside FROM mmrepl._compare_keys($1::int4, $2, $3, $4::text[], $5::bytea[]) k"

static void
check_suspects(MmrComparison *c, List *suspects)
{
	StringInfoData keys;
	const char *args[2];
	PGresult   *looks[LOOKS];
	ListCell   *lc;

	if (suspects == NIL)
		return;
	initStringInfo(&keys);
	appendStringInfoChar(&keys, '{');
	foreach(lc, suspects)
	{
		Suspect    *s = lfirst(lc);

		append_key(&keys, s->key, s->keylen);
	}
	appendStringInfoChar(&keys, '}');
	args[0] = c->columns;
	args[1] = keys.data;

	/*
	 * Twice there: what was written here before the second look is there by
	 * then or in the log here; what was written there between the two, and
	 * has come here already, the second one sees, too.
	 */
	for (int i = 0; i < LOOKS; i++)
	{
		looks[i] = ask(c, i == HERE ? &c->here : &c->there, CHECK_SQL, 2, args);
		if (PQntuples(looks[i]) != list_length(suspects))
			elog(ERROR, "unexpected answer to a comparison");
	}
	foreach(lc, suspects)
		judge(c, lfirst(lc), looks, foreach_current_index(lc));
	for (int i = 0; i < LOOKS; i++)
		PQclear(looks[i]);
}

static void
compare_buckets(MmrComparison *c, StringInfo buckets)
{
	MemoryContext old = MemoryContextSwitchTo(c->cxt);
	HASHCTL		ctl = {0};
	List	   *chunk = NIL;
	ListCell   *lc;

	ctl.keysize = sizeof(uint64);
	ctl.entrysize = sizeof(SuspectBucket);
	ctl.hcxt = c->cxt;
	c->rows = hash_create("mmrepl compare", 1024, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	c->suspects = NIL;
	appendStringInfoChar(buckets, '}');
	list_side(c, &c->here, buckets->data);
	list_side(c, &c->there, buckets->data);
	foreach(lc, c->suspects)
	{
		Suspect    *s = lfirst(lc);

		if (!s->met)
			chunk = lappend(chunk, s);
		if (list_length(chunk) == CHECK_KEYS)
		{
			check_suspects(c, chunk);
			list_free(chunk);
			chunk = NIL;
		}
	}
	check_suspects(c, chunk);
	MemoryContextSwitchTo(old);
	MemoryContextReset(c->cxt);
	resetStringInfo(buckets);
	appendStringInfoChar(buckets, '{');
}

/* One table here and there. */
static void
compare_table(MmrComparison *c)
{
	int64	   *here;
	int64	   *there;
	StringInfoData buckets;
	int64		rows = 0;

	if (!settle_columns(c))
		return;
	here = side_digest(c, &c->here);
	there = side_digest(c, &c->there);
	initStringInfo(&buckets);
	appendStringInfoChar(&buckets, '{');
	for (int i = 0; i < c->buckets; i++)
	{
		if (here[2 * i] == there[2 * i] && here[2 * i + 1] == there[2 * i + 1])
			continue;
		appendStringInfo(&buckets, "%s%d", buckets.len > 1 ? "," : "", i);
		rows += Max(here[2 * i + 1], there[2 * i + 1]);
		if (rows < LIST_ROWS)
			continue;
		compare_buckets(c, &buckets);
		rows = 0;
	}
	if (buckets.len > 1)
		compare_buckets(c, &buckets);
}

/* Has what was gathered written anew, on the db that is right. */
static void
flush_rewrite(MmrComparison *c)
{
	MmrSide    *side;
	const char *args[1];
	PGresult   *res;

	if (c->nkeys == 0)
		return;
	side = strcmp(c->from, c->here.node->name) == 0 ? &c->here : &c->there;
	appendStringInfoChar(&c->keys, '}');
	args[0] = c->keys.data;
	res = ask(c, side, "SELECT mmrepl._reauthor($1::int4, $2, $3, $4::bytea[])", 1, args);
	c->rewritten += pg_strtoint64(PQgetvalue(res, 0, 0));
	PQclear(res);
	resetStringInfo(&c->keys);
	appendStringInfoChar(&c->keys, '{');
	c->nkeys = 0;
}

void
mmr_comparison_rewrite(MmrComparison *c, const char *key, int keylen)
{
	append_key(&c->keys, key, keylen);
	if (++c->nkeys == CHECK_KEYS)
		flush_rewrite(c);
}

void
mmr_comparison_open(MmrComparison *c, MmrSync *sync, MmrFinding finding, void *arg)
{
	memset(c, 0, sizeof(*c));
	c->sync = sync;
	c->finding = finding;
	c->arg = arg;
	c->cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl compare", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&c->keys);
	appendStringInfoChar(&c->keys, '{');
	side_open(&c->here, mmr_membership_node(mmr_membership_my_id()));
}

void
mmr_comparison_close(MmrComparison *c)
{
	mmr_link_close(c->here.link);
}

void
mmr_comparison_node(MmrComparison *c, MmrNode *node, List *tables)
{
	ListCell   *lc;

	side_open(&c->there, node);
	foreach(lc, tables)
	{
		MmrMember  *member = lfirst(lc);
		Relation	rel = OidIsValid(member->relid) ? try_table_open(member->relid, AccessShareLock) : NULL;

		c->member = member;
		c->key = rel ? mmr_key_get(rel, member->key_index) : NULL;
		if (c->key == NULL)
			ereport(WARNING,
					(errmsg("table \"%s.%s\" is not compared: it does not exist here, or has no usable key",
							member->nspname, member->relname)));
		else
			compare_table(c);
		if (rel != NULL)
			table_close(rel, NoLock);
		flush_rewrite(c);
	}
	mmr_link_close(c->there.link);
}
