/*-------------------------------------------------------------------------
 * sequence.h
 *	  Sequences of a sync interleaved among its dbs: every db draws values that
 *	  are congruent to its slot.  (Sequences copied one way: seqcopy.h.)
 *
 * Floor 3.
 *
 * A sequence is interleaved here when a sync in which this database has a
 * part holds it, and rel.seq_mode says 'interleave', or says nothing and the
 * sync has two sources or more.  Slot: dbgroup_db.pos; step: sync.seq_step.  If
 * it is in several such syncs: the node's id; the greatest step.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SEQUENCE_H
#define MMR_SEQUENCE_H

#include "mmrepl.h"
#include "link.h"
#include "nodes/pg_list.h"

/*
 * For a call that changes the configuration: makes the sequences of all nodes
 * what the new configuration says, without a value drawn on two sides.
 *
 * Call it once, when the new configuration is in the tables of every node
 * (here, and at the other end of each link in its open transaction), before
 * any of them commits.  First every node locks the sequences that have to
 * change (nextval waits from here to the commit) and tells the last value it
 * used; then each sets increment and next value above the last of all.
 *
 * links: MmrLink *, each with an open transaction; node_ids: int list, the
 * node at the other end of each.  A sequence that has to be interleaved while
 * a db of its sync is neither here nor in node_ids is an ERROR; one that has
 * to be restored is not.  Idempotent; what is right already is not touched.
 * Needs a transaction, uses SPI.  ERROR too: more dbs than seq_step, no room
 * left below the sequence's limit.
 */
extern void mmr_sequence_settle(List *links, List *node_ids);

/*
 * Waits until the sequences here that have to change are not in use, and
 * keeps no lock; see mmr_attach_probe.
 */
extern void mmr_sequence_probe(void);

/*
 * As settle, for this database alone: for one that was away when the
 * configuration changed and now adopts it.  Other sides are not asked: new
 * values start above what was used here.
 */
extern void mmr_sequence_reconcile(void);

/*
 * Gives every interleaved sequence here its own increment and limits back,
 * whatever the configuration says: for DROP EXTENSION and for a database
 * that is taken out of the configuration.
 */
extern void mmr_sequence_restore_all(void);

/* Says what is wrong with this sequence of a sync here, or NULL: "missing", "increment is 1 and should be 10", ...; palloc'd. */
extern const char *mmr_sequence_problem(const char *nspname, const char *relname);

#endif							/* MMR_SEQUENCE_H */
