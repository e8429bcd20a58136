/*-------------------------------------------------------------------------
 * batch.c
 *	  What a peer has not seen yet.
 *
 * Floor 7.  Reads the log, progress, user tables.  Runs in pushers.
 *
 * One scan of what is new in the log does two things: entries recorded for
 * others, and TRUNCATEs, go into a table of versions; runs authored here that
 * the peer has not seen are kept aside.  Then, chunk by chunk, the keys
 * of those runs get the newest version known (B4) and the row as the snapshot
 * sees it.  When there are too many runs to keep, the log is scanned once
 * more instead, so memory is bounded whatever the size of the batch.
 *
 * A key that turns up in several chunks is sent several times, always with
 * the same row; its newest version is among the labels, so it ends with that.
 *
 * Invariant: every key with an entry authored here, or handed on (forward.h), that S2 sees and
 * S1 did not is in the batch, and everything in it is as S2 sees it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "batch.h"
#include "breaks.h"
#include "forward.h"
#include "guc.h"
#include "outgoing.h"
#include "runs.h"
#include "seqcopy.h"
#include "topology.h"
#include "versions.h"
#include "wire.h"

/* Keys looked up and sent together. */
#define CHUNK_KEYS		2048
#define CHUNK_SLOTS		(2 * CHUNK_KEYS)	/* power of two */

typedef struct ChunkItem
{
	MmrChange	change;			/* newest authored here; key bytes in chunk_cxt */
	uint64		hash;
	MmrOutgoing *table;
	int64		place;			/* of the key in its index, roughly: neighbours are found fast */
	int			order;
} ChunkItem;

struct MmrBatch
{
	int32		sync_id;
	int32		peer;
	int32		my_node;
	MmrSync    *sync;
	MemoryContext cxt;			/* for the pusher's life */
	MemoryContext batch_cxt;	/* from prepare to done */
	MemoryContext chunk_cxt;
	MemoryContext row_cxt;
	MmrVersions *versions;		/* of entries recorded here, and of TRUNCATEs */
	HTAB	   *tables;			/* relid -> TableRef */

	const MmrPosition *from;
	MmrPosition *to;
	MmrForward	forward;		/* what of the log goes to the peer */
	Snapshot	snapshot;
	int64		undecided;
	int64		pending;
	MmrRuns		runs;			/* to be sent */
	bool		labels;			/* versions know all there is; else nothing has been sent that needs one since they were empty... */
	bool		passed;			/* ...and something has been passed by */
	List	   *sequences;
	MmrWanted  *wanted;

	/* emission */
	MmrFrameSink sink;
	void	   *sink_arg;
	StringInfoData frame;
	int64		ts;				/* of the last item in the frame */
	uint32		ntables;		/* described in this batch */
	bool		stale;
	ChunkItem  *items;
	int			nitems;
	int16	   *slots;
};

/* A member and its way out. */
typedef struct TableRef
{
	Oid			relid;			/* hash key */
	MmrMember  *member;			/* NULL: not of this sync */
	bool		truncated;		/* a TRUNCATE of it is to be sent */
	uint64		looked_up;		/* batch in which that was found out */
	MmrOutgoing out;
} TableRef;

static uint64 batch_number = 0;

static TableRef *
batch_table(MmrBatch *b, Oid relid)
{
	bool		found;
	TableRef   *t = hash_search(b->tables, &relid, HASH_ENTER, &found);

	if (!found)
	{
		memset(t, 0, sizeof(*t));
		t->relid = relid;
		t->out.relid = relid;
		t->out.parent = b->cxt;
	}
	if (t->looked_up != batch_number)
	{
		t->looked_up = batch_number;
		t->member = mmr_membership_table(b->sync, relid);
		t->truncated = false;
		t->out.number = 0;
	}
	return t;
}

