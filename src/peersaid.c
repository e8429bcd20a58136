/*-------------------------------------------------------------------------
 * peersaid.c
 *	  What a pusher has heard of its peer.
 *
 * Floor 7.  Reads and writes mmrepl.peer_state.  Runs in pushers.
 *
 * A peer, or this node, may leave a sync and come again under the same number: then it
 * begins anew, with nothing or with another's copy, and what it had confirmed
 * before is not there any more.  So what is known is of one part, and goes with it.
 *
 * Invariant: what is known was said in this part, or since.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "peersaid.h"
#include "tidings.h"

void
mmr_peersaid_begin(MmrPeerSaid *s, const MmrSync *sync)
{
	char		part[MMR_PEER_PART];

	mmr_peerstate_part(sync, s->peer, part);
	if (strcmp(part, s->part) != 0)
		mmr_peersaid_stands_at(s, mmr_peerstate_position(s->sync_id, s->peer, part));
	strlcpy(s->part, part, MMR_PEER_PART);
	s->target = mmr_tidings_matter(sync, s->peer);
	s->unsaved |= s->target;
}

void
mmr_peersaid_stands_at(MmrPeerSaid *s, const MmrPosition *position)
{
	if (s->position != NULL)
		pfree(s->position);
	s->position = position ? mmr_position_copy(position, s->cxt) : NULL;
}

bool
mmr_peersaid_due(const MmrPeerSaid *s)
{
	return s->unsaved && TimestampDifferenceExceeds(s->saved_at, GetCurrentTimestamp(), MMR_PEERSAID_MS);
}

void
mmr_peersaid_save(MmrPeerSaid *s, const MmrSync *sync, MmrWorker *me, const char *message, const bytea *told)
{
	MmrPeerState state = {.part = s->part,.acked = s->position,.told = told};
	/* asked again until it has all that others have, too */
	bool		again = told != NULL && mmr_tidings_behind(sync, s->peer, told);

	/* nothing has been heard yet, nor read */
	if (s->part[0] == '\0')
		return;
	state.error = message[0] ? message : NULL;
	SpinLockAcquire(&me->mutex);
	state.last_good = me->last_good;
	state.last_bad = me->last_error_at;
	SpinLockRelease(&me->mutex);
	mmr_peerstate_save(s->sync_id, s->peer, &state);
	s->unsaved = again;
	s->saved_at = GetCurrentTimestamp();
	strlcpy(s->message, message, MMR_MSGLEN);
}
