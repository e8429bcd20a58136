/*-------------------------------------------------------------------------
 * bulk.c
 *	  New rows of one table, gathered and written together.
 *
 * Floor 5.  Writes user tables.  Runs in apply backends.
 *
 * Rows go into the table page by page, with one WAL record a page; each one's
 * index entries follow, and tell whether it may stay, as when it had come
 * alone: what collides is taken out again and reported (A5), and a key that
 * somebody else has inserted meanwhile is noticed there (A3).  So
 * nothing has to be undone but the rows that collide.
 *
 * Rows may not wait where user code could see that they are not there yet.
 *
 * Invariant: when write comes back, each row that was added has been written and
 * entered, or is not in the table, and its owner has been told which.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "utils/rel.h"

#include "bulk.h"

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

void
mmr_bulk_write(MmrBulk *b, void *arg)
{
	MmrTarget  *t = b->t;
	TupleTableSlot *row = t->row;

	if (b->waiting == 0)
		return;
	table_multi_insert(t->rel, b->slots, b->waiting, t->estate->es_output_cid, 0, NULL);
	for (int i = 0; i < b->waiting; i++)
	{
		t->row = b->slots[i];
		b->done(arg, b->items[i], mmr_target_enter(t));
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
	pfree(b);
}
