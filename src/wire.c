/*-------------------------------------------------------------------------
 * wire.c
 *	  Bytes of the wire and of the log.
 *
 * Floor 1.  Reads and writes memory only.  Runs everywhere.
 * Invariant: no reader passes r->end, whatever the bytes say.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "errors.h"
#include "wire.h"

void
mmr_wire_corrupt(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_MMR_CORRUPT),
			 errmsg("malformed replication data: %s", what)));
}

uint64
mmr_get_varint_slow(MmrReader *r)
{
	uint64		v = 0;

	for (int shift = 0; shift < 64; shift += 7)
	{
		uint8		b;

		if (r->ptr >= r->end)
			mmr_wire_corrupt("number is cut off");
		b = (uint8) *r->ptr++;
		v |= (uint64) (b & 0x7f) << shift;
		if ((b & 0x80) == 0)
			return v;
	}
	mmr_wire_corrupt("number is too long");
}

const char *
mmr_get_bytes(MmrReader *r, uint64 len)
{
	const char *p = r->ptr;

	if (len > (uint64) (r->end - r->ptr))
		mmr_wire_corrupt("data is cut off");
	r->ptr += len;
	return p;
}

uint8
mmr_get_byte(MmrReader *r)
{
	return (uint8) *mmr_get_bytes(r, 1);
}

uint64
mmr_get_bounded(MmrReader *r, uint64 max, const char *what)
{
	uint64		v = mmr_get_varint(r);

	if (v > max)
		mmr_wire_corrupt(what);
	return v;
}

char *
mmr_get_string(MmrReader *r)
{
	uint64		len = mmr_get_varint(r);
	const char *p = mmr_get_bytes(r, len);

	pg_verify_mbstr(GetDatabaseEncoding(), p, (int) len, false);
	return pnstrdup(p, len);
}

MmrPosition *
mmr_get_position(MmrReader *r)
{
	uint64		n = mmr_get_varint(r);
	MmrPosition *pos;
	uint64		last;

	if (n == 0)
		return NULL;
	n--;
	if (n > (uint64) (r->end - r->ptr))
		mmr_wire_corrupt("position is cut off");
	pos = palloc(offsetof(MmrPosition, xip) + sizeof(uint64) * n);
	pos->nxip = (int) n;
	pos->xmin = last = mmr_get_varint(r);
	pos->xmax = pos->xmin + mmr_get_varint(r);
	if (pos->xmin == 0 || pos->xmax < pos->xmin || pos->xmax > PG_INT64_MAX)
		mmr_wire_corrupt("position is out of range");
	for (uint64 i = 0; i < n; i++)
	{
		pos->xip[i] = last + mmr_get_varint(r);
		if (pos->xip[i] < last || pos->xip[i] >= pos->xmax || (i > 0 && pos->xip[i] == last))
			mmr_wire_corrupt("position is out of order");
		last = pos->xip[i];
	}
	return pos;
}

MmrContext *
mmr_get_context(MmrReader *r)
{
	MmrContext *ctx = palloc0(sizeof(MmrContext));
	uint64		n = mmr_get_bounded(r, r->end - r->ptr, "context is cut off");

	for (uint64 i = 0; i < n; i++)
	{
		uint64		v = mmr_get_bounded(r, (uint64) PG_INT32_MAX << 1 | 1, "node id is out of range");
		const MmrPosition *position = mmr_get_position(r);

		if (position == NULL)
			mmr_context_name(ctx, (int32) (v >> 1));
		else
			mmr_context_add(ctx, (int32) (v >> 1), position, v & 1);
	}
	return ctx;
}

void
mmr_append_varint(StringInfo buf, uint64 v)
{
	char		tmp[MMR_VARINT_MAX];
	char	   *end = mmr_put_varint(tmp, v);

	appendBinaryStringInfo(buf, tmp, end - tmp);
}

void
mmr_append_zigzag(StringInfo buf, int64 v)
{
	mmr_append_varint(buf, mmr_zigzag(v));
}

void
mmr_append_string(StringInfo buf, const char *s)
{
	Size		len = strlen(s);

	mmr_append_varint(buf, len);
	appendBinaryStringInfo(buf, s, len);
}

/* nxip + 1 (0: no position), xmin, xmax and the running ones as differences */
void
mmr_append_position(StringInfo buf, const MmrPosition *pos)
{
	uint64		last;

	if (pos == NULL)
	{
		mmr_append_varint(buf, 0);
		return;
	}
	mmr_append_varint(buf, (uint64) pos->nxip + 1);
	mmr_append_varint(buf, pos->xmin);
	mmr_append_varint(buf, pos->xmax - pos->xmin);
	last = pos->xmin;
	for (int i = 0; i < pos->nxip; i++)
	{
		mmr_append_varint(buf, pos->xip[i] - last);
		last = pos->xip[i];
	}
}

/* Per entry: node * 2, + 1 if carried; position */
void
mmr_append_context(StringInfo buf, const MmrContext *ctx)
{
	mmr_append_varint(buf, ctx == NULL ? 0 : ctx->n);
	for (int i = 0; ctx != NULL && i < ctx->n; i++)
	{
		mmr_append_varint(buf, (uint64) ctx->entries[i].node << 1 | ctx->entries[i].carried);
		mmr_append_position(buf, ctx->entries[i].position);
	}
}

void
mmr_wire_empty(StringInfo buf, int limit)
{
	MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(buf->data));

	resetStringInfo(buf);
	if (buf->maxlen > limit)
	{
		pfree(buf->data);
		initStringInfo(buf);
	}
	MemoryContextSwitchTo(old);
}
