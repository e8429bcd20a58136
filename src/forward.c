/*-------------------------------------------------------------------------
 * forward.c
 *	  Which changes of the log go to a peer.
 *
 * Floor 4.  Reads mmrepl.progress.  Runs in pushers, for each change that is new
 * in the log.
 *
 * Whether the peer has what was handed on is told, as for what was written here, by
 * the transaction that put it into the log here.  Besides that nothing is sent
 * back to where it came from: a peer whose own context covers a change has it.
 * That only saves work, and what goes round a ring ends anyway at who has it.
 * (What a departed source has left, bequest.c, is asked for by itself.)
 *
 * Invariant: every change written here goes to every peer.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "forward.h"
#include "progress.h"
#include "topology.h"

void
mmr_forward_load(MmrForward *f, MmrSync *sync, int32 peer)
{
	f->sync = sync;
	f->my_node = mmr_membership_my_id();
	f->peer = peer;
	f->any = mmr_topology_forwards(sync);
	f->peer_has = f->any ? mmr_progress_read(sync->id, peer)->context : NULL;
}

bool
mmr_forward_run(const MmrForward *f, const MmrRun *run)
{
	return f->only_of == 0 && f->any && run->recorded && mmr_topology_hands_on(f->sync, run->via, f->my_node);
}

bool
mmr_forward_change(const MmrForward *f, bool hands_on, const MmrChange *change)
{
	if (f->only_of != 0)
		return change->dot.node == f->only_of && !mmr_position_covers(f->but, change->dot.xid);
	if (change->dot.node == f->my_node)
		return true;
	return hands_on && change->dot.node != f->peer &&
		!mmr_position_covers(mmr_context_position(f->peer_has, change->dot.node), change->dot.xid);
}