static MmrKey *
batch_find_key(void *arg, Oid relid)
{
	TableRef   *t = batch_table(arg, relid);
	Relation	rel;
	MmrKey	   *key;

	if (t->member == NULL || (rel = try_table_open(relid, AccessShareLock)) == NULL)
		return NULL;
	key = mmr_key_get(rel, t->member->key_index);
	table_close(rel, AccessShareLock);
	return key;
}

/* Changes of the run that this sync's peer is to get; notes which tables have a TRUNCATE. */
static int
batch_count(MmrBatch *b, MmrRun run)
{
	MmrChange	change;
	TableRef   *t = NULL;
	bool		hands_on = mmr_forward_run(&b->forward, &run);
	int			n = 0;

	while (mmr_changelog_next(&run, &change))
	{
		if (!mmr_forward_change(&b->forward, hands_on, &change))
			continue;
		if (t == NULL || t->relid != change.relid)
			t = batch_table(b, change.relid);
		t->truncated |= change.op == MMR_OP_TRUNCATE;
		n += t->member != NULL;
	}
	return n;
}

/* Keeps a run for sending, if it holds something for this peer; does it belong into versions too? */
static bool
batch_filter(void *arg, MmrRun *run, const char *data, int len)
{
	MmrBatch   *b = arg;
	int			n;

#ifdef MMR_BREAK_POSITION
	if (b->from != NULL && run->xid < b->from->xmax)
		return run->recorded || run->has_truncate;
#endif
	if (!mmr_position_covers(b->from, run->xid) && (n = batch_count(b, *run)) > 0)
	{
		b->pending += n;
		mmr_runs_keep(&b->runs, run->xid, data, len);
	}
	if (!run->recorded && !run->has_truncate)
		return false;
	b->passed |= !b->labels;
	return b->labels;
}

/* Has the peer all that transactions up to this one have appended? */
static bool
batch_seen(void *arg, uint64 max_xid)
{
	MmrBatch   *b = arg;

	return b->from != NULL && max_xid < b->from->xmin;
}

MmrBatch *
mmr_batch_create(MemoryContext cxt, int32 sync_id, int32 peer)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	MmrBatch   *b = palloc0(sizeof(MmrBatch));
	HASHCTL		ctl = {0};

	b->cxt = cxt;
	b->sync_id = sync_id;
	b->peer = peer;
	b->batch_cxt = AllocSetContextCreate(cxt, "mmrepl batch", ALLOCSET_DEFAULT_SIZES);
	b->chunk_cxt = AllocSetContextCreate(cxt, "mmrepl chunk", ALLOCSET_DEFAULT_SIZES);
	b->row_cxt = AllocSetContextCreate(cxt, "mmrepl row", ALLOCSET_DEFAULT_SIZES);
	b->versions = mmr_versions_create(cxt, batch_find_key, batch_filter, b);
	mmr_versions_set_seen(b->versions, batch_seen);
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(TableRef);
	ctl.hcxt = cxt;
	b->tables = hash_create("mmrepl outgoing tables", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	b->items = palloc(sizeof(ChunkItem) * CHUNK_KEYS);
	b->slots = palloc(sizeof(int16) * CHUNK_SLOTS);
	mmr_runs_init(&b->runs);
	initStringInfo(&b->frame);
	/* whoever was looked at, or sent to, before: what values of sequences arrived is not known */
	mmr_seqcopy_forget();
	MemoryContextSwitchTo(old);
	return b;
}

void
mmr_batch_want(MmrBatch *b, MmrWanted *wanted)
{
	b->wanted = wanted;
}

void
mmr_batch_only_of(MmrBatch *b, int32 author, const MmrPosition *but)
{
	b->forward.only_of = author;
	b->forward.but = but;
}

void
mmr_batch_reset(MmrBatch *b)
{
	mmr_versions_reset(b->versions);
	b->labels = b->passed = false;
	mmr_seqcopy_forget();
}

