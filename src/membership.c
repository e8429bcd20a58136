/*-------------------------------------------------------------------------
 * membership.c
 *	  Which dbs, syncs and tables there are: the configuration as C structs,
 *	  cached per session until it changes.
 *
 * Floor 2.
 * Reads: local_node, db, sync, dbgroup_db, rel, relgroup_rel by SPI; the
 * server's catalogs through caches, without locks.
 * Runs in: client backends, apply backends, workers; as whatever role runs
 * it, with the rights of the extension's owner.
 *
 * Invariant: the generation is read before the tables, and the tables with a
 * snapshot taken after that (never the transaction's: REPEATABLE READ would
 * show an old configuration, and taking it here would fix it too early for
 * the pusher).  So what is cached is never older than its generation.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "keyindex.h"
#include "membership.h"
#include "session.h"
#include "shared.h"

/* What belongs to a member and only this file needs. */
typedef struct Member
{
	MmrMember	pub;			/* must be first */
	bool		is_table;
	char	   *key_name;		/* NULL: the primary key */
} Member;

typedef struct Configuration
{
	int32		my_id;
	bool		stopped;
	int64		version;
	List	   *nodes;			/* MmrNode */
	List	   *syncs;			/* MmrSync */
} Configuration;

static struct
{
	MemoryContext context;		/* holds config */
	MemoryContext previous;		/* the one before: callers further up may still look at it */
	Configuration *config;		/* NULL: not read yet, or no extension here */
	Oid			local_relid;	/* mmrepl.local_node, InvalidOid: no extension */
	uint64		generation;
	LocalTransactionId lxid;	/* without shared memory: good for this transaction */
	bool		current;		/* false: read the tables again */
	bool		resolved;		/* false: look up the names again */
	uint64		marks;			/* grows with each mark: what came in while we were reading? */
	bool		incomplete;		/* some name has no relation: any new one may be it */
	HTAB	   *watched;		/* Oids of relations whose change matters */
	bool		watched_complete;
	bool		registered;
	uint64		changes;		/* grows when anything that is given out has changed */
}			cache;

static const char *const sql_local =
"SELECT coalesce(node_id, 0), stopped, config_version FROM mmrepl.local_node";
static const char *const sql_nodes =
"SELECT node_id, name, conninfo, system_identifier, database_oid"
" FROM mmrepl.db ORDER BY node_id";
static const char *const sql_syncs =
"SELECT sync_id, name, relgroup, dbgroup, onetimecopy::int4, conflict_strategy,"
" on_error, seq_step, paused, copy_round, halted, makedelta,"
" EXISTS (SELECT FROM mmrepl.sync_state t WHERE t.sync_id = s.sync_id AND NOT t.opened),"
" EXISTS (SELECT FROM mmrepl.sync_state t WHERE t.sync_id = s.sync_id AND t.since > s.since AND t.copied = 0),"
" mmrepl._closed_to_clients(s.sync_id)"
" FROM mmrepl.sync s ORDER BY sync_id";
static const char *const sql_sync_nodes =
"SELECT s.sync_id, d.node_id, d.role, d.pos, d.since, d.needs_resync"
" FROM mmrepl.sync s JOIN mmrepl.dbgroup_db d ON d.dbgroup = s.dbgroup"
" ORDER BY s.sync_id, d.pos";
static const char *const sql_members =
"SELECT s.sync_id, r.nspname::text, r.relname::text, r.kind = 'r',"
" r.key_index::text, r.conflict_strategy"
" FROM mmrepl.sync s JOIN mmrepl.relgroup_rel g ON g.relgroup = s.relgroup"
" JOIN mmrepl.rel r ON r.nspname = g.nspname AND r.relname = g.relname"
" ORDER BY s.sync_id, r.nspname, r.relname";

/* ---- invalidation: callbacks only mark, they may run anywhere ---- */

static void
relation_changed(Datum arg, Oid relid)
{
	(void) arg;

	if (!OidIsValid(relid) || !OidIsValid(cache.local_relid) ||
		relid == cache.local_relid)
		cache.current = false;
	else if (cache.incomplete || !cache.watched_complete ||
			 hash_search(cache.watched, &relid, HASH_FIND, NULL) != NULL)
		cache.resolved = false;
	else
		return;
	cache.marks++;
}

