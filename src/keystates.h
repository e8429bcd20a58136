/*-------------------------------------------------------------------------
 * keystates.h
 *	  States of keys in memory: of each the newest one that has been noted, and
 *	  in which segment of the log it lies.
 *
 * Floor 3.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_KEYSTATES_H
#define MMR_KEYSTATES_H

#include "changelog.h"
#include "key.h"

typedef struct MmrKeyStates MmrKeyStates;

/* What was known of a key before a change of it was noted. */
typedef struct MmrKeyKnown
{
	bool		found;
	MmrVersion	version;
	uint8		op;
	unsigned	turn;			/* as it was noted with */
} MmrKeyKnown;

/* Empty; what it holds is in cxt, and goes with it. */
extern MmrKeyStates *mmr_keystates_create(MemoryContext cxt);

/* So the key's place is at hand when it is noted or looked up in a moment: it is far away if there are many. */
extern void mmr_keystates_prefetch(const MmrKeyStates *s, uint64 hash);

/*
 * Notes a change of a key (not a TRUNCATE) that lies in that segment; -1: nowhere yet,
 * a transaction has just added it.  turn (below 8) is kept with it, if it is the newest.
 */
extern void mmr_keystates_note(MmrKeyStates *s, MmrKey *key, uint64 hash, const MmrChange *change,
							   int segment, unsigned turn, MmrKeyKnown *known);

/* What holds for all keys of the change's table: its time, and whether it is a TRUNCATE. */
extern void mmr_keystates_note_table(MmrKeyStates *s, const MmrChange *change, int segment);

/* Forgets what lies in that segment, -1: nowhere.  all: nothing is known from elsewhere, either. */
extern void mmr_keystates_forget(MmrKeyStates *s, int segment, bool all);

/* The key's own newest state; its table's newest TRUNCATE, and newest change of any key. */
extern bool mmr_keystates_lookup(MmrKeyStates *s, MmrKey *key, uint64 hash, const char *data, int len, MmrState *state);
extern bool mmr_keystates_truncated(MmrKeyStates *s, Oid relid, MmrState *state);
extern bool mmr_keystates_newest_of_table(MmrKeyStates *s, Oid relid, MmrVersion *version);

/* Keys or tables that lie nowhere yet; nothing at all; is the memory much larger than it need be? */
extern int64 mmr_keystates_placeless(const MmrKeyStates *s);
extern bool mmr_keystates_is_empty(const MmrKeyStates *s);
extern bool mmr_keystates_wasteful(const MmrKeyStates *s);

#endif							/* MMR_KEYSTATES_H */
