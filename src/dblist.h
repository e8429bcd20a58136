/*-------------------------------------------------------------------------
 * dblist.h
 *	  Lists of dbs with roles, as add_dbgroup and add_sync take them.
 *
 * Floor 4.
 */
#ifndef MMR_DBLIST_H
#define MMR_DBLIST_H

#include "nodes/pg_list.h"

/*
 * Makes the group's dbs what the list says.  elements: List of char *, each
 * `db` or `db:source`, `db:target`, `db:hub` (one at most); without a role the first is a source
 * and the others are targets.  A db that is in the group already keeps its
 * place (the slot of its sequences).  ERROR if one is unknown or named twice,
 * there is no source, or the hub of a sync would change.
 */
extern void mmr_dblist_store(const char *dbgroup, List *elements);

/* Puts one db into the group, or changes its role there. */
extern void mmr_dblist_add(const char *dbgroup, const char *db, const char *role);

/* Does the group hold just that? */
extern bool mmr_dblist_same(const char *dbgroup, List *elements);

/* Names (char *) of the sources that run in the group now, and would not be sources of it any more. */
extern List *mmr_dblist_sources_out(const char *dbgroup, List *elements);

/* Node ids of the group's dbs: int list. */
extern List *mmr_dblist_node_ids(const char *dbgroup);

#endif							/* MMR_DBLIST_H */
