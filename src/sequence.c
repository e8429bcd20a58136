/*-------------------------------------------------------------------------
 * sequence.c
 *	  Sequences of a sync interleaved among its dbs.
 *
 * Floor 3.
 * Reads: the configuration by SPI (what this transaction has changed
 * counts), sequences, the greatest value in the columns that own them.
 * Writes: sequences, mmrepl.sequence_state.
 * Runs in: backends that configure, here and at the other end of a link.
 *
 * Invariant: a sequence changes only while it is locked against nextval on
 * every node where it changes, all those locks are held before the first
 * value is read for good, and until the configuring transaction ends.  ALTER
 * SEQUENCE gives it a new file, so what sessions have cached of it is void.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "locking.h"
#include "seqplan.h"
#include "seqvalue.h"
#include "sequence.h"
#include "session.h"

/* The reports of all nodes ($1) as rows. */
#define SQL_REPORTS \
	"pg_catalog.unnest($1::pg_catalog.jsonb[]) AS d(doc), pg_catalog.jsonb_to_recordset(d.doc)" \
	" AS x(n text, r text, up bool, used int8, rows int8, interleave bool, changing bool)"

/* A sequence that has to be interleaved while a db of its sync is not among $2. */
static const char *const sql_away =
"SELECT x.n, x.r, b.name FROM " SQL_REPORTS
" JOIN (" MMR_SEQPLAN_SQL ") i ON i.nspname = x.n AND i.relname = x.r"
" JOIN mmrepl.db b ON b.node_id = i.node_id"
" WHERE x.changing AND x.interleave AND NOT i.node_id = ANY ($2) LIMIT 1";

static const char *const sql_directions =
"SELECT x.n, x.r FROM " SQL_REPORTS
" GROUP BY 1, 2 HAVING bool_or(x.up) <> bool_and(x.up) LIMIT 1";

/* The last value used on any side: by the sequences, and in the rows too. */
static const char *const sql_merge =
"SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('n', m.n, 'r', m.r,"
" 'used', CASE WHEN m.up THEN m.used_max ELSE m.used_min END,"
" 'rows', CASE WHEN m.up THEN m.rows_max ELSE m.rows_min END)), '[]')::text"
" FROM (SELECT x.n, x.r, bool_or(x.up) AS up, max(x.used) AS used_max, min(x.used) AS used_min,"
" max(x.rows) AS rows_max, min(x.rows) AS rows_min FROM " SQL_REPORTS " GROUP BY 1, 2) m";

static const char *const sql_floors =
"SELECT x.n, x.r, x.used, x.rows FROM pg_catalog.jsonb_to_recordset($1::pg_catalog.jsonb)"
" AS x(n text, r text, used int8, rows int8)";

/* Last value used: by the sequence, and (rows) in the column it fills. */
typedef struct SeqUsed
{
	char	   *nspname;
	char	   *relname;
	int64		used;
	int64		rows;
	bool		has_rows;
} SeqUsed;

PG_FUNCTION_INFO_V1(mmrepl_sequence_collect);
PG_FUNCTION_INFO_V1(mmrepl_sequence_apply);
PG_FUNCTION_INFO_V1(mmrepl_sequence_problem);

static char *sequence_collect(void);
static void sequence_apply(const char *floors, bool restore_all);
static List *sequence_lock(List *items, bool keep);
static void sequence_used(const MmrSeqPlan *item, SeqUsed *used);
static bool sequence_rows(const MmrSeqPlan *item, int64 *value);
static bool sequence_has_index(Oid relid, AttrNumber attnum);
static List *sequence_floors(const char *floors);
static bool sequence_next(const MmrSeqPlan *item, int64 used, int64 *next);
static void sequence_alter(const MmrSeqPlan *item, int64 next, bool exhausted);
static void sequence_change(MmrSeqPlan *item, const SeqUsed *floor);
static void sequence_note(const MmrSeqPlan *item);
static char *sequence_merge(List *reports, List *node_ids);

/* ---- what others call ---- */