static void
namespace_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	(void) arg;
	(void) cacheid;
	(void) hashvalue;
	cache.resolved = false;
	if (!OidIsValid(cache.local_relid))
		cache.current = false;
	cache.marks++;
}

void
mmr_membership_invalidate(void)
{
	cache.current = false;
	cache.marks++;
}

/* ---- reading ---- */

static void
run(const char *sql)
{
	int			rc = SPI_execute(sql, true, 0);

	if (rc != SPI_OK_SELECT)
		elog(ERROR, "reading the configuration failed: %s",
			 SPI_result_code_string(rc));
}

static Datum
get(uint64 row, int col)
{
	bool		isnull;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col,
						 &isnull);
}

static char *
get_text(uint64 row, int col, MemoryContext context)
{
	char	   *s = SPI_getvalue(SPI_tuptable->vals[row],
								 SPI_tuptable->tupdesc, col);

	return s ? MemoryContextStrdup(context, s) : NULL;
}

static MmrSync *
find_sync(Configuration *config, int32 sync_id)
{
	ListCell   *lc;

	foreach(lc, config->syncs)
	{
		MmrSync    *sync = lfirst(lc);

		if (sync->id == sync_id)
			return sync;
	}
	return NULL;
}

static MmrNode *
find_node(Configuration *config, int32 node_id)
{
	ListCell   *lc;

	foreach(lc, config->nodes)
	{
		MmrNode    *node = lfirst(lc);

		if (node->id == node_id)
			return node;
	}
	return NULL;
}

static void
read_nodes(Configuration *config, MemoryContext context)
{
	run(sql_local);
	if (SPI_processed > 0)
	{
		config->my_id = DatumGetInt32(get(0, 1));
		config->stopped = DatumGetBool(get(0, 2));
		config->version = DatumGetInt64(get(0, 3));
	}

	run(sql_nodes);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MmrNode    *node = MemoryContextAllocZero(context, sizeof(MmrNode));
		MemoryContext old = MemoryContextSwitchTo(context);

		node->id = DatumGetInt32(get(i, 1));
		node->name = get_text(i, 2, context);
		node->conninfo = get_text(i, 3, context);
		node->system_identifier = DatumGetInt64(get(i, 4));
		node->database_oid = DatumGetObjectId(get(i, 5));
		config->nodes = lappend(config->nodes, node);
		MemoryContextSwitchTo(old);
	}
}

static void
read_syncs(Configuration *config, MemoryContext context)
{
	run(sql_syncs);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MmrSync    *sync = MemoryContextAllocZero(context, sizeof(MmrSync));
		MemoryContext old = MemoryContextSwitchTo(context);

		sync->id = DatumGetInt32(get(i, 1));
		sync->name = get_text(i, 2, context);
		sync->relgroup = get_text(i, 3, context);
		sync->dbgroup = get_text(i, 4, context);
		sync->onetimecopy = DatumGetInt32(get(i, 5));
		sync->strategy = mmr_strategy_parse(get_text(i, 6, context));
		sync->on_error = get_text(i, 7, context);
		sync->seq_step = DatumGetInt32(get(i, 8));
		sync->paused = DatumGetBool(get(i, 9));
		sync->copy_round = DatumGetInt32(get(i, 10));
		sync->halted = get_text(i, 11, context);
		sync->makedelta = DatumGetBool(get(i, 12));
		sync->joining = DatumGetBool(get(i, 13));
		sync->blank = DatumGetBool(get(i, 14));
		sync->closed = DatumGetBool(get(i, 15));
		config->syncs = lappend(config->syncs, sync);
		MemoryContextSwitchTo(old);
	}

	run(sql_sync_nodes);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MmrSync    *sync = find_sync(config, DatumGetInt32(get(i, 1)));
		MmrNode    *node = find_node(config, DatumGetInt32(get(i, 2)));
		MmrSyncNode *part;
		MemoryContext old;

		if (sync == NULL || node == NULL)
			continue;
		old = MemoryContextSwitchTo(context);
		part = palloc0(sizeof(MmrSyncNode));
		part->node = node;
		part->role = strcmp(get_text(i, 3, context), "target") == 0 ?
			MMR_ROLE_TARGET : MMR_ROLE_SOURCE;
		part->hub = strcmp(get_text(i, 3, context), "hub") == 0;
		if (part->hub)
			sync->hub = part;
		part->pos = DatumGetInt32(get(i, 4));
		part->since = DatumGetInt64(get(i, 5));
		sync->nodes = lappend(sync->nodes, part);
		part->lost = DatumGetBool(get(i, 6));
		if (node->id == config->my_id)
		{
			sync->my_role = part->role;
			sync->lost = part->lost;
		}
		MemoryContextSwitchTo(old);
	}
}

