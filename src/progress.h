/*-------------------------------------------------------------------------
 * progress.h
 *	  Per sync and source: what of it has been applied here (mmrepl.progress).
 *
 * Floor 2.  All need a transaction; reading uses the active snapshot.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_PROGRESS_H
#define MMR_PROGRESS_H

#include "nodes/pg_list.h"
#include "position.h"
#include "storage/itemptr.h"

typedef struct MmrProgress
{
	int32		sync_id;
	int32		source_node;
	MmrPosition *position;		/* NULL: nothing applied yet */
	MmrContext *context;		/* as last received */
	int64		max_ts;
	int64		batches;
	int64		inserted;
	int64		updated;
	int64		deleted;
	int64		truncated;
	int64		conflicts;
	int64		last_inserted;
	int64		last_updated;
	int64		last_deleted;
	ItemPointerData tid;		/* of the row read; invalid: there is none yet */
} MmrProgress;

/* What is stored of that sync and source; a fresh one with an invalid tid if nothing is. palloc'd. */
extern MmrProgress *mmr_progress_read(int32 sync_id, int32 source_node);

/*
 * The same, the latest, for who is going to store it: to the end of the
 * transaction nobody else claims it.  Waits for a session that is still about
 * to commit though its pusher has given it up.
 */
extern MmrProgress *mmr_progress_claim(int32 sync_id, int32 source_node);

/* All rows of a sync (MmrProgress), or of all syncs if sync_id is 0. */
extern List *mmr_progress_list(int32 sync_id);

/*
 * Stores it, with last_good = now, and last_changes too if had_changes.
 * ERROR if somebody else has stored since it was read.
 */
extern void mmr_progress_write(MmrProgress *p, bool had_changes);

/* Highest version time ever applied here, of all syncs and sources, or ever noted as below; 0 if none. */
extern int64 mmr_progress_max_ts(void);

/*
 * Notes a time that must be below all that is written from now on, also after
 * a restart: entries up to it leave the log.  False, and nothing noted, if
 * somebody else is about to: does not wait.
 */
extern bool mmr_progress_note_ts(int64 ts);

/* Own positions of all sources of a sync, as a context. */
extern MmrContext *mmr_progress_context(int32 sync_id);

#endif							/* MMR_PROGRESS_H */
