/*-------------------------------------------------------------------------
 * outgoing.c
 *	  A local table on its way out.
 *
 * Floor 5.  Reads user tables and pg_class.  Runs in pushers, once per row that
 * is sent.
 *
 * The lock on a table is taken after the snapshot, when the table is known to
 * have changes: so a batch costs nothing for tables that did not change.
 * What could go wrong by that (B2: a TRUNCATE or rewrite in between) is
 * seen by comparing the storage the snapshot knew with the one there is.  It is
 * let go when the rows at hand are read, and the comparison made again with the next
 * ones: who wants a strong lock here does not wait for a peer's answer, and
 * two nodes that send each other a TRUNCATE do not wait for each other.
 *
 * Invariant: a row is sent, or its absence, as the snapshot sees it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "breaks.h"
#include "compat.h"
#include "errors.h"
#include "outgoing.h"

/*
 * Everything that a snapshot sees as finished has its commit or abort record
 * below the end of the WAL read after it: flushed, no crash here brings a
 * transaction number of it back, and none of it comes back undone.
 */
void
mmr_outgoing_flush_wal(void)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();

	/* it may lie behind the header of a page that has no record yet, which cannot be flushed */
	if (XLogSegmentOffset(end, wal_segment_size) == SizeOfXLogLongPHD)
		end -= SizeOfXLogLongPHD;
	else if (end % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		end -= SizeOfXLogShortPHD;
#ifndef MMR_BREAK_FLUSH
	XLogFlush(end);
#endif
}

/* Is the table's storage the one that the snapshot knew? */
static bool
same_storage(Relation rel, Snapshot snapshot)
{
	Relation	pg_class = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		same;

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationGetRelid(rel)));
	scan = systable_beginscan(pg_class, ClassOidIndexId, true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	same = HeapTupleIsValid(tuple) &&
		((Form_pg_class) GETSTRUCT(tuple))->relfilenode == rel->rd_rel->relfilenode;
	systable_endscan(scan);
	table_close(pg_class, AccessShareLock);
	return same;
}

static void
outgoing_forget(MmrOutgoing *o)
{
	if (o->cxt != NULL)
		MemoryContextDelete(o->cxt);
	o->cxt = NULL;
	o->format = NULL;
}

bool
mmr_outgoing_open(MmrOutgoing *o, MmrMember *member, Snapshot snapshot)
{
	o->rel = table_open(member->relid, AccessShareLock);
	if (!same_storage(o->rel, snapshot))
	{
		table_close(o->rel, AccessShareLock);
		o->rel = NULL;
		return false;
	}
	o->key = mmr_key_get(o->rel, member->key_index);
	if (o->key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_SCHEMA),
				 errmsg("table \"%s.%s\" has no usable key", member->nspname, member->relname),
				 errhint("Restore its key index; mmrepl.validate_sync tells what is wrong.")));
	if (o->format == NULL || o->generation != mmr_key_generation())
	{
		outgoing_forget(o);
		o->generation = mmr_key_generation();
		o->cxt = AllocSetContextCreate(o->parent, "mmrepl outgoing", ALLOCSET_SMALL_SIZES);
		o->format = mmr_row_format_local(o->rel, false, o->cxt);
	}
	o->index = index_open(o->key->indexid, AccessShareLock);
	o->slot = table_slot_create(o->rel, NULL);
	o->scan = mmr_keyscan_begin(o->rel, o->index, o->key, snapshot);
	return true;
}

void
mmr_outgoing_rest(MmrOutgoing *o)
{
	if (o->rel != NULL)
		mmr_keyscan_rest(o->scan);
}

void
mmr_outgoing_close(MmrOutgoing *o)
{
	if (o->rel == NULL)
		return;
	ExecDropSingleTupleTableSlot(o->slot);
	mmr_keyscan_end(o->scan);
	/* what is read is read: nobody waits for us while we wait for the peer */
	index_close(o->index, AccessShareLock);
	table_close(o->rel, AccessShareLock);
	o->rel = NULL;
}

void
mmr_outgoing_describe(MmrOutgoing *o, uint32 number, StringInfo out)
{
	if (o->number != 0)
		return;
	o->number = number;
	appendStringInfoChar(out, MMR_REC_RELATION);
	mmr_row_describe(o->format, number, o->rel, o->key, out);
}

/* Everything of an item but its row. */
static void
put_head(MmrOutgoing *o, uint8 flags, const MmrChange *c, int64 *ts, StringInfo out)
{
	char	   *p;

	enlargeStringInfo(out, c->keylen + 8 * MMR_VARINT_MAX + 3);
	p = out->data + out->len;
	*p++ = MMR_REC_ITEM;
	*p++ = (char) flags;
	p = mmr_put_varint(p, o->number);
	p = mmr_put_varint(p, mmr_zigzag(c->version.ts - *ts));
	if (flags & MMR_ITEM_FOREIGN)
	{
		p = mmr_put_varint(p, c->version.node);
		p = mmr_put_varint(p, c->dot.node);
	}
	p = mmr_put_varint(p, c->dot.xid);
	if (flags & MMR_ITEM_RESOLUTION)
	{
		*p++ = (char) c->settled.level;
		p = mmr_put_varint(p, c->settled.node);
	}
	p = mmr_put_varint(p, c->keylen);
	memcpy(p, c->key, c->keylen);
	out->len = p + c->keylen - out->data;
	*ts = c->version.ts;
}

void
mmr_outgoing_item(MmrOutgoing *o, const MmrChange *label, int32 my_node, int64 *ts, StringInfo out)
{
	Datum		values[INDEX_MAX_KEYS];
	uint8		flags = label->op;
	bool		found;

	mmr_key_decode(o->key, label->key, label->keylen, values);
	found = mmr_keyscan_find(o->scan, values, o->slot);
	if (found)
		flags |= MMR_ITEM_ROW;
	if (label->version.rank != 0)
		flags |= MMR_ITEM_RANK;
	if (label->settled.level > 0)
		flags |= MMR_ITEM_RESOLUTION;
	if (label->version.node != my_node || label->dot.node != my_node)
		flags |= MMR_ITEM_FOREIGN;
	put_head(o, flags, label, ts, out);
	if (found)
		mmr_row_encode(o->format, o->slot, out);
	ExecClearTuple(o->slot);
}

void
mmr_outgoing_row(MmrOutgoing *o, TupleTableSlot *slot, StringInfo key, int64 *ts, StringInfo out)
{
	MmrChange	c = {0};

	c.key = key->data;
	c.keylen = key->len;
	put_head(o, MMR_OP_INSERT | MMR_ITEM_ROW, &c, ts, out);
	mmr_row_encode(o->format, slot, out);
}

void
mmr_outgoing_truncate(MmrOutgoing *o, const MmrVersion *version, const MmrDot *dot, StringInfo out)
{
	appendStringInfoChar(out, MMR_REC_TRUNCATE);
	mmr_append_varint(out, o->number);
	mmr_append_varint(out, version->ts);
	mmr_append_varint(out, version->node);
	mmr_append_varint(out, dot->node);
	mmr_append_varint(out, dot->xid);
}