static void
read_members(Configuration *config, MemoryContext context)
{
	run(sql_members);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MmrSync    *sync = find_sync(config, DatumGetInt32(get(i, 1)));
		Member	   *member;
		char	   *own;
		MemoryContext old;

		if (sync == NULL)
			continue;
		old = MemoryContextSwitchTo(context);
		member = palloc0(sizeof(Member));
		member->pub.nspname = get_text(i, 2, context);
		member->pub.relname = get_text(i, 3, context);
		member->is_table = DatumGetBool(get(i, 4));
		member->key_name = get_text(i, 5, context);
		own = get_text(i, 6, context);
		member->pub.strategy = own ? mmr_strategy_parse(own) : sync->strategy;
		if (member->is_table)
			sync->tables = lappend(sync->tables, member);
		else
			sync->sequences = lappend(sync->sequences, member);
		MemoryContextSwitchTo(old);
	}
}

/* Reads all tables into a context of their own; swaps it in when complete. */
static void
read_configuration(void)
{
	MemoryContext context;
	Configuration *config = NULL;
	MmrSession	session;

	context = AllocSetContextCreate(CurrentMemoryContext, "mmrepl membership",
									ALLOCSET_SMALL_SIZES);
	cache.local_relid = mmr_session_table("local_node");
	if (mmr_session_become_owner(&session))
	{
		config = MemoryContextAllocZero(context, sizeof(Configuration));
		PushActiveSnapshot(GetCatalogSnapshot(cache.local_relid));
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
		read_nodes(config, context);
		read_syncs(config, context);
		read_members(config, context);
		SPI_finish();
		PopActiveSnapshot();
		mmr_session_restore(&session);
	}

	MemoryContextSetParent(context, CacheMemoryContext);
	if (cache.previous)
		MemoryContextDelete(cache.previous);
	cache.previous = cache.context;
	cache.context = context;
	cache.config = config;
	cache.changes++;
}

/* ---- names to Oids ---- */

/* Looks one member up; true if it is not what it was. */
static bool
resolve_member(Member *member)
{
	Oid			nspid = get_namespace_oid(member->pub.nspname, true);
	Oid			relid = InvalidOid;
	Oid			key_index = InvalidOid;
	bool		changed;

	if (OidIsValid(nspid))
		relid = get_relname_relid(member->pub.relname, nspid);
	if (OidIsValid(relid) &&
		get_rel_relkind(relid) != (member->is_table ? RELKIND_RELATION :
								   RELKIND_SEQUENCE))
		relid = InvalidOid;
	if (OidIsValid(relid) && member->is_table)
		key_index = mmr_keyindex_find(relid, member->key_name);

	changed = member->pub.relid != relid || member->pub.key_index != key_index;
	cache.changes += changed;
	member->pub.relid = relid;
	member->pub.key_index = key_index;

	if (OidIsValid(relid))
		hash_search(cache.watched, &relid, HASH_ENTER, NULL);
	if (OidIsValid(key_index))
		hash_search(cache.watched, &key_index, HASH_ENTER, NULL);
	if (!OidIsValid(relid) || (member->is_table && !OidIsValid(key_index)))
		cache.incomplete = true;
	return changed;
}

static bool
resolve_all(void)
{
	HASHCTL		ctl = {0};
	uint64		marks = cache.marks;
	bool		changed = false;
	ListCell   *lc,
			   *lm;

	/* until the new set is complete, every message counts */
	cache.watched_complete = false;
	cache.incomplete = false;
	if (cache.watched)
	{
		hash_destroy(cache.watched);
		cache.watched = NULL;
	}
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Oid);
	ctl.hcxt = CacheMemoryContext;
	cache.watched = hash_create("mmrepl members", 64, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	if (cache.config != NULL)
	{
		foreach(lc, cache.config->syncs)
		{
			MmrSync    *sync = lfirst(lc);

			foreach(lm, sync->tables)
				changed |= resolve_member(lfirst(lm));
			foreach(lm, sync->sequences)
				changed |= resolve_member(lfirst(lm));
		}
	}
	cache.watched_complete = true;
	cache.resolved = (marks == cache.marks);
	return changed;
}