void
mmr_sequence_settle(List *links, List *node_ids)
{
	List	   *reports = list_make1(sequence_collect());
	char	   *floors;
	ListCell   *lc;

	foreach(lc, links)
	{
		PGresult   *res = mmr_link_exec(lfirst(lc), "SELECT mmrepl._sequence_collect()", 0, NULL);

		reports = lappend(reports, pstrdup(PQgetvalue(res, 0, 0)));
		PQclear(res);
	}
	floors = sequence_merge(reports, node_ids);

	foreach(lc, links)
	{
		const char *values[1] = {floors};

		PQclear(mmr_link_exec(lfirst(lc), "SELECT mmrepl._sequence_apply($1)", 1, values));
	}
	sequence_apply(floors, false);
}

void
mmr_sequence_reconcile(void)
{
	sequence_apply("[]", false);
}

void
mmr_sequence_restore_all(void)
{
	sequence_apply("[]", true);
}

void
mmr_sequence_probe(void)
{
	MmrSession	save;

	if (!mmr_session_become_owner(&save))
		return;
	(void) sequence_lock(mmr_seqplan_make(false), false);
	mmr_session_restore(&save);
}

const char *
mmr_sequence_problem(const char *nspname, const char *relname)
{
	MmrSession	save;
	const char *problem = NULL;
	ListCell   *lc;

	if (!mmr_session_become_owner(&save))
		return NULL;
	foreach(lc, mmr_seqplan_make(false))
	{
		MmrSeqPlan    *item = lfirst(lc);

		if (strcmp(item->nspname, nspname) == 0 && strcmp(item->relname, relname) == 0)
			problem = OidIsValid(item->relid) ? mmr_seqplan_difference(item) : "missing";
	}
	mmr_session_restore(&save);
	return problem;
}

/* ---- first half: lock what has to change, report what was used ---- */

static char *
sequence_collect(void)
{
	MmrSession	save;
	StringInfoData out;
	List	   *items;
	List	   *changing;
	ListCell   *lc;

	initStringInfo(&out);
	appendStringInfoChar(&out, '[');
	if (!mmr_session_become_owner(&save))
		return pstrdup("[]");
	items = mmr_seqplan_make(false);
	changing = sequence_lock(items, true);
	foreach(lc, items)
	{
		MmrSeqPlan    *item = lfirst(lc);
		SeqUsed		used;

		if (!OidIsValid(item->relid))
			continue;
		sequence_used(item, &used);
		if (out.len > 1)
			appendStringInfoChar(&out, ',');
		appendStringInfoString(&out, "{\"n\":");
		escape_json(&out, item->nspname);
		appendStringInfoString(&out, ",\"r\":");
		escape_json(&out, item->relname);
		appendStringInfo(&out, ",\"up\":%s,\"used\":" INT64_FORMAT,
						 item->now.seqincrement > 0 ? "true" : "false", used.used);
		if (used.has_rows)
			appendStringInfo(&out, ",\"rows\":" INT64_FORMAT, used.rows);
		appendStringInfo(&out, ",\"interleave\":%s,\"changing\":%s}",
						 item->wanted ? "true" : "false",
						 list_member_ptr(changing, item) ? "true" : "false");
	}
	appendStringInfoChar(&out, ']');
	mmr_session_restore(&save);
	return out.data;
}

/* Locks the sequences that have to change (only looks whether it can, without keep), and gives them. */
static List *
sequence_lock(List *items, bool keep)
{
	List	   *changing = NIL;
	List	   *relids = NIL;
	ListCell   *lc;

	foreach(lc, items)
	{
		MmrSeqPlan    *item = lfirst(lc);

		if (OidIsValid(item->relid) &&
			(!item->wanted || mmr_seqplan_difference(item) != NULL))
		{
			changing = lappend(changing, item);
			relids = lappend_oid(relids, item->relid);
		}
	}
	if (keep)
		mmr_locking_acquire(relids, ShareRowExclusiveLock);
	else
		mmr_locking_probe(relids, ShareRowExclusiveLock);
	return changing;
}

