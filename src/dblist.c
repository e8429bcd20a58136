/*-------------------------------------------------------------------------
 * dblist.c
 *	  Lists of dbs with roles, as add_dbgroup and add_sync take them.
 *
 * Floor 4.
 * Reads: db.  Writes: dbgroup_db.
 * Runs in: backends that configure.
 *
 * Invariant: pos of a db in a group never changes while it is in it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "dblist.h"
#include "names.h"
#include "sqlrun.h"

#define ROLE_HINT \
	"A db is a source (its changes go to the others, and it gets theirs), a target (it only gets them), or the hub (a source by way of which all others exchange)."

typedef struct Entry
{
	char	   *db;
	const char *role;
} Entry;

/* Bucardo's words are understood too. */
static const char *
role_of(const char *word)
{
	if (strcmp(word, "source") == 0 || strcmp(word, "master") == 0)
		return "source";
	if (strcmp(word, "target") == 0 || strcmp(word, "slave") == 0 ||
		strcmp(word, "replica") == 0)
		return "target";
	if (strcmp(word, "hub") == 0)
		return "hub";
	return NULL;
}

/* A db's name may have a colon in it: what is a name as a whole is a name. */
static Entry *
parse_element(const char *element, bool first)
{
	Entry	   *entry = palloc(sizeof(Entry));
	char	   *colon;

	entry->db = pstrdup(element);
	entry->role = first ? "source" : "target";
	colon = strrchr(entry->db, ':');
	if (colon == NULL || mmr_names_exists("db", entry->db))
		return entry;

	*colon = '\0';
	entry->role = role_of(colon + 1);
	if (entry->role == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown role \"%s\" of db \"%s\"", colon + 1, entry->db),
				 errhint(ROLE_HINT)));
	return entry;
}

static void
require_one_hub(const char *hub, const char *db)
{
	if (hub[0] != '\0' && strcmp(hub, db) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("db \"%s\" cannot be a hub beside \"%s\"", db, hub),
				 errhint("Give each hub a sync of its own, with makedelta, and join the hubs by a third one.")));
}

static List *
parse(List *elements)
{
	List	   *entries = NIL;
	bool		source = false;
	const char *hub = "";
	ListCell   *lc,
			   *lo;

	if (elements == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("no db is named"),
				 errhint("Name them as in '{aaa01:source,aaa02:source}'.")));
	foreach(lc, elements)
	{
		Entry	   *entry = parse_element(lfirst(lc), entries == NIL);

		mmr_names_require("db", entry->db);
		foreach(lo, entries)
		{
			if (strcmp(((Entry *) lfirst(lo))->db, entry->db) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_OBJECT),
						 errmsg("db \"%s\" is named twice", entry->db),
						 errhint("Name each db once, with one role.")));
		}
		source |= strcmp(entry->role, "target") != 0;
		if (strcmp(entry->role, "hub") == 0)
		{
			require_one_hub(hub, entry->db);
			hub = entry->db;
		}
		entries = lappend(entries, entry);
	}
	if (!source)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("none of the dbs is a source"),
				 errhint("Make at least one a source, as in '{aaa01:source,aaa02:target}'.")));
	return entries;
}

/* Puts the db into the group, at the first place that is free, or changes its role. */
static void
store_one(const char *dbgroup, const char *db, const char *role)
{
	const char *args[3] = {dbgroup, db, role};

	mmr_sqlrun_exec("INSERT INTO mmrepl.dbgroup_db (dbgroup, node_id, role, pos, since)"
					" SELECT $1, d.node_id, $3,"
					" (SELECT min(p.pos) FROM generate_series(1, 1 + (SELECT count(*) FROM mmrepl.dbgroup_db WHERE dbgroup = $1)) AS p(pos)"
					"  WHERE NOT EXISTS (SELECT FROM mmrepl.dbgroup_db o WHERE o.dbgroup = $1 AND o.pos = p.pos)),"
					" CASE WHEN EXISTS (SELECT FROM mmrepl.sync s WHERE s.dbgroup = $1) THEN -1 ELSE 0 END"
					" FROM mmrepl.db d WHERE d.name = $2"
					" ON CONFLICT (dbgroup, node_id) DO UPDATE SET role = excluded.role,"
					" since = CASE WHEN dbgroup_db.role = 'target' AND excluded.role = 'source' AND excluded.since = -1"
					"  THEN -2 ELSE dbgroup_db.since END,"
					" copy = CASE WHEN dbgroup_db.role = 'target' AND excluded.role = 'source' AND excluded.since = -1"
					"  THEN -1 ELSE dbgroup_db.copy END,"
					" was = dbgroup_db.since", 3, args);
}

