/*-------------------------------------------------------------------------
 * wanted.h
 *	  Keys that a peer could not apply and asks for again (the receiver's side
 *	  is asks).
 *
 * Floor 5.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_WANTED_H
#define MMR_WANTED_H

#include "changelog.h"
#include "key.h"
#include "link.h"
#include "membership.h"
#include "position.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"
#include "versions.h"

typedef struct MmrWantedKey
{
	char	   *nspname;
	char	   *relname;
	uint64		hash;
	MmrKey	   *key;			/* NULL: no answer to that one */
	MmrChange	change;			/* what is known of it here: the label of the answer */
} MmrWantedKey;

/* What a session knows of its peer's wishes. */
typedef struct MmrWanted
{
	MemoryContext cxt;
	bool		standing;		/* something stands aside there */
	TimestampTz asked_at;
	List	   *keys;			/* MmrWantedKey, to go with the next batch */
} MmrWanted;

extern void mmr_wanted_init(MmrWanted *w, MemoryContext parent);

/* Is it time to ask again? */
extern bool mmr_wanted_due(const MmrWanted *w);

/*
 * Asks the peer; careful: the next batch is one that it could not apply.  On a
 * link without an open transaction.
 */
extern void mmr_wanted_ask(MmrWanted *w, MmrLink *link, int32 sync_id, bool careful);

/*
 * Finds, by one scan of the log, the newest version of each key, as the
 * snapshot sees it; a version of none says that the log holds nothing of it:
 * then it is stable.  Keys that are no members, or that stand aside here, too,
 * get no answer.
 */
extern void mmr_wanted_label(MmrWanted *w, MmrSync *sync, Snapshot snapshot, const MmrPosition *pos,
							 MmrKeyFinder finder, void *arg);

/* They have gone with a batch that was applied. */
extern void mmr_wanted_served(MmrWanted *w, bool standing);

#endif							/* MMR_WANTED_H */
