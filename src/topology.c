/*-------------------------------------------------------------------------
 * topology.c
 *	  Who pushes to whom, who hands on what others wrote, and what this node
 *	  can say of everybody's changes.
 *
 * Floor 3.  Reads the configuration and mmrepl.progress.  Runs in pushers, apply
 * backends, the janitor, and backends that configure.
 *
 * What came from an author by way of others is in a context only as far as it
 * is here for every table of the sync: a table may be in several syncs, and what
 * an author wrote into several tables in one transaction may come by several
 * ways, at several times.  So for each set of syncs that some table of the sync
 * is in, the ways by which the author's changes can come are looked at: what
 * came by any of them is here, and what holds for all sets is told.
 *
 * Invariant: who is told that something is here need never send it, and
 * may forget it; so nothing is told that is not so, and a way from
 * which nothing was heard yet counts as one that brought nothing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "progress.h"
#include "topology.h"

typedef struct Ways
{
	Oid			relid;			/* hash key */
	Bitmapset  *syncs;
} Ways;

/* One way by which changes of an author come here. */
typedef struct Path
{
	int32		sync_id;
	int32		node;			/* who sends them */
	bool		goes_on;		/* what comes so is handed on in the sync that is asked about */
} Path;

/* An author, and by which ways his changes come. */
typedef struct Origin
{
	int32		node;
	List	   *groups;			/* for each set of syncs that a table is in: List of Path */
} Origin;

/* What follows from the configuration, until that changes. */
static struct
{
	MemoryContext cxt;
	uint64		changes;		/* of membership */
	HTAB	   *ways;
	bool		simple;			/* nobody hands on anything, and no table is in two syncs */
	int32		sync_id;		/* of which origins are known, 0: none */
	List	   *origins;
} known;

/* Where an author's changes get: a flag for each node and sync by which they come to it. */
typedef struct Reach
{
	const Bitmapset *ways;
	List	   *nodes;
	int			nsyncs;
	bool	   *at;
	int32		around;			/* not by way of that node; 0: anyhow */
	int32		besides;		/* not what the author itself sends in that sync; 0: all */
} Reach;

bool
mmr_topology_links(const MmrSync *sync, int32 from, int32 to)
{
	return mmr_topology_speaks(sync, from, to) &&
		!mmr_membership_sync_node((MmrSync *) sync, from)->lost &&
		!mmr_membership_sync_node((MmrSync *) sync, to)->lost;
}

bool
mmr_topology_speaks(const MmrSync *sync, int32 from, int32 to)
{
	MmrSyncNode *a = mmr_membership_sync_node((MmrSync *) sync, from);
	MmrSyncNode *b = mmr_membership_sync_node((MmrSync *) sync, to);

	return a != NULL && b != NULL && a != b && a->role == MMR_ROLE_SOURCE &&
		(sync->hub == NULL || a->hub || b->hub);
}

bool
mmr_topology_hands_on(const MmrSync *sync, int32 via, int32 node)
{
	MmrSync    *came = via != 0 ? mmr_membership_sync(via) : NULL;
	ListCell   *lc;

	if (via == sync->id)
		return sync->hub != NULL && sync->hub->node->id == node;
	if (came != NULL)
		return came->makedelta;
	/* a sync that is no more, or came before we were here: rather once too often */
	if (sync->hub != NULL && sync->hub->node->id == node)
		return true;
	foreach(lc, mmr_membership_syncs())
	{
		MmrSync    *other = lfirst(lc);

		if (other->id != sync->id && other->makedelta &&
			mmr_membership_sync_node(other, node) != NULL)
			return true;
	}
	return false;
}

