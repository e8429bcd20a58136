/*-------------------------------------------------------------------------
 * seqplan.h
 *	  Which sequences of this database must be interleaved, and how.
 *
 * Floor 2.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SEQPLAN_H
#define MMR_SEQPLAN_H

#include "catalog/pg_sequence.h"
#include "nodes/pg_list.h"

/* SQL: sequences in interleave mode, one row for each sync and db (nspname, relname, sync, seq_step, node_id, pos). */
#define MMR_SEQPLAN_SQL \
	"SELECT r.nspname, r.relname, s.name AS sync, s.seq_step, d.node_id, d.pos" \
	" FROM mmrepl.sync s JOIN mmrepl.dbgroup_db d ON d.dbgroup = s.dbgroup" \
	" JOIN mmrepl.relgroup_rel g ON g.relgroup = s.relgroup" \
	" JOIN mmrepl.rel r ON r.nspname = g.nspname AND r.relname = g.relname" \
	" WHERE r.kind = 'S' AND coalesce(r.seq_mode, CASE WHEN (SELECT count(*)" \
	" FROM mmrepl.dbgroup_db x WHERE x.dbgroup = s.dbgroup AND x.role <> 'target') > 1" \
	" THEN 'interleave' ELSE 'copy' END) = 'interleave'"

/* One sequence of this database that is, or has to be, interleaved. */
typedef struct MmrSeqPlan
{
	char	   *nspname;
	char	   *relname;
	char	   *name;			/* quoted */
	Oid			relid;			/* InvalidOid: there is none; now and then are unset */
	bool		wanted;			/* to be interleaved; otherwise restored */
	int64		step;
	int64		slot;
	bool		has_state;		/* is interleaved; old_* are set */
	int64		old_increment;
	int64		old_start;
	int64		old_min;
	int64		old_max;
	FormData_pg_sequence now;
	FormData_pg_sequence then;	/* what it must become */
} MmrSeqPlan;

/*
 * All of them, from the configuration as this transaction sees it; with
 * restore_all, none is wanted.  Needs a transaction and the rights of the
 * extension's owner, uses SPI.  ERROR when syncs contradict each other or
 * have no slot left.
 */
extern List *mmr_seqplan_make(bool restore_all);

/* What keeps the sequence from being what it must be, or NULL; palloc'd. Its relid must be valid. */
extern const char *mmr_seqplan_difference(const MmrSeqPlan *item);

/* First value from `from` on (up or down) that is congruent to the slot; false past the end of int8. */
extern bool mmr_seqplan_align(bool up, int64 from, int64 step, int64 slot, int64 *value);

/* ERROR: the limits of the sequence leave no value. */
extern void mmr_seqplan_raise_room(const MmrSeqPlan *item, int64 used) pg_attribute_noreturn();

#endif							/* MMR_SEQPLAN_H */
