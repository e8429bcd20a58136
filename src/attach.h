/*-------------------------------------------------------------------------
 * attach.h
 *	  Triggers on user tables, which capture, or keep clients out: create, drop, check.
 *
 * Floor 3.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_ATTACH_H
#define MMR_ATTACH_H

#include "nodes/pg_list.h"

/*
 * Makes the triggers of this database what the configuration says: tables of
 * syncs in which this node is a source have both triggers (ENABLE in ORIGIN
 * mode, DEPENDS ON EXTENSION mmrepl, and dependent on the key index), others
 * have none.  Tables of syncs that this node joins get triggers that keep clients
 * out; those that are not needed any more it leaves.  Waits for writers with bounded lock waits and retries, never
 * with a queue forming behind it (I1).  Idempotent.  The row trigger has one
 * argument: the name of the key index, or '' for the primary key.
 */
extern void mmr_attach_reconcile(void);

/*
 * Waits until that could be done without waiting, and keeps no lock: to be
 * asked of all nodes before the first of them does it, because each then
 * holds its locks until the last is done.
 */
extern void mmr_attach_probe(void);

/* Tables (oids) with triggers that keep clients out, and need not any more; membership is as of now. */
extern List *mmr_attach_left_closed(void);

/* Under AccessExclusiveLock: drops them. */
extern void mmr_attach_reopen(Oid relid);

/* Names what is wrong with the triggers of the table, or NULL: "missing", "disabled", ... */
extern const char *mmr_attach_problem(Oid relid);

#endif							/* MMR_ATTACH_H */
