/*-------------------------------------------------------------------------
 * crossing.c
 *	  Changes of two sessions that have crossed.
 *
 * Floor 3.  Reads and writes memory only.  Runs in apply backends.
 *
 * Who writes a row holds it, and who comes next waits, and sees.  But a key
 * without a row cannot be held: a delete of it leaves nothing that an insert of
 * another peer's session could wait for.  So what comes from the log, written by
 * transactions that were under way when ours wrote, is compared with what ours has
 * written.  (What a local client writes is newer than anything that has
 * come: it crosses nothing.)
 *
 * Invariant: a crossing that matters is counted by the first reading of the log at
 * which the other transaction is over.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/proc.h"

#include "compat.h"
#include "crossing.h"

void
mmr_crossing_reset(MmrCrossing *c, MemoryContext cxt)
{
	c->cxt = cxt;
	c->lxid = InvalidLocalTransactionId;
	c->fed = NULL;
	c->look = false;
	c->met = 0;
}

bool
mmr_crossing_wrote(const MmrCrossing *c)
{
	return c->lxid == mmr_my_lxid();
}

unsigned
mmr_crossing_write(MmrCrossing *c)
{
	if (!mmr_crossing_wrote(c))
	{
		c->lxid = mmr_my_lxid();
		c->turn = c->turn % MMR_CROSSING_TURNS + 1;
		c->met = 0;
	}
	return c->turn;
}

void
mmr_crossing_run(MmrCrossing *c, uint64 xid)
{
	/* runs are given again when something is added to their page */
	c->look = mmr_crossing_wrote(c) && !mmr_position_covers(c->fed, xid) &&
		xid != U64FromFullTransactionId(GetTopFullTransactionIdIfAny());
}

bool
mmr_crossing_matters(uint8 op, const MmrVersion *own, uint8 other_op, const MmrVersion *other)
{
	int			cmp = mmr_version_compare(other, own);

	return cmp > 0 ? op != MMR_OP_DELETE : cmp < 0 && op == MMR_OP_DELETE && other_op != MMR_OP_DELETE;
}

void
mmr_crossing_meet(MmrCrossing *c, unsigned turn, uint8 op, const MmrVersion *known,
				  const MmrChange *change)
{
	if (c->look && turn == c->turn && mmr_crossing_matters(op, known, change->op, &change->version))
		c->met++;
}

void
mmr_crossing_fed(MmrCrossing *c, const MmrPosition *pos)
{
	if (mmr_position_equal(c->fed, pos))
		return;
	if (c->fed != NULL)
		pfree(c->fed);
	c->fed = mmr_position_copy(pos, c->cxt);
}

void
mmr_crossing_settled(MmrCrossing *c)
{
	if (c->met > 0)
		c->met--;
}
