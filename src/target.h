/*-------------------------------------------------------------------------
 * target.h
 *	  One local row through the executor: find it, write it, as its table's
 *	  owner.
 *
 * Floor 4.  All need a transaction and the snapshot named.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_TARGET_H
#define MMR_TARGET_H

#include "access/genam.h"
#include "executor/executor.h"
#include "utils/snapshot.h"

#include "key.h"
#include "keyscan.h"
#include "session.h"

typedef enum MmrWrite
{
	MMR_WRITE_DONE,
	MMR_WRITE_SKIPPED,			/* a BEFORE trigger of the user's said no */
	MMR_WRITE_RETRY,			/* the row has changed since it was found: find it again */
	MMR_WRITE_COLLISION			/* a row of another key holds a unique value; ours is not there (any more) */
} MmrWrite;

typedef struct MmrTarget
{
	Relation	rel;
	Relation	index;
	MmrKey	   *key;
	EState	   *estate;
	ResultRelInfo *rri;
	MmrKeyScan *scan;			/* between begin and end */
	TupleTableSlot *found;		/* the local row, if the last find found one */
	TupleTableSlot *row;		/* virtual: the row to be written */
	List	   *arbiters;		/* unique and exclusion indexes that are checked at once */
	List	   *uniques;		/* all unique and exclusion indexes */
	MemoryContext cxt;			/* per row: reset by the caller */
	Bitmapset  *indexed;		/* columns of keys of indexes... */
	bool		plain_indexes;	/* ...if all hold only columns, and all rows */
	bool		fires;			/* any triggers that are enabled for replicas... */
	bool		fires_insert;	/* ...those AFTER an event */
	bool		fires_update;
	bool		fires_delete;
	struct MmrDefault *defaults;
	int			ndefaults;
	bool		defaults_ready;
	MmrSession	saved;
} MmrTarget;

/*
 * For this transaction: triggers that are enabled for replicas and deferrable
 * fire at once.  At commit they would run as who is connected.
 */
extern void mmr_target_defer_nothing(void);

/* Opens and locks (ROW EXCLUSIVE, kept to the end of the transaction) a table and its key. */
extern MmrTarget *mmr_target_open(Relation rel, MmrKey *key, MemoryContext cxt);

/*
 * Between begin and end: rows are looked up under the snapshot, user code
 * runs as the table's owner in a restricted context (A9).  end fires the
 * AFTER triggers that are enabled for replicas.
 */
extern void mmr_target_begin(MmrTarget *t, Snapshot snapshot);
extern void mmr_target_end(MmrTarget *t);
extern void mmr_target_close(MmrTarget *t);

/* Looks the key up under the snapshot; the row is in t->found. */
extern bool mmr_target_find(MmrTarget *t, const Datum *key);

/*
 * Waits for whoever is inserting or deleting that key at this moment; true if
 * a row with it is alive then.
 */
extern bool mmr_target_wait(MmrTarget *t, const Datum *key);

/* From now on t->ndefaults says how many columns `sent` does not name. */
extern void mmr_target_know_columns(MmrTarget *t, bool (*sent) (void *arg, AttrNumber attnum),
									void *arg);

/* Has one of those a default that is to be computed? */
extern bool mmr_target_has_defaults(MmrTarget *t);

/* Fills the columns of t->row that `sent` does not name: from t->found, or by their defaults. */
extern void mmr_target_complete(MmrTarget *t, bool (*sent) (void *arg, AttrNumber attnum),
								void *arg, bool found);

/* Is t->row the same, byte by byte, as t->found? */
extern bool mmr_target_same(MmrTarget *t);

/*
 * Leaves t->found as it is: DONE if nobody has changed it since it was found,
 * or is changing it; else RETRY, after waiting for him.
 */
extern MmrWrite mmr_target_keep(MmrTarget *t);

/* Locks t->found: DONE, or RETRY if it has changed since it was found. */
extern MmrWrite mmr_target_lock(MmrTarget *t);

/* ERROR if the row (a virtual one) breaks a constraint of the table; makes its generated columns. */
extern void mmr_target_check(MmrTarget *t, TupleTableSlot *row);

/* Generated columns and constraints of t->row, which is about to be written. */
extern void mmr_target_check_row(MmrTarget *t, CmdType operation);

/* Index entries and AFTER triggers of t->row, a new row just written; unless DONE it is taken out again. */
extern MmrWrite mmr_target_enter(MmrTarget *t);

/* Writes t->row, over t->found (update), or as a new row. */
extern MmrWrite mmr_target_insert(MmrTarget *t);
extern MmrWrite mmr_target_update(MmrTarget *t);
extern MmrWrite mmr_target_delete(MmrTarget *t);

/*
 * Takes back the insert done last on this target (its slot is still in
 * t->row), as if it had not been.
 */
extern void mmr_target_remove_tid(MmrTarget *t, ItemPointer tid);

#endif							/* MMR_TARGET_H */
