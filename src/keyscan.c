/*-------------------------------------------------------------------------
 * keyscan.c
 *	  Rows of a table looked up by key, one key after the other.
 *
 * Floor 3.  Reads user tables.  Runs in pushers and apply backends, once per
 * row that is sent or comes.
 *
 * There are two ways to find a key: by itself, from the root of the index
 * down, or by walking along the leaves from the key before.  The second is many
 * times cheaper when most of what lies between is wanted too, and much
 * dearer when it is not, so it is taken up when some keys have come in
 * order, and left when it passes by too much that nobody asked for.
 *
 * Invariant (B4, A3): both ways give what the snapshot sees.  So an
 * entry of the index decides nothing before its row has been looked at, a walk
 * says that a key is absent only when it stands behind where the key would be
 * and has come from before it, and a key that is not above the last one
 * starts a new walk.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "catalog/pg_type_d.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "keyscan.h"

#define PATIENCE		4		/* keys in order before a walk is tried */
#define PATIENCE_MAX	4096	/* after walks that were in vain */
#define STEPS_MAX		48		/* entries passed by before it starts anew further on */
#define CREDIT			64		/* entries that a walk may pass by at first */

struct MmrKeyScan
{
	MmrKey	   *key;
	Relation	rel;
	Relation	index;
	Snapshot	snapshot;
	MemoryContext cxt;
	IndexScanDesc point;		/* key = ?; NULL: not used yet */
	IndexScanDesc walk;			/* key >= ? */
	bool		walkable;
	bool		prepared;
	ScanKeyData from;			/* of the walk... */
	ScanKeyData members[INDEX_MAX_KEYS];	/* ...if the key has several columns */
	FmgrInfo   *compare[INDEX_MAX_KEYS];

	Datum		last[INDEX_MAX_KEYS];	/* the key asked for last */
	Size		space[INDEX_MAX_KEYS];	/* for those that are not passed by value */
	bool		asked;
	int			run;			/* keys in order since the walk was left */
	int			patience;

	bool		walking;
	bool		standing;		/* on an entry that has been compared, but not passed... */
	bool		at_end;			/* ...or behind the last one */
	int			credit;
	Datum		here[INDEX_MAX_KEYS];	/* of the entry it stands on */
};

MmrKeyScan *
mmr_keyscan_begin(Relation rel, Relation index, MmrKey *key, Snapshot snapshot)
{
	MmrKeyScan *s = palloc0(sizeof(MmrKeyScan));

	s->key = key;
	s->rel = rel;
	s->index = index;
	s->snapshot = snapshot;
	s->cxt = CurrentMemoryContext;
	s->patience = PATIENCE;
	s->walkable = true;
	for (int i = 0; i < key->ncolumns; i++)
	{
		/* what some types are in an index is another type; backwards it could be done, but who needs it */
		if (TupleDescAttr(RelationGetDescr(index), i)->atttypid == CSTRINGOID ||
			(index->rd_indoption[i] & INDOPTION_DESC) != 0)
			s->walkable = false;
	}
	return s;
}

void
mmr_keyscan_end(MmrKeyScan *s)
{
	if (s->point != NULL)
		index_endscan(s->point);
	if (s->walk != NULL)
		index_endscan(s->walk);
	for (int i = 0; i < s->key->ncolumns; i++)
		if (s->space[i] > 0)
			pfree(DatumGetPointer(s->last[i]));
	pfree(s);
}

void
mmr_keyscan_rest(MmrKeyScan *s)
{
	if (s->point != NULL)
		index_rescan(s->point, NULL, s->point->numberOfKeys, NULL, 0);
	if (s->walk != NULL)
		index_rescan(s->walk, NULL, s->walk->numberOfKeys, NULL, 0);
	s->walking = false;
	s->run = s->patience;
}

static bool
point_find(MmrKeyScan *s, const Datum *values, TupleTableSlot *slot)
{
	int			n = s->key->ncolumns;

	if (s->point == NULL)
		s->point = index_beginscan(s->rel, s->index, s->snapshot, n, 0);
	for (int i = 0; i < n; i++)
		s->key->scankeys[i].sk_argument = values[i];
	index_rescan(s->point, s->key->scankeys, n, NULL, 0);
	return index_getnext_slot(s->point, ForwardScanDirection, slot);
}

/* What a walk needs; it is not made for a batch of one key. */
static void
walk_prepare(MmrKeyScan *s)
{
	int			n = s->key->ncolumns;

	s->prepared = true;
	for (int i = 0; i < n; i++)
	{
		Oid			type = s->index->rd_opcintype[i];
		ScanKey		k = n == 1 ? &s->from : &s->members[i];

		s->compare[i] = index_getprocinfo(s->index, i + 1, BTORDER_PROC);
		ScanKeyEntryInitialize(k, n == 1 ? 0 : SK_ROW_MEMBER | (i == n - 1 ? SK_ROW_END : 0), i + 1,
							   BTGreaterEqualStrategyNumber, InvalidOid, s->index->rd_indcollation[i],
							   n > 1 ? s->compare[i]->fn_oid :
							   get_opcode(get_opfamily_member(s->index->rd_opfamily[i], type, type,
															  BTGreaterEqualStrategyNumber)),
							   (Datum) 0);
	}
	if (n == 1)
		return;
	/* ROW(a, b) >= ROW(?, ?) */
	MemSet(&s->from, 0, sizeof(s->from));
	s->from.sk_flags = SK_ROW_HEADER;
	s->from.sk_attno = 1;
	s->from.sk_strategy = BTGreaterEqualStrategyNumber;
	s->from.sk_argument = PointerGetDatum(s->members);
}

