/*-------------------------------------------------------------------------
 * remote.h
 *	  Transactions on other dbs that end with the local transaction.
 *
 * Floor 2.
 *
 * Each is committed when the local transaction is about to commit, rolled
 * back when it aborts.  A rollback to a savepoint rolls back the remote
 * transactions begun after it; if one was begun before the savepoint and used
 * after it, the local transaction can only be rolled back as a whole.
 * PREPARE TRANSACTION is refused while one is open.
 */
#ifndef MMR_REMOTE_H
#define MMR_REMOTE_H

#include "link.h"
#include "nodes/pg_list.h"

typedef struct MmrRemote
{
	int32		node_id;
	char	   *name;			/* of the db */
	MmrLink    *link;			/* NULL: it cannot be used, see error */
	ErrorData  *error;			/* why */
	int			level;			/* nesting level at which it was begun */
	int			used;			/* deepest level at which it was used */
	int64		config_version; /* what the db holds, for module config */
	int32		config_author;
	int32		its_id;			/* node_id in its local_node, 0: none */
} MmrRemote;

/*
 * Connects and begins a transaction with bounded waits for locks.  ERROR if
 * that fails.  lock_timeout in ms.
 */
extern MmrRemote *mmr_remote_begin(int32 node_id, const char *name, const char *conninfo, int lock_timeout);

/* Keeps the error of a db that cannot be used, for later. */
extern MmrRemote *mmr_remote_unusable(int32 node_id, const char *name, ErrorData *error);

/* Of this transaction: NULL if none was begun. */
extern MmrRemote *mmr_remote_find(int32 node_id);

/* List of MmrRemote, usable or not. */
extern List *mmr_remote_all(void);

/* Rolls back and forgets. */
extern void mmr_remote_forget(MmrRemote *remote);

/* As mmr_link_exec, and notes that it was used; raises the kept error if it is not usable, naming the db. */
extern PGresult *mmr_remote_exec(MmrRemote *remote, const char *sql, int nparams, const char *const *values);

#endif							/* MMR_REMOTE_H */
