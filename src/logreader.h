/*-------------------------------------------------------------------------
 * logreader.h
 *	  Finds the runs of the change log that a session has not seen yet.
 *
 * Floor 3.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_LOGREADER_H
#define MMR_LOGREADER_H

#include "changelog.h"
#include "position.h"
#include "utils/snapshot.h"

typedef struct MmrLogReader MmrLogReader;

/* Given each run; segment is where it lies. The run's bytes are valid during the call only. */
typedef void (*MmrRunCallback) (void *arg, int segment, uint64 xid, const char *data, int len);

/* Told that a segment was emptied: what came from it is stable and gone. */
typedef void (*MmrEmptiedCallback) (void *arg, int segment);

/* Is the segment, open as rel, to be passed over as long as it stays what it is? */
typedef bool (*MmrSkipCallback) (void *arg, int segment, Relation rel, Snapshot snapshot);

extern MmrLogReader *mmr_logreader_create(MemoryContext cxt);
extern void mmr_logreader_set_skip(MmrLogReader *reader, MmrSkipCallback skip);

/*
 * Gives every run that is visible to the snapshot (pos: the same as a
 * position) and was not given before; now and then one is given again.
 * Returns the number of transactions' runs seen that are not decided yet.
 */
extern int64 mmr_logreader_scan(MmrLogReader *reader, Snapshot snapshot, const MmrPosition *pos,
								MmrRunCallback callback, MmrEmptiedCallback emptied, void *arg);

/* What is in this segment is given again by the next scan. */
extern void mmr_logreader_forget(MmrLogReader *reader, int segment);

/* Everything is given again by the next scan. */
extern void mmr_logreader_reset(MmrLogReader *reader);

#endif							/* MMR_LOGREADER_H */
