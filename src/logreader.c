/*-------------------------------------------------------------------------
 * logreader.c
 *	  Finds the runs of the change log that a session has not seen yet.
 *
 * Floor 3.  Reads mmrepl.log_N by page.  Runs in pushers and apply backends.
 *
 * A backend may append to any page that has room, not only to the last one,
 * and what an open transaction has appended becomes visible without the
 * page changing.  So the reader remembers, for every page, its LSN when it
 * was read and whether all its runs were decided then (visible, or of a
 * transaction that is over): a page is read again when its LSN has moved or
 * when something on it was not decided.  Of a page read again the runs up to
 * the first one that was not visible are not given again: the last page of a log may hold
 * a thousand changes of a large transaction, and each small one that is appended to it
 * would cost as much.  (Visible runs stay where they are: nothing but a TRUNCATE of the
 * segment removes them, so no run to come can lie between them.)  What is behind that is given
 * again: callers are idempotent.  Pages that nobody has appended
 * to, as the marks of the log tell, are not even looked at: or the log of a
 * peer that is away, or of a large batch, would cost as much as it is long with
 * each look.
 *
 * Invariant: a run that becomes visible is given by the first scan whose
 * snapshot sees it, or its segment was emptied before.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "logreader.h"

typedef struct PageState
{
	XLogRecPtr	lsn;
	OffsetNumber given;			/* runs up to here have all been visible and are given */
	bool		decided;
} PageState;

/* So many pages are passed over at once if nothing was appended to any of them. */
typedef struct StretchState
{
	uint32		mark;			/* read before the pages were */
	int			decided;		/* pages, from the first, that were decided then; -1: not all */
} StretchState;

typedef struct SegmentState
{
	Oid			filenode;		/* changes when the segment is emptied */
	bool		skipped;
	BlockNumber npages;			/* known pages */
	BlockNumber allocated;
	PageState  *pages;
	StretchState *stretches;
} SegmentState;

struct MmrLogReader
{
	MemoryContext cxt;
	MmrSkipCallback skip;
	SegmentState segments[MMR_SEGMENTS];
	PGAlignedBlock page;		/* copy of the page being given */
	OffsetNumber visible[MaxHeapTuplesPerPage];
};

MmrLogReader *
mmr_logreader_create(MemoryContext cxt)
{
	MmrLogReader *reader = MemoryContextAllocZero(cxt, sizeof(MmrLogReader));

	reader->cxt = cxt;
	return reader;
}

void
mmr_logreader_set_skip(MmrLogReader *reader, MmrSkipCallback skip)
{
	reader->skip = skip;
}

static void
segment_forget(SegmentState *seg)
{
	if (seg->pages != NULL)
	{
		pfree(seg->pages);
		pfree(seg->stretches);
	}
	memset(seg, 0, sizeof(*seg));
}

void
mmr_logreader_reset(MmrLogReader *reader)
{
	for (int i = 0; i < MMR_SEGMENTS; i++)
		segment_forget(&reader->segments[i]);
}

void
mmr_logreader_forget(MmrLogReader *reader, int segment)
{
	segment_forget(&reader->segments[segment]);
}

/* Room for the state of so many pages; new ones are unread. */
static void
segment_grow(MmrLogReader *reader, SegmentState *seg, BlockNumber nblocks)
{
	if (nblocks > seg->allocated)
	{
		BlockNumber n = TYPEALIGN(MMR_STRETCH, Max(nblocks, Max(64, seg->allocated * 2)));
		Size		pages = sizeof(PageState) * (Size) n;
		Size		stretches = sizeof(StretchState) * (Size) (n / MMR_STRETCH);

		if (seg->pages == NULL)
		{
			seg->pages = MemoryContextAllocHuge(reader->cxt, pages);
			seg->stretches = MemoryContextAllocHuge(reader->cxt, stretches);
		}
		else
		{
			seg->pages = repalloc_huge(seg->pages, pages);
			seg->stretches = repalloc_huge(seg->stretches, stretches);
		}
		for (BlockNumber i = seg->allocated / MMR_STRETCH; i < n / MMR_STRETCH; i++)
			seg->stretches[i].decided = -1;
		seg->allocated = n;
	}
	for (BlockNumber b = seg->npages; b < nblocks; b++)
	{
		seg->pages[b].lsn = InvalidXLogRecPtr;
		seg->pages[b].given = 0;
		seg->pages[b].decided = false;
	}
	seg->npages = Max(seg->npages, nblocks);
}

/*
 * Copies a page and the offsets of its visible runs that were not given yet; how
 * many.  Sets *undecided to the number of runs whose transaction is not over in
 * pos, *given to what state->given is to be when the caller has given them.
 */
