/*-------------------------------------------------------------------------
 * segbuild.c
 *	  Builds the index of a closed segment of the change log.
 *
 * Floor 4.  Reads mmrepl.log_N and the keys of members; writes
 * mmrepl.log_N_index.  Runs in the janitor.
 *
 * The segment is read once to count, then once for each part of the hashes
 * that fits into memory.  Of the changes of a key the newest is kept; keys
 * are the same here if their bytes are, so of those that are equal and look
 * different several stay, and a lookup takes the newest.
 *
 * Invariant: the index is written in one transaction, whose snapshot was
 * taken when every transaction that wrote to the segment had ended.  Whoever
 * sees a page of it sees all of the segment.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/table.h"
#include "access/xact.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "membership.h"
#include "segbuild.h"
#include "segindex.h"

/* Memory for the entries of a part, without their keys. */
#define PART_ENTRIES	1000000
/* Entries of a page, on average: so that pages hardly ever overflow. */
#define PAGE_FILL		(MMR_SEG_ENTRIES * 17 / 20)
/* Keys are kept in pieces of memory of this size. */
#define KEY_PIECE		(256 * 1024)
/* So many keys that hash alike are compared with each other. */
#define SAME_HASH		16

typedef struct BuildEntry
{
	uint64		hash;
	MmrVersion	version;
	Oid			relid;
	BlockNumber block;
	OffsetNumber offset;
	int			keylen;
	const char *key;
} BuildEntry;

/* A table of the segment. */
typedef struct BuildTable
{
	Oid			relid;			/* hash key */
	MmrKey	   *key;			/* NULL: nobody will ask for it */
	MmrSegTable info;
} BuildTable;

typedef struct Build
{
	MmrSegHead	head;
	HTAB	   *tables;
	BuildTable *last;			/* looked at last */
	Relation	rel;			/* of the index */
	BulkInsertState bulk;
	BlockNumber written;		/* pages of the index */
	bool		counting;
	bool		busy;			/* a table is locked by somebody: not now */
	int64		changes;		/* with a key that somebody may ask for */
	BlockNumber block;			/* of the run at hand */
	OffsetNumber offset;

	List	   *overflow;		/* MmrSegPage, to be written behind the others */

	/* this part of the hashes: of the buckets from first to end */
	bool		whole;			/* all of them; how many buckets there are follows from how many entries */
	uint32		first_bucket;
	uint32		end_bucket;
	MemoryContext part_cxt;
	char	   *piece;			/* for keys */
	int			piece_left;
	BuildEntry *entries;
	int64		n;
	int64		allocated;
} Build;

/* No table is waited for (*busy): who has locked one may do so for long, and the janitor has other work. */
static MmrKey *
build_find_key(Oid relid, bool *busy)
{
	ListCell   *lc;
	MmrKey	   *key = NULL;

	foreach(lc, mmr_membership_syncs_of_table(relid))
	{
		MmrMember  *member = mmr_membership_table((MmrSync *) lfirst(lc), relid);
		Relation	rel;

		if (member == NULL || !OidIsValid(member->key_index))
			continue;
		if (!ConditionalLockRelationOid(relid, AccessShareLock))
		{
			*busy = true;
			break;
		}
		if ((rel = try_table_open(relid, NoLock)) == NULL)
			continue;
		key = mmr_key_get(rel, member->key_index);
		/* to the end: its key is used as it is now */
		table_close(rel, NoLock);
		if (key != NULL)
			break;
	}
	return key;
}

static BuildTable *
build_table(Build *b, Oid relid)
{
	bool		found;
	BuildTable *t;

	if (b->last != NULL && b->last->relid == relid)
		return b->last;
	t = hash_search(b->tables, &relid, HASH_ENTER, &found);
	if (!found)
	{
		memset(&t->info, 0, sizeof(t->info));
		t->info.relid = relid;
		t->key = build_find_key(relid, &b->busy);
		t->info.fingerprint = t->key ? mmr_key_fingerprint(t->key) : 0;
	}
	return b->last = t;
}

/* First look at a change. */
static void
build_count(Build *b, BuildTable *t, const MmrChange *change, bool recorded)
{
	if (recorded && mmr_version_compare(&change->version, &t->info.recorded) > 0)
		t->info.recorded = change->version;
	if (mmr_version_compare(&change->version, &t->info.newest) > 0)
		t->info.newest = change->version;
	if (change->op != MMR_OP_TRUNCATE)
	{
		b->changes += t->key != NULL;
		return;
	}
	if (t->info.truncated &&
		mmr_version_compare(&change->version, &t->info.truncate.version) <= 0)
		return;
	t->info.truncated = true;
	t->info.truncate.version = change->version;
	t->info.truncate.dot = change->dot;
	t->info.truncate.op = MMR_OP_TRUNCATE;
	t->info.truncate.settled = MMR_SETTLED_NONE;
}

