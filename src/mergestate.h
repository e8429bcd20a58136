/*-------------------------------------------------------------------------
 * mergestate.h
 *	  One batch under way in this backend: what all who merge share.
 *
 * Floor 5.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_MERGESTATE_H
#define MMR_MERGESTATE_H

#include "membership.h"
#include "position.h"
#include "row.h"
#include "strategy.h"
#include "target.h"
#include "versions.h"

/* A table as the sender describes it, bound to the one here. */
typedef struct MmrMergeTable
{
	uint32		number;			/* the sender's */
	Oid			relid;
	Oid			key_index;
	Relation	rel;			/* open during a frame; locked to the end of the transaction */
	MmrKey	   *key;
	MmrRowFormat *format;		/* NULL: the sender's columns do not fit, see misfit */
	MmrRowDescription *description; /* as it came */
	ErrorData  *misfit;
	bool		record_all;		/* A4: more than one other node can change it, or it is handed on */
	bool		goes_on;		/* handed on: what a TRUNCATE spares has to go with it (M4) */
	const MmrStrategy *strategy;	/* of its conflicts; NULL: latest */
	struct MmrMergeFn *mergefn; /* opened when it is needed; in batch_cxt */
	bool		told;			/* that it failed */
	int			absent;			/* rows looked up one after the other that were not there */
} MmrMergeTable;

/* One key as it came. */
typedef struct MmrMergeItem
{
	MmrChange	change;
	const char *row;			/* NULL: the key is gone there */
	int			rowlen;
	uint64		hash;
	bool		again;			/* it had been taken away here: what the log says of it, if no more than that, is not here */
	bool		inserted;		/* written as a new row in this pass... */
	bool		recorded;		/* ...and recorded */
	ItemPointerData tid;		/* ...here */
} MmrMergeItem;

typedef struct MmrMergeCounts
{
	int64		inserted;
	int64		updated;
	int64		deleted;
	int64		truncated;
	int64		conflicts;
} MmrMergeCounts;

/* One batch under way. */
typedef struct MmrMerge
{
	MmrSync    *sync;
	int32		my_node;
	int32		source_node;
	const MmrContext *context;	/* what the sender had applied */
	MmrVersions *versions;		/* of this session */
	bool		authored;		/* something was decided here, or is handed on: others have to be told */
	MmrAppender *appender;		/* entries to record, NULL: none yet in this frame */
	MmrMergeCounts counts;
	int64		max_ts;			/* highest seen */
	MemoryContext batch_cxt;
	List	   *aside;			/* items that collided with a row of another key */
	bool		copy;			/* an initial copy: rows without versions */
	bool		bequest;		/* of a departed source: a target gives it */
	bool		careful;		/* what cannot be applied is set aside (A11) */
	bool		guarded;		/* entries to record are held until the work under guard is through... */
	List	   *held;			/* ...here */
	bool		recorded;		/* something that other peers may speak of, too... */
	bool		absent;			/* ...and a delete of what is not here */
	uint64		copies;			/* initial copies applied here before it began */
	MmrPosition *began;			/* a copy: what of the log its first look at anything could see */
	bool		crossed;		/* under guard, with what another peer's session has written */
	bool		feeding;		/* versions are being fed */
	int64		set_aside;		/* items, for the first time */
	char	   *first_error;	/* of those */
} MmrMerge;

/* Opens the table for this call, unless it is open; ERROR (ERRCODE_MMR_SCHEMA) if its key index is gone. */
extern void mmr_merge_open_table(MmrMergeTable *table);

/* Counts looks at rows that change meanwhile; ERROR (to be tried again) when they do not come to rest. */
extern void mmr_merge_look_again(MmrMergeTable *table, int *looks);

/* Writes recorded entries to the log. */
extern void mmr_merge_flush(MmrMerge *m);

/*
 * Last thing before the position is stored: the end of a batch and changes of
 * who takes part in the sync come one after the other.  ERROR (to be tried
 * again) if something has been applied that would not be by the configuration
 * as it is now.  tables: MmrMergeTable.  True if m->sync was reread.
 */
extern bool mmr_merge_hold_members(MmrMerge *m, List *tables);

/*
 * Before the commit, when all has been recorded.  A key that is not here cannot
 * be locked: of two peers' sessions one may have deleted it and the other one
 * inserted it without noticing each other.  So of these only one is between here
 * and its end; the later one finds in the log what the other one has done.
 * (Rows of an initial copy are not in the log: mmr_sweep_crossed; whoever comes
 * behind it and has deleted what was not here, looks again.)  ERROR (to be
 * tried again) if they have met.
 */
extern void mmr_merge_before_commit(MmrMerge *m);

/* Of its two sides that of a copy: until the commit nobody else ends who has deleted what was not here. */
extern void mmr_merge_hold_ends(bool alone);

/* A4: can anybody but the sender lack what comes of the table, and hear of it from here? Sets both flags. */
extern void mmr_merge_settle_recording(MmrSync *sync, MmrMergeTable *table);

/* Looks at one version time that came: K3, clock, highest. */
extern void mmr_merge_see(MmrMerge *m, int64 ts);

/* A fresh snapshot, pushed, that shows what this transaction has done; versions are fed by it. */
extern Snapshot mmr_merge_snapshot(MmrMerge *m);

/* Puts an entry into the log and into the versions of this session. */
extern void mmr_merge_record(MmrMerge *m, MmrMergeTable *table, const MmrChange *change,
							 uint64 hash);

/* Does the sender send that column?  arg: the table's MmrRowFormat. */
extern bool mmr_merge_sent(void *arg, AttrNumber attnum);

/*
 * Does the work in a subtransaction: NULL if it came to its end, or, if an error
 * that is a row's fault ended it (rowerror.h), that error, and nothing has
 * been done.  Any other error is raised again.
 */
extern ErrorData *mmr_merge_guard(MmrMerge *m, void (*work) (MmrMerge *m, void *arg), void *arg);

/* Decodes what came into t->row; the columns that did not come are taken from t->found if there is one. */
extern void mmr_merge_fill(MmrMergeTable *table, MmrTarget *t, MmrMergeItem *item, bool found);

#endif							/* MMR_MERGESTATE_H */
