/*-------------------------------------------------------------------------
 * bulk.c
 *	  New rows of one table, gathered and written together.
 *
 * Floor 5.  Writes user tables.  Runs in apply backends.
 *
 * Rows go into the table page by page, with one WAL record a page; their index
 * entries follow, index by index, and tell whether they may stay, as when each had come
 * alone: what collides is taken out again and reported (A5), and a key that
 * somebody else has inserted meanwhile is noticed there (A3).  So
 * nothing has to be undone but the rows that collide.
 *
 * Entries that belong behind all others of an index, as those of new rows mostly do,
 * go there together (rightmost).
 *
 * Rows may not wait where user code could see that they are not there yet.
 *
 * Invariant: when write comes back, each row that was added has been written and
 * entered, or is not in the table, and its owner has been told which.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "utils/rel.h"

#include "bulk.h"
#include "rightmost.h"

#define BULK_ROWS	256
#define BULK_BYTES	(512 * 1024)

struct MmrBulk
{
	MmrTarget  *t;
	MmrBulkDone done;
	int			most;
	int			waiting;
	int			bytes;
	TupleDesc	desc;			/* counted by nobody: that costs, for many slots */
	int			nslots;			/* that have been made */
	TupleTableSlot **slots;		/* the first `waiting` hold rows */
	void	  **items;
	MmrWrite   *results;
};

MmrBulk *
mmr_bulk_create(MmrTarget *t, int most, MmrBulkDone done)
{
	MmrBulk    *b = palloc0(sizeof(MmrBulk));

	b->t = t;
	b->done = done;
	b->most = Min(most, BULK_ROWS);
	b->slots = palloc(sizeof(TupleTableSlot *) * b->most);
	b->items = palloc(sizeof(void *) * b->most);
	b->results = palloc(sizeof(MmrWrite) * b->most);
	return b;
}

bool
mmr_bulk_allowed(MmrBulk *b)
{
	/* defaults and triggers may look at the table */
	return b->most > 1 && !mmr_target_has_defaults(b->t) && !b->t->fires;
}

void
mmr_bulk_add(MmrBulk *b, void *item, int size)
{
	MmrTarget  *t = b->t;
	TupleTableSlot *row = t->row;

	mmr_target_check_row(t, CMD_INSERT);
	if (b->waiting == b->nslots)
	{
		MemoryContext old = MemoryContextSwitchTo(t->estate->es_query_cxt);

		if (b->desc == NULL)
			b->desc = CreateTupleDescCopy(RelationGetDescr(t->rel));
		b->slots[b->nslots++] = MakeSingleTupleTableSlot(b->desc, &TTSOpsVirtual);
		MemoryContextSwitchTo(old);
	}
	t->row = b->slots[b->waiting];
	b->slots[b->waiting] = row;
	b->items[b->waiting++] = item;
	b->bytes += size;
}

int
mmr_bulk_waiting(MmrBulk *b)
{
	return b->waiting;
}

bool
mmr_bulk_full(MmrBulk *b)
{
	return b->waiting == b->most || b->bytes >= BULK_BYTES;
}

/* The entry of one row; false: its value is there already, or is just being put in by somebody else. */
static bool
bulk_enter_one(MmrBulk *b, int i, int row)
{
	MmrTarget  *t = b->t;
	Relation	index = t->rri->ri_IndexRelationDescs[i];
	IndexInfo  *info = t->rri->ri_IndexRelationInfo[i];
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];

	FormIndexDatum(info, b->slots[row], t->estate, values, isnull);
	return index_insert(index, values, isnull, &b->slots[row]->tts_tid, t->rel,
						info->ii_Unique ? UNIQUE_CHECK_PARTIAL : UNIQUE_CHECK_NO, false, info);
}

/*
 * Entries of one index.  Rows that come in another order than its own are given
 * to rightmost ever more rarely.
 */
static void
bulk_enter_index(MmrBulk *b, int i, MmrWrite failed)
{
	MmrTarget  *t = b->t;
	IndexInfo  *info = t->rri->ri_IndexRelationInfo[i];
	int			row = 0;
	int			alone = 1;

	if (!info->ii_ReadyForInserts)
		return;
	while (row < b->waiting)
	{
		int			done = mmr_rightmost_append(t->rri->ri_IndexRelationDescs[i], info, t->estate,
												&b->slots[row], b->waiting - row);

		alone = done > 0 ? 1 : alone * 2;
		row += done;
		for (int n = 0; n < alone && row < b->waiting; n++, row++)
			if (!bulk_enter_one(b, i, row) && b->results[row] == MMR_WRITE_DONE)
				b->results[row] = failed;
	}
}

/* All entries, those of the key first: a key that is there is another matter than any other value. */
static void
bulk_enter(MmrBulk *b)
{
	MmrTarget  *t = b->t;

	for (int row = 0; row < b->waiting; row++)
		b->results[row] = MMR_WRITE_DONE;
	for (int i = 0; i < t->rri->ri_NumIndices; i++)
		if (t->rri->ri_IndexRelationDescs[i] == t->index)
			bulk_enter_index(b, i, MMR_WRITE_RETRY);
	for (int i = 0; i < t->rri->ri_NumIndices; i++)
		if (t->rri->ri_IndexRelationDescs[i] != t->index)
			bulk_enter_index(b, i, MMR_WRITE_COLLISION);
}

void
mmr_bulk_write(MmrBulk *b, void *arg)
{
	MmrTarget  *t = b->t;
	TupleTableSlot *row = t->row;
	bool		plain = t->plain_indexes;

	if (b->waiting == 0)
		return;
	table_multi_insert(t->rel, b->slots, b->waiting, t->estate->es_output_cid, 0, NULL);
	if (plain)
		bulk_enter(b);
	for (int i = 0; i < b->waiting; i++)
	{
		t->row = b->slots[i];
		if (!plain)
			b->results[i] = mmr_target_enter(t);
		else if (b->results[i] != MMR_WRITE_DONE)
			mmr_target_remove_tid(t, &t->row->tts_tid);
		b->done(arg, b->items[i], b->results[i]);
		ExecClearTuple(t->row);
	}
	t->row = row;
	b->waiting = b->bytes = 0;
}

void
mmr_bulk_end(MmrBulk *b)
{
	for (int i = 0; i < b->nslots; i++)
		ExecDropSingleTupleTableSlot(b->slots[i]);
	pfree(b->slots);
	pfree(b->items);
	pfree(b->results);
	pfree(b);
}
