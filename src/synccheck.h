/*-------------------------------------------------------------------------
 * synccheck.h
 *	  Can the syncs replicate what they hold, on all their dbs at once?
 *
 * Floor 6.
 */
#ifndef MMR_SYNCCHECK_H
#define MMR_SYNCCHECK_H

#include "nodes/pg_list.h"

/*
 * What is wrong with the tables and sequences of the sync, a line each: on
 * every db that takes part, and between them.  ERROR if one of those dbs
 * cannot be reached.  deep: also triggers and sequences that are not what
 * the configuration wants.  After mmr_config_begin.
 */
extern List *mmr_synccheck_problems(const char *sync, bool deep);

/* ERROR that names all problems of the sync, if there are any. */
extern void mmr_synccheck_require(const char *sync);

/* The same for each sync that uses the group; gives the node ids of all their dbs. */
extern List *mmr_synccheck_require_relgroup(const char *relgroup);
extern List *mmr_synccheck_require_dbgroup(const char *dbgroup);

#endif							/* MMR_SYNCCHECK_H */
