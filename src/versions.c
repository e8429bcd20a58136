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

#include "common/hashfn.h"
#include "storage/proc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "compat.h"
#include "membership.h"
#include "segindex.h"
#include "versions.h"

#define INLINE_KEY	16
/* Room for so many keys is given back when few are left. */
#define WASTEFUL	65536

/* A key: short ones inside, longer ones in memory of their own. */
typedef struct KeyRef
{
	uint64		hash;
	Oid			relid;
	int32		len;
	union
	{
		char		bytes[INLINE_KEY];
		char	   *ptr;
	}			u;
} KeyRef;

typedef struct VersionEntry
{
	KeyRef		ref;
	int64		ts;
	uint64		dot_xid;
	int32		node;
	int32		dot_node;
	int32		settled_node;
	unsigned	op:4;
	unsigned	rank:1;
	unsigned	settled_level:8;
	unsigned	turn:3;			/* of the transaction that added it; 0: it came from the log */
	int8		segment;		/* where the newest entry lies; -1: added by this transaction */
	char		status;			/* simplehash */
} VersionEntry;

StaticAssertDecl(sizeof(VersionEntry) <= 64, "an entry takes more than a cache line");
StaticAssertDecl(MMR_SEGMENTS <= PG_INT8_MAX, "an entry has no room for its segment");

typedef struct TableEntry
{
	Oid			relid;			/* hash key */
	bool		truncated;
	int8		truncate_segment;
	MmrState	truncate;		/* newest TRUNCATE */
	MmrVersion	newest;			/* of any key */
} TableEntry;

/* Operators of the keys compared by the lookup under way. */
static MmrKey *probe_key;

static inline const char *
ref_bytes(const KeyRef *ref)
{
	return ref->len <= INLINE_KEY ? ref->u.bytes : ref->u.ptr;
}

static inline bool
ref_equal(const KeyRef *a, const KeyRef *b)
{
	return a->hash == b->hash && a->relid == b->relid &&
		mmr_key_equal(probe_key, ref_bytes(a), a->len, ref_bytes(b), b->len);
}

#define SH_PREFIX versions
#define SH_ELEMENT_TYPE VersionEntry
#define SH_KEY_TYPE KeyRef
#define SH_KEY ref
#define SH_HASH_KEY(tb, k) ((uint32) (k).hash)
#define SH_EQUAL(tb, a, b) ref_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct MmrVersions
{
	MemoryContext cxt;
	MmrLogReader *reader;
	MmrKeyFinder finder;
	MmrRunFilter filter;
	void	   *arg;
	MmrSeenFilter seen;
	versions_hash *keys;
	HTAB	   *tables;
	MmrSegIndex *indexes[MMR_SEGMENTS]; /* NULL: what is in the segment is in memory */
	int			nindexes;
	uint64		key_generation;	/* when the indexes' keys were compared with ours */
	uint64		fed;
	bool		wasteful;		/* the memory table is much larger than it need be */
	int64		placeless;		/* entries (tables' too) that were added and not yet found in the log */
	LocalTransactionId placeless_lxid;	/* transaction that added them */
	MmrCrossing crossing;

	/* the table looked at last by feed: runs of changes of one table are the rule */
	Oid			last_relid;
	MmrKey	   *last_key;
};

static void
versions_make_tables(MmrVersions *v)
{
	HASHCTL		ctl = {0};

	v->keys = versions_create(v->cxt, 256, NULL);
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(TableEntry);
	ctl.hcxt = v->cxt;
	v->tables = hash_create("mmrepl versions of tables", 16, &ctl,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

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
	versions_make_tables(v);
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
	versions_make_tables(v);
	v->wasteful = false;
	v->placeless = 0;
	mmr_crossing_reset(&v->crossing, v->cxt);
	v->fed++;
}

static TableEntry *
versions_table(MmrVersions *v, Oid relid)
{
	bool		found;
	TableEntry *t = hash_search(v->tables, &relid, HASH_ENTER, &found);

	if (!found)
	{
		t->truncated = false;
		t->truncate_segment = 0;
		t->newest = MMR_VERSION_NONE;
	}
	return t;
}

static void
versions_set_ref(KeyRef *ref, MmrKey *key, uint64 hash, const char *data, int len)
{
	ref->hash = hash;
	ref->relid = key->relid;
	ref->len = len;
	if (len <= INLINE_KEY)
		memcpy(ref->u.bytes, data, len);
	else
		ref->u.ptr = unconstify(char *, data);
	probe_key = key;
}

/* Where an entry lies from now on; -1: nowhere yet. */
static void
versions_place(MmrVersions *v, int8 *place, int segment)
{
	v->placeless += (segment < 0) - (*place < 0);
	*place = segment;
}

/* The same version again, as one of our own (departed.h): it goes out from here, and stays for longer. */
static bool
versions_took_over(const MmrVersion *known, int32 dot_node, const MmrChange *change)
{
	return dot_node != change->dot.node && change->dot.node == mmr_membership_my_id() &&
		mmr_version_compare(known, &change->version) == 0;
}

static void
versions_note(MmrVersions *v, MmrKey *key, uint64 hash, const MmrChange *change, int segment)
{
	KeyRef		ref;
	VersionEntry *e;
	bool		found;

	versions_set_ref(&ref, key, hash, change->key, change->keylen);
	e = versions_insert(v->keys, ref, &found);
	if (found)
	{
		MmrVersion	known = {e->ts, e->node, e->rank};

		if (segment >= 0)
			mmr_crossing_meet(&v->crossing, e->turn, e->op, &known, change);
		/* an entry of our own turns up in the log: now it has a place */
		if (mmr_version_compare(&known, &change->version) == 0 && e->segment < 0)
			versions_place(v, &e->segment, segment);
		if (mmr_version_compare(&known, &change->version) >= 0 &&
			!versions_took_over(&known, e->dot_node, change))
			return;
	}
	else
		e->segment = 0;
	if (!found && ref.len > INLINE_KEY)
	{
		e->ref.u.ptr = MemoryContextAlloc(v->cxt, ref.len);
		memcpy(e->ref.u.ptr, change->key, ref.len);
	}
	e->ts = change->version.ts;
	e->node = change->version.node;
	e->rank = change->version.rank != 0;
	e->dot_node = change->dot.node;
	e->dot_xid = change->dot.xid;
	e->op = change->op;
	e->settled_level = change->settled.level;
	e->settled_node = change->settled.node;
	e->turn = segment < 0 ? mmr_crossing_write(&v->crossing) : 0;
	versions_place(v, &e->segment, segment);
}

static void
versions_note_table(MmrVersions *v, const MmrChange *change, int segment)
{
	TableEntry *t = versions_table(v, change->relid);
	int			cmp;

	if (mmr_version_compare(&change->version, &t->newest) > 0)
		t->newest = change->version;
	if (change->op != MMR_OP_TRUNCATE)
		return;
	cmp = t->truncated ? mmr_version_compare(&change->version, &t->truncate.version) : 1;
	/* the same one again: it turns up in the log, and has a place now */
	if (cmp > 0 || (cmp == 0 && t->truncate_segment < 0) ||
		(cmp == 0 && versions_took_over(&t->truncate.version, t->truncate.dot.node, change)))
	{
		t->truncated = true;
		versions_place(v, &t->truncate_segment, segment);
		t->truncate.version = change->version;
		t->truncate.dot = change->dot;
		t->truncate.op = MMR_OP_TRUNCATE;
		t->truncate.settled = MMR_SETTLED_NONE;
	}
}

static void
versions_run(void *arg, int segment, uint64 xid, const char *data, int len)
{
	MmrVersions *v = arg;
	MmrRun		run;
	MmrChange	change;

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
			v->last_relid = change.relid;
			v->last_key = v->finder(v->arg, change.relid);
		}
		if (v->last_key == NULL)
			continue;
		v->fed++;
		versions_note_table(v, &change, segment);
		if (change.op != MMR_OP_TRUNCATE)
			versions_note(v, v->last_key, mmr_key_hash(v->last_key, change.key, change.keylen),
						  &change, segment);
	}
}

