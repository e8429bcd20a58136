/*-------------------------------------------------------------------------
 * segindex.c
 *	  Index of a closed segment of the change log: lookups.
 *
 * Floor 3.  Reads mmrepl.log_N_index and mmrepl.log_N.  Runs in pushers and
 * apply backends.
 *
 * An index was built in one transaction, which began after the last one that
 * wrote to the segment had ended.  So whoever sees its first page sees all of
 * it, and all of the segment.  It holds for the segment's storage of that time only:
 * whatever moves runs about, or empties the segment, leaves an index of a
 * storage that is no more.
 *
 * Invariant: while an index is held, neither the segment nor the index
 * changes: whoever would change them needs a lock that conflicts.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "catalog.h"
#include "errors.h"
#include "segindex.h"
#include "shared.h"

/* Runs that one page of the index names for a hash, looked at together. */
#define RUNS_AT_ONCE	16

bool
mmr_segindex_exists(int segment)
{
	MmrDatabase *db = mmr_shared_database();
	int			current = db ? pg_atomic_read_u32(&db->current_segment) % MMR_SEGMENTS : 0;

	/* one that has outlived a restart: its segment is appended to again, until the janitor has emptied it */
	if (segment == current)
		return false;
	return db == NULL || pg_atomic_read_u32(&db->segment_indexed[segment]) != 0;
}

Relation
mmr_segindex_open(int segment, LOCKMODE lockmode)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "log_%d_index", segment);
	return try_table_open(mmr_catalog_table(name), lockmode);
}

static void
index_damaged(int segment)
{
	ereport(ERROR,
			(errcode(ERRCODE_MMR_CORRUPT),
			 errmsg("index of segment %d of the change log is damaged", segment),
			 errhint("TRUNCATE mmrepl.log_%d_index: it is built again if it is needed.", segment)));
}

/*
 * Data of the tuple at an offset of a page, which the caller has locked; NULL
 * if there is none.  No column is NULL, and what stands before a column is a
 * multiple of its alignment.
 */
static char *
page_data(Page page, OffsetNumber offset)
{
	ItemId		item;
	HeapTupleHeader tuple;

	if (offset > PageGetMaxOffsetNumber(page))
		return NULL;
	item = PageGetItemId(page, offset);
	if (!ItemIdIsNormal(item))
		return NULL;
	tuple = (HeapTupleHeader) PageGetItem(page, item);
	return (char *) tuple + tuple->t_hoff;
}

/* A page of the index, pinned and locked; NULL if it does not look like one. */
static MmrSegPage *
index_page(Buffer buffer)
{
	struct varlena *v = (struct varlena *) page_data(BufferGetPage(buffer), FirstOffsetNumber);
	MmrSegPage *page;

	if (v == NULL || VARATT_IS_EXTERNAL(v) || VARATT_IS_COMPRESSED(v) || VARATT_IS_SHORT(v) ||
		VARSIZE(v) != MMR_SEG_BYTES + VARHDRSZ)
		return NULL;
	page = (MmrSegPage *) VARDATA(v);
	return page->magic == MMR_SEG_MAGIC ? page : NULL;
}

/* Is the index' first page there, for this snapshot? */
static bool
index_visible(Relation rel, Snapshot snapshot)
{
	Buffer		buffer = ReadBuffer(rel, 0);
	HeapTupleData tuple;
	ItemId		item;
	bool		result = false;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	if (PageGetMaxOffsetNumber(BufferGetPage(buffer)) >= FirstOffsetNumber)
	{
		item = PageGetItemId(BufferGetPage(buffer), FirstOffsetNumber);
		if (ItemIdIsNormal(item))
		{
			tuple.t_data = (HeapTupleHeader) PageGetItem(BufferGetPage(buffer), item);
			tuple.t_len = ItemIdGetLength(item);
			tuple.t_tableOid = RelationGetRelid(rel);
			ItemPointerSet(&tuple.t_self, 0, FirstOffsetNumber);
			result = HeapTupleSatisfiesVisibility(&tuple, snapshot, buffer);
		}
	}
	UnlockReleaseBuffer(buffer);
	return result;
}

