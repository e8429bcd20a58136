/*-------------------------------------------------------------------------
 * rightmost.c
 *	  Entries above all others of a btree, put in together.
 *
 * Floor 1.  Writes indexes of user tables.  Runs in apply backends.
 *
 * New rows mostly come in the order of their key, and then all of their entries
 * belong behind the last one of the index.  By itself each costs a descent, a lock, a
 * look for duplicates and a record of WAL.  Here the last leaf is locked once,
 * filled as far as it goes, and what came to it is one record (generic WAL, which is
 * there for those who know what is in a page).  Whatever is not as simple,
 * splits above all, is left to the index itself: one entry put in by its own
 * means, and there is a new last leaf.
 *
 * Unique values (A5, A3): what is above the last entry of the last leaf is above all, so nobody
 * has it, dead or alive.  Whoever wants to put in the same value needs the lock on
 * that same leaf to look for it, and finds ours when he gets it.
 *
 * Invariant: the leaf is the last one, and its entries are in order, whenever its
 * lock is let go.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/generic_xlog.h"
#include "access/itup.h"
#include "access/nbtree.h"
#include "catalog/index.h"
#include "catalog/pg_am_d.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/predicate.h"
#include "utils/rel.h"

#include "compat.h"
#include "rightmost.h"

/* Larger ones are few to a page: not worth it, and perhaps too large at all. */
#define ENTRY_MAX	512

typedef struct Appender
{
	Relation	index;
	IndexInfo  *info;
	EState	   *estate;
	BTScanInsert key;			/* of the entry at hand */
	IndexTuple	entry;
	Size		size;
} Appender;

/* The entry of a row; false: not for here. */
static bool
form_entry(Appender *a, TupleTableSlot *row)
{
	TupleDesc	desc = RelationGetDescr(a->index);
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];

	FormIndexDatum(a->info, row, a->estate, values, isnull);
	for (int i = 0; i < desc->natts; i++)
	{
		/* to fetch it from elsewhere is nothing to do under a lock */
		if (!isnull[i] && TupleDescAttr(desc, i)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(values[i])))
			return false;
		/* are two without a value the same? The index knows. */
		if (isnull[i] && a->info->ii_Unique)
			return false;
	}
	a->entry = index_form_tuple(desc, values, isnull);
	a->entry->t_tid = row->tts_tid;
	a->size = MAXALIGN(IndexTupleSize(a->entry));
	if (a->size > ENTRY_MAX)
		return false;
	if (a->key == NULL)
		a->key = _bt_mkscankey(a->index, a->entry);
	for (int i = 0; i < a->key->keysz; i++)
	{
		a->key->scankeys[i].sk_argument = values[i];
		a->key->scankeys[i].sk_flags = (isnull[i] ? SK_ISNULL : 0) |
			(a->index->rd_indoption[i] << SK_BT_INDOPTION_SHIFT);
	}
	/* in a unique index an equal value is not below, wherever its row lies */
	a->key->scantid = a->info->ii_Unique ? NULL : &a->entry->t_tid;
	return true;
}

/* Is the entry above all that the leaf holds, and is there room for it? */
static bool
fits(Appender *a, Page page)
{
	return PageGetFreeSpace(page) >= a->size &&
		_bt_compare(a->index, a->key, page, PageGetMaxOffsetNumber(page)) > 0;
}

/* The last leaf, locked for writing; InvalidBuffer: none that will do. */
static Buffer
lock_last_leaf(Relation index)
{
	Buffer		buf = mmr_btree_last_leaf(index);
	Page		page;
	BTPageOpaque opaque;

	if (!BufferIsValid(buf))
		return InvalidBuffer;
	_bt_unlockbuf(index, buf);
	_bt_lockbuf(index, buf, BT_WRITE);
	page = BufferGetPage(buf);
	opaque = BTPageGetOpaque(page);
	/*
	 * Somebody may have split it.  On an empty one nothing tells what is
	 * above all.  Which entries are marked as dead WAL knows nothing of: such a page is as
	 * it should be after recovery only if the index has written it itself.
	 */
	if (P_RIGHTMOST(opaque) && P_ISLEAF(opaque) && !P_IGNORE(opaque) && !P_HAS_GARBAGE(opaque) &&
		PageGetMaxOffsetNumber(page) >= P_FIRSTDATAKEY(opaque))
		return buf;
	_bt_relbuf(index, buf);
	return InvalidBuffer;
}

/* Fills the leaf, beginning with the entry at hand, which fits; how many were put in. */
static int
fill_leaf(Appender *a, Buffer buf, TupleTableSlot **rows, int n)
{
	GenericXLogState *xlog = GenericXLogStart(a->index);
	Page		page = GenericXLogRegisterBuffer(xlog, buf, 0);
	int			done = 0;

	do
	{
		OffsetNumber at = OffsetNumberNext(PageGetMaxOffsetNumber(page));

		if (PageAddItem(page, (Item) a->entry, a->size, at, false, false) != at)
			elog(ERROR, "could not add an entry to block %u of index \"%s\"",
				 BufferGetBlockNumber(buf), RelationGetRelationName(a->index));
		pfree(a->entry);
	} while (++done < n && form_entry(a, rows[done]) && fits(a, page));
	GenericXLogFinish(xlog);
	return done;
}

int
mmr_rightmost_append(Relation index, IndexInfo *info, EState *estate, TupleTableSlot **rows, int n)
{
	Appender	a = {index, info, estate};
	Buffer		buf;
	int			done = 0;

	if (index->rd_rel->relam != BTREE_AM_OID || n == 0 || !form_entry(&a, rows[0]) ||
		!a.key->heapkeyspace)
		return 0;
	buf = lock_last_leaf(index);
	if (!BufferIsValid(buf))
		return 0;
	if (fits(&a, BufferGetPage(buf)))
	{
		CheckForSerializableConflictIn(index, NULL, BufferGetBlockNumber(buf));
		done = fill_leaf(&a, buf, rows, n);
	}
	_bt_relbuf(index, buf);
	return done;
}