static const char *
build_keep_key(Build *b, const char *key, int len)
{
	char	   *copy;

	if (len > KEY_PIECE / 16)
		return memcpy(MemoryContextAlloc(b->part_cxt, len), key, len);
	if (len > b->piece_left)
	{
		b->piece = MemoryContextAlloc(b->part_cxt, KEY_PIECE);
		b->piece_left = KEY_PIECE;
	}
	copy = memcpy(b->piece, key, len);
	b->piece += len;
	b->piece_left -= len;
	return copy;
}

static void
build_collect(Build *b, BuildTable *t, const MmrChange *change)
{
	uint64		hash;
	uint32		bucket;
	BuildEntry *e;

	if (t->key == NULL || change->op == MMR_OP_TRUNCATE)
		return;
	hash = mmr_key_hash(t->key, change->key, change->keylen);
	if (!b->whole)
	{
		bucket = mmr_segindex_bucket(hash, b->head.nbuckets);
		if (bucket < b->first_bucket || bucket >= b->end_bucket)
			return;
	}
	if (b->n == b->allocated)
	{
		b->allocated *= 2;
		b->entries = repalloc_huge(b->entries, b->allocated * sizeof(BuildEntry));
	}
	e = &b->entries[b->n++];
	e->hash = hash;
	e->version = change->version;
	e->relid = t->relid;
	e->block = b->block;
	e->offset = b->offset;
	e->keylen = change->keylen;
	e->key = build_keep_key(b, change->key, change->keylen);
}

static void
build_run(Build *b, uint64 xid, const char *data, int len)
{
	MmrRun		run;
	MmrChange	change;

	b->head.max_xid = Max(b->head.max_xid, xid);
	mmr_changelog_open_run(&run, xid, data, len);
	while (!b->busy && mmr_changelog_next(&run, &change))
	{
		BuildTable *t = build_table(b, change.relid);

		if (b->counting)
			build_count(b, t, &change, run.recorded);
		else
			build_collect(b, t, &change);
	}
}

/* By place in the index; of a key the newest first. */
static int
compare_entries(const void *a, const void *b)
{
	const BuildEntry *x = a;
	const BuildEntry *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return mmr_version_compare(&y->version, &x->version);
}

/* Older changes of a key go. The entries are sorted; those of one hash follow each other. */
static void
build_squeeze(Build *b)
{
	int64		kept = 0;
	int64		first = 0;		/* kept one of this hash */

	for (int64 i = 0; i < b->n; i++)
	{
		BuildEntry *e = &b->entries[i];
		bool		older = false;

		if (kept == 0 || b->entries[kept - 1].hash != e->hash)
			first = kept;
		for (int64 j = first; j < Min(kept, first + SAME_HASH) && !older; j++)
			older = b->entries[j].relid == e->relid && b->entries[j].keylen == e->keylen &&
				memcmp(b->entries[j].key, e->key, e->keylen) == 0;
		if (!older)
			b->entries[kept++] = *e;
	}
	b->n = kept;
}

/* Writes a page of the index; it must come to lie where it is looked for. */
static void
build_write(Build *b, const MmrSegPage *page)
{
	static PGAlignedBlock copy;
	Datum		value;
	bool		isnull = false;
	HeapTuple	tuple;

	StaticAssertStmt(sizeof(MmrSegPage) == MMR_SEG_BYTES, "a page of the index has the wrong size");
	StaticAssertStmt(MAXALIGN(SizeofHeapTupleHeader) + VARHDRSZ + MMR_SEG_BYTES <= MaxHeapTupleSize,
					 "a page of the index does not fit a page of a table");
	SET_VARSIZE(copy.data, MMR_SEG_BYTES + VARHDRSZ);
	memcpy(copy.data + VARHDRSZ, page, MMR_SEG_BYTES);
	value = PointerGetDatum(copy.data);
	tuple = heap_form_tuple(RelationGetDescr(b->rel), &value, &isnull);
	heap_insert(b->rel, tuple, GetCurrentCommandId(true), TABLE_INSERT_SKIP_FSM | TABLE_INSERT_NO_LOGICAL, b->bulk);
	if (ItemPointerGetBlockNumber(&tuple->t_self) != b->written ||
		ItemPointerGetOffsetNumber(&tuple->t_self) != FirstOffsetNumber)
		elog(ERROR, "page %u of an index of the change log came to lie at (%u,%u)", b->written,
			 ItemPointerGetBlockNumber(&tuple->t_self), ItemPointerGetOffsetNumber(&tuple->t_self));
	heap_freetuple(tuple);
	b->written++;
}