/* The description of the segment. */
static bool
index_read_head(MmrSegIndex *index, Relation rel, MemoryContext cxt)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	StringInfoData bytes;
	uint32		nhead = 1;

	initStringInfo(&bytes);
	for (BlockNumber b = 0; b < nhead; b++)
	{
		Buffer		buffer = ReadBuffer(rel, b);
		MmrSegPage *page;

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		page = index_page(buffer);
		if (page != NULL && page->n <= sizeof(page->u.bytes))
			appendBinaryStringInfo(&bytes, page->u.bytes, page->n);
		UnlockReleaseBuffer(buffer);
		if (page == NULL || bytes.len < (int) sizeof(MmrSegHead))
			return false;
		memcpy(&index->head, bytes.data, sizeof(MmrSegHead));
		nhead = index->head.nhead;
		if (nhead + index->head.nbuckets > nblocks)
			return false;
	}
	index->nblocks = nblocks;
	if ((Size) bytes.len != sizeof(MmrSegHead) + index->head.ntables * sizeof(MmrSegTable))
		return false;
	index->tables = MemoryContextAlloc(cxt, Max(1, index->head.ntables * sizeof(MmrSegTable)));
	memcpy(index->tables, bytes.data + sizeof(MmrSegHead), index->head.ntables * sizeof(MmrSegTable));
	pfree(bytes.data);
	return true;
}

MmrSegIndex *
mmr_segindex_attach(MemoryContext cxt, int segment, Relation rel, Snapshot snapshot)
{
	Relation	irel = mmr_segindex_open(segment, AccessShareLock);
	MmrSegIndex *index = NULL;
	bool		usable;

	if (irel == NULL)
		return NULL;
	if (RelationGetNumberOfBlocks(irel) > 0 && index_visible(irel, snapshot))
	{
		index = MemoryContextAllocZero(cxt, sizeof(MmrSegIndex));
		index->segment = segment;
		index->relid = RelationGetRelid(rel);
		index->index_relid = RelationGetRelid(irel);
		index->locator = mmr_file_locator(rel);
		index->index_locator = mmr_file_locator(irel);
		usable = index_read_head(index, irel, cxt) && index->head.filenode == mmr_filenode(rel);
		if (!usable)
		{
			mmr_segindex_free(index);
			index = NULL;
		}
	}
	table_close(irel, AccessShareLock);
	return index;
}

void
mmr_segindex_free(MmrSegIndex *index)
{
	if (index->tables != NULL)
		pfree(index->tables);
	pfree(index);
}

bool
mmr_segindex_hold(MmrSegIndex *index, Relation rel)
{
	ResourceOwner old = CurrentResourceOwner;
	Relation	irel;
	bool		same;

	if (index->lxid == mmr_my_lxid())
		return true;
	/* the locks outlive a subtransaction, as what we remember of them does */
	CurrentResourceOwner = TopTransactionResourceOwner;
	LockRelationOid(index->relid, AccessShareLock);
	LockRelationOid(index->index_relid, AccessShareLock);
	CurrentResourceOwner = old;
	irel = try_table_open(index->index_relid, NoLock);
	same = irel != NULL && mmr_file_same(index->locator, mmr_file_locator(rel)) &&
		mmr_file_same(index->index_locator, mmr_file_locator(irel));
	if (irel != NULL)
		table_close(irel, NoLock);
	if (same)
		index->lxid = mmr_my_lxid();
	return same;
}