static inline int
compare_keys(MmrKeyScan *s, const Datum *a, const Datum *b)
{
	for (int i = 0; i < s->key->ncolumns; i++)
	{
		int32		c = DatumGetInt32(FunctionCall2Coll(s->compare[i], s->index->rd_indcollation[i],
														a[i], b[i]));

		if (c != 0)
			return c;
	}
	return 0;
}

/* Remembers the key asked for; true if it is above the one before. */
static bool
keep_asked(MmrKeyScan *s, const Datum *values)
{
	bool		above = false;

	if (s->asked)
	{
		if (!s->prepared)
			walk_prepare(s);
		above = compare_keys(s, values, s->last) > 0;
	}
	s->asked = true;
	for (int i = 0; i < s->key->ncolumns; i++)
	{
		MmrKeyColumn *col = &s->key->columns[i];
		Size		size;

		if (col->byval)
		{
			s->last[i] = values[i];
			continue;
		}
		size = datumGetSize(values[i], false, col->typlen);
		if (size > s->space[i])
		{
			if (s->space[i] > 0)
				pfree(DatumGetPointer(s->last[i]));
			s->space[i] = Max(64, 2 * size);
			s->last[i] = PointerGetDatum(MemoryContextAlloc(s->cxt, s->space[i]));
		}
		memcpy(DatumGetPointer(s->last[i]), DatumGetPointer(values[i]), size);
	}
	return above;
}

static void
walk_start(MmrKeyScan *s, const Datum *values)
{
	if (s->walk == NULL)
	{
		s->walk = index_beginscan(s->rel, s->index, s->snapshot, 1, 0);
		/* entries are compared before their rows are fetched */
		s->walk->xs_want_itup = true;
	}
	if (s->key->ncolumns == 1)
		s->from.sk_argument = values[0];
	else
		for (int i = 0; i < s->key->ncolumns; i++)
			s->members[i].sk_argument = values[i];
	index_rescan(s->walk, &s->from, 1, NULL, 0);
	s->standing = s->at_end = false;
}

/* Stands on the next entry; false: there is none. */
static bool
walk_step(MmrKeyScan *s)
{
	if (s->at_end || index_getnext_tid(s->walk, ForwardScanDirection) == NULL)
	{
		s->at_end = true;
		return false;
	}
	for (int i = 0; i < s->key->ncolumns; i++)
	{
		bool		isnull;

		s->here[i] = index_getattr(s->walk->xs_itup, i + 1, s->walk->xs_itupdesc, &isnull);
	}
	s->standing = true;
	return true;
}

/* The walk is no good where nearly everything it meets is not wanted. */
static void
walk_leave(MmrKeyScan *s)
{
	s->walking = false;
	s->run = 0;
	s->patience = Min(s->patience * 4, PATIENCE_MAX);
}

static bool
walk_find(MmrKeyScan *s, const Datum *values, TupleTableSlot *slot)
{
	bool		met = false;
	int			steps = 0;

	while (s->standing || walk_step(s))
	{
		int			c = compare_keys(s, s->here, values);
		bool		found;

		if (c > 0)
			return false;
		s->standing = false;
		if (c == 0 && !met)
		{
			met = true;
			s->credit = Min(s->credit + 2, CREDIT);
		}
		else if (s->credit-- <= 0)
		{
			walk_leave(s);
			return point_find(s, values, slot);
		}
		else if (c < 0 && ++steps == STEPS_MAX)
		{
			walk_start(s, values);
			continue;
		}
		if (c < 0)
			continue;
		found = index_fetch_heap(s->walk, slot);

		/*
		 * Dead entries are not marked as such: where the versions of a row share
		 * one tuple of the index that cannot be, and trying costs a
		 * walk through the page for each.  Where there are many, credit ends.
		 */
		s->walk->kill_prior_tuple = false;
		if (found)
			return true;
	}
	return false;
}

static bool
keyscan_find(MmrKeyScan *s, const Datum *values, TupleTableSlot *slot)
{
	if (!s->walkable)
		return point_find(s, values, slot);
	if (!keep_asked(s, values))
	{
		s->walking = false;
		s->run = 0;
	}
	else if (!s->walking && ++s->run >= s->patience)
	{
		s->walking = true;
		s->credit = CREDIT;
		walk_start(s, values);
	}
	return s->walking ? walk_find(s, values, slot) : point_find(s, values, slot);
}

bool
mmr_keyscan_find(MmrKeyScan *s, const Datum *values, TupleTableSlot *slot)
{
	/* scans remember things from one key to the next */
	MemoryContext old = MemoryContextSwitchTo(s->cxt);
	bool		found = keyscan_find(s, values, slot);

	MemoryContextSwitchTo(old);
	return found;
}
