/*-------------------------------------------------------------------------
 * wanted.c
 *	  Keys that a peer could not apply and asks for again (A11).
 *
 * Floor 5.  Reads the log, mmrepl.apply_error_log through setaside.  Runs in
 * pushers.
 *
 * An answer is an item of the next batch like others: the row as its snapshot
 * sees it, with the newest version in the log.  A key of which the log holds
 * nothing is sent without a version: its last state is known to everybody who
 * could send an older one, and the receiver has kept the version that it is to
 * be taken for.  A node that has set the key aside itself does not have the
 * state that is asked for, and says nothing.
 *
 * The peer is asked only while something stands aside there: it says so with
 * each answer to a batch.
 *
 * Invariant: what is sent for a key is what is in the table here under the
 * snapshot, with no version newer than that.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "guc.h"
#include "setaside.h"
#include "wanted.h"

#define ASK_SQL		"SELECT a.nspname, a.relname, a.key FROM mmrepl._asks($1::int4, $2::bool) a"

/* Versions found in the log. */
typedef struct Search
{
	MmrWanted  *w;
	List	   *tables;			/* oids of the keys' tables */
	Oid			relid;			/* of the change looked at last... */
	MmrKey	   *key;			/* ...NULL: not among them */
	MmrKeyFinder finder;
	void	   *arg;
} Search;

void
mmr_wanted_init(MmrWanted *w, MemoryContext parent)
{
	memset(w, 0, sizeof(*w));
	w->cxt = AllocSetContextCreate(parent, "mmrepl wanted", ALLOCSET_SMALL_SIZES);
}

bool
mmr_wanted_due(const MmrWanted *w)
{
	return w->standing && w->keys == NIL &&
		TimestampDifferenceExceeds(w->asked_at, GetCurrentTimestamp(), mmr_guc_heartbeat_interval);
}

static void
read_key(MmrWanted *w, PGresult *res, int row)
{
	MmrWantedKey *k = palloc0(sizeof(MmrWantedKey));
	bytea	   *key = DatumGetByteaPP(DirectFunctionCall1(byteain, CStringGetDatum(PQgetvalue(res, row, 2))));

	k->nspname = pstrdup(PQgetvalue(res, row, 0));
	k->relname = pstrdup(PQgetvalue(res, row, 1));
	k->change.op = MMR_OP_UPDATE;
	k->change.key = VARDATA_ANY(key);
	k->change.keylen = VARSIZE_ANY_EXHDR(key);
	w->keys = lappend(w->keys, k);
}

void
mmr_wanted_ask(MmrWanted *w, MmrLink *link, int32 sync_id, bool careful)
{
	char		id[16];
	const char *values[2] = {id, careful ? "t" : "f"};
	PGresult   *res;
	MemoryContext old;

	snprintf(id, sizeof(id), "%d", sync_id);
	res = mmr_link_exec(link, ASK_SQL, 2, values);
	w->keys = NIL;
	MemoryContextReset(w->cxt);
	old = MemoryContextSwitchTo(w->cxt);
	/* a row without a key says that something stands, be it due or not */
	w->standing = PQntuples(res) > 0;
	for (int i = 0; i < PQntuples(res); i++)
		if (!PQgetisnull(res, i, 2))
			read_key(w, res, i);
	MemoryContextSwitchTo(old);
	PQclear(res);
	w->asked_at = GetCurrentTimestamp();
}

void
mmr_wanted_served(MmrWanted *w, bool standing)
{
	w->keys = NIL;
	MemoryContextReset(w->cxt);
	/* what has just been set aside is not due yet */
	if (standing && !w->standing)
		w->asked_at = GetCurrentTimestamp();
	w->standing = standing;
}

static void
note_version(MmrWantedKey *k, const MmrChange *change)
{
	if (mmr_version_compare(&change->version, &k->change.version) <= 0)
		return;
	k->change.version = change->version;
	k->change.dot = change->dot;
	k->change.settled = change->settled;
}

static void
search_run(void *arg, int segment, uint64 xid, const char *data, int len)
{
	Search	   *s = arg;
	MmrRun		run;
	MmrChange	change;
	ListCell   *lc;

	(void) segment;
	mmr_changelog_open_run(&run, xid, data, len);
	while (mmr_changelog_next(&run, &change))
	{
		uint64		hash = 0;

		if (change.relid != s->relid)
		{
			s->relid = change.relid;
			s->key = list_member_oid(s->tables, change.relid) ? s->finder(s->arg, change.relid) : NULL;
		}
		if (s->key == NULL)
			continue;
		if (change.op != MMR_OP_TRUNCATE)
			hash = mmr_key_hash(s->key, change.key, change.keylen);
		foreach(lc, s->w->keys)
		{
			MmrWantedKey *k = lfirst(lc);

			if (k->key != NULL && k->change.relid == change.relid &&
				(change.op == MMR_OP_TRUNCATE ||
				 (k->hash == hash && mmr_key_equal(s->key, k->change.key, k->change.keylen,
												   change.key, change.keylen))))
				note_version(k, &change);
		}
	}
}

/* The table here and the key's hash; no key if there is nothing to answer with. */
static void
find_table(MmrWantedKey *k, MmrSync *sync, MmrKeyFinder finder, void *arg)
{
	ListCell   *lc;

	k->key = NULL;
	k->change.version = MMR_VERSION_NONE;
	k->change.dot.node = 0;
	k->change.dot.xid = 0;
	foreach(lc, sync->tables)
	{
		MmrMember  *m = lfirst(lc);

		if (strcmp(m->nspname, k->nspname) != 0 || strcmp(m->relname, k->relname) != 0 ||
			!OidIsValid(m->relid))
			continue;
		k->change.relid = m->relid;
		k->key = finder(arg, m->relid);
	}
	if (k->key == NULL)
		return;
	k->hash = mmr_key_hash(k->key, k->change.key, k->change.keylen);
	if (mmr_setaside_find(k->key, k->hash, k->change.key, k->change.keylen) != NULL)
		k->key = NULL;
}

void
mmr_wanted_label(MmrWanted *w, MmrSync *sync, Snapshot snapshot, const MmrPosition *pos,
				 MmrKeyFinder finder, void *arg)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "mmrepl wanted search",
											  ALLOCSET_DEFAULT_SIZES);
	Search		s = {w, NIL, InvalidOid, NULL, finder, arg};
	ListCell   *lc;

	mmr_setaside_refresh(sync);
	foreach(lc, w->keys)
	{
		MmrWantedKey *k = lfirst(lc);

		find_table(k, sync, finder, arg);
		if (k->key != NULL)
			s.tables = list_append_unique_oid(s.tables, k->change.relid);
	}
	if (s.tables != NIL)
		(void) mmr_logreader_scan(mmr_logreader_create(cxt), snapshot, pos, search_run, NULL, &s);
	list_free(s.tables);
	MemoryContextDelete(cxt);
}
