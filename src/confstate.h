/*-------------------------------------------------------------------------
 * confstate.h
 *	  Which version of which configuration a db holds.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_CONFSTATE_H
#define MMR_CONFSTATE_H

#include "link.h"

/* ms; a waiting session here outlives any that another db makes wait for us */
#define MMR_WAIT_LOCAL		10000
#define MMR_WAIT_REMOTE		8000
#define MMR_WAIT_REMOTE_SHORT 2000
/* a worker waits a part of that: it gives way to users, and comes again */
#define MMR_WAIT_WORKER_PART 8

/* Which configuration somebody holds. */
typedef struct MmrConfState
{
	int32		node_id;		/* 0: none */
	char	   *config_id;		/* NULL: none */
	int64		version;
	int32		author;
	int64		system_identifier;
	Oid			database_oid;
} MmrConfState;

/* For another db: %s is whether to lock it. */
#define MMR_CONFSTATE_SQL \
	"SELECT node_id, config_id, config_version, config_author," \
	" system_identifier, database_oid FROM mmrepl._config_state(%s)"

/* Of the columns of that query; NULL: not known. */
extern MmrConfState *mmr_confstate_make(char *const *row);
extern MmrConfState *mmr_confstate_of_result(PGresult *result);

/* Above 0: a is newer. */
extern int	mmr_confstate_compare(const MmrConfState *a, const MmrConfState *b);

/* Of this database.  Locks it; waits so many ms, or (-1) as the session's lock_timeout says.  0: does not lock. */
extern MmrConfState *mmr_confstate_here(int wait);

#endif							/* MMR_CONFSTATE_H */