/* Forgets what lies there. */
static void
versions_forget(MmrVersions *v, int segment)
{
	versions_iterator it;
	VersionEntry *e;
	HASH_SEQ_STATUS seq;
	TableEntry *t;

	versions_start_iterate(v->keys, &it);
	while ((e = versions_iterate(v->keys, &it)) != NULL)
	{
		if (e->segment != segment)
			continue;
		if (e->ref.len > INLINE_KEY)
			pfree(e->ref.u.ptr);
		versions_place(v, &e->segment, 0);
		versions_delete_item(v->keys, e);
	}
	hash_seq_init(&seq, v->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
	{
		if (t->truncated && t->truncate_segment == segment)
		{
			t->truncated = false;
			versions_place(v, &t->truncate_segment, 0);
		}
		/* nothing at all is known any more: lookups can be skipped again */
		if (v->keys->members == 0 && v->nindexes == 0 && !t->truncated)
			(void) hash_search(v->tables, &t->relid, HASH_REMOVE, NULL);
	}
	v->wasteful |= v->keys->size > WASTEFUL && v->keys->members < v->keys->size / 8;
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
		versions_note_table(v, &change, segment);
		if (!info->truncated)
			continue;
		change.op = MMR_OP_TRUNCATE;
		change.version = info->truncate.version;
		change.dot = info->truncate.dot;
		versions_note_table(v, &change, segment);
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
	bool		settled = v->placeless > 0 && v->placeless_lxid != mmr_my_lxid();
	int64		undecided;

	/* gives memory back: the young segments are read once more */
	if (v->wasteful && v->placeless == 0)
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
	if (settled && v->placeless > 0)
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
	TableEntry *t = hash_search(v->tables, &relid, HASH_FIND, NULL);

	if (t == NULL || !t->truncated)
		return false;
	*state = t->truncate;
	return true;
}

bool
mmr_versions_newest_of_table(MmrVersions *v, Oid relid, MmrVersion *version)
{
	TableEntry *t = hash_search(v->tables, &relid, HASH_FIND, NULL);

	if (t == NULL || mmr_version_is_none(&t->newest))
		return false;
	*version = t->newest;
	return true;
}

bool
mmr_versions_is_empty(MmrVersions *v)
{
	return v->keys->members == 0 && v->nindexes == 0 && hash_get_num_entries(v->tables) == 0;
}

/* What is in memory. */
static bool
memory_lookup(MmrVersions *v, MmrKey *key, uint64 hash, const char *data, int len, MmrState *state)
{
	KeyRef		ref;
	VersionEntry *e;

	if (v->keys->members == 0)
		return false;
	versions_set_ref(&ref, key, hash, data, len);
	e = versions_lookup(v->keys, ref);
	if (e == NULL)
		return false;
	state->version.ts = e->ts;
	state->version.node = e->node;
	state->version.rank = e->rank;
	state->dot.node = e->dot_node;
	state->dot.xid = e->dot_xid;
	state->op = e->op;
	state->settled.level = e->settled_level;
	state->settled.node = e->settled_node;
	return true;
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

	if (memory_lookup(v, key, hash, data, len, &other))
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
	v->placeless_lxid = mmr_my_lxid();
	versions_note_table(v, change, -1);
	if (change->op != MMR_OP_TRUNCATE)
		versions_note(v, key, hash, change, -1);
}