/* Reads what is new in the log. */
static void
batch_feed(MmrBatch *b)
{
	b->pending = 0;
	mmr_runs_reset(&b->runs);
	b->undecided = mmr_versions_feed(b->versions, b->snapshot, b->to);
}

/*
 * Who sends nothing needs no labels, and as long as that is so what others wrote is
 * passed by: it may be much, and mostly is stable and gone before it matters.  When
 * there is something to send, all of the log is read once more.
 */
static void
batch_find(MmrBatch *b)
{
	if (mmr_versions_is_empty(b->versions))
		b->labels = false;
	batch_feed(b);
	if (!b->passed || b->labels || (b->pending == 0 && (b->wanted == NULL || b->wanted->keys == NIL)))
		return;
	mmr_versions_reset(b->versions);
	b->labels = true;
	b->passed = false;
	batch_feed(b);
}

bool
mmr_batch_prepare(MmrBatch *b, MmrSync *sync, const MmrPosition *from)
{
	MemoryContext old;

	MemoryContextReset(b->batch_cxt);
	old = MemoryContextSwitchTo(b->batch_cxt);
	batch_number++;
	b->sync = sync;
	b->my_node = mmr_membership_my_id();
	b->from = from;
	b->stale = false;
	b->ntables = 0;
	/* a large row may have needed much */
	mmr_wire_empty(&b->frame, 4 * mmr_guc_frame_size * 1024);
	PushActiveSnapshot(GetLatestSnapshot());
	b->snapshot = GetActiveSnapshot();
	b->to = mmr_position_active();
	mmr_forward_load(&b->forward, sync, b->peer);
	batch_find(b);
	/* behind the snapshot: no row of the batch is ahead of its sequence */
	b->sequences = mmr_seqcopy_values(b->sync_id);
	MemoryContextSwitchTo(old);
	return mmr_runs_any(&b->runs) || b->sequences != NIL ||
		(b->wanted != NULL && b->wanted->keys != NIL);
}

int64
mmr_batch_pending(MmrBatch *b)
{
	return b->pending;
}

int64
mmr_batch_undecided(MmrBatch *b)
{
	return b->undecided;
}

const MmrPosition *
mmr_batch_position(MmrBatch *b)
{
	return b->to;
}

static void
batch_start_frame(MmrBatch *b)
{
	resetStringInfo(&b->frame);
	appendStringInfoChar(&b->frame, MMR_FRAME_MAGIC);
	appendStringInfoChar(&b->frame, MMR_PROTOCOL_VERSION);
	b->ts = 0;
}

/* Hands the frame over and starts the next. */
static void
batch_send(MmrBatch *b, bool last)
{
	b->sink(b->sink_arg, &b->frame, last);
	batch_start_frame(b);
}

/* Newest version and dot known of the item's key (B4). */
static void
batch_label(MmrBatch *b, MmrKey *key, ChunkItem *item)
{
	MmrState	state;

	if (mmr_versions_is_empty(b->versions) ||
		!mmr_versions_lookup(b->versions, key, item->hash, item->change.key, item->change.keylen,
							 &state) ||
		mmr_version_compare(&state.version, &item->change.version) <= 0)
		return;
	item->change.version = state.version;
	item->change.dot = state.dot;
	item->change.settled = state.settled;
}

static int
compare_items(const void *a, const void *b)
{
	const ChunkItem *x = a;
	const ChunkItem *y = b;

	if (x->table != y->table)
		return x->change.relid < y->change.relid ? -1 : 1;
	if (x->place != y->place)
		return x->place < y->place ? -1 : 1;
	return x->order - y->order;
}

