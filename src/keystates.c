/*-------------------------------------------------------------------------
 * keystates.c
 *	  States of keys in memory.
 *
 * Floor 3.  Reads and writes memory only.  Runs in pushers and apply backends.
 *
 * An entry is no larger than a cache line.  With a million of them each lies
 * far away, and to fetch it is most of what noting it costs: who has many to
 * note, or to look up, asks for their places some steps ahead.
 *
 * Invariant: of each key that has been noted, and not forgotten since, the
 * newest change is here.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "keystates.h"
#include "membership.h"

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

typedef struct KeyEntry
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
} KeyEntry;

StaticAssertDecl(sizeof(KeyEntry) <= 64, "an entry takes more than a cache line");
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

#define SH_PREFIX keys
#define SH_ELEMENT_TYPE KeyEntry
#define SH_KEY_TYPE KeyRef
#define SH_KEY ref
#define SH_HASH_KEY(tb, k) ((uint32) (k).hash)
#define SH_EQUAL(tb, a, b) ref_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct MmrKeyStates
{
	MemoryContext cxt;
	keys_hash *keys;
	HTAB	   *tables;
	bool		wasteful;		/* the table of keys is much larger than it need be */
	int64		placeless;		/* entries (tables' too) that were added and not yet found in the log */
};

