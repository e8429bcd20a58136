/*-------------------------------------------------------------------------
 * collide.c
 *	  Items whose row holds a unique value that a row of another key holds
 *	  here (A5).
 *
 * Floor 6.  Reads and writes user tables, the log, the conflict history.  Runs
 * in apply backends, at the end of a batch.
 *
 * By the time the batch is through, rows that only stood in each other's
 * way (swaps, chains) are all out of the table.  What still collides is a
 * true conflict of two keys.
 *
 * Invariant: the loser's delete has a version made of the loser's own (its
 * time, its node, rank 1), so that every node that settles the same conflict
 * writes the same thing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "blockers.h"
#include "breaks.h"
#include "collide.h"
#include "conflict_log.h"
#include "resolve.h"
#include "setaside.h"

typedef struct Aside
{
	MmrMergeTable *table;
	MmrMergeItem item;
	HeapTuple	before;			/* the key's row here that has gone for it, if the sender does not send all of it */
	bool		multiple;		/* collided in more than one constraint */
	bool		refused;		/* cannot be put in (A11) */
	bool		lost;			/* stands aside */
} Aside;

/* A row that stands in the way of one put aside. */
typedef struct Blocker
{
	ItemPointer tid;
	StringInfoData key;
	bool		known;			/* its key has an entry in the log... */
	MmrVersion	version;		/* ...of this version */
	MmrDot		dot;
	MmrSettled	settled;
	bool		obsolete;		/* a newer state of its key stands aside: this one is no side in a conflict */
} Blocker;

/*
 * Keeps the row that the item takes the place of: columns that the sender
 * does not have stay as they are.
 */
static void
keep_before(MmrMerge *m, Aside *a, MmrTarget *t)
{
	MemoryContext old;

	if (a->before != NULL || t->ndefaults == 0)
		return;
	old = MemoryContextSwitchTo(m->batch_cxt);
	a->before = ExecCopySlotHeapTuple(t->found);
	MemoryContextSwitchTo(old);
}

void
mmr_collide_put_aside(MmrMerge *m, MmrMergeTable *table, MmrTarget *t, MmrMergeItem *item,
					  bool found)
{
	MemoryContext old = MemoryContextSwitchTo(m->batch_cxt);
	Aside	   *a = palloc0(sizeof(Aside));
	char	   *bytes = palloc(item->change.keylen + item->rowlen);

	a->table = table;
	a->item = *item;
	a->before = NULL;
	memcpy(bytes, item->change.key, item->change.keylen);
	memcpy(bytes + item->change.keylen, item->row, item->rowlen);
	a->item.change.key = bytes;
	a->item.row = bytes + item->change.keylen;
	m->aside = lappend(m->aside, a);
	MemoryContextSwitchTo(old);
	if (found)
		keep_before(m, a, t);
}

/* A delete decided here: of version just above `loser`, authored by this transaction. */
static void
record_loss(MmrMerge *m, MmrMergeTable *table, const char *key, int keylen,
			const MmrVersion *loser)
{
	MmrChange	change = {0};

	change.op = MMR_OP_DELETE;
	change.relid = table->key->relid;
	change.version = *loser;
#ifndef MMR_BREAK_RANK
	change.version.rank = 1;
#endif
	change.dot.node = m->my_node;
	change.dot.xid = U64FromFullTransactionId(GetTopFullTransactionId());
	change.key = key;
	change.keylen = keylen;
	mmr_merge_record(m, table, &change, mmr_key_hash(table->key, key, keylen));
}

static void
log_loss(MmrMerge *m, Aside *a, MmrTarget *t, MmrResolution resolution, const Blocker *b)
{
	MmrConflictRecord c = {0};
	Datum		key[INDEX_MAX_KEYS];

	mmr_key_decode(a->table->key, a->item.change.key, a->item.change.keylen, key);
	m->counts.conflicts++;
	c.sync_id = m->sync->id;
	c.rel = a->table->rel;
	c.key = a->table->key;
	c.key_values = key;
	c.conflict = a->multiple ? MMR_CONFLICT_MULTIPLE_UNIQUE :
		a->item.change.op == MMR_OP_INSERT ? MMR_CONFLICT_INSERT_EXISTS :
		MMR_CONFLICT_UPDATE_EXISTS;
	c.resolution = mmr_strategy_aborts(a->table->strategy) ? MMR_ABORT : resolution;
	c.local = t->found;
	c.remote = t->row;
	c.local_known = b->known;
	c.local_version = b->version;
	c.remote_version = a->item.change.version;
	mmr_conflict_log_write(&c);
}

