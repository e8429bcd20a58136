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
 * Invariant: after a feed with snapshot S, for every key with an unstable
 * entry visible to S the table holds its newest such entry, or a newer one
 * that this transaction has added.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/proc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "versions.h"

#define INLINE_KEY	16

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
	int16		segment;		/* where the newest entry lies; -1: added by this transaction */
	uint8		op;
	bool		rank;
	uint8		settled_level;
	char		status;			/* simplehash */
	uint32		hash32;
} VersionEntry;

typedef struct TableEntry
{
	Oid			relid;			/* hash key */
	bool		truncated;
	int16		truncate_segment;
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
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash32
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
	versions_hash *keys;
	HTAB	   *tables;
	uint64		fed;
	int64		placeless;		/* entries (tables' too) that were added and not yet found in the log */
	LocalTransactionId placeless_lxid;	/* transaction that added them */

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

MmrVersions *
mmr_versions_create(MemoryContext parent, MmrKeyFinder finder, MmrRunFilter filter, void *arg)
{
	MmrVersions *v = MemoryContextAllocZero(parent, sizeof(MmrVersions));

	v->cxt = AllocSetContextCreate(parent, "mmrepl versions", ALLOCSET_DEFAULT_SIZES);
	v->reader = mmr_logreader_create(parent);
	v->finder = finder;
	v->filter = filter;
	v->arg = arg;
	versions_make_tables(v);
	return v;
}

void
mmr_versions_reset(MmrVersions *v)
{
	mmr_logreader_reset(v->reader);
	MemoryContextReset(v->cxt);
	versions_make_tables(v);
	v->placeless = 0;
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
versions_place(MmrVersions *v, int16 *place, int segment)
{
	v->placeless += (segment < 0) - (*place < 0);
	*place = segment;
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

		/* an entry of our own turns up in the log: now it has a place */
		if (mmr_version_compare(&known, &change->version) == 0 && e->segment < 0)
			versions_place(v, &e->segment, segment);
		if (mmr_version_compare(&known, &change->version) >= 0)
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
	if (cmp > 0 || (cmp == 0 && t->truncate_segment < 0))
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
		if (v->keys->members == 0 && !t->truncated)
			(void) hash_search(v->tables, &t->relid, HASH_REMOVE, NULL);
	}
}

static void
versions_emptied(void *arg, int segment)
{
	versions_forget(arg, segment);
}

int64
mmr_versions_feed(MmrVersions *v, Snapshot snapshot, const MmrPosition *pos)
{
	bool		settled = v->placeless > 0 && v->placeless_lxid != MyProc->lxid;
	int64		undecided;

	v->last_relid = InvalidOid;
	undecided = mmr_logreader_scan(v->reader, snapshot, pos, versions_run, versions_emptied, v);

	/*
	 * What an earlier transaction has added and the log does not hold any
	 * more has been stable and purged in between.
	 */
	if (settled && v->placeless > 0)
		versions_forget(v, -1);
	return undecided;
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
	return v->keys->members == 0 && hash_get_num_entries(v->tables) == 0;
}

bool
mmr_versions_lookup(MmrVersions *v, MmrKey *key, uint64 hash, const char *data, int len,
					MmrState *state)
{
	bool		known = mmr_versions_truncated(v, key->relid, state);
	KeyRef		ref;
	VersionEntry *e;
	MmrVersion	version;

	if (v->keys->members == 0)
		return known;
	versions_set_ref(&ref, key, hash, data, len);
	e = versions_lookup(v->keys, ref);
	if (e == NULL)
		return known;
	version.ts = e->ts;
	version.node = e->node;
	version.rank = e->rank;
	if (known && mmr_version_compare(&state->version, &version) > 0)
		return true;
	state->version = version;
	state->dot.node = e->dot_node;
	state->dot.xid = e->dot_xid;
	state->op = e->op;
	state->settled.level = e->settled_level;
	state->settled.node = e->settled_node;
	return true;
}

void
mmr_versions_add(MmrVersions *v, MmrKey *key, uint64 hash, const MmrChange *change)
{
	v->placeless_lxid = MyProc->lxid;
	versions_note_table(v, change, -1);
	if (change->op != MMR_OP_TRUNCATE)
		versions_note(v, key, hash, change, -1);
}
