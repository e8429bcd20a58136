/*-------------------------------------------------------------------------
 * runs.c
 *	  Runs of the log kept in memory, as far as they fit.
 *
 * Floor 4.  Reads and writes memory only.  Runs in pushers.
 *
 * Invariant: without overflow, all that were given are kept.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "runs.h"
#include "wire.h"

#define KEEP_BYTES		(8 * 1024 * 1024)

void
mmr_runs_init(MmrRuns *r)
{
	initStringInfo(&r->buf);
	r->overflow = false;
}

void
mmr_runs_reset(MmrRuns *r)
{
	r->overflow = false;
	mmr_wire_empty(&r->buf, KEEP_BYTES / 8);
}

void
mmr_runs_keep(MmrRuns *r, uint64 xid, const char *data, int len)
{
	if (r->overflow || r->buf.len + len >= KEEP_BYTES)
	{
		r->overflow = true;
		return;
	}
	appendBinaryStringInfo(&r->buf, (char *) &xid, sizeof(xid));
	appendBinaryStringInfo(&r->buf, (char *) &len, sizeof(len));
	appendBinaryStringInfo(&r->buf, data, len);
}

bool
mmr_runs_any(const MmrRuns *r)
{
	return r->buf.len > 0 || r->overflow;
}

void
mmr_runs_each(const MmrRuns *r, MmrRunCallback callback, void *arg)
{
	const char *p = r->buf.data;

	while (p < r->buf.data + r->buf.len)
	{
		uint64		xid;
		int			len;

		memcpy(&xid, p, sizeof(xid));
		memcpy(&len, p + sizeof(xid), sizeof(len));
		p += sizeof(xid) + sizeof(len);
		callback(arg, 0, xid, p, len);
		p += len;
	}
}
