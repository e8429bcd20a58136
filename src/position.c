/*-------------------------------------------------------------------------
 * position.c
 *	  Positions and contexts, on top of the server's pg_snapshot type.
 *
 * Floor 0.  Reads and writes nothing.  Runs everywhere.
 * Invariant: covers(xid) answers as pg_visible_in_snapshot would.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq/pqformat.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "position.h"

bool
mmr_position_covers(const MmrPosition *pos, uint64 xid)
{
	int			lo,
				hi;

	if (pos == NULL || xid >= pos->xmax)
		return false;
	if (xid < pos->xmin)
		return true;
	lo = 0;
	hi = pos->nxip;
	while (lo < hi)
	{
		int			mid = (lo + hi) / 2;

		if (pos->xip[mid] == xid)
			return false;
		if (pos->xip[mid] < xid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return true;
}

bool
mmr_position_equal(const MmrPosition *a, const MmrPosition *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return a->xmin == b->xmin && a->xmax == b->xmax && a->nxip == b->nxip &&
		memcmp(a->xip, b->xip, sizeof(uint64) * a->nxip) == 0;
}

MmrPosition *
mmr_position_active(void)
{
	return mmr_position_from_datum(DirectFunctionCall1(pg_current_snapshot, (Datum) 0));
}

MmrPosition *
mmr_position_from_datum(Datum snapshot)
{
	bytea	   *sent = DatumGetByteaPP(DirectFunctionCall1(pg_snapshot_send, snapshot));
	StringInfoData buf;
	MmrPosition *pos;
	int			nxip;

	buf.data = VARDATA_ANY(sent);
	buf.len = VARSIZE_ANY_EXHDR(sent);
	buf.maxlen = buf.len;
	buf.cursor = 0;
	nxip = pq_getmsgint(&buf, 4);
	pos = palloc(offsetof(MmrPosition, xip) + sizeof(uint64) * nxip);
	pos->nxip = nxip;
	pos->xmin = (uint64) pq_getmsgint64(&buf);
	pos->xmax = (uint64) pq_getmsgint64(&buf);
	for (int i = 0; i < nxip; i++)
		pos->xip[i] = (uint64) pq_getmsgint64(&buf);
	return pos;
}

Datum
mmr_position_to_datum(const MmrPosition *pos)
{
	StringInfoData buf;
	Datum		result;

	initStringInfo(&buf);
	pq_sendint32(&buf, pos->nxip);
	pq_sendint64(&buf, pos->xmin);
	pq_sendint64(&buf, pos->xmax);
	for (int i = 0; i < pos->nxip; i++)
		pq_sendint64(&buf, pos->xip[i]);
	/* the type's own receive function checks order and bounds */
	result = DirectFunctionCall1(pg_snapshot_recv, PointerGetDatum(&buf));
	pfree(buf.data);
	return result;
}

MmrPosition *
mmr_position_copy(const MmrPosition *pos, MemoryContext cxt)
{
	Size		size = offsetof(MmrPosition, xip) + sizeof(uint64) * pos->nxip;
	MmrPosition *copy = MemoryContextAlloc(cxt, size);

	memcpy(copy, pos, size);
	return copy;
}

const MmrPosition *
mmr_context_position(const MmrContext *ctx, int32 node)
{
	if (ctx != NULL)
		for (int i = 0; i < ctx->n; i++)
			if (ctx->entries[i].node == node)
				return ctx->entries[i].position;
	return NULL;
}

void
mmr_context_add(MmrContext *ctx, int32 node, MmrPosition *position)
{
	if (position == NULL)
		return;
	if (ctx->entries == NULL)
		ctx->entries = palloc(sizeof(MmrContextEntry));
	else
		ctx->entries = repalloc(ctx->entries, sizeof(MmrContextEntry) * (ctx->n + 1));
	ctx->entries[ctx->n].node = node;
	ctx->entries[ctx->n].position = position;
	ctx->n++;
}
