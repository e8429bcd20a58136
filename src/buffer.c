/*-------------------------------------------------------------------------
 * buffer.c
 *	  Captured changes of the transaction under way, before they go to the log.
 *
 * Floor 3.  Writes mmrepl.log_N through changelog.  Runs in client backends,
 * once per captured row: this is the capture path.
 *
 * The buffer is one array of changes with a mark where each subtransaction's
 * begin.  A subtransaction that rolls back cuts the array at its mark; one
 * that commits leaves its changes to its parent.  What is written to the log
 * early is written by the subtransaction it belongs to, so its abort hides it.
 * Hence a loop of ten thousand savepoints costs no write of its own.
 *
 * Invariant: a change is written by the subtransaction that it belongs to, or
 * by a child of that as it commits; at pre-commit all are written.  There
 * is never more in memory than mmrepl.capture_buffer for each level of
 * subtransactions that are open, and a change of each.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "utils/memutils.h"

#include "buffer.h"
#include "guc.h"

typedef struct Buffered
{
	int64		ts;
	Oid			relid;
	int32		keylen;
	uint8		op;
	char		key[FLEXIBLE_ARRAY_MEMBER];
} Buffered;

typedef struct Level
{
	SubTransactionId sub;
	Size		start;			/* of its changes in data */
} Level;

#define RECENT	256				/* power of two */
#define NOT_LOGGED	SIZE_MAX

/* The session keeps so much for the next transaction; what a large one had besides goes with it. */
#define KEPT_BYTES	4096
#define KEPT_LEVELS	8

static struct
{
	bool		used;			/* by the transaction under way */
	int32		node;
	char	   *data;
	Size		len;
	Size		allocated;
	Level	   *levels;
	int			nlevels;
	int			max_levels;
	int64		captured;
	Size		logged;			/* what a subtransaction that is about to commit has written begins here */
	uint64		base;			/* grows with each cut, so that what is in recent from before is not above it */
	uint64		recent[RECENT]; /* base + offset + 1 of a change with that key hash; up to base: none */
} buffer;

static void
buffer_start(int32 node)
{
	if (buffer.data == NULL)
	{
		buffer.data = MemoryContextAlloc(TopMemoryContext, KEPT_BYTES);
		buffer.allocated = KEPT_BYTES;
	}
	if (buffer.levels == NULL)
	{
		buffer.levels = MemoryContextAlloc(TopMemoryContext, sizeof(Level) * KEPT_LEVELS);
		buffer.max_levels = KEPT_LEVELS;
	}
	buffer.node = node;
	buffer.nlevels = 0;
	buffer.captured = 0;
	buffer.logged = NOT_LOGGED;
	/* last: an ERROR above may be caught by a subtransaction */
	buffer.used = true;
}

/* The level of the current subtransaction, made if it is not there. */
static Level *
buffer_level(void)
{
	SubTransactionId sub = GetCurrentSubTransactionId();

	if (buffer.nlevels > 0 && buffer.levels[buffer.nlevels - 1].sub == sub)
		return &buffer.levels[buffer.nlevels - 1];
	if (buffer.nlevels == buffer.max_levels)
	{
		buffer.levels = repalloc(buffer.levels, sizeof(Level) * buffer.max_levels * 2);
		buffer.max_levels *= 2;
	}
	buffer.levels[buffer.nlevels].sub = sub;
	buffer.levels[buffer.nlevels].start = buffer.len;
	return &buffer.levels[buffer.nlevels++];
}

static inline Size
buffered_size(int keylen)
{
	return MAXALIGN(offsetof(Buffered, key) + keylen);
}

/* Writes the changes from `start` on, in the name of the current subtransaction. */
static void
buffer_log(Size start)
{
	MmrAppender *a;
	Size		pos = start;

	/* C5: there may be nobody left to tell */
	if (start >= buffer.len || unlikely(mmr_changelog_is_gone()))
		return;
	a = mmr_changelog_begin(buffer.node, false);
	while (pos < buffer.len)
	{
		Buffered   *b = (Buffered *) (buffer.data + pos);
		MmrChange	change;

		change.op = b->op;
		change.relid = b->relid;
		change.version.ts = b->ts;
		change.version.node = buffer.node;
		change.version.rank = 0;
		change.settled = MMR_SETTLED_NONE;
		change.key = b->key;
		change.keylen = b->keylen;
		mmr_changelog_add(a, &change);
		pos += buffered_size(b->keylen);
	}
	mmr_changelog_end(a);
}

/* Cuts the array there. Places past the cut would name changes to come: all are forgotten. */
static void
buffer_cut(Size start)
{
	buffer.base += buffer.len;
	buffer.len = start;
}

/* Writes the changes from `start` on, which all belong to the current subtransaction. */
static void
buffer_write(Size start)
{
	buffer_log(start);
	buffer_cut(start);
}

static bool
buffer_is_full(Size start, Size more)
{
	return buffer.len - start + more > (Size) mmr_guc_capture_buffer * 1024;
}