static void
sequence_used(const MmrSeqPlan *item, SeqUsed *used)
{
	bool		up = item->now.seqincrement > 0;
	bool		called;

	used->nspname = item->nspname;
	used->relname = item->relname;
	if (!mmr_seqvalue_read(item->relid, &used->used, &called))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("sequence %s does not exist", item->name)));

	/* one that was never used has not used the value before its first either */
	if (!called && used->used != (up ? PG_INT64_MIN : PG_INT64_MAX))
		used->used += up ? -1 : 1;
	used->has_rows = sequence_rows(item, &used->rows);
}

/*
 * The greatest (descending: least) value in the column that owns the
 * sequence, where an index gives it at once.  Rows may be ahead of their
 * sequence: inserted with explicit values, loaded, or left by a db that has gone.
 */
static bool
sequence_rows(const MmrSeqPlan *item, int64 *value)
{
	Oid			table;
	int32		attnum;
	char	   *attname;
	Oid			type;
	bool		isnull = true;
	char	   *sql;

	if (!sequenceIsOwned(item->relid, DEPENDENCY_AUTO, &table, &attnum) &&
		!sequenceIsOwned(item->relid, DEPENDENCY_INTERNAL, &table, &attnum))
		return false;
	attname = get_attname(table, (AttrNumber) attnum, true);
	type = attname ? get_atttype(table, (AttrNumber) attnum) : InvalidOid;
	if ((type != INT2OID && type != INT4OID && type != INT8OID) ||
		!sequence_has_index(table, (AttrNumber) attnum))
		return false;

	sql = psprintf("SELECT %s(%s)::int8 FROM %s", item->now.seqincrement > 0 ? "max" : "min",
				   quote_identifier(attname),
				   quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
											  get_rel_name(table)));
	SPI_connect();
	if (SPI_execute(sql, false, 1) == SPI_OK_SELECT && SPI_processed == 1)
		*value = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return !isnull;
}

static bool
sequence_has_index(Oid relid, AttrNumber attnum)
{
	Relation	rel = table_open(relid, AccessShareLock);
	ListCell   *lc;
	bool		found = false;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		found = found || (index->rd_index->indisvalid &&
						  index->rd_rel->relam == BTREE_AM_OID &&
						  index->rd_index->indkey.values[0] == attnum &&
						  RelationGetIndexPredicate(index) == NIL);
		index_close(index, AccessShareLock);
	}
	table_close(rel, AccessShareLock);
	return found;
}

/* ---- between the halves: all reports become one ---- */

static char *
sequence_merge(List *reports, List *node_ids)
{
	MmrSession	save;
	MemoryContext context = CurrentMemoryContext;
	Datum	   *docs = palloc(sizeof(Datum) * list_length(reports));
	Datum	   *ids = palloc(sizeof(Datum) * (list_length(node_ids) + 1));
	Oid			types[2] = {TEXTARRAYOID, INT4ARRAYOID};
	Datum		args[2];
	int			ndocs = 0;
	int			nids = 0;
	ListCell   *lc;
	char	   *merged;
	SPITupleTable *t;

	if (!mmr_session_become_owner(&save))
		return pstrdup("[]");
	foreach(lc, reports)
		docs[ndocs++] = CStringGetTextDatum((char *) lfirst(lc));
	SPI_connect();
	if (SPI_execute("SELECT node_id FROM mmrepl.local_node WHERE node_id IS NOT NULL", false, 1) == SPI_OK_SELECT &&
		SPI_processed == 1)
	{
		bool		isnull;

		ids[nids++] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	}
	foreach(lc, node_ids)
		ids[nids++] = Int32GetDatum(lfirst_int(lc));
	args[0] = PointerGetDatum(construct_array(docs, ndocs, TEXTOID, -1, false, TYPALIGN_INT));
	args[1] = PointerGetDatum(construct_array(ids, nids, INT4OID, 4, true, TYPALIGN_INT));

	if (SPI_execute_with_args(sql_away, 2, types, args, NULL, false, 1) == SPI_OK_SELECT && SPI_processed > 0)
	{
		t = SPI_tuptable;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot interleave sequence \"%s.%s\" while db \"%s\" is away",
						SPI_getvalue(t->vals[0], t->tupdesc, 1), SPI_getvalue(t->vals[0], t->tupdesc, 2),
						SPI_getvalue(t->vals[0], t->tupdesc, 3)),
				 errdetail("Nobody knows which values it draws."),
				 errhint("Try again when it can be reached, or take it out with mmrepl.remove_db().")));
	}
	if (SPI_execute_with_args(sql_directions, 1, types, args, NULL, false, 1) == SPI_OK_SELECT && SPI_processed > 0)
	{
		t = SPI_tuptable;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sequence \"%s.%s\" ascends on one db and descends on another",
						SPI_getvalue(t->vals[0], t->tupdesc, 1), SPI_getvalue(t->vals[0], t->tupdesc, 2)),
				 errhint("Give it the same sign of INCREMENT on all of them with ALTER SEQUENCE.")));
	}
	if (SPI_execute_with_args(sql_merge, 1, types, args, NULL, false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "merging the reports on sequences failed");
	merged = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	SPI_finish();
	mmr_session_restore(&save);
	return merged;
}

