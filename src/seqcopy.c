/*-------------------------------------------------------------------------
 * seqcopy.c
 *	  Sequences of a sync in copy mode: the highest value wins.
 *
 * Floor 2.
 * Reads: the configuration, sequences.  Writes: sequences.
 * Runs in: pushers (values), backends that peers have opened (advance).
 *
 * Invariant: a value is never moved against the sequence's direction; so
 * values may arrive twice, late, or in any order.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_sequence.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "seqcopy.h"
#include "seqvalue.h"
#include "session.h"
#include "shared.h"
#include "wire.h"

#define SEQCOPY_ALL_MS	60000	/* all values are given again so often */

/* Sequences of sync $1 that are in copy mode. */
static const char *const sql_members =
"SELECT r.nspname::text, r.relname::text"
" FROM mmrepl.sync s JOIN mmrepl.relgroup_rel g ON g.relgroup = s.relgroup"
" JOIN mmrepl.rel r ON r.nspname = g.nspname AND r.relname = g.relname"
" WHERE s.sync_id = $1 AND r.kind = 'S'"
" AND coalesce(r.seq_mode, CASE WHEN (SELECT count(*) FROM mmrepl.dbgroup_db d"
" WHERE d.dbgroup = s.dbgroup AND d.role <> 'target') > 1 THEN 'interleave' ELSE 'copy' END) = 'copy'"
" ORDER BY 1, 2";

typedef struct SeqcopyMember
{
	MmrSequenceValue value;		/* given last; names in cache.context */
	bool		given;
} SeqcopyMember;

/* Of one sync: a process that pushes or receives serves one at a time. */
static struct
{
	MemoryContext context;
	int32		sync_id;
	uint64		generation;		/* of the configuration */
	TimestampTz all_at;			/* when all were given */
	int			count;
	SeqcopyMember *members;
} cache;

static void seqcopy_load(int32 sync_id);
static SeqcopyMember *seqcopy_find(const char *nspname, const char *relname);
static Oid	seqcopy_relid(const char *nspname, const char *relname);

List *
mmr_seqcopy_values(int32 sync_id)
{
	List	   *result = NIL;
	bool		all;

	seqcopy_load(sync_id);
	if (cache.count == 0)
		return NIL;
	all = TimestampDifferenceExceeds(cache.all_at, GetCurrentTimestamp(), SEQCOPY_ALL_MS);
	if (all)
		cache.all_at = GetCurrentTimestamp();

	for (int i = 0; i < cache.count; i++)
	{
		SeqcopyMember *m = &cache.members[i];
		MmrSequenceValue *out;
		int64		value;
		bool		is_called;

		if (!mmr_seqvalue_read(seqcopy_relid(m->value.nspname, m->value.relname), &value, &is_called))
			continue;
		if (m->given && !all && m->value.value == value && m->value.is_called == is_called)
			continue;
		m->value.value = value;
		m->value.is_called = is_called;
		m->given = true;
		out = palloc(sizeof(MmrSequenceValue));
		out->nspname = pstrdup(m->value.nspname);
		out->relname = pstrdup(m->value.relname);
		out->value = value;
		out->is_called = is_called;
		result = lappend(result, out);
	}
	return result;
}

void
mmr_seqcopy_append(List *values, StringInfo frame)
{
	ListCell   *lc;

	foreach(lc, values)
	{
		MmrSequenceValue *s = lfirst(lc);

		appendStringInfoChar(frame, MMR_REC_SEQUENCE);
		mmr_append_string(frame, s->nspname);
		mmr_append_string(frame, s->relname);
		mmr_append_zigzag(frame, s->value);
		appendStringInfoChar(frame, s->is_called);
	}
}

void
mmr_seqcopy_forget(void)
{
	for (int i = 0; i < cache.count; i++)
		cache.members[i].given = false;
}

bool
mmr_seqcopy_any(void)
{
	return cache.count > 0;
}

bool
mmr_seqcopy_advance(int32 sync_id, const char *nspname, const char *relname,
					int64 value, bool is_called)
{
	MmrSession	save;
	Oid			relid;
	FormData_pg_sequence form;
	int64		here;
	bool		called;
	bool		forward;

	seqcopy_load(sync_id);
	if (seqcopy_find(nspname, relname) == NULL)
		return false;
	relid = seqcopy_relid(nspname, relname);
	if (!OidIsValid(relid))
		return false;

	/* nextval waits for us from here on: no value is drawn between look and set */
	if (!ConditionalLockRelationOid(relid, ShareRowExclusiveLock))
		return false;
	if (!mmr_seqvalue_form(relid, &form) ||
		!mmr_seqvalue_read(relid, &here, &called) ||
		value < form.seqmin || value > form.seqmax)
		return false;
	forward = form.seqincrement > 0 ? value > here : value < here;
	if (value == here)
		forward = is_called && !called;
	if (forward && mmr_session_become_owner(&save))
	{
		(void) DirectFunctionCall3(setval3_oid, ObjectIdGetDatum(relid),
								   Int64GetDatum(value), BoolGetDatum(is_called));
		mmr_session_restore(&save);
	}
	return forward;
}

/* Reads which sequences the sync has in copy mode, if that may have changed. */
static void
seqcopy_load(int32 sync_id)
{
	MmrSession	save;
	Oid			types[1] = {INT4OID};
	Datum		args[1] = {Int32GetDatum(sync_id)};
	MmrDatabase *db = mmr_shared_database();
	uint64		generation = db ? pg_atomic_read_u64(&db->config_generation) : 0;

	if (db != NULL && cache.members != NULL && cache.sync_id == sync_id &&
		cache.generation == generation)
		return;

	if (cache.context == NULL)
		cache.context = AllocSetContextCreate(TopMemoryContext, "mmrepl sequences",
											  ALLOCSET_SMALL_SIZES);
	cache.count = 0;
	cache.members = NULL;
	MemoryContextReset(cache.context);
	if (!mmr_session_become_owner(&save))
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");

	/* a snapshot of its own: the pusher's may be older than the generation */
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(sql_members, 1, types, args, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "reading the sequences of a sync failed");
	PopActiveSnapshot();

	cache.members = MemoryContextAllocZero(cache.context,
										   sizeof(SeqcopyMember) * (SPI_processed + 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *nspname = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		char	   *relname = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);

		cache.members[i].value.nspname = MemoryContextStrdup(cache.context, nspname);
		cache.members[i].value.relname = MemoryContextStrdup(cache.context, relname);
	}
	cache.count = (int) SPI_processed;
	cache.sync_id = sync_id;
	cache.generation = generation;
	cache.all_at = GetCurrentTimestamp();
	SPI_finish();
	mmr_session_restore(&save);
}

static SeqcopyMember *
seqcopy_find(const char *nspname, const char *relname)
{
	for (int i = 0; i < cache.count; i++)
	{
		if (strcmp(cache.members[i].value.nspname, nspname) == 0 &&
			strcmp(cache.members[i].value.relname, relname) == 0)
			return &cache.members[i];
	}
	return NULL;
}

static Oid
seqcopy_relid(const char *nspname, const char *relname)
{
	Oid			nsp = get_namespace_oid(nspname, true);
	Oid			relid = OidIsValid(nsp) ? get_relname_relid(relname, nsp) : InvalidOid;

	return OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_SEQUENCE ? relid : InvalidOid;
}