/* Looks at the tables of all syncs, if that is not known yet. */
static void
topology_load(void)
{
	HASHCTL		ctl = {0};
	MemoryContext old;
	ListCell   *lc,
			   *lc2;

	if (known.cxt != NULL && known.changes == mmr_membership_changes())
		return;
	if (known.cxt == NULL)
		known.cxt = AllocSetContextCreate(TopMemoryContext, "mmrepl topology", ALLOCSET_SMALL_SIZES);
	known.changes = mmr_membership_changes() - 1;
	MemoryContextReset(known.cxt);
	old = MemoryContextSwitchTo(known.cxt);
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Ways);
	ctl.hcxt = known.cxt;
	known.ways = hash_create("mmrepl ways", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	known.simple = true;
	known.sync_id = 0;
	known.origins = NIL;
	foreach(lc, mmr_membership_syncs())
	{
		MmrSync    *sync = lfirst(lc);

		known.simple &= sync->hub == NULL;
		foreach(lc2, sync->tables)
		{
			MmrMember  *member = lfirst(lc2);
			Ways	   *w;
			bool		found;

			if (!OidIsValid(member->relid))
				continue;
			w = hash_search(known.ways, &member->relid, HASH_ENTER, &found);
			w->syncs = bms_add_member(found ? w->syncs : NULL, foreach_current_index(lc));
			known.simple &= !found;
		}
	}
	MemoryContextSwitchTo(old);
	known.changes = mmr_membership_changes();
}

Bitmapset *
mmr_topology_ways(Oid relid)
{
	Ways	   *w;

	topology_load();
	w = hash_search(known.ways, &relid, HASH_FIND, NULL);
	return w != NULL ? w->syncs : NULL;
}

static MmrSync *
sync_at(int index)
{
	return list_nth(mmr_membership_syncs(), index);
}

bool
mmr_topology_forwards(const MmrSync *sync)
{
	ListCell   *lc;

	topology_load();
	if (known.simple || sync->my_role != MMR_ROLE_SOURCE)
		return false;
	foreach(lc, mmr_membership_syncs())
	{
		MmrSync    *other = lfirst(lc);

		if (other->my_role != MMR_ROLE_NONE &&
			mmr_topology_hands_on(sync, other->id, mmr_membership_my_id()))
			return true;
	}
	return false;
}

/* How many push to this node in the sync, or (out) are pushed to by it. */
static int
count_links(const MmrSync *sync, bool out)
{
	int32		me = mmr_membership_my_id();
	ListCell   *lc;
	int			n = 0;

	foreach(lc, sync->nodes)
	{
		int32		other = ((MmrSyncNode *) lfirst(lc))->node->id;

		n += out ? mmr_topology_links(sync, me, other) : mmr_topology_links(sync, other, me);
	}
	return n;
}

bool
mmr_topology_goes_on(const MmrSync *sync, Oid relid)
{
	Bitmapset  *ways = mmr_topology_ways(relid);
	int			i = -1;

	if (known.simple)
		return false;
	while ((i = bms_next_member(ways, i)) >= 0)
	{
		MmrSync    *other = sync_at(i);

		/* in the sync by which it came, somebody besides the one who sent it */
		if (mmr_topology_hands_on(other, sync->id, mmr_membership_my_id()) &&
			count_links(other, true) > (other->id == sync->id ? 1 : 0))
			return true;
	}
	return false;
}

bool
mmr_topology_has_third(Oid relid)
{
	Bitmapset  *ways = mmr_topology_ways(relid);
	int32		me = mmr_membership_my_id();
	int			others = 0;
	int			i = -1;

	while ((i = bms_next_member(ways, i)) >= 0)
	{
		MmrSync    *sync = sync_at(i);
		ListCell   *lc;

		foreach(lc, sync->nodes)
		{
			int32		other = ((MmrSyncNode *) lfirst(lc))->node->id;

			others += mmr_topology_links(sync, other, me) || mmr_topology_links(sync, me, other);
		}
	}
	return others > 1;
}

int32
mmr_topology_unasked(const MmrSync *sync, const MmrDeparture *departure)
{
	int32		me = mmr_membership_my_id();
	ListCell   *lc;

	foreach(lc, sync->nodes)
	{
		MmrSyncNode *other = lfirst(lc);
		int32		id = other->node->id;

		if ((sync->my_role == MMR_ROLE_SOURCE ?
			 other->role == MMR_ROLE_TARGET && mmr_topology_links(sync, me, id) :
			 mmr_topology_links(sync, id, me)) &&
			/* he may have come back, or go on as a target: he has nothing of himself to settle */
			id != departure->node_id && !list_member_int(departure->asked, id))
			return id;
	}
	return 0;
}

/* ---- where changes get ---- */

static int
node_index(const Reach *reach, int32 node)
{
	ListCell   *lc;

	foreach(lc, reach->nodes)
		if (((MmrNode *) lfirst(lc))->id == node)
			return foreach_current_index(lc);
	return -1;
}