static int
compare_hashes(const void *a, const void *b)
{
	uint32		x = ((const MmrSegEntry *) a)->hash;
	uint32		y = ((const MmrSegEntry *) b)->hash;

	return x < y ? -1 : x > y;
}

/* Writes the page of a bucket; what does not fit is put off. */
static void
build_bucket(Build *b, const BuildEntry *entries, int64 n)
{
	MmrSegEntry *sorted = palloc(sizeof(MmrSegEntry) * Max(n, 1));
	MmrSegPage *page = palloc0(sizeof(MmrSegPage));
	int64		done = 0;

	for (int64 i = 0; i < n; i++)
	{
		sorted[i].hash = (uint32) entries[i].hash;
		sorted[i].block = entries[i].block;
		sorted[i].offset = entries[i].offset;
		sorted[i].unused = 0;
	}
	qsort(sorted, n, sizeof(MmrSegEntry), compare_hashes);
	for (bool first = true; first || done < n; first = false)
	{
		page->magic = MMR_SEG_MAGIC;
		page->n = Min(n - done, MMR_SEG_ENTRIES);
		memcpy(page->u.entries, sorted + done, sizeof(MmrSegEntry) * page->n);
		done += page->n;
		page->next = done == n ? InvalidBlockNumber :
			b->head.nhead + b->head.nbuckets + list_length(b->overflow) + (first ? 0 : 1);
		if (first)
			build_write(b, page);
		else
			b->overflow = lappend(b->overflow, memcpy(palloc(sizeof(MmrSegPage)), page, sizeof(MmrSegPage)));
	}
	pfree(page);
	pfree(sorted);
}

/* Reads the segment through: counts, or collects. */
static void
build_scan(Build *b, Relation rel)
{
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Datum		values[2];
		bool		nulls[2];
		struct varlena *v;

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		v = PG_DETOAST_DATUM_PACKED(values[1]);
		b->block = ItemPointerGetBlockNumber(&tuple->t_self);
		b->offset = ItemPointerGetOffsetNumber(&tuple->t_self);
		build_run(b, DatumGetUInt64(values[0]), VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
		if ((Pointer) v != DatumGetPointer(values[1]))
			pfree(v);
		CHECK_FOR_INTERRUPTS();
	}
	table_endscan(scan);
}

static int
compare_tables(const void *a, const void *b)
{
	Oid			x = ((const MmrSegTable *) a)->relid;
	Oid			y = ((const MmrSegTable *) b)->relid;

	return x < y ? -1 : x > y;
}

