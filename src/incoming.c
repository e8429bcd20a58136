/*-------------------------------------------------------------------------
 * incoming.c
 *	  An item as it comes over the wire.
 *
 * Floor 6.  Reads memory only.  Runs in apply backends, once per row that comes.
 *
 * Invariant: whatever the bytes say, nothing behind their end is read.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bswap.h"
#include "utils/memutils.h"

#include "incoming.h"

void
mmr_incoming_item(MmrReader *r, MmrMergeTable *table, uint8 flags, int32 source, bool copy,
				  int64 *ts, MmrMergeItem *item)
{
	MmrChange  *c = &item->change;

	memset(item, 0, sizeof(*item));
	c->op = flags & MMR_ITEM_OP_MASK;
	c->relid = table->relid;
	c->version.rank = (flags & MMR_ITEM_RANK) ? 1 : 0;
	*ts += mmr_get_zigzag(r);
	c->version.ts = *ts;
	c->version.node = c->dot.node = source;
	if (flags & MMR_ITEM_FOREIGN)
	{
		c->version.node = (int32) mmr_get_bounded(r, PG_INT32_MAX, "node is out of range");
		c->dot.node = (int32) mmr_get_bounded(r, PG_INT32_MAX, "node is out of range");
	}
	c->dot.xid = mmr_get_varint(r);
	if (flags & MMR_ITEM_RESOLUTION)
	{
		c->settled.level = (uint8) mmr_get_bounded(r, MMR_SETTLED_LEVELS, "level is out of range");
		c->settled.node = (int32) mmr_get_bounded(r, PG_INT32_MAX, "node is out of range");
	}
	c->keylen = (int) mmr_get_bounded(r, MaxAllocSize, "key is too long");
	c->key = mmr_get_bytes(r, c->keylen);
	/* a copied row without a version has no entry in the sender's log */
	if (copy && *ts == 0)
		c->version = MMR_VERSION_NONE;
	if (c->op < MMR_OP_INSERT || c->op > MMR_OP_DELETE || *ts < 0)
		mmr_wire_corrupt("item makes no sense");
	if (flags & MMR_ITEM_ROW)
	{
		uint32		len;

		memcpy(&len, mmr_get_bytes(r, sizeof(len)), sizeof(len));
		item->rowlen = (int) Min(pg_ntoh32(len), (uint32) PG_INT32_MAX);
		item->row = mmr_get_bytes(r, item->rowlen);
	}
}
