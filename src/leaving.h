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
 * Has that db deliver all that is committed there, to all its peers; ERROR
 * that says what to do if it cannot, or not within timeout seconds.
 */
extern void mmr_leaving_drain(const char *name, const char *conninfo, double timeout);

/*
 * After mmr_config_begin: lets nobody write its tables any more, to the end of
 * this transaction.
 */
extern void mmr_leaving_hold_writers(int32 node_id);

/* Takes it out of all dbgroups; ERROR if a sync could not go on without it. */
extern void mmr_leaving_take_out(int32 node_id, const char *name);

#endif							/* MMR_LEAVING_H */