/* The blocker's row is in t->found then; false: it has changed meanwhile. */
static bool
fetch_blocker(MmrTarget *t, Blocker *b)
{
	return table_tuple_fetch_row_version(t->rel, b->tid, t->estate->es_snapshot, t->found);
}

/* All rows that stand in the way of a's, what is known of each; none: they have changed meanwhile. */
static List *
find_blockers(MmrMerge *m, Aside *a, MmrTarget *t)
{
	List	   *result = NIL;
	int			constraints;
	ListCell   *lc;

	foreach(lc, mmr_blockers_find(t, &constraints))
	{
		Blocker    *b = palloc0(sizeof(Blocker));
		MmrState	state;
		uint64		hash;

		b->tid = lfirst(lc);
		if (!fetch_blocker(t, b))
			continue;
		initStringInfo(&b->key);
		mmr_key_encode(a->table->key, t->found, &b->key);
		hash = mmr_key_hash(a->table->key, b->key.data, b->key.len);
		b->version = MMR_VERSION_NONE;
		b->known = mmr_versions_lookup(m->versions, a->table->key, hash, b->key.data, b->key.len,
									   &state);
		b->obsolete = mmr_setaside_find(a->table->key, hash, b->key.data, b->key.len) != NULL;
		if (b->known)
		{
			b->version = state.version;
			b->dot = state.dot;
			b->settled = state.settled;
		}
		result = lappend(result, b);
	}
	a->multiple |= constraints > 1;
	return result;
}

/*
 * A target that hears several sources decides nothing: what collides here need not have collided
 * there, and what it took away nobody would send again.  The loser's key stands aside
 * until a source tells what has become of it.
 */
static bool
only_receives(MmrMerge *m, Aside *a)
{
	return m->sync->my_role == MMR_ROLE_TARGET && a->table->record_all;
}

static void
stand_aside(MmrMerge *m, Aside *a, const MmrChange *change, uint64 hash, int32 source)
{
	ErrorData	error = {.sqlerrcode = ERRCODE_UNIQUE_VIOLATION};
	MmrSetAside s = {0};

	error.message = psprintf("a row of another key of table \"%s\" holds a unique value of it",
							 RelationGetRelationName(a->table->rel));
	error.detail = "Sources are asked for it until they have settled that.";
	s.sync_id = m->sync->id;
	s.source_node = source;
	s.rel = a->table->rel;
	s.table_key = a->table->key;
	s.change = change;
	s.hash = hash;
	s.error = &error;
	mmr_setaside_put(&s);
}

/* The row that was here has gone: who wrote it knows what has become of it, or else who sent what is newer. */
static void
stand_aside_blocker(MmrMerge *m, Aside *a, const Blocker *b)
{
	MmrChange	change = {0};

	change.op = MMR_OP_UPDATE;
	change.relid = a->table->key->relid;
	change.version = b->version;
	change.dot = b->dot;
	change.settled = b->settled;
	change.key = b->key.data;
	change.keylen = b->key.len;
	stand_aside(m, a, &change, mmr_key_hash(a->table->key, b->key.data, b->key.len),
				b->known && mmr_membership_is_source(m->sync, b->dot.node) ? b->dot.node : m->source_node);
}

/* A newer row stands: a's has lost, and nobody else goes because of it. */
static void
lose_to(MmrMerge *m, Aside *a, MmrTarget *t, Blocker *b)
{
	(void) fetch_blocker(t, b);
	if (only_receives(m, a))
	{
		/* told once */
		if (mmr_setaside_find(a->table->key, a->item.hash, a->item.change.key, a->item.change.keylen) == NULL)
			log_loss(m, a, t, MMR_KEEP_LOCAL, b);
		stand_aside(m, a, &a->item.change, a->item.hash, m->source_node);
		a->lost = true;
		return;
	}
	log_loss(m, a, t, MMR_KEEP_LOCAL, b);
	m->absent = true;
	mmr_merge_record(m, a->table, &a->item.change, a->item.hash);
	record_loss(m, a->table, a->item.change.key, a->item.change.keylen, &a->item.change.version);
}

/*
 * Rows stand in the way of a's.  RETRY: they have gone, or changed; SKIPPED:
 * one of them stands, and a's row has lost.
 */