/* ---- second half: set ---- */

static void
sequence_apply(const char *floors, bool restore_all)
{
	MmrSession	save;
	List	   *known;
	List	   *items;
	ListCell   *lc;

	if (!mmr_session_become_owner(&save))
		return;
	known = sequence_floors(floors);
	items = mmr_seqplan_make(restore_all);
	foreach(lc, items)
	{
		MmrSeqPlan *item = lfirst(lc);

		if (OidIsValid(item->relid))
			continue;
		if (!item->wanted)
			sequence_note(item);	/* dropped: nothing to restore */
		else
			ereport(WARNING,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("sequence %s does not exist here", item->name)));
	}
	foreach(lc, sequence_lock(items, true))
	{
		MmrSeqPlan    *item = lfirst(lc);
		SeqUsed		floor;
		ListCell   *lc2;
		bool		up = item->now.seqincrement > 0;

		sequence_used(item, &floor);
		foreach(lc2, known)
		{
			SeqUsed    *other = lfirst(lc2);

			if (strcmp(other->nspname, item->nspname) != 0 ||
				strcmp(other->relname, item->relname) != 0)
				continue;
			if (up ? other->used > floor.used : other->used < floor.used)
				floor.used = other->used;
			if (other->has_rows &&
				(!floor.has_rows || (up ? other->rows > floor.rows : other->rows < floor.rows)))
			{
				floor.rows = other->rows;
				floor.has_rows = true;
			}
		}
		sequence_change(item, &floor);
	}
	mmr_session_restore(&save);
}

static List *
sequence_floors(const char *floors)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[1] = {TEXTOID};
	Datum		args[1] = {CStringGetTextDatum(floors)};
	List	   *result = NIL;

	SPI_connect();
	if (SPI_execute_with_args(sql_floors, 1, types, args, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "reading the report on sequences failed");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(context);
		SeqUsed    *u = palloc0(sizeof(SeqUsed));
		char	   *n = SPI_getvalue(row, desc, 1);
		char	   *r = SPI_getvalue(row, desc, 2);
		bool		isnull;

		u->used = DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
		if (n != NULL && r != NULL && !isnull)
		{
			u->nspname = pstrdup(n);
			u->relname = pstrdup(r);
			u->rows = DatumGetInt64(SPI_getbinval(row, desc, 4, &isnull));
			u->has_rows = !isnull;
			result = lappend(result, u);
		}
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return result;
}

