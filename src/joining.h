/*-------------------------------------------------------------------------
 * joining.h
 *	  Who is to come into a dbgroup whose syncs run: what it is to get.
 *
 * Floor 6.  After mmr_config_begin.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_JOINING_H
#define MMR_JOINING_H

#include "nodes/pg_list.h"

/*
 * Before mmr_config_publish, for the dbs that this call puts into the group: kind of initial copy, as
 * onetimecopy (-1: copy, and ERROR unless their tables are empty), and the db
 * that gives it, NULL for the one that has been a source for longest.  Gives
 * the ids of those whose tables are to be empty, and are.
 */
extern List *mmr_joining_settle(const char *dbgroup, int onetimecopy, const char *copy_from);

/*
 * After mmr_config_publish, which keeps clients out there: ERROR if somebody has
 * written to one of those meanwhile.  nodes: what settle gave.
 */
extern void mmr_joining_require_empty(const char *dbgroup, List *nodes);

#endif							/* MMR_JOINING_H */
