/*-------------------------------------------------------------------------
 * versions.h
 *	  The newest version of each key that is not stable yet: a table in this
 *	  session's memory, fed from the change log, and the indexes of closed
 *	  segments that have them.
 *
 * Floor 4.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_VERSIONS_H
#define MMR_VERSIONS_H

#include "crossing.h"
#include "key.h"
#include "logreader.h"

typedef struct MmrVersions MmrVersions;

/*
 * Is no run of interest that a transaction up to that one has appended?  Then a
 * closed segment that has an index need not be read.
 */
typedef bool (*MmrSeenFilter) (void *arg, uint64 max_xid);

/* The key of a table, or NULL if it is of no interest (not a member, gone). */
typedef MmrKey *(*MmrKeyFinder) (void *arg, Oid relid);

/* Given each run before its changes are looked at; false: of no interest. */
typedef bool (*MmrRunFilter) (void *arg, MmrRun *run, const char *data, int len);

extern MmrVersions *mmr_versions_create(MemoryContext parent, MmrKeyFinder finder,
										MmrRunFilter filter, void *arg);

/* For who wants to be given runs that he has not seen, and that an index would hide. */
extern void mmr_versions_set_seen(MmrVersions *v, MmrSeenFilter seen);

/* Takes in what has become visible to the snapshot. Returns undecided runs, as mmr_logreader_scan. */
extern int64 mmr_versions_feed(MmrVersions *v, Snapshot snapshot, const MmrPosition *pos);

/* Grows with every change taken in from the log: has anything happened since? */
extern uint64 mmr_versions_fed(MmrVersions *v);

/* What of others' changes has crossed what this transaction has added. */
extern MmrCrossing *mmr_versions_crossing(MmrVersions *v);

/* Forgets everything; the next feed reads the whole log. For aborted transactions. */
extern void mmr_versions_reset(MmrVersions *v);

/*
 * Newest state of the key, a TRUNCATE of its table included; false: nothing
 * unstable is known of it.  In the transaction of the feed before it.
 */
extern bool mmr_versions_lookup(MmrVersions *v, MmrKey *key, uint64 hash,
								const char *data, int len, MmrState *state);

/* The key will be looked up, or added, in a moment. */
extern void mmr_versions_prefetch(MmrVersions *v, uint64 hash);

/* Newest TRUNCATE of the table; false: none. */
extern bool mmr_versions_truncated(MmrVersions *v, Oid relid, MmrState *state);

/* Newest entry of any key of the table; false: none. */
extern bool mmr_versions_newest_of_table(MmrVersions *v, Oid relid, MmrVersion *version);

/* True if no key at all is known: lookups can be skipped. */
extern bool mmr_versions_is_empty(MmrVersions *v);

/* Takes in a change of this very transaction (it will also be found in the log). */
extern void mmr_versions_add(MmrVersions *v, MmrKey *key, uint64 hash, const MmrChange *change);

#endif							/* MMR_VERSIONS_H */