/* Sends what the chunk has gathered. */
static void
chunk_send(MmrBatch *b)
{
	MmrOutgoing *out = NULL;

	qsort(b->items, b->nitems, sizeof(ChunkItem), compare_items);
	for (int i = 0; i < b->nitems && !b->stale; i++)
	{
		ChunkItem  *item = &b->items[i];
		MemoryContext old;

		if (item->table != out)
		{
			if (out != NULL)
				mmr_outgoing_close(out);
			out = item->table;
			if (!mmr_outgoing_open(out, batch_table(b, out->relid)->member, b->snapshot))
			{
				b->stale = true;
				out = NULL;
				break;
			}
			if (out->number == 0)
				mmr_outgoing_describe(out, ++b->ntables, &b->frame);
		}
		old = MemoryContextSwitchTo(b->row_cxt);
		batch_label(b, out->key, item);
		mmr_outgoing_item(out, &item->change, b->my_node, &b->ts, &b->frame);
		MemoryContextSwitchTo(old);
		MemoryContextReset(b->row_cxt);
		if (b->frame.len >= mmr_guc_frame_size * 1024)
		{
			/* the peer may take its time */
			mmr_outgoing_rest(out);
			batch_send(b, false);
		}
		CHECK_FOR_INTERRUPTS();
	}
	if (out != NULL)
		mmr_outgoing_close(out);
	MemoryContextReset(b->chunk_cxt);
	b->nitems = 0;
	memset(b->slots, 0xff, sizeof(int16) * CHUNK_SLOTS);
}

/* Puts a change into the chunk; of several of a key the newest version stays. */
static void
chunk_add(MmrBatch *b, TableRef *t, MmrKey *key, const MmrChange *change)
{
	uint64		hash = mmr_key_hash(key, change->key, change->keylen);
	int			slot = hash & (CHUNK_SLOTS - 1);
	ChunkItem  *item;
	char	   *bytes;
	int			cmp;

	for (; b->slots[slot] >= 0; slot = (slot + 1) & (CHUNK_SLOTS - 1))
	{
		item = &b->items[b->slots[slot]];
		if (item->hash != hash || item->table != &t->out ||
			!mmr_key_equal(key, item->change.key, item->change.keylen, change->key, change->keylen))
			continue;
		cmp = mmr_version_compare(&change->version, &item->change.version);
#ifdef MMR_BREAK_LABEL_FIRST
		cmp = -1;
#endif
		/* what was recorded again with what spared it (M4) is news also to who wrote it */
		if (cmp > 0 || (cmp == 0 && change->dot.node == b->my_node))
		{
			item->change.version = change->version;
			item->change.dot = change->dot;
			item->change.settled = change->settled;
			if (item->change.op != MMR_OP_INSERT || change->op == MMR_OP_DELETE)
				item->change.op = change->op;
		}
		return;
	}
	item = &b->items[b->nitems];
	item->change = *change;
	item->hash = hash;
	item->table = &t->out;
	item->place = mmr_key_place(key, change->key, change->keylen);
	item->order = b->nitems;
	bytes = MemoryContextAlloc(b->chunk_cxt, change->keylen + 1);
	memcpy(bytes, change->key, change->keylen);
	item->change.key = bytes;
	b->slots[slot] = b->nitems++;
	if (b->nitems == CHUNK_KEYS)
		chunk_send(b);
}

/* A run's changes that are to be sent. */
static void
batch_run(void *arg, int segment, uint64 xid, const char *data, int len)
{
	MmrBatch   *b = arg;
	MmrRun		run;
	MmrChange	change;
	TableRef   *t = NULL;
	MmrKey	   *key = NULL;
	bool		hands_on;

	if (b->stale || mmr_position_covers(b->from, xid))
		return;
	mmr_changelog_open_run(&run, xid, data, len);
	hands_on = mmr_forward_run(&b->forward, &run);
	while (mmr_changelog_next(&run, &change))
	{
		if (change.op == MMR_OP_TRUNCATE || !mmr_forward_change(&b->forward, hands_on, &change))
			continue;
		if (t == NULL || t->relid != change.relid)
		{
			t = batch_table(b, change.relid);
			key = batch_find_key(b, change.relid);
		}
		if (t->member != NULL && key != NULL)
			chunk_add(b, t, key, &change);
	}
}