static MmrWrite
settle_blockers(MmrMerge *m, Aside *a, MmrTarget *t)
{
	List	   *blockers = find_blockers(m, a, t);
	ListCell   *lc;

	foreach(lc, blockers)
	{
		Blocker    *b = lfirst(lc);

		if (!b->obsolete && mmr_version_compare(&b->version, &a->item.change.version) > 0)
		{
			lose_to(m, a, t, b);
			return MMR_WRITE_SKIPPED;
		}
	}
	foreach(lc, blockers)
	{
		Blocker    *b = lfirst(lc);

		if (!fetch_blocker(t, b))
			return MMR_WRITE_RETRY;
		switch (mmr_target_delete(t))
		{
			case MMR_WRITE_DONE:
				log_loss(m, a, t, MMR_APPLY_REMOTE, b);
				/* its key's newer state may not collide at all, and must not be deleted elsewhere */
				if (!b->obsolete && only_receives(m, a))
					stand_aside_blocker(m, a, b);
				else if (!b->obsolete)
					record_loss(m, a->table, b->key.data, b->key.len, &b->version);
				m->counts.deleted++;
				break;
			case MMR_WRITE_SKIPPED:
				/* a trigger of the user's keeps it, here: that is nobody else's affair */
				log_loss(m, a, t, MMR_KEEP_LOCAL, b);
				return MMR_WRITE_SKIPPED;
			default:
				return MMR_WRITE_RETRY;
		}
	}
	return MMR_WRITE_RETRY;
}

/* Has the key a version here by now that is not older than the item's? */
static bool
is_late(MmrMerge *m, Aside *a)
{
	MmrState	state;

	return mmr_versions_lookup(m->versions, a->table->key, a->item.hash, a->item.change.key,
							   a->item.change.keylen, &state) &&
		mmr_version_compare(&state.version, &a->item.change.version) >= (a->item.again ? 1 : 0);
}

/* A look at one item, under a snapshot of its own that versions know of. */
static void
look_begin(MmrMerge *m, MmrTarget *t)
{
	CHECK_FOR_INTERRUPTS();
	mmr_target_begin(t, mmr_merge_snapshot(m));
	MemoryContextSwitchTo(t->cxt);
}

static void
look_end(MmrTarget *t)
{
	mmr_target_end(t);
	ExecClearTuple(t->row);
	MemoryContextReset(t->cxt);
	ResetPerTupleExprContext(t->estate);
	PopActiveSnapshot();
}

static bool
find_own(Aside *a, MmrTarget *t)
{
	Datum		key[INDEX_MAX_KEYS];

	mmr_key_decode(a->table->key, a->item.change.key, a->item.change.keylen, key);
	return mmr_target_find(t, key);
}

/* The row that the item's key still has goes: its unique values are free then. */
static void
clear_one(MmrMerge *m, Aside *a, MmrTarget *t)
{
	MmrWrite	result = MMR_WRITE_RETRY;
	int			looks = 0;

	while (result == MMR_WRITE_RETRY)
	{
		mmr_merge_look_again(a->table, &looks);
		look_begin(m, t);
		if (is_late(m, a) || !find_own(a, t))
			result = MMR_WRITE_SKIPPED;
		else
		{
			mmr_target_know_columns(t, mmr_merge_sent, a->table->format);
			keep_before(m, a, t);
			result = mmr_target_delete(t);
		}
		look_end(t);
	}
}

/* One try to put the row in; RETRY: look again. */
static MmrWrite
try_one(MmrMerge *m, Aside *a, MmrTarget *t)
{
	ItemPointerData tid;
	MmrWrite	result;

	/* a row with this very key: one that somebody who is not captured has just put there */
	if (find_own(a, t))
	{
		mmr_target_know_columns(t, mmr_merge_sent, a->table->format);
		keep_before(m, a, t);
		result = mmr_target_delete(t);
		if (result != MMR_WRITE_DONE)
			return result;
		CommandCounterIncrement();
	}
	if (a->before != NULL)
		ExecForceStoreHeapTuple(a->before, t->found, false);
	mmr_merge_fill(a->table, t, &a->item, a->before != NULL);
	/* t->found is wanted for the rows in its way */
	ExecMaterializeSlot(t->row);
	t->estate->es_output_cid = GetCurrentCommandId(true);
	if (mmr_blockers_any(t, &tid))
		return settle_blockers(m, a, t);
	result = mmr_target_insert(t);
	/* somebody was quicker */
	return result == MMR_WRITE_COLLISION ? MMR_WRITE_RETRY : result;
}