/* Goes on from a node to all it pushes to; via < 0: it is the author. */
static void
reach_from(Reach *reach, int32 node, int via)
{
	int			i = -1;

	check_stack_depth();
	if (node == reach->around)
		return;
	while ((i = bms_next_member(reach->ways, i)) >= 0)
	{
		MmrSync    *sync = sync_at(i);
		ListCell   *lc;

		if (via < 0 ? sync->id == reach->besides :
			!mmr_topology_hands_on(sync, sync_at(via)->id, node))
			continue;
		foreach(lc, sync->nodes)
		{
			int32		next = ((MmrSyncNode *) lfirst(lc))->node->id;
			int			at = node_index(reach, next);

			if (at < 0 || !mmr_topology_links(sync, node, next) || reach->at[at * reach->nsyncs + i])
				continue;
			reach->at[at * reach->nsyncs + i] = true;
			reach_from(reach, next, i);
		}
	}
}

static void
reach_all(Reach *reach, const Bitmapset *ways, int32 author)
{
	reach->ways = ways;
	reach->nodes = mmr_membership_nodes();
	reach->nsyncs = list_length(mmr_membership_syncs());
	reach->at = palloc0(Max(1, list_length(reach->nodes) * reach->nsyncs));
	reach_from(reach, author, -1);
}

static bool
reach_ends_at(Reach *reach, const Bitmapset *ways, int32 author, int32 node)
{
	bool		result = false;
	int			at;

	reach_all(reach, ways, author);
	at = node_index(reach, node);
	for (int i = 0; at >= 0 && i < reach->nsyncs; i++)
		result |= reach->at[at * reach->nsyncs + i];
	pfree(reach->at);
	return result;
}

bool
mmr_topology_reaches(const Bitmapset *ways, int32 author, int32 node)
{
	Reach		reach = {0};
	int			i = -1;

	topology_load();
	while ((i = bms_next_member(ways, i)) >= 0)
		if (mmr_topology_links(sync_at(i), author, node))
			return true;
	return !known.simple && reach_ends_at(&reach, ways, author, node);
}

/* Does the author's come to this node from `sender` in sync number `index`? */
static bool
comes_from(const Reach *reach, int32 author, int32 sender, int index)
{
	int			at = node_index(reach, sender);

	if (sender == author)
		return true;
	for (int i = 0; at >= 0 && i < reach->nsyncs; i++)
		if (reach->at[at * reach->nsyncs + i] &&
			mmr_topology_hands_on(sync_at(index), sync_at(i)->id, sender))
			return true;
	return false;
}

/* ---- what is told ---- */

/* By which ways an author's changes to tables that are in these syncs come here. */
static List *
find_paths(const MmrSync *asked, const Bitmapset *ways, int32 author)
{
	int32		me = mmr_membership_my_id();
	List	   *paths = NIL;
	Reach		reach = {0};
	int			i = -1;

	reach_all(&reach, ways, author);
	while ((i = bms_next_member(ways, i)) >= 0)
	{
		MmrSync    *sync = sync_at(i);
		ListCell   *lc;

		foreach(lc, sync->nodes)
		{
			int32		sender = ((MmrSyncNode *) lfirst(lc))->node->id;
			Path	   *path;

			if (!mmr_topology_links(sync, sender, me) || !comes_from(&reach, author, sender, i))
				continue;
			path = palloc(sizeof(Path));
			path->sync_id = sync->id;
			path->node = sender;
			path->goes_on = mmr_topology_hands_on(asked, sync->id, me);
			paths = lappend(paths, path);
		}
	}
	pfree(reach.at);
	return paths;
}

/* The sets of syncs that tables of this one are in. */
static List *
find_sets(const MmrSync *sync)
{
	List	   *sets = NIL;
	ListCell   *lc,
			   *lc2;

	foreach(lc, sync->tables)
	{
		MmrMember  *member = lfirst(lc);
		Bitmapset  *ways = OidIsValid(member->relid) ? mmr_topology_ways(member->relid) : NULL;
		bool		seen = ways == NULL;

		foreach(lc2, sets)
			seen |= bms_equal(lfirst(lc2), ways);
		if (!seen)
			sets = lappend(sets, ways);
	}
	return sets;
}

