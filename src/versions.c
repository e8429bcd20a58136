/*-------------------------------------------------------------------------
 * versions.c
 *	  The newest version of each key that is not stable yet.
 *
 * Floor 4.  Reads the change log through logreader.  Runs in pushers (labels,
 * B4) and apply backends (A3).
 *
 * When a segment is emptied, keys whose newest entry lay there are
 * forgotten, even if an older entry of theirs still lies in another segment:
 * the newest being stable, nothing older than it can arrive any more, and
 * everything that can arrive is newer than both.
 *
 * What lies in a closed segment that has an index (segindex.h) is not kept in
 * memory: a peer is away, and there may be any number of it.  Such a segment
 * is not even read, unless it may hold runs that the caller wants to see.  When
 * an index turns up, what was kept of its segment is forgotten: an older entry
 * that it had taken the place of matters as little as above.
 *
 * Invariant: after a feed with snapshot S, for every key with an unstable
 * entry visible to S the newest such entry, or a newer one that this transaction
 * has added, is in memory or found by an index; all that an index tells is
 * visible to S.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/proc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "keystates.h"
#include "segindex.h"
#include "versions.h"

/* Changes that have been read and not noted yet. */
#define AHEAD	8

typedef struct Ahead
{
	uint64		hash;
	MmrChange	change;
} Ahead;

struct MmrVersions
{
	MemoryContext cxt;
	MmrLogReader *reader;
	MmrKeyFinder finder;
	MmrRunFilter filter;
	void	   *arg;
	MmrSeenFilter seen;
	MmrKeyStates *memory;
	MmrSegIndex *indexes[MMR_SEGMENTS]; /* NULL: what is in the segment is in memory */
	int			nindexes;
	uint64		key_generation;	/* when the indexes' keys were compared with ours */
	uint64		fed;
	LocalTransactionId added_lxid;	/* transaction that has added last */
	MmrCrossing crossing;

	/* the table looked at last by feed: runs of changes of one table are the rule */
	Oid			last_relid;
	MmrKey	   *last_key;
};

static bool versions_skip(void *arg, int segment, Relation rel, Snapshot snapshot);

MmrVersions *
mmr_versions_create(MemoryContext parent, MmrKeyFinder finder, MmrRunFilter filter, void *arg)
{
	MmrVersions *v = MemoryContextAllocZero(parent, sizeof(MmrVersions));

	v->cxt = AllocSetContextCreate(parent, "mmrepl versions", ALLOCSET_DEFAULT_SIZES);
	v->reader = mmr_logreader_create(parent);
	mmr_logreader_set_skip(v->reader, versions_skip);
	v->finder = finder;
	v->filter = filter;
	v->arg = arg;
	mmr_crossing_reset(&v->crossing, v->cxt);
	v->memory = mmr_keystates_create(v->cxt);
	return v;
}

void
mmr_versions_set_seen(MmrVersions *v, MmrSeenFilter seen)
{
	v->seen = seen;
}

void
mmr_versions_reset(MmrVersions *v)
{
	mmr_logreader_reset(v->reader);
	MemoryContextReset(v->cxt);
	memset(v->indexes, 0, sizeof(v->indexes));
	v->nindexes = 0;
	v->memory = mmr_keystates_create(v->cxt);
	mmr_crossing_reset(&v->crossing, v->cxt);
	v->fed++;
}

/* A change of the log. */
static void
versions_take(MmrVersions *v, const Ahead *a, int segment)
{
	MmrKeyKnown known;

	mmr_keystates_note(v->memory, v->last_key, a->hash, &a->change, segment, 0, &known);
	if (known.found)
		mmr_crossing_meet(&v->crossing, known.turn, known.op, &known.version, &a->change);
}

/* It waits until its place has come; the one that has waited longest is taken. */
static void
versions_ahead(MmrVersions *v, const MmrChange *change, int segment, Ahead *ahead, int *n)
{
	Ahead	   *a = &ahead[*n % AHEAD];

	if (*n >= AHEAD)
		versions_take(v, a, segment);
	a->hash = mmr_key_hash(v->last_key, change->key, change->keylen);
	a->change = *change;
	mmr_keystates_prefetch(v->memory, a->hash);
	++*n;
}

