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

/* A position with room for so many running ones, none yet. */
static MmrPosition *
position_make(uint64 xmax, int nxip)
{
	MmrPosition *pos = palloc(offsetof(MmrPosition, xip) + sizeof(uint64) * nxip);

	pos->xmax = xmax;
	pos->nxip = 0;
	return pos;
}

static const MmrPosition *
position_made(MmrPosition *pos)
{
	pos->xmin = pos->nxip > 0 ? pos->xip[0] : pos->xmax;
	return pos;
}

const MmrPosition *
mmr_position_union(const MmrPosition *a, const MmrPosition *b)
{
	MmrPosition *pos;

	if (a == NULL || b == NULL || mmr_position_equal(a, b))
		return a ? a : b;
	if (a->xmax > b->xmax)
		return mmr_position_union(b, a);
	/* neither covers what runs in the later one and is not over in the other */
	pos = position_make(b->xmax, b->nxip);
	for (int i = 0; i < b->nxip; i++)
		if (!mmr_position_covers(a, b->xip[i]))
			pos->xip[pos->nxip++] = b->xip[i];
	return position_made(pos);
}

const MmrPosition *
mmr_position_intersect(const MmrPosition *a, const MmrPosition *b)
{
	MmrPosition *pos;
	int			i = 0,
				j = 0;

	if (a == NULL || b == NULL)
		return NULL;
	if (mmr_position_equal(a, b))
		return a;
	pos = position_make(Min(a->xmax, b->xmax), a->nxip + b->nxip);
	while (i < a->nxip || j < b->nxip)
	{
		uint64		x;

		if (j == b->nxip || (i < a->nxip && a->xip[i] <= b->xip[j]))
			x = a->xip[i++];
		else
			x = b->xip[j++];
		if (x < pos->xmax && (pos->nxip == 0 || pos->xip[pos->nxip - 1] != x))
			pos->xip[pos->nxip++] = x;
	}
	return position_made(pos);
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

const MmrPosition *
mmr_context_carried(const MmrContext *ctx, int32 node)
{
	if (ctx != NULL)
		for (int i = 0; i < ctx->n; i++)
			if (ctx->entries[i].node == node && ctx->entries[i].carried)
				return ctx->entries[i].position;
	return NULL;
}

static void
context_append(MmrContext *ctx, int32 node, const MmrPosition *position, bool carried)
{
	if (ctx->entries == NULL)
		ctx->entries = palloc(sizeof(MmrContextEntry));
	else
		ctx->entries = repalloc(ctx->entries, sizeof(MmrContextEntry) * (ctx->n + 1));
	ctx->entries[ctx->n].node = node;
	ctx->entries[ctx->n].position = position;
	ctx->entries[ctx->n].carried = carried;
	ctx->n++;
}

void
mmr_context_add(MmrContext *ctx, int32 node, const MmrPosition *position, bool carried)
{
	if (position != NULL)
		context_append(ctx, node, position, carried);
}

static bool
context_names(const MmrContext *ctx, int32 node)
{
	if (ctx != NULL)
		for (int i = 0; i < ctx->n; i++)
			if (ctx->entries[i].node == node)
				return true;
	return false;
}

void
mmr_context_name(MmrContext *ctx, int32 node)
{
	if (!context_names(ctx, node))
		context_append(ctx, node, NULL, false);
}