MmrKeyStates *
mmr_keystates_create(MemoryContext cxt)
{
	MmrKeyStates *s = MemoryContextAllocZero(cxt, sizeof(MmrKeyStates));
	HASHCTL		ctl = {0};

	s->cxt = cxt;
	s->keys = keys_create(cxt, 256, NULL);
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(TableEntry);
	ctl.hcxt = cxt;
	s->tables = hash_create("mmrepl states of tables", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return s;
}

void
mmr_keystates_prefetch(const MmrKeyStates *s, uint64 hash)
{
	pg_attribute_unused() const KeyEntry *e = &s->keys->data[(uint32) hash & s->keys->sizemask];

#ifdef __GNUC__
	__builtin_prefetch(e, 1);
#endif
}

static TableEntry *
table_entry(MmrKeyStates *s, Oid relid)
{
	bool		found;
	TableEntry *t = hash_search(s->tables, &relid, HASH_ENTER, &found);

	if (!found)
	{
		t->truncated = false;
		t->truncate_segment = 0;
		t->newest = MMR_VERSION_NONE;
	}
	return t;
}

static void
set_ref(KeyRef *ref, MmrKey *key, uint64 hash, const char *data, int len)
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
place(MmrKeyStates *s, int8 *place, int segment)
{
	s->placeless += (segment < 0) - (*place < 0);
	*place = segment;
}

/* The same version again, as one of our own (departed.h): it goes out from here, and stays for longer. */
static bool
took_over(const MmrVersion *known, int32 dot_node, const MmrChange *change)
{
	return dot_node != change->dot.node && change->dot.node == mmr_membership_my_id() &&
		mmr_version_compare(known, &change->version) == 0;
}

void
mmr_keystates_note(MmrKeyStates *s, MmrKey *key, uint64 hash, const MmrChange *change,
				   int segment, unsigned turn, MmrKeyKnown *known)
{
	KeyRef		ref;
	KeyEntry   *e;

	set_ref(&ref, key, hash, change->key, change->keylen);
	e = keys_insert(s->keys, ref, &known->found);
	if (known->found)
	{
		known->version = (MmrVersion) {e->ts, e->node, e->rank};
		known->op = e->op;
		known->turn = e->turn;
		/* an entry of our own turns up in the log: now it has a place */
		if (mmr_version_compare(&known->version, &change->version) == 0 && e->segment < 0)
			place(s, &e->segment, segment);
		if (mmr_version_compare(&known->version, &change->version) >= 0 &&
			!took_over(&known->version, e->dot_node, change))
			return;
	}
	else
	{
		e->segment = 0;
		if (ref.len > INLINE_KEY)
		{
			e->ref.u.ptr = MemoryContextAlloc(s->cxt, ref.len);
			memcpy(e->ref.u.ptr, change->key, ref.len);
		}
	}
	e->ts = change->version.ts;
	e->node = change->version.node;
	e->rank = change->version.rank != 0;
	e->dot_node = change->dot.node;
	e->dot_xid = change->dot.xid;
	e->op = change->op;
	e->settled_level = change->settled.level;
	e->settled_node = change->settled.node;
	e->turn = turn;
	place(s, &e->segment, segment);
}

void
mmr_keystates_note_table(MmrKeyStates *s, const MmrChange *change, int segment)
{
	TableEntry *t = table_entry(s, change->relid);
	int			cmp;

	if (mmr_version_compare(&change->version, &t->newest) > 0)
		t->newest = change->version;
	if (change->op != MMR_OP_TRUNCATE)
		return;
	cmp = t->truncated ? mmr_version_compare(&change->version, &t->truncate.version) : 1;
	/* the same one again: it turns up in the log, and has a place now */
	if (cmp > 0 || (cmp == 0 && t->truncate_segment < 0) ||
		(cmp == 0 && took_over(&t->truncate.version, t->truncate.dot.node, change)))
	{
		t->truncated = true;
		place(s, &t->truncate_segment, segment);
		t->truncate.version = change->version;
		t->truncate.dot = change->dot;
		t->truncate.op = MMR_OP_TRUNCATE;
		t->truncate.settled = MMR_SETTLED_NONE;
	}
}

void
mmr_keystates_forget(MmrKeyStates *s, int segment, bool all)
{
	keys_iterator it;
	KeyEntry   *e;
	HASH_SEQ_STATUS seq;
	TableEntry *t;

	keys_start_iterate(s->keys, &it);
	while ((e = keys_iterate(s->keys, &it)) != NULL)
	{
		if (e->segment != segment)
			continue;
		if (e->ref.len > INLINE_KEY)
			pfree(e->ref.u.ptr);
		place(s, &e->segment, 0);
		keys_delete_item(s->keys, e);
	}
	hash_seq_init(&seq, s->tables);
	while ((t = hash_seq_search(&seq)) != NULL)
	{
		if (t->truncated && t->truncate_segment == segment)
		{
			t->truncated = false;
			place(s, &t->truncate_segment, 0);
		}
		/* nothing at all is known any more: lookups can be skipped again */
		if (s->keys->members == 0 && all && !t->truncated)
			(void) hash_search(s->tables, &t->relid, HASH_REMOVE, NULL);
	}
	s->wasteful |= s->keys->size > WASTEFUL && s->keys->members < s->keys->size / 8;
}

bool
mmr_keystates_lookup(MmrKeyStates *s, MmrKey *key, uint64 hash, const char *data, int len, MmrState *state)
{
	KeyRef		ref;
	KeyEntry   *e;

	if (s->keys->members == 0)
		return false;
	set_ref(&ref, key, hash, data, len);
	e = keys_lookup(s->keys, ref);
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

bool
mmr_keystates_truncated(MmrKeyStates *s, Oid relid, MmrState *state)
{
	TableEntry *t = hash_search(s->tables, &relid, HASH_FIND, NULL);

	if (t == NULL || !t->truncated)
		return false;
	*state = t->truncate;
	return true;
}

bool
mmr_keystates_newest_of_table(MmrKeyStates *s, Oid relid, MmrVersion *version)
{
	TableEntry *t = hash_search(s->tables, &relid, HASH_FIND, NULL);

	if (t == NULL || mmr_version_is_none(&t->newest))
		return false;
	*version = t->newest;
	return true;
}

int64
mmr_keystates_placeless(const MmrKeyStates *s)
{
	return s->placeless;
}

bool
mmr_keystates_is_empty(const MmrKeyStates *s)
{
	return s->keys->members == 0 && hash_get_num_entries(s->tables) == 0;
}

bool
mmr_keystates_wasteful(const MmrKeyStates *s)
{
	return s->wasteful;
}