static char *
hub_of(const char *dbgroup)
{
	return mmr_sqlrun_text("SELECT coalesce((SELECT string_agg(d.name, ', ') FROM mmrepl.dbgroup_db g JOIN mmrepl.db d ON d.node_id = g.node_id"
						   " WHERE g.dbgroup = $1 AND g.role = 'hub'), '')", 1, &dbgroup);
}

/*
 * A sync cannot change its ways while it runs: what has been received before, and
 * would have to be handed on now, is behind the positions already.
 */
static void
require_same_hub(const char *dbgroup, const char *before)
{
	if (strcmp(before, hub_of(dbgroup)) != 0 &&
		mmr_sqlrun_exec("SELECT 1 FROM mmrepl.sync WHERE dbgroup = $1", 1, &dbgroup) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the hub of dbgroup \"%s\" cannot change while a sync uses it", dbgroup),
				 errhint("Wait with mmrepl.wait_for_sync() on all dbs, remove the sync, and add it again.")));
}

void
mmr_dblist_store(const char *dbgroup, List *elements)
{
	List	   *entries = parse(elements);
	char	   *hub = hub_of(dbgroup);
	ListCell   *lc;

	/* those that go first, so that their places are free */
	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);
		const char *args[2] = {dbgroup, entry->db};

		mmr_sqlrun_exec("UPDATE mmrepl.dbgroup_db SET pos = -pos WHERE dbgroup = $1"
						" AND node_id = (SELECT node_id FROM mmrepl.db WHERE name = $2)", 2, args);
	}
	mmr_sqlrun_exec("DELETE FROM mmrepl.dbgroup_db WHERE dbgroup = $1 AND pos > 0", 1, &dbgroup);
	mmr_sqlrun_exec("UPDATE mmrepl.dbgroup_db SET pos = -pos WHERE dbgroup = $1", 1, &dbgroup);

	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);

		store_one(dbgroup, entry->db, entry->role);
	}
	require_same_hub(dbgroup, hub);
}

void
mmr_dblist_add(const char *dbgroup, const char *db, const char *role)
{
	const char *word = role_of(role);
	char	   *hub = hub_of(dbgroup);

	if (word == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown role \"%s\" of db \"%s\"", role, db),
				 errhint(ROLE_HINT)));
	if (strcmp(word, "hub") == 0)
		require_one_hub(hub, db);
	store_one(dbgroup, db, word);
	require_same_hub(dbgroup, hub);
}

bool
mmr_dblist_same(const char *dbgroup, List *elements)
{
	List	   *entries = parse(elements);
	ListCell   *lc;

	if (list_length(mmr_dblist_node_ids(dbgroup)) != list_length(entries))
		return false;
	foreach(lc, entries)
	{
		Entry	   *entry = lfirst(lc);
		const char *args[3] = {dbgroup, entry->db, entry->role};

		if (mmr_sqlrun_exec("SELECT 1 FROM mmrepl.dbgroup_db g JOIN mmrepl.db d ON d.node_id = g.node_id"
							" WHERE g.dbgroup = $1 AND d.name = $2 AND g.role = $3", 3, args) == 0)
			return false;
	}
	return true;
}

List *
mmr_dblist_node_ids(const char *dbgroup)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, mmr_sqlrun_texts("SELECT node_id FROM mmrepl.dbgroup_db WHERE dbgroup = $1"
								 " ORDER BY pos", 1, &dbgroup))
		result = lappend_int(result, pg_strtoint32(lfirst(lc)));
	return result;
}

List *
mmr_dblist_sources_out(const char *dbgroup, List *elements)
{
	List	   *result = NIL;
	List	   *stay = NIL;
	ListCell   *lc;

	foreach(lc, parse(elements))
	{
		Entry	   *entry = lfirst(lc);

		if (strcmp(entry->role, "target") != 0)
			stay = lappend(stay, entry->db);
	}
	foreach(lc, mmr_sqlrun_texts("SELECT d.name FROM mmrepl.dbgroup_db g JOIN mmrepl.db d ON d.node_id = g.node_id"
								 " WHERE g.dbgroup = $1 AND g.role <> 'target' AND NOT g.needs_resync"
								 " AND EXISTS (SELECT FROM mmrepl.sync s WHERE s.dbgroup = g.dbgroup) ORDER BY g.pos", 1, &dbgroup))
	{
		ListCell   *ls;
		bool		stays = false;

		foreach(ls, stay)
			stays |= strcmp(lfirst(ls), lfirst(lc)) == 0;
		if (!stays)
			result = lappend(result, lfirst(lc));
	}
	return result;
}