/* The description of the segment. */
static void
build_head(Build *b, Relation rel)
{
	StringInfoData bytes;
	HASH_SEQ_STATUS seq;
	BuildTable *t;

	b->head.magic = MMR_SEG_MAGIC;
	b->head.filenode = mmr_filenode(rel);
	b->head.ntables = hash_get_num_entries(b->tables);
	b->head.nhead = (sizeof(MmrSegHead) + b->head.ntables * sizeof(MmrSegTable) - 1) /
		sizeof(((MmrSegPage *) NULL)->u.bytes) + 1;
	initStringInfo(&bytes);
	appendBinaryStringInfo(&bytes, (char *) &b->head, sizeof(MmrSegHead));
	hash_seq_init(&seq, b->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
		appendBinaryStringInfo(&bytes, (char *) &t->info, sizeof(MmrSegTable));
	qsort(bytes.data + sizeof(MmrSegHead), b->head.ntables, sizeof(MmrSegTable), compare_tables);
	for (uint32 i = 0; i < b->head.nhead; i++)
	{
		MmrSegPage *page = palloc0(sizeof(MmrSegPage));
		int			from = i * sizeof(page->u.bytes);

		page->magic = MMR_SEG_MAGIC;
		page->next = InvalidBlockNumber;
		page->n = Min(bytes.len - from, (int) sizeof(page->u.bytes));
		memcpy(page->u.bytes, bytes.data + from, page->n);
		build_write(b, page);
		pfree(page);
	}
	pfree(bytes.data);
}

/* Room for the entries of a part. */
static void
build_part_begin(Build *b, MemoryContext parent)
{
	b->part_cxt = AllocSetContextCreate(parent, "mmrepl part of an index", ALLOCSET_DEFAULT_SIZES);
	b->allocated = Max(1024, Min(b->changes, PART_ENTRIES));
	b->entries = MemoryContextAllocHuge(b->part_cxt, b->allocated * sizeof(BuildEntry));
	b->n = 0;
	b->piece_left = 0;
}

/* Writes the buckets of a part. */
static void
build_part_end(Build *b)
{
	int64		from = 0;

	for (uint32 bucket = b->first_bucket; bucket < b->end_bucket; bucket++)
	{
		int64		to = from;

		while (to < b->n && mmr_segindex_bucket(b->entries[to].hash, b->head.nbuckets) == bucket)
			to++;
		build_bucket(b, b->entries + from, to - from);
		from = to;
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextDelete(b->part_cxt);
}

static void
build_sort(Build *b)
{
	qsort(b->entries, b->n, sizeof(BuildEntry), compare_entries);
	build_squeeze(b);
}

/* The index of what was counted. */
static void
build_all(Build *b, Relation rel)
{
	MemoryContext cxt = CurrentMemoryContext;
	ListCell   *lc;
	uint32		step;

	b->head.changes = b->changes;
	b->whole = b->changes <= PART_ENTRIES;
	if (b->whole)
	{
		build_part_begin(b, cxt);
		build_scan(b, rel);
		build_sort(b);
		step = b->end_bucket = b->head.nbuckets = (b->n + PAGE_FILL - 1) / PAGE_FILL;
		build_head(b, rel);
		build_part_end(b);
	}
	else
	{
		b->head.nbuckets = (b->changes + PAGE_FILL - 1) / PAGE_FILL;
		step = PART_ENTRIES / PAGE_FILL;
		build_head(b, rel);
	}
	for (b->first_bucket = b->end_bucket; b->first_bucket < b->head.nbuckets; b->first_bucket = b->end_bucket)
	{
		b->end_bucket = Min(b->first_bucket + step, b->head.nbuckets);
		build_part_begin(b, cxt);
		build_scan(b, rel);
		build_sort(b);
		build_part_end(b);
	}
	foreach(lc, b->overflow)
		build_write(b, lfirst(lc));
}

/* The table of the index, empty and locked against everybody; NULL: not now. */
static Relation
index_open_empty(int segment)
{
	char		name[NAMEDATALEN];
	Oid			relid;
	Relation	rel;

	snprintf(name, sizeof(name), "log_%d_index", segment);
	relid = mmr_catalog_table(name);
	/* nobody is waited for: a queue would form behind us */
	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return NULL;
	rel = try_table_open(relid, NoLock);
	if (rel != NULL)
		mmr_truncate_guts(list_make1(rel), list_make1_oid(relid));
	return rel;
}

bool
mmr_segbuild_run(int segment, Relation rel)
{
	MemoryContext cxt;
	MemoryContext old;
	HASHCTL		ctl = {0};
	Build		b = {0};

	cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl index", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(BuildTable);
	ctl.hcxt = cxt;
	b.tables = hash_create("mmrepl index", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	PushActiveSnapshot(GetLatestSnapshot());
	b.counting = true;
	build_scan(&b, rel);
	b.counting = false;
	if (!b.busy && (b.rel = index_open_empty(segment)) != NULL)
	{
		b.bulk = GetBulkInsertState();
		build_all(&b, rel);
		FreeBulkInsertState(b.bulk);
		table_close(b.rel, NoLock);
	}
	PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	return b.rel != NULL;
}

bool
mmr_segbuild_done(int segment, Relation rel)
{
	MmrSegIndex *index;

	index = mmr_segindex_attach(CurrentMemoryContext, segment, rel, GetActiveSnapshot());
	if (index != NULL)
		mmr_segindex_free(index);
	return index != NULL;
}

bool
mmr_segbuild_clear(int segment)
{
	Relation	rel = mmr_segindex_open(segment, AccessShareLock);
	bool		empty;

	if (rel == NULL)
		return true;
	empty = RelationGetNumberOfBlocks(rel) == 0;
	table_close(rel, AccessShareLock);
	if (empty)
		return true;
	rel = index_open_empty(segment);
	if (rel == NULL)
		return false;
	table_close(rel, NoLock);
	return true;
}