/* All that wait: they are of the table looked at last. */
static void
versions_drain(MmrVersions *v, int segment, Ahead *ahead, int *n)
{
	for (int i = Max(0, *n - AHEAD); i < *n; i++)
		versions_take(v, &ahead[i % AHEAD], segment);
	*n = 0;
}

static void
versions_run(void *arg, int segment, uint64 xid, const char *data, int len)
{
	MmrVersions *v = arg;
	MmrRun		run;
	MmrChange	change;
	Ahead		ahead[AHEAD];
	int			n = 0;

	mmr_changelog_open_run(&run, xid, data, len);
	if (v->filter != NULL && !v->filter(v->arg, &run, data, len))
		return;
	if (v->indexes[segment] != NULL)
		return;
	mmr_crossing_run(&v->crossing, xid);
	while (mmr_changelog_next(&run, &change))
	{
		if (change.relid != v->last_relid)
		{
			versions_drain(v, segment, ahead, &n);
			v->last_relid = change.relid;
			v->last_key = v->finder(v->arg, change.relid);
		}
		if (v->last_key == NULL)
			continue;
		v->fed++;
		mmr_keystates_note_table(v->memory, &change, segment);
		if (change.op != MMR_OP_TRUNCATE)
			versions_ahead(v, &change, segment, ahead, &n);
	}
	versions_drain(v, segment, ahead, &n);
}

static void
versions_forget(MmrVersions *v, int segment)
{
	mmr_keystates_forget(v->memory, segment, v->nindexes == 0);
}

static void
versions_detach(MmrVersions *v, int segment)
{
	if (v->indexes[segment] == NULL)
		return;
	mmr_segindex_free(v->indexes[segment]);
	v->indexes[segment] = NULL;
	v->nindexes--;
}

static void
versions_emptied(void *arg, int segment)
{
	versions_detach(arg, segment);
	versions_forget(arg, segment);
}

/* Are the keys of our tables still those by which it was built? */
static bool
index_fits(MmrVersions *v, const MmrSegIndex *index)
{
	for (uint32 i = 0; i < index->head.ntables; i++)
	{
		MmrKey	   *key = v->finder(v->arg, index->tables[i].relid);

		if (key != NULL && mmr_key_fingerprint(key) != index->tables[i].fingerprint)
			return false;
	}
	return true;
}

/* The segment has an index: it takes the place of what is in memory. */
static void
versions_attach(MmrVersions *v, int segment, Relation rel, Snapshot snapshot)
{
	MmrSegIndex *index = mmr_segindex_attach(v->cxt, segment, rel, snapshot);

	if (index == NULL)
		return;
	if (!index_fits(v, index) || !mmr_segindex_hold(index, rel))
	{
		mmr_segindex_free(index);
		return;
	}
	versions_forget(v, segment);
	for (uint32 i = 0; i < index->head.ntables; i++)
	{
		const MmrSegTable *info = &index->tables[i];
		MmrChange	change = {0};

		if (v->finder(v->arg, info->relid) == NULL)
			continue;
		change.relid = info->relid;
		change.version = info->newest;
		mmr_keystates_note_table(v->memory, &change, segment);
		if (!info->truncated)
			continue;
		change.op = MMR_OP_TRUNCATE;
		change.version = info->truncate.version;
		change.dot = info->truncate.dot;
		mmr_keystates_note_table(v->memory, &change, segment);
	}
	v->indexes[segment] = index;
	v->nindexes++;
	v->fed++;
}

/* For the reader of the log: need this segment not be read? */
static bool
versions_skip(void *arg, int segment, Relation rel, Snapshot snapshot)
{
	MmrVersions *v = arg;

	if (v->indexes[segment] != NULL && !mmr_segindex_hold(v->indexes[segment], rel))
	{
		versions_detach(v, segment);
		mmr_logreader_forget(v->reader, segment);
	}
	/* not while entries are compared with what this transaction has added: what an index tells is not met one by one */
	if (v->indexes[segment] == NULL && !mmr_crossing_wrote(&v->crossing) && mmr_segindex_exists(segment))
		versions_attach(v, segment, rel, snapshot);
	return v->indexes[segment] != NULL &&
		(v->seen == NULL || v->seen(v->arg, v->indexes[segment]->head.max_xid));
}