/* As much as the caller has filled in of it; for any table of the sync. */
static bool
reaches_somehow(const MmrSync *sync, Reach reach, int32 author, int32 node)
{
	ListCell   *lc;

	topology_load();
	foreach(lc, find_sets(sync))
		if (reach_ends_at(&reach, lfirst(lc), author, node))
			return true;
	return false;
}

bool
mmr_topology_reaches_around(const MmrSync *sync, int32 author, int32 node)
{
	return reaches_somehow(sync, (Reach) {.around = mmr_membership_my_id()}, author, node);
}

bool
mmr_topology_reaches_besides(const MmrSync *sync, int32 author, int32 node)
{
	return reaches_somehow(sync, (Reach) {.besides = sync->id}, author, node);
}

static void
find_origins(const MmrSync *sync)
{
	MemoryContext old = MemoryContextSwitchTo(known.cxt);
	List	   *sets = find_sets(sync);
	List	   *origins = NIL;
	int32		me = mmr_membership_my_id();
	ListCell   *lc,
			   *ls;

	foreach(lc, mmr_membership_nodes())
	{
		int32		author = ((MmrNode *) lfirst(lc))->id;
		Origin	   *o = palloc0(sizeof(Origin));

		o->node = author;
		foreach(ls, sets)
		{
			List	   *paths = author != me ? find_paths(sync, lfirst(ls), author) : NIL;

			if (paths != NIL)
				o->groups = lappend(o->groups, paths);
		}
		if (o->groups != NIL)
			origins = lappend(origins, o);
	}
	known.origins = origins;
	known.sync_id = sync->id;
	MemoryContextSwitchTo(old);
}

/* What the sender of that path has brought of the author's. */
static const MmrPosition *
brought(List *progress, const Path *path, int32 author)
{
	ListCell   *lc;

	foreach(lc, progress)
	{
		MmrProgress *p = lfirst(lc);

		if (p->sync_id != path->sync_id || p->source_node != path->node)
			continue;
		return path->node == author ? p->position : mmr_context_carried(p->context, author);
	}
	return NULL;
}

/* How far the author's changes are here; only_on: by ways from which they are handed on. */
static const MmrPosition *
how_far(List *progress, const Origin *o, bool only_on)
{
	const MmrPosition *position = NULL;
	ListCell   *lg,
			   *lp;

	foreach(lg, o->groups)
	{
		const MmrPosition *any = NULL;

		foreach(lp, (List *) lfirst(lg))
		{
			Path	   *path = lfirst(lp);

			if (path->goes_on || !only_on)
				any = mmr_position_union(any, brought(progress, path, o->node));
		}
		position = foreach_current_index(lg) == 0 ? any : mmr_position_intersect(position, any);
	}
	return position;
}

/* In a ring some comes by a way that ends here, too: then less is carried than is here. */
static void
add_origin(MmrContext *ctx, List *progress, const Origin *o)
{
	const MmrPosition *here = how_far(progress, o, false);
	const MmrPosition *carried = how_far(progress, o, true);
	bool		all = mmr_position_equal(here, carried);

	mmr_context_add(ctx, o->node, here, all);
	if (!all)
		mmr_context_add(ctx, o->node, carried, true);
}

/* Whoever is not named has nothing any more that would come from here as news (stability.c). */
static MmrContext *
name_all(const MmrSync *sync, MmrContext *ctx)
{
	ListCell   *lc;

	foreach(lc, sync->nodes)
	{
		int32		other = ((MmrSyncNode *) lfirst(lc))->node->id;

		if (mmr_topology_links(sync, other, mmr_membership_my_id()))
			mmr_context_name(ctx, other);
	}
	foreach(lc, mmr_departures(sync->id))
		mmr_context_name(ctx, ((MmrDeparture *) lfirst(lc))->node_id);
	return ctx;
}

MmrContext *
mmr_topology_context(const MmrSync *sync)
{
	MmrContext *ctx;
	List	   *progress;
	ListCell   *lc;

	topology_load();
	if (known.simple)
		return name_all(sync, mmr_progress_context(sync->id));
	if (known.sync_id != sync->id)
		find_origins(sync);
	ctx = palloc0(sizeof(MmrContext));
	progress = mmr_progress_list(0);
	foreach(lc, known.origins)
		add_origin(ctx, progress, lfirst(lc));
	return name_all(sync, ctx);
}