/* Sets one sequence, which is locked, to what it must be, beyond all that was used. */
static void
sequence_change(MmrSeqPlan *item, const SeqUsed *floor)
{
	bool		up = item->now.seqincrement > 0;
	int64		beyond = floor->used;
	int64		next;
	bool		found;

	if (floor->has_rows && (up ? floor->rows > beyond : floor->rows < beyond))
		beyond = floor->rows;
	found = sequence_next(item, beyond, &next);
	/* a row at the very end of the range must not be the end of the sequence */
	if (!found && beyond != floor->used)
		found = sequence_next(item, floor->used, &next);
	if (!found && item->now.seqcycle)
	{
		next = up ? item->then.seqmin : item->then.seqmax;
		found = true;
	}
	if (!found && item->wanted)
		mmr_seqplan_raise_room(item, beyond);
	if (!found)
		next = up ? item->then.seqmax : item->then.seqmin;
	sequence_alter(item, next, !found);
	sequence_note(item);
}

/* First value beyond `used` that is in our slot and within the limits. */
static bool
sequence_next(const MmrSeqPlan *item, int64 used, int64 *next)
{
	bool		up = item->then.seqincrement > 0;
	int64		from;

	if (up ? pg_add_s64_overflow(used, 1, &from) : pg_sub_s64_overflow(used, 1, &from))
		return false;
	from = up ? Max(from, item->then.seqmin) : Min(from, item->then.seqmax);
	if (!mmr_seqplan_align(up, from, item->step, item->slot, next))
		return false;
	return *next >= item->then.seqmin && *next <= item->then.seqmax;
}

static void
sequence_alter(const MmrSeqPlan *item, int64 next, bool exhausted)
{
	char	   *sql = psprintf("ALTER SEQUENCE %s INCREMENT BY " INT64_FORMAT " MINVALUE " INT64_FORMAT
							   " MAXVALUE " INT64_FORMAT " START WITH " INT64_FORMAT
							   " RESTART WITH " INT64_FORMAT,
							   item->name, item->then.seqincrement, item->then.seqmin,
							   item->then.seqmax, item->then.seqstart, next);

	SPI_connect();
	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "ALTER SEQUENCE failed");
	if (exhausted)
	{
		sql = psprintf("SELECT pg_catalog.setval(%u, " INT64_FORMAT ", true)", item->relid, next);
		if (SPI_execute(sql, false, 0) != SPI_OK_SELECT)
			elog(ERROR, "setval failed");
	}
	SPI_finish();
	CommandCounterIncrement();
}

/* Keeps what the sequence was, or forgets it. */
static void
sequence_note(const MmrSeqPlan *item)
{
	Oid			types[6] = {TEXTOID, TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID};
	Datum		args[6] = {CStringGetTextDatum(item->nspname), CStringGetTextDatum(item->relname),
		Int64GetDatum(item->now.seqincrement), Int64GetDatum(item->now.seqstart),
	Int64GetDatum(item->now.seqmin), Int64GetDatum(item->now.seqmax)};

	if (item->wanted && item->has_state)
		return;
	SPI_connect();
	if (item->wanted)
		SPI_execute_with_args("INSERT INTO mmrepl.sequence_state"
							  " (nspname, relname, old_increment, old_start, old_min, old_max)"
							  " VALUES ($1::name, $2::name, $3, $4, $5, $6)",
							  6, types, args, NULL, false, 0);
	else
		SPI_execute_with_args("DELETE FROM mmrepl.sequence_state WHERE nspname = $1::name AND relname = $2::name",
							  2, types, args, NULL, false, 0);
	SPI_finish();
}

/* ---- SQL, for other nodes ---- */

/* mmrepl._sequence_collect() */
Datum
mmrepl_sequence_collect(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(sequence_collect()));
}

/* mmrepl._sequence_apply(floors text) */
Datum
mmrepl_sequence_apply(PG_FUNCTION_ARGS)
{
	sequence_apply(text_to_cstring(PG_GETARG_TEXT_PP(0)), false);
	PG_RETURN_VOID();
}

/* mmrepl._sequence_problem(nspname name, relname name) */
Datum
mmrepl_sequence_problem(PG_FUNCTION_ARGS)
{
	const char *problem = mmr_sequence_problem(NameStr(*PG_GETARG_NAME(0)),
											   NameStr(*PG_GETARG_NAME(1)));

	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}