/* The row is in. Has its key got a newer version since the last look (inserted and deleted here)? */
static void
recheck_one(MmrMerge *m, Aside *a, MmrTarget *t, ItemPointer tid)
{
	bool		late;

	look_begin(m, t);
	late = is_late(m, a);
	if (late)
		mmr_target_remove_tid(t, tid);
	look_end(t);
	if (late)
		return;
	m->counts.updated++;
	if (!mmr_version_is_none(&a->item.change.version))
		mmr_merge_record(m, a->table, &a->item.change, a->item.hash);
}

/* Puts one row in, or finds that it has lost, or that its key has a newer state by now. */
static void
settle_one(MmrMerge *m, Aside *a, MmrTarget *t)
{
	MmrWrite	result = MMR_WRITE_RETRY;
	MmrStanding *standing;
	ItemPointerData tid;
	int			looks = 0;

	while (result == MMR_WRITE_RETRY)
	{
		mmr_merge_look_again(a->table, &looks);
		look_begin(m, t);
		result = is_late(m, a) ? MMR_WRITE_SKIPPED : try_one(m, a, t);
		tid = t->row->tts_tid;
		look_end(t);
	}
	if (result == MMR_WRITE_DONE)
		recheck_one(m, a, t, &tid);
	/* it was put aside once more, or something newer of it, or it is dealt with */
	if (a->item.again && !a->lost && (standing = mmr_setaside_find(a->table->key, a->item.hash, a->item.change.key,
																	  a->item.change.keylen)) != NULL &&
		mmr_version_compare(&standing->version, &a->item.change.version) <= 0)
		mmr_setaside_resolve(standing);
}

/* Runs `work` on all items put aside. */
static void
each_aside(MmrMerge *m, void (*work) (MmrMerge *m, Aside *a, MmrTarget *t))
{
	MemoryContext cxt = AllocSetContextCreate(m->batch_cxt, "mmrepl collide",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	MmrTarget  *t = NULL;
	ListCell   *lc;

	foreach(lc, m->aside)
	{
		Aside	   *a = lfirst(lc);

		if (t == NULL || t->rel != a->table->rel)
		{
			if (t != NULL)
				mmr_target_close(t);
			/* an earlier frame may have had it open last */
			mmr_merge_open_table(a->table);
			t = mmr_target_open(a->table->rel, a->table->key, cxt);
		}
		work(m, a, t);
		MemoryContextSwitchTo(cxt);
	}
	if (t != NULL)
		mmr_target_close(t);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* One item and what is to be done with it. */
typedef struct Guarded
{
	Aside	   *a;
	void		(*work) (MmrMerge *m, Aside *a, MmrTarget *t);
} Guarded;

static void
work_guarded(MmrMerge *m, void *arg)
{
	Guarded    *g = arg;
	MemoryContext cxt = CurrentMemoryContext;
	MmrTarget  *t = mmr_target_open(g->a->table->rel, g->a->table->key, cxt);

	g->work(m, g->a, t);
	MemoryContextSwitchTo(cxt);
	mmr_target_close(t);
}

/* The same with care: those that fail are refused. */
static void
each_aside_guarded(MmrMerge *m, void (*work) (MmrMerge *m, Aside *a, MmrTarget *t),
				   MmrCollideRefusal refuse)
{
	ListCell   *lc;

	foreach(lc, m->aside)
	{
		Guarded		g = {lfirst(lc), work};
		ErrorData  *error;

		if (g.a->refused)
			continue;
		/* not in the subtransaction, which may end before the table is closed */
		mmr_merge_open_table(g.a->table);
		error = mmr_merge_guard(m, work_guarded, &g);
		if (error == NULL)
			continue;
		g.a->refused = true;
		refuse(m, g.a->table, &g.a->item, error);
		FreeErrorData(error);
	}
}

void
mmr_collide_settle(MmrMerge *m, MmrCollideRefusal refuse)
{
	if (m->aside == NIL)
		return;
	if (m->careful)
	{
		each_aside_guarded(m, clear_one, refuse);
		each_aside_guarded(m, settle_one, refuse);
	}
	else
	{
		each_aside(m, clear_one);
		each_aside(m, settle_one);
	}
	m->aside = NIL;
}