static int
page_read(MmrLogReader *reader, Relation rel, Buffer buffer, Snapshot snapshot,
		  const MmrPosition *pos, PageState *state, int *undecided, OffsetNumber *given)
{
	Page		page;
	int			n = 0;
	OffsetNumber max;
	uint64		own_xid = U64FromFullTransactionId(GetTopFullTransactionIdIfAny());

	*undecided = 0;
	*given = state->given;
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	state->lsn = PageGetLSN(page);
	max = PageGetMaxOffsetNumber(page);
	for (OffsetNumber off = state->given + 1; off <= max; off++)
	{
		ItemId		item = PageGetItemId(page, off);
		HeapTupleData tuple;
		uint64		xid;

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(rel);
		ItemPointerSet(&tuple.t_self, BufferGetBlockNumber(buffer), off);
		if (HeapTupleSatisfiesVisibility(&tuple, snapshot, buffer))
		{
			reader->visible[n++] = off;
			if (*given == off - 1)
				*given = off;
		}
		else
		{
			/* first column, fixed and not null: right behind the header */
			memcpy(&xid, (char *) tuple.t_data + tuple.t_data->t_hoff, sizeof(xid));
			if (!mmr_position_covers(pos, xid))
				(*undecided)++;
			/* a snapshot counts our own transaction as over, and does not show its latest runs yet */
			else if (xid == own_xid)
				(*undecided)++;
		}
	}
	if (n > 0)
		memcpy(reader->page.data, page, BLCKSZ);
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	return n;
}

static void
page_give(MmrLogReader *reader, Relation rel, int segment, int n,
		  MmrRunCallback callback, void *arg)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < n; i++)
	{
		ItemId		item = PageGetItemId((Page) reader->page.data, reader->visible[i]);
		HeapTupleData tuple;
		Datum		values[2];
		bool		nulls[2];
		struct varlena *v;

		tuple.t_data = (HeapTupleHeader) PageGetItem((Page) reader->page.data, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(rel);
		heap_deform_tuple(&tuple, desc, values, nulls);
		v = PG_DETOAST_DATUM_PACKED(values[1]);
		callback(arg, segment, DatumGetUInt64(values[0]), VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
		if ((Pointer) v != DatumGetPointer(values[1]))
			pfree(v);
	}
}

/* Gives what is new on a page; how many of its runs are not decided. */
static int
page_scan(MmrLogReader *reader, int segment, Relation rel, BlockNumber block, Snapshot snapshot,
		  const MmrPosition *pos, MmrRunCallback callback, void *arg)
{
	PageState  *state = &reader->segments[segment].pages[block];
	Buffer		buffer = ReadBuffer(rel, block);
	OffsetNumber given;
	int			undecided;
	int			n;

	if (state->decided && BufferGetLSNAtomic(buffer) == state->lsn)
	{
		ReleaseBuffer(buffer);
		return 0;
	}
	/* until its runs have all been taken in */
	state->decided = false;
	n = page_read(reader, rel, buffer, snapshot, pos, state, &undecided, &given);
	ReleaseBuffer(buffer);
	page_give(reader, rel, segment, n, callback, arg);
	state->given = given;
	/* a new page may be all zeroes yet: its LSN will move, and the mark of its stretch */
	state->decided = undecided == 0;
	return undecided;
}

static int64
segment_scan(MmrLogReader *reader, int segment, Relation rel, Snapshot snapshot,
			 const MmrPosition *pos, MmrRunCallback callback, void *arg)
{
	SegmentState *seg = &reader->segments[segment];
	BlockNumber nblocks = RelationGetNumberOfBlocks(rel);
	int64		undecided = 0;

	segment_grow(reader, seg, nblocks);
	for (BlockNumber first = 0; first < nblocks; first += MMR_STRETCH)
	{
		StretchState *stretch = &seg->stretches[first / MMR_STRETCH];
		pg_atomic_uint32 *mark = mmr_changelog_mark(segment, first);
		uint32		now = mark ? pg_atomic_read_u32(mark) : 0;
		int			n = Min(nblocks - first, MMR_STRETCH);
		int64		before = undecided;

		if (mark != NULL && stretch->decided == n && stretch->mark == now)
			continue;
		/* what is appended while we read moves the mark once more */
		pg_read_barrier();
		stretch->decided = -1;
		for (int i = 0; i < n; i++)
			undecided += page_scan(reader, segment, rel, first + i, snapshot, pos, callback, arg);
		if (undecided == before)
			stretch->decided = n;
		stretch->mark = now;
		CHECK_FOR_INTERRUPTS();
	}
	return undecided;
}

int64
mmr_logreader_scan(MmrLogReader *reader, Snapshot snapshot, const MmrPosition *pos,
				   MmrRunCallback callback, MmrEmptiedCallback emptied, void *arg)
{
	int64		undecided = 0;

	for (int i = 0; i < MMR_SEGMENTS; i++)
	{
		SegmentState *seg = &reader->segments[i];
		Relation	rel;

		if (!mmr_changelog_segment_used(i))
		{
			if ((seg->npages > 0 || seg->skipped) && emptied != NULL)
				emptied(arg, i);
			segment_forget(seg);
			continue;
		}
		rel = mmr_changelog_open_segment(i, AccessShareLock);
		if (rel == NULL)
			continue;
		if (seg->filenode != mmr_filenode(rel))
		{
			if ((seg->npages > 0 || seg->skipped) && emptied != NULL)
				emptied(arg, i);
			segment_forget(seg);
			seg->filenode = mmr_filenode(rel);
		}
		if (reader->skip != NULL && reader->skip(arg, i, rel, snapshot))
		{
			segment_forget(seg);
			seg->filenode = mmr_filenode(rel);
			seg->skipped = true;
			table_close(rel, AccessShareLock);
			continue;
		}
		seg->skipped = false;
		undecided += segment_scan(reader, i, rel, snapshot, pos, callback, arg);
		table_close(rel, AccessShareLock);
	}
	return undecided;
}
