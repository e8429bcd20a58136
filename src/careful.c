/*-------------------------------------------------------------------------
 * careful.c
 *	  Items that may not be applicable (A11).
 *
 * Floor 8.  Reads and writes user tables through merge and collide,
 * mmrepl.apply_error_log through setaside, the history of conflicts.  Runs in
 * apply backends.
 *
 * A batch is applied without care first: no subtransactions, full speed.  When a
 * row ends it by an error, the sender sends it once more and says so
 * (m->careful): then items go in groups, each in a subtransaction, and a group
 * that fails is halved until the items that fail are alone.  Those are set
 * aside, the rest is in, and so is the position: nothing waits for them.
 *
 * What is set aside is asked for again (asks.c), and comes as an item like
 * others.  So there are four kinds of items of a key of which something
 * stands aside at version v:
 *	- older than v: loses, as it would against v itself;
 *	- v, or newer: is applied by comparison with what is really here (the log
 *	  knows nothing of v), and if that ends well v is dealt with;
 *	- without a version: the sender's log holds nothing of the key, so what it
 *	  has is stable everywhere but here.  If it had v, it is taken as v;
 *	- any version, and neither v's author nor who sent it is a source any more:
 *	  nobody may have v, and what the sender has is what the others have.
 *
 * Invariant: of each item that was sent, its state or a newer one is here, or it
 * stands aside.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "careful.h"
#include "collide.h"
#include "conflict_log.h"
#include "errors.h"
#include "guc.h"
#include "rowshow.h"
#include "setaside.h"

/* Items of one table under guard. */
typedef struct Slice
{
	MmrMergeTable *table;
	MmrMergeItem *items;
	int			n;
} Slice;

/* A row to be shown. */
typedef struct Shown
{
	MmrMergeTable *table;
	MmrMergeItem *item;
	char	   *json;
	MemoryContext cxt;
} Shown;

/* ---- one item is set aside ---- */

static void
show_row(MmrMerge *m, void *arg)
{
	Shown	   *s = arg;

	(void) m;
	s->json = MemoryContextStrdup(s->cxt, mmr_rowshow_json(s->table->description, s->item->row,
														   s->item->rowlen));
}

/* As JSON; NULL if there is none, or it cannot be read. */
static char *
row_json(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *item)
{
	Shown		s = {table, item, NULL, CurrentMemoryContext};

	if (item->row == NULL)
		return NULL;
	return mmr_merge_guard(m, show_row, &s) == NULL ? s.json : NULL;
}

static void
log_set_aside(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *item, const char *json)
{
	MmrConflictRecord c = {0};
	Datum		key[INDEX_MAX_KEYS];

	mmr_key_decode(table->key, item->change.key, item->change.keylen, key);
	c.sync_id = m->sync->id;
	c.rel = table->rel;
	c.key = table->key;
	c.key_values = key;
	c.conflict = MMR_CONFLICT_APPLY_ERROR;
	c.resolution = MMR_SET_ASIDE;
	c.remote_json = json;
	c.remote_version = item->change.version;
	PushActiveSnapshot(GetLatestSnapshot());
	mmr_conflict_log_write(&c);
	PopActiveSnapshot();
	m->counts.conflicts++;
}

/* on_error => 'stop' */
static void
stop_sync(MmrMerge *m, MmrMergeTable *table, ErrorData *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_MMR_HALTED),
			 errmsg("sync \"%s\" stops: a row of table \"%s\" cannot be applied: %s", m->sync->name,
					RelationGetRelationName(table->rel), error->message),
			 errhint("Remove the cause at the receiver and call mmrepl.resume(), or set on_error to set_aside with mmrepl.update_sync().")));
}

static void
check_limit(MmrMerge *m)
{
	if (mmr_guc_max_apply_errors > 0 && mmr_setaside_count() >= mmr_guc_max_apply_errors)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("sync \"%s\": more rows cannot be applied than mmrepl.max_apply_errors (%d) allows",
						m->sync->name, mmr_guc_max_apply_errors),
				 errhint("See the view mmrepl.apply_error for what is wrong.")));
}

/* The item has failed. */
static void
set_aside(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *item, ErrorData *error)
{
	MmrStanding *standing = mmr_setaside_find(table->key, item->hash, item->change.key,
											  item->change.keylen);
	MmrSetAside s = {0};

	if (standing == NULL && strcmp(m->sync->on_error, "stop") == 0)
		stop_sync(m, table, error);
	if (standing == NULL)
		check_limit(m);
	s.sync_id = m->sync->id;
	s.source_node = m->source_node;
	s.rel = table->rel;
	s.table_key = table->key;
	s.change = &item->change;
	s.hash = item->hash;
	s.row = row_json(m, table, item);
	s.error = error;
	mmr_setaside_put(&s);
	if (standing != NULL)
		return;
	log_set_aside(m, table, item, s.row);
	if (m->set_aside++ == 0)
	{
		MemoryContext old = MemoryContextSwitchTo(m->batch_cxt);

		m->first_error = psprintf("table \"%s\": %s", RelationGetRelationName(table->rel), error->message);
		MemoryContextSwitchTo(old);
	}
}

/* ---- groups of items ---- */

static void
merge_slice(MmrMerge *m, void *arg)
{
	Slice	   *s = arg;

	mmr_merge_items(m, s->table, s->items, s->n);
}