/* Newest change of the key in the run. */
static bool
run_lookup(struct varlena *v, uint64 xid, MmrKey *key, const char *data, int len, MmrState *state)
{
	MmrRun		run;
	MmrChange	change;
	bool		found = false;

	mmr_changelog_open_run(&run, xid, VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
	while (mmr_changelog_next(&run, &change))
	{
		if (change.relid != key->relid || change.op == MMR_OP_TRUNCATE ||
			(found && mmr_version_compare(&change.version, &state->version) <= 0) ||
			!mmr_key_equal(key, change.key, change.keylen, data, len))
			continue;
		found = true;
		state->version = change.version;
		state->dot = change.dot;
		state->op = change.op;
		state->settled = change.settled;
	}
	return found;
}

/* A run of the segment: copied, so that nobody waits while it is read. */
static struct varlena *
run_fetch(MmrSegIndex *index, const MmrSegEntry *entry, uint64 *xid)
{
	Buffer		buffer = mmr_read_buffer(index->locator, entry->block);
	char	   *data;
	struct varlena *copy = NULL;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	data = page_data(BufferGetPage(buffer), entry->offset);
	if (data != NULL)
	{
		memcpy(xid, data, sizeof(uint64));
		data += sizeof(uint64);
		copy = palloc(VARSIZE_ANY(data));
		memcpy(copy, data, VARSIZE_ANY(data));
	}
	UnlockReleaseBuffer(buffer);
	return copy;
}

/* Looks through the runs that entries name; the newest state into *state. */
static bool
entries_lookup(MmrSegIndex *index, const MmrSegEntry *entries, int n, MmrKey *key,
			   const char *data, int len, MmrState *state, bool found)
{
	for (int i = 0; i < n; i++)
	{
		uint64		xid;
		struct varlena *v = run_fetch(index, &entries[i], &xid);
		struct varlena *plain;
		MmrState	other;

		if (v == NULL)
			index_damaged(index->segment);
		plain = (struct varlena *) detoast_attr(v);
		if (run_lookup(plain, xid, key, data, len, &other) &&
			(!found || mmr_version_compare(&other.version, &state->version) > 0))
		{
			*state = other;
			found = true;
		}
		if (plain != v)
			pfree(plain);
		pfree(v);
	}
	return found;
}

/* First entry of the page that is not below the hash. */
static uint32
page_search(const MmrSegPage *page, uint32 hash)
{
	uint32		low = 0;
	uint32		high = page->n;

	while (low < high)
	{
		uint32		mid = (low + high) / 2;

		if (page->u.entries[mid].hash < hash)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

bool
mmr_segindex_lookup(MmrSegIndex *index, MmrKey *key, uint64 hash, const char *data, int len,
					MmrState *state)
{
	MmrSegEntry entries[RUNS_AT_ONCE];
	BlockNumber block;
	uint32		from = 0;		/* entries of this hash, of the page, that have been looked at */
	bool		found = false;

	if (index->lxid != mmr_my_lxid())
		elog(ERROR, "index of segment %d of the change log is not held", index->segment);
	if (index->head.nbuckets == 0)
		return false;
	block = index->head.nhead + mmr_segindex_bucket(hash, index->head.nbuckets);
	while (block != InvalidBlockNumber)
	{
		Buffer		buffer;
		MmrSegPage *page;
		int			n = 0;

		CHECK_FOR_INTERRUPTS();
		if (block >= index->nblocks)
			index_damaged(index->segment);
		buffer = mmr_read_buffer(index->index_locator, block);
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		page = index_page(buffer);
		if (page == NULL || page->n > MMR_SEG_ENTRIES)
		{
			UnlockReleaseBuffer(buffer);
			index_damaged(index->segment);
		}
		for (uint32 i = page_search(page, (uint32) hash) + from;
			 i < page->n && page->u.entries[i].hash == (uint32) hash && n < RUNS_AT_ONCE; i++)
			entries[n++] = page->u.entries[i];
		if (n == RUNS_AT_ONCE)
			from += n;
		else
		{
			from = 0;
			block = page->next;
		}
		UnlockReleaseBuffer(buffer);
		found = entries_lookup(index, entries, n, key, data, len, state, found);
	}
	return found;
}

const MmrSegTable *
mmr_segindex_table(const MmrSegIndex *index, Oid relid)
{
	uint32		low = 0;
	uint32		high = index->head.ntables;

	while (low < high)
	{
		uint32		mid = (low + high) / 2;

		if (index->tables[mid].relid == relid)
			return &index->tables[mid];
		if (index->tables[mid].relid < relid)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}