/* Keys that the peer has asked for: as if they had changed. */
static void
batch_wanted(MmrBatch *b)
{
	ListCell   *lc;

	if (b->wanted == NULL || b->wanted->keys == NIL)
		return;
	mmr_wanted_label(b->wanted, b->sync, b->snapshot, b->to, batch_find_key, b);
	foreach(lc, b->wanted->keys)
	{
		MmrWantedKey *k = lfirst(lc);

		if (k->key != NULL && !b->stale)
			chunk_add(b, batch_table(b, k->change.relid), k->key, &k->change);
	}
}

/* TRUNCATEs go first (A2). */
static void
batch_truncates(MmrBatch *b)
{
	ListCell   *lc;

	if (mmr_versions_is_empty(b->versions))
		return;
	foreach(lc, b->sync->tables)
	{
		MmrMember  *member = lfirst(lc);
		TableRef   *t;
		MmrState	state;

		if (!OidIsValid(member->relid) ||
			!mmr_versions_truncated(b->versions, member->relid, &state))
			continue;
		t = batch_table(b, member->relid);
		if (!t->truncated)
			continue;
		if (!mmr_outgoing_open(&t->out, member, b->snapshot))
		{
			b->stale = true;
			return;
		}
		if (t->out.number == 0)
			mmr_outgoing_describe(&t->out, ++b->ntables, &b->frame);
		mmr_outgoing_close(&t->out);
		mmr_outgoing_truncate(&t->out, &state.version, &state.dot, &b->frame);
	}
}

/* The first record: what this batch is, and what its sender has applied (B5). */
static void
batch_head(MmrBatch *b)
{
	MmrContext *ctx = mmr_topology_context(b->sync);

	mmr_context_add(ctx, b->my_node, b->to, false);
	batch_start_frame(b);
	appendStringInfoChar(&b->frame, MMR_REC_BATCH);
	mmr_append_varint(&b->frame, b->forward.only_of ? MMR_BATCH_BEQUEST : MMR_BATCH_CHANGES);
	mmr_append_varint(&b->frame, b->sync_id);
	mmr_append_varint(&b->frame, b->forward.only_of ? b->forward.only_of : b->my_node);
	mmr_append_position(&b->frame, b->from);
	mmr_append_position(&b->frame, b->to);
	mmr_append_context(&b->frame, ctx);
}

/* Changes, from the runs kept or by another scan of the log. */
static void
batch_changes(MmrBatch *b)
{
	b->nitems = 0;
	memset(b->slots, 0xff, sizeof(int16) * CHUNK_SLOTS);
	MemoryContextReset(b->chunk_cxt);
	if (b->runs.overflow)
		mmr_logreader_scan(mmr_logreader_create(b->batch_cxt), b->snapshot, b->to, batch_run, NULL, b);
	else
		mmr_runs_each(&b->runs, batch_run, b);
	batch_wanted(b);
	if (b->nitems > 0)
		chunk_send(b);
}

bool
mmr_batch_emit(MmrBatch *b, MmrFrameSink sink, void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(b->batch_cxt);

	b->sink = sink;
	b->sink_arg = arg;
	mmr_outgoing_flush_wal();
	batch_head(b);
#ifdef MMR_BREAK_TRUNCATE_ORDER
	batch_changes(b);
#endif
	batch_truncates(b);
#ifndef MMR_BREAK_TRUNCATE_ORDER
	if (!b->stale)
		batch_changes(b);
#endif
	if (!b->stale)
	{
		mmr_seqcopy_append(b->sequences, &b->frame);
		appendStringInfoChar(&b->frame, MMR_REC_END);
		batch_send(b, true);
	}
	MemoryContextSwitchTo(old);
	return !b->stale;
}

void
mmr_batch_done(MmrBatch *b, bool acknowledged)
{
	PopActiveSnapshot();
	if (!acknowledged)
		mmr_batch_reset(b);
}
