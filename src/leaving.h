/*-------------------------------------------------------------------------
 * leaving.h
 *	  A db that is to be removed: what it has written is delivered first.
 *
 * Floor 6.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_LEAVING_H
#define MMR_LEAVING_H

/*
 * Is it a source of a sync?  Then it has something to deliver.  Needs a
 * transaction, and membership as of it.
 */
extern bool mmr_leaving_sends(int32 node_id);

/*
 * ERROR if a sync in which it is a source is paused: what it has written there
 * cannot be delivered.  Of all syncs, or those that use a dbgroup (not NULL).
 * Needs membership as of the transaction.
 */
extern void mmr_leaving_require_running(int32 node_id, const char *name, const char *dbgroup);

/*
 * Has that db deliver all that is committed there, to all its peers; ERROR
 * that says what to do if it cannot, or not within timeout seconds.
 */
extern void mmr_leaving_drain(const char *name, const char *conninfo, double timeout);

/*
 * After mmr_config_begin: lets nobody write its tables any more, to the end of
 * this transaction.
 */
extern void mmr_leaving_hold_writers(int32 node_id);

/* Takes it out of all dbgroups; lost: it has not delivered.  ERROR if a sync could not go on without it. */
extern void mmr_leaving_take_out(int32 node_id, const char *name, bool lost);

#endif							/* MMR_LEAVING_H */