/* All of them, but those that fail. */
static void
merge_with_care(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *items, int n)
{
	Slice		s = {table, items, n};
	ErrorData  *error = mmr_merge_guard(m, merge_slice, &s);

	if (error != NULL && n == 1)
		set_aside(m, table, items, error);
	else if (error != NULL)
	{
		merge_with_care(m, table, items, n / 2);
		merge_with_care(m, table, items + n / 2, n - n / 2);
	}
	if (error != NULL)
		FreeErrorData(error);
}

/* An item whose columns do not fit: a key that is gone needs none. */
static void
merge_misfit(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *item)
{
	if (item->row == NULL)
		merge_with_care(m, table, item, 1);
	else
	{
		mmr_merge_see(m, item->change.version.ts);
		set_aside(m, table, item, table->misfit);
	}
}

/* ---- items of keys of which something stands aside ---- */

/* Is what the log holds of the key unknown to the sender? */
static bool
is_ahead(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *item)
{
	MmrState	state;

	return mmr_versions_lookup(m->versions, table->key, item->hash, item->change.key,
							   item->change.keylen, &state) &&
		state.dot.node != m->source_node &&
		!mmr_position_covers(mmr_context_position(m->context, state.dot.node), state.dot.xid);
}

/* Does the item settle what stands aside?  Then with which version? */
static bool
settles(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *item, MmrStanding *s)
{
	bool		lost = mmr_setaside_orphaned(m->sync, s->source_node) &&
		mmr_setaside_orphaned(m->sync, s->dot.node);

	if (!mmr_version_is_none(&item->change.version))
		return lost || mmr_version_compare(&item->change.version, &s->version) >= 0;
	/* who sent it had it; of others the context tells */
	if (s->source_node != m->source_node && !mmr_version_is_none(&s->version) &&
		!mmr_position_covers(mmr_context_position(m->context, s->dot.node), s->dot.xid) &&
		(!lost || is_ahead(m, table, item)))
		return false;
	item->change.version = s->version;
	item->change.dot = s->dot;
	item->change.settled = s->settled;
	return true;
}

static void
merge_standing(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *item, MmrStanding *standing)
{
	Slice		s = {table, item, 1};
	ErrorData  *error;

	int			naside = list_length(m->aside);

	if (!settles(m, table, item, standing))
		return;
	item->again = true;
	error = table->misfit != NULL && item->row != NULL ? table->misfit : mmr_merge_guard(m, merge_slice, &s);
	/* what collides is settled at the end (collide.c) */
	if (error == NULL && list_length(m->aside) == naside)
		mmr_setaside_resolve(standing);
	else if (error != NULL)
		set_aside(m, table, item, error);
}

void
mmr_careful_items(MmrMerge *m, MmrMergeTable *table, MmrMergeItem *items, int nitems)
{
	int			n = 0;

	for (int i = 0; i < nitems; i++)
	{
		MmrMergeItem *item = &items[i];
		MmrStanding *standing = NULL;

		if (!mmr_setaside_none() && !m->copy)
		{
			item->hash = mmr_key_hash(table->key, item->change.key, item->change.keylen);
			standing = mmr_setaside_find(table->key, item->hash, item->change.key, item->change.keylen);
		}
		if (standing != NULL)
			merge_standing(m, table, item, standing);
		/* an answer to what is not asked any more has no version */
		else if (m->copy || !mmr_version_is_none(&item->change.version))
			items[n++] = *item;
	}
	if (n == 0)
		return;
	if (table->misfit != NULL)
	{
		for (int i = 0; i < n; i++)
		{
			items[i].hash = mmr_key_hash(table->key, items[i].change.key, items[i].change.keylen);
			merge_misfit(m, table, &items[i]);
		}
	}
	else if (m->careful)
		merge_with_care(m, table, items, n);
	else
		mmr_merge_items(m, table, items, n);
}

/* ---- tables ---- */

typedef struct Binding
{
	MmrMergeTable *table;
	MmrRowFormat *format;
	MemoryContext cxt;
} Binding;

static void
bind_columns(MmrMerge *m, void *arg)
{
	Binding    *b = arg;

	(void) m;
	b->format = mmr_row_format_remote(b->table->description, b->table->rel, b->table->key, b->cxt);
}

void
mmr_careful_bind(MmrMerge *m, MmrMergeTable *table, MmrRowDescription *description)
{
	Binding		b = {table, NULL, m->batch_cxt};

	table->description = description;
	/* rows of another key cannot be told apart here, and are nothing to set aside */
	mmr_row_same_key(description, table->key);
	/* where rows stand aside already because they did not fit, that is not found out again by a batch that fails */
	if (m->careful || mmr_setaside_of_table(table->relid))
	{
		MemoryContext old = MemoryContextSwitchTo(m->batch_cxt);

		table->misfit = mmr_merge_guard(m, bind_columns, &b);
		MemoryContextSwitchTo(old);
	}
	else
		bind_columns(m, &b);
	table->format = b.format;
}

void
mmr_careful_end(MmrMerge *m)
{
	mmr_collide_settle(m, set_aside);
	if (m->set_aside > 0)
		ereport(LOG,
				(errmsg_plural("set aside %lld row of sync \"%s\" that cannot be applied",
							   "set aside %lld rows of sync \"%s\" that cannot be applied",
							   m->set_aside, (long long) m->set_aside, m->sync->name),
				 errdetail_log("The first, %s", m->first_error),
				 errhint("See the view mmrepl.apply_error. They are tried again by themselves.")));
}