bool
mmr_membership_refresh(void)
{
	MmrDatabase *database = mmr_shared_database();
	uint64		generation = 0;
	bool		changed = false;

	if (!cache.registered)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, namespace_changed, (Datum) 0);
		cache.registered = true;
	}

	if (database != NULL)
	{
		generation = pg_atomic_read_u64(&database->config_generation);
		pg_read_barrier();
		if (generation != cache.generation)
			cache.current = false;
	}
	else if (cache.lxid != MyProc->lxid)
		cache.current = false;	/* nobody tells us: once per transaction */

	if (!cache.current)
	{
		uint64		marks = cache.marks;

		read_configuration();
		cache.resolved = false;
		cache.generation = generation;
		cache.lxid = MyProc->lxid;
		cache.current = (marks == cache.marks);
		changed = true;
	}
	if (!cache.resolved)
		changed |= resolve_all();
	return changed;
}

bool
mmr_membership_is_current(void)
{
	return mmr_shared_config_is(cache.generation);
}

/* ---- what is known ---- */

uint64
mmr_membership_changes(void)
{
	return cache.changes;
}

int32
mmr_membership_my_id(void)
{
	return cache.config ? cache.config->my_id : 0;
}

bool
mmr_membership_stopped(void)
{
	return cache.config ? cache.config->stopped : false;
}

int64
mmr_membership_config_version(void)
{
	return cache.config ? cache.config->version : 0;
}

List *
mmr_membership_nodes(void)
{
	return cache.config ? cache.config->nodes : NIL;
}

MmrNode *
mmr_membership_node(int32 node_id)
{
	return cache.config ? find_node(cache.config, node_id) : NULL;
}

MmrNode *
mmr_membership_node_by_name(const char *name)
{
	ListCell   *lc;

	foreach(lc, mmr_membership_nodes())
	{
		MmrNode    *node = lfirst(lc);

		if (strcmp(node->name, name) == 0)
			return node;
	}
	return NULL;
}

List *
mmr_membership_syncs(void)
{
	return cache.config ? cache.config->syncs : NIL;
}

MmrSync *
mmr_membership_sync(int32 sync_id)
{
	return cache.config ? find_sync(cache.config, sync_id) : NULL;
}

MmrSync *
mmr_membership_sync_by_name(const char *name)
{
	ListCell   *lc;

	foreach(lc, mmr_membership_syncs())
	{
		MmrSync    *sync = lfirst(lc);

		if (strcmp(sync->name, name) == 0)
			return sync;
	}
	return NULL;
}

MmrMember *
mmr_membership_table(MmrSync *sync, Oid relid)
{
	ListCell   *lc;

	if (!OidIsValid(relid))
		return NULL;
	foreach(lc, sync->tables)
	{
		MmrMember  *member = lfirst(lc);

		if (member->relid == relid)
			return member;
	}
	return NULL;
}

MmrSyncNode *
mmr_membership_sync_node(MmrSync *sync, int32 node_id)
{
	ListCell   *lc;

	foreach(lc, sync->nodes)
	{
		MmrSyncNode *part = lfirst(lc);

		if (part->node->id == node_id)
			return part;
	}
	return NULL;
}

bool
mmr_membership_is_source(MmrSync *sync, int32 node_id)
{
	MmrSyncNode *part = mmr_membership_sync_node(sync, node_id);

	return part != NULL && part->role == MMR_ROLE_SOURCE && !part->lost;
}

List *
mmr_membership_syncs_of_table(Oid relid)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, mmr_membership_syncs())
	{
		MmrSync    *sync = lfirst(lc);

		if (sync->my_role != MMR_ROLE_NONE &&
			mmr_membership_table(sync, relid) != NULL)
			result = lappend(result, sync);
	}
	return result;
}
