/*-------------------------------------------------------------------------
 * backlog.c
 *	  How much waits for a peer to whom nothing can be sent.
 *
 * Floor 8.  Reads the log.  Runs in pushers while their peer is away, or their
 * sync is paused.
 *
 * Invariant: what is counted has been captured here and not been acknowledged
 * by the peer.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "backlog.h"
#include "batch.h"

struct MmrBacklog
{
	MemoryContext cxt;
	int32		sync_id;
	int32		peer;
	MmrBatch   *batch;			/* NULL: nothing has been looked at; never sent */
	MmrPosition *from;			/* position behind which was counted */
	MmrPosition *seen;			/* position up to which was counted, the last look's */
	int64		changes;
	bool		looking;		/* a look ended in an ERROR */
};

MmrBacklog *
mmr_backlog_create(MemoryContext parent, int32 sync_id, int32 peer)
{
	MmrBacklog *b = MemoryContextAllocZero(parent, sizeof(MmrBacklog));

	b->cxt = AllocSetContextCreate(parent, "mmrepl backlog", ALLOCSET_SMALL_SIZES);
	b->sync_id = sync_id;
	b->peer = peer;
	return b;
}

void
mmr_backlog_forget(MmrBacklog *b)
{
	MemoryContextReset(b->cxt);
	b->batch = NULL;
	b->from = b->seen = NULL;
	b->changes = 0;
	b->looking = false;
}

int64
mmr_backlog_look(MmrBacklog *b, MmrSync *sync, const MmrPosition *from)
{
	MmrPosition *seen;

	if (b->looking || !mmr_position_equal(b->from, from))
		mmr_backlog_forget(b);
	if (b->batch == NULL)
	{
		b->batch = mmr_batch_create(b->cxt, b->sync_id, b->peer);
		b->from = from ? mmr_position_copy(from, b->cxt) : NULL;
	}
	b->looking = true;
	(void) mmr_batch_prepare(b->batch, sync, b->seen ? b->seen : b->from);
	b->changes += mmr_batch_pending(b->batch);
	/* what was found stays found: the next look begins behind it */
	seen = mmr_position_copy(mmr_batch_position(b->batch), b->cxt);
	mmr_batch_done(b->batch, true);
	if (b->seen != NULL)
		pfree(b->seen);
	b->seen = seen;
	b->looking = false;
	return b->changes;
}
