/*-------------------------------------------------------------------------
 * locking.h
 *	  Strong locks on the user's relations, taken without a queue forming.
 *
 * Floor 1.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_LOCKING_H
#define MMR_LOCKING_H

#include "nodes/pg_list.h"
#include "storage/lockdefs.h"

/*
 * Locks all of these relations (oid list), or none: waits a moment only, and
 * if that was not enough gives up what it got, lets everybody else go on, and
 * tries again, for some three seconds.  Then ERROR (55P03) that says who is in
 * the way.  The locks stay until the transaction ends.  Relations that were
 * dropped meanwhile are locked all the same: look again afterwards.
 * Needs a transaction; uses a subtransaction, and SPI for the ERROR.
 */
extern void mmr_locking_acquire(const List *relids, LOCKMODE mode);

/* The same, but once only, for a moment; false: others are in the way. */
extern bool mmr_locking_try(const List *relids, LOCKMODE mode);

/*
 * The same, for some ten seconds, but gives the locks back: to be asked of
 * every node before the first of them takes locks that all have to keep until
 * the last has got its own.
 */
extern void mmr_locking_probe(const List *relids, LOCKMODE mode);

#endif							/* MMR_LOCKING_H */