/* If the key has a change in this level's part already: makes that one the newest, and true. */
static bool
buffer_renew(Level *level, const MmrChange *change, uint64 recent)
{
	Buffered   *b;

	/* what lies before the level's mark survives its rollback: not to be touched */
	if (recent <= buffer.base + level->start)
		return false;
	b = (Buffered *) (buffer.data + (recent - buffer.base - 1));
	if (b->relid != change->relid || b->keylen != change->keylen ||
		b->op == MMR_OP_TRUNCATE || memcmp(b->key, change->key, change->keylen) != 0)
		return false;
	b->ts = change->version.ts;
	if (!(b->op == MMR_OP_INSERT && change->op == MMR_OP_UPDATE))
		b->op = change->op;
	return true;
}

/* Where the newest change of that key would stand in recent: most keys are a few bytes, and need no better hash. */
static inline uint64 *
buffer_recent(const MmrChange *change)
{
	uint32		hash = change->relid;

	if (change->keylen <= 12)
		for (int i = 0; i < change->keylen; i++)
			hash = (hash ^ (unsigned char) change->key[i]) * 0x01000193;
	else
		hash ^= hash_bytes((const unsigned char *) change->key, change->keylen);
	return &buffer.recent[(hash ^ (hash >> 16)) & (RECENT - 1)];
}

void
mmr_buffer_add(int32 node, const MmrChange *change)
{
	Level	   *level;
	uint64	   *recent;
	Size		size = buffered_size(change->keylen);
	Buffered   *b;

	if (!buffer.used)
		buffer_start(node);
	buffer.captured++;
	level = buffer_level();
	recent = buffer_recent(change);
	if (change->op != MMR_OP_TRUNCATE && buffer_renew(level, change, *recent))
		return;

	if (buffer_is_full(level->start, size))
		buffer_write(level->start);
	if (buffer.len + size > buffer.allocated)
	{
		Size		allocated = Max(buffer.allocated * 2, buffer.len + size);

		buffer.data = repalloc_huge(buffer.data, allocated);
		buffer.allocated = allocated;
	}
	b = (Buffered *) (buffer.data + buffer.len);
	b->ts = change->version.ts;
	b->relid = change->relid;
	b->keylen = change->keylen;
	b->op = change->op;
	memcpy(b->key, change->key, change->keylen);
	*recent = buffer.base + buffer.len + 1;
	buffer.len += size;
}

void
mmr_buffer_flush(void)
{
	if (!buffer.used)
		return;
	/* at the end of the transaction every level has become the top one's */
	Assert(buffer.nlevels <= 1);
	buffer_write(0);
}

/* Where the changes begin that are the parent's when this subtransaction has committed. */
static Size
buffer_start_with_parent(const Level *top, SubTransactionId parent)
{
	return buffer.nlevels > 1 && top[-1].sub == parent ? top[-1].start : top->start;
}

void
mmr_buffer_precommit_sub(SubTransactionId sub, SubTransactionId parent)
{
	Level	   *top;
	Size		start;

	if (!buffer.used || buffer.nlevels == 0)
		return;
	top = &buffer.levels[buffer.nlevels - 1];
	if (top->sub != sub)
		return;
	start = buffer_start_with_parent(top, parent);
	buffer.logged = NOT_LOGGED;
	if (!buffer_is_full(start, 0))
		return;

	/*
	 * A loop with a subtransaction in each turn: the parent itself never comes
	 * to write.  The child does it, whose fate is the parent's as soon as it
	 * has committed; only then the changes leave the array.
	 */
	buffer_log(start);
	buffer.logged = start;
}

void
mmr_buffer_subcommit(SubTransactionId sub, SubTransactionId parent)
{
	Level	   *top;

	if (!buffer.used || buffer.nlevels == 0)
		return;
	top = &buffer.levels[buffer.nlevels - 1];
	if (top->sub != sub)
		return;
	if (buffer.logged != NOT_LOGGED)
		buffer_cut(buffer.logged);
	buffer.logged = NOT_LOGGED;
	if (buffer.nlevels > 1 && top[-1].sub == parent)
		buffer.nlevels--;
	else
		top->sub = parent;
}

void
mmr_buffer_subabort(SubTransactionId sub)
{
	Level	   *top;

	if (!buffer.used || buffer.nlevels == 0)
		return;
	top = &buffer.levels[buffer.nlevels - 1];
	if (top->sub != sub)
		return;
	buffer_cut(top->start);
	buffer.nlevels--;
	buffer.logged = NOT_LOGGED;
}

int32
mmr_buffer_node(void)
{
	return buffer.used ? buffer.node : 0;
}

int64
mmr_buffer_end(void)
{
	if (!buffer.used)
		return 0;
	buffer.used = false;
	buffer_cut(0);
	if (buffer.allocated > KEPT_BYTES)
	{
		pfree(buffer.data);
		buffer.data = NULL;
	}
	if (buffer.max_levels > KEPT_LEVELS)
	{
		pfree(buffer.levels);
		buffer.levels = NULL;
	}
	return buffer.captured;
}