/* Keys may have changed: an index by another hash is none. */
static void
versions_check_keys(MmrVersions *v)
{
	if (v->nindexes == 0 || v->key_generation == mmr_key_generation())
		return;
	for (int i = 0; i < MMR_SEGMENTS; i++)
		if (v->indexes[i] != NULL && !index_fits(v, v->indexes[i]))
		{
			versions_detach(v, i);
			mmr_logreader_forget(v->reader, i);
		}
}

int64
mmr_versions_feed(MmrVersions *v, Snapshot snapshot, const MmrPosition *pos)
{
	bool		settled = mmr_keystates_placeless(v->memory) > 0 && v->added_lxid != mmr_my_lxid();
	int64		undecided;

	/* gives memory back: the young segments are read once more */
	if (mmr_keystates_wasteful(v->memory) && mmr_keystates_placeless(v->memory) == 0)
		mmr_versions_reset(v);
	v->last_relid = InvalidOid;
	versions_check_keys(v);
	v->key_generation = mmr_key_generation();
	undecided = mmr_logreader_scan(v->reader, snapshot, pos, versions_run, versions_emptied, v);
	mmr_crossing_fed(&v->crossing, pos);

	/*
	 * What an earlier transaction has added and the log does not hold any
	 * more has been stable and purged in between.
	 */
	if (settled && mmr_keystates_placeless(v->memory) > 0)
		versions_forget(v, -1);
	return undecided;
}

MmrCrossing *
mmr_versions_crossing(MmrVersions *v)
{
	return &v->crossing;
}

uint64
mmr_versions_fed(MmrVersions *v)
{
	return v->fed;
}

bool
mmr_versions_truncated(MmrVersions *v, Oid relid, MmrState *state)
{
	return mmr_keystates_truncated(v->memory, relid, state);
}

bool
mmr_versions_newest_of_table(MmrVersions *v, Oid relid, MmrVersion *version)
{
	return mmr_keystates_newest_of_table(v->memory, relid, version);
}

bool
mmr_versions_is_empty(MmrVersions *v)
{
	return v->nindexes == 0 && mmr_keystates_is_empty(v->memory);
}

void
mmr_versions_prefetch(MmrVersions *v, uint64 hash)
{
	mmr_keystates_prefetch(v->memory, hash);
}

/* Takes over the other state if it is newer than what is known so far. */
static bool
newest_of(bool known, MmrState *state, const MmrState *other)
{
	if (!known || mmr_version_compare(&other->version, &state->version) > 0)
		*state = *other;
	return true;
}

bool
mmr_versions_lookup(MmrVersions *v, MmrKey *key, uint64 hash, const char *data, int len,
					MmrState *state)
{
	bool		known = mmr_versions_truncated(v, key->relid, state);
	MmrState	other;
	int			left = v->nindexes;

	if (mmr_keystates_lookup(v->memory, key, hash, data, len, &other))
		known = newest_of(known, state, &other);
	for (int i = 0; left > 0 && i < MMR_SEGMENTS; i++)
	{
		const MmrSegTable *info;
		const MmrVersion *newest;

		if (v->indexes[i] == NULL)
			continue;
		left--;
		info = mmr_segindex_table(v->indexes[i], key->relid);
		if (info == NULL)
			continue;
		/* who sends has the versions of what was captured: he goes by what was recorded beside it (B4) */
		newest = v->seen != NULL ? &info->recorded : &info->newest;
		/* nothing there is newer than what is known */
		if (mmr_version_is_none(newest) ||
			(known && mmr_version_compare(newest, &state->version) <= 0))
			continue;
		if (mmr_segindex_lookup(v->indexes[i], key, hash, data, len, &other))
			known = newest_of(known, state, &other);
	}
	return known;
}

void
mmr_versions_add(MmrVersions *v, MmrKey *key, uint64 hash, const MmrChange *change)
{
	MmrKeyKnown known;

	v->added_lxid = mmr_my_lxid();
	mmr_keystates_note_table(v->memory, change, -1);
	if (change->op != MMR_OP_TRUNCATE)
		mmr_keystates_note(v->memory, key, hash, change, -1, mmr_crossing_write(&v->crossing), &known);
}
