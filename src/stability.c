/*-------------------------------------------------------------------------
 * stability.c
 *	  Which entries of the change log are stable (P1).
 *
 * Floor 4.  Reads mmrepl.progress, mmrepl.departed and mmrepl.peer_state.  Runs in the janitor.
 *
 * An entry matters as long as a peer may still send, or has to be sent, an
 * older state of its key.  Of a peer that is a source that is over when a
 * batch of its own has told that it had the entry when it sent it: the context
 * that came with its last batch covers the entry's dot, or, if this node hands the
 * entry on to it, the transaction here that holds it.  Of a peer that sends
 * nothing here what it has acknowledged is enough, or, of what others wrote, what it
 * has told when it was asked (tidings.h): should such an author be lost, it
 * has to get it from here (M2).  It concerns only a node that pushes to it.
 *
 * An entry that cannot come to a peer by any way (its author is no source any more,
 * or nobody hands it on) will never be covered by what that peer says: it is
 * not waited for.
 *
 * Nothing of a sync is stable from the moment when a source departs until this
 * database has taken over what it, and the targets, know of him, and until every
 * source has been heard to have done that (departed.c).
 *
 * Invariant: once stable, always stable, as long as the configuration stays.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "nodes/bitmapset.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "breaks.h"
#include "catalog.h"
#include "changelog.h"
#include "membership.h"
#include "peerstate.h"
#include "position.h"
#include "progress.h"
#include "stability.h"
#include "topology.h"
#include "wire.h"

/* Columns of mmrepl.peer_state that are read, as src/schema/10_catalog.sql makes them. */
#define COL_PEER_SYNC	1
#define COL_PEER_NODE	2
#define COL_PEER_ACKED	3
#define COL_PEER_CONTEXT	7
#define COL_PEER_PART		8

typedef struct Peer
{
	int32		node;
	bool		sends;			/* to here */
	bool		receives;		/* from here */
	MmrContext *context;		/* as received with its last batch, or told when it was asked (tidings.h) */
	MmrPosition *acked;			/* of this node */
} Peer;

/* To whom an author's changes come. */
typedef struct Author
{
	int32		node;
	Bitmapset  *reached;		/* peers, by place */
} Author;

/* A sync in which this node has a part, for those of its tables that are in the same other syncs. */
typedef struct Rule
{
	MmrSync    *sync;
	const Bitmapset *ways;
	int			npeers;
	Peer	   *peers;
	List	   *authors;		/* Author, as they turn up */
	int32		unsettled;		/* a node to be waited for because somebody has departed, 0: nobody */
} Rule;

typedef struct TableRules
{
	Oid			relid;			/* hash key */
	Bitmapset  *rules;
} TableRules;

struct MmrStability
{
	int			nrules;
	Rule	   *rules;
	HTAB	   *tables;
	MemoryContext cxt;

	/* the dot looked at last: the rules under which it is not stable */
	MmrDot		dot;
	uint64		run_xid;
	int32		via;
	Bitmapset  *unstable;
	MmrHold    *holds;			/* by rule: the peer it waits for */
};

/* mmrepl.peer_state: what targets have acknowledged, and have told; not in a part of theirs, or ours, that is over. */
static void
load_targets(MmrStability *st)
{
	Relation	rel = table_open(mmr_catalog_table("peer_state"), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, GetActiveSnapshot(), 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		bool		told_isnull;
		int32		sync_id = DatumGetInt32(heap_getattr(tuple, COL_PEER_SYNC, RelationGetDescr(rel), &isnull));
		int32		node = DatumGetInt32(heap_getattr(tuple, COL_PEER_NODE, RelationGetDescr(rel), &isnull));
		Datum		told = heap_getattr(tuple, COL_PEER_CONTEXT, RelationGetDescr(rel), &told_isnull);
		char	   *part = TextDatumGetCString(heap_getattr(tuple, COL_PEER_PART, RelationGetDescr(rel), &isnull));
		Datum		acked = heap_getattr(tuple, COL_PEER_ACKED, RelationGetDescr(rel), &isnull);
		char		now[MMR_PEER_PART];

		for (int i = 0; i < st->nrules; i++)
		{
			Rule	   *rule = &st->rules[i];

			for (int j = 0; j < rule->npeers && rule->sync->id == sync_id; j++)
			{
				Peer	   *peer = &rule->peers[j];

				if (peer->node != node)
					continue;
				mmr_peerstate_part(rule->sync, node, now);
				if (strcmp(part, now) != 0)
					continue;
				if (!isnull)
					peer->acked = mmr_position_from_datum(acked);
				if (!peer->sends && !told_isnull)
				{
					bytea	   *b = DatumGetByteaPP(told);
					MmrReader	r = {VARDATA_ANY(b), VARDATA_ANY(b) + VARSIZE_ANY_EXHDR(b)};

					peer->context = mmr_get_context(&r);
				}
			}
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* What this database has not taken over yet: it waits for whoever holds some of that. */
static void
load_departed(MmrStability *st)
{
	ListCell   *lc;

	foreach(lc, mmr_departures(0))
	{
		MmrDeparture *d = lfirst(lc);

		for (int i = 0; i < st->nrules; i++)
		{
			Rule	   *rule = &st->rules[i];
			int32		waits_for = mmr_topology_unasked(rule->sync, d);

			if (rule->sync->id == d->sync_id)
				rule->unsettled = waits_for != 0 ? waits_for : d->node_id;
		}
	}
}

/* Does anything that the author writes into a table of the sync come to that peer? */
static bool
is_heard(const MmrStability *st, const MmrSync *sync, int32 author, int32 peer)
{
	for (int i = 0; i < st->nrules; i++)
		if (st->rules[i].sync == sync && mmr_topology_reaches(st->rules[i].ways, author, peer))
			return true;
	return false;
}

/* Does the peer's context, which is of all tables of the sync, tell of somebody of whom nothing can come to it any more? */
static bool
is_unsettled(const MmrStability *st, const MmrSync *sync, int32 peer, const MmrContext *context)
{
	for (int i = 0; context != NULL && i < context->n; i++)
		if (context->entries[i].node != peer &&
			!mmr_membership_is_source((MmrSync *) sync, context->entries[i].node) &&
			!is_heard(st, sync, context->entries[i].node, peer))
			return true;
	return false;
}

/* When all rules are there: who is not known to have taken over what a departed one has written. */
static void
load_unsettled(MmrStability *st)
{
	for (int i = 0; i < st->nrules; i++)
	{
		Rule	   *rule = &st->rules[i];

		for (int j = 0; j < rule->npeers; j++)
			if (rule->peers[j].sends &&
				is_unsettled(st, rule->sync, rule->peers[j].node, rule->peers[j].context))
				rule->unsettled = rule->peers[j].node;
		/* what this node has not sent must not be gone before its resync */
		if (rule->sync->lost)
			rule->unsettled = mmr_membership_my_id();
	}
}

static void
load_peers(Rule *rule)
{
	List	   *progress = mmr_progress_list(rule->sync->id);
	int32		me = mmr_membership_my_id();
	ListCell   *lc,
			   *lc2;

	rule->peers = palloc0(sizeof(Peer) * Max(1, list_length(rule->sync->nodes)));
	foreach(lc, rule->sync->nodes)
	{
		MmrSyncNode *part = lfirst(lc);
		Peer	   *peer = &rule->peers[rule->npeers];

		peer->node = part->node->id;
		peer->sends = mmr_topology_links(rule->sync, peer->node, me);
		peer->receives = mmr_topology_links(rule->sync, me, peer->node);
		if (!peer->sends && !peer->receives)
			continue;
		rule->npeers++;
		foreach(lc2, progress)
		{
			MmrProgress *p = lfirst(lc2);

			if (p->source_node == peer->node && peer->sends)
				peer->context = p->context;
		}
	}
}

/* The rule of that sync for tables that are in these syncs. */
static int
find_rule(MmrStability *st, MmrSync *sync, const Bitmapset *ways)
{
	Rule	   *rule;

	for (int i = 0; i < st->nrules; i++)
		if (st->rules[i].sync == sync && bms_equal(st->rules[i].ways, ways))
			return i;
	/* room for the next power of two */
	if ((st->nrules & (st->nrules - 1)) == 0)
		st->rules = repalloc(st->rules, sizeof(Rule) * Max(1, 2 * st->nrules));
	rule = &st->rules[st->nrules];
	memset(rule, 0, sizeof(Rule));
	rule->sync = sync;
	rule->ways = ways;
	load_peers(rule);
	return st->nrules++;
}

/* Notes for each member of the sync which rule holds for it. */
static void
load_tables(MmrStability *st, MmrSync *sync)
{
	ListCell   *lc;

	foreach(lc, sync->tables)
	{
		MmrMember  *member = lfirst(lc);
		TableRules *t;
		bool		found;

		if (!OidIsValid(member->relid))
			continue;
		t = hash_search(st->tables, &member->relid, HASH_ENTER, &found);
		if (!found)
			t->rules = NULL;
		t->rules = bms_add_member(t->rules, find_rule(st, sync, mmr_topology_ways(member->relid)));
	}
}

MmrStability *
mmr_stability_load(void)
{
	MmrStability *st = palloc0(sizeof(MmrStability));
	List	   *syncs = mmr_membership_syncs();
	HASHCTL		ctl = {0};
	ListCell   *lc;

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(TableRules);
	ctl.hcxt = CurrentMemoryContext;
	st->tables = hash_create("mmrepl stability", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	st->cxt = CurrentMemoryContext;
	st->rules = palloc(sizeof(Rule));
	foreach(lc, syncs)
	{
		MmrSync    *sync = lfirst(lc);

		if (sync->my_role != MMR_ROLE_NONE && !(sync->joining && sync->blank))
			load_tables(st, sync);
	}
	st->holds = palloc0(sizeof(MmrHold) * Max(1, st->nrules));
	load_targets(st);
	load_unsettled(st);
	load_departed(st);
	return st;
}

/* Do the author's changes come to that peer at all? */
static bool
is_reached(MmrStability *st, Rule *rule, int32 author, int peer)
{
	MemoryContext old;
	ListCell   *lc;
	Author	   *a;

	foreach(lc, rule->authors)
	{
		a = lfirst(lc);
		if (a->node == author)
			return bms_is_member(peer, a->reached);
	}
	old = MemoryContextSwitchTo(st->cxt);
	a = palloc0(sizeof(Author));
	a->node = author;
	for (int i = 0; i < rule->npeers; i++)
		if (mmr_topology_reaches(rule->ways, author, rule->peers[i].node))
			a->reached = bms_add_member(a->reached, i);
	rule->authors = lappend(rule->authors, a);
	MemoryContextSwitchTo(old);
	return bms_is_member(peer, a->reached);
}

/* Is the peer known to have it, or sure never to get it? */
static bool
peer_has(MmrStability *st, Rule *rule, int i, const MmrDot *dot, uint64 run_xid, int32 via)
{
	const Peer *peer = &rule->peers[i];
	int32		me = mmr_membership_my_id();

#ifdef MMR_BREAK_PURGE_ON_ACK
	if (dot->node == me)
		return mmr_position_covers(peer->acked, run_xid);
#endif
	/* of what we send to a target its acknowledgement is enough */
	if (!peer->sends && (dot->node == me || mmr_topology_hands_on(rule->sync, via, me)))
		return mmr_position_covers(peer->acked, run_xid);
	if (mmr_position_covers(mmr_context_position(peer->context, dot->node), dot->xid))
		return true;
	/* handed on by us: it has what came before this of us */
	if (peer->receives && (dot->node == me || mmr_topology_hands_on(rule->sync, via, me)))
		return mmr_position_covers(mmr_context_position(peer->context, me), run_xid);
	return !is_reached(st, rule, dot->node, i);
}

/* P1 for one sync. */
static bool
rule_says_stable(MmrStability *st, Rule *rule, const MmrDot *dot, uint64 run_xid, int32 via,
				 MmrHold *hold)
{
	if (rule->unsettled != 0)
	{
		hold->sync_id = rule->sync->id;
		hold->node_id = rule->unsettled;
		return false;
	}
	for (int i = 0; i < rule->npeers; i++)
	{
		const Peer *peer = &rule->peers[i];

		if (peer->node != dot->node && !peer_has(st, rule, i, dot, run_xid, via))
		{
			hold->sync_id = rule->sync->id;
			hold->node_id = peer->node;
			return false;
		}
	}
	return true;
}

/* The rules under which that dot is not stable. */
static const Bitmapset *
unstable_rules(MmrStability *st, const MmrDot *dot, uint64 run_xid, int32 via)
{
	/* 0 is nobody's id: nothing has been looked at yet */
	if (dot->node == st->dot.node && dot->xid == st->dot.xid && run_xid == st->run_xid && via == st->via)
		return st->unstable;
	bms_free(st->unstable);
	st->unstable = NULL;
	for (int i = 0; i < st->nrules; i++)
		if (!rule_says_stable(st, &st->rules[i], dot, run_xid, via, &st->holds[i]))
			st->unstable = bms_add_member(st->unstable, i);
	st->dot = *dot;
	st->run_xid = run_xid;
	st->via = via;
	return st->unstable;
}

bool
mmr_stability_of_run(MmrStability *st, uint64 xid, const char *data, int len, MmrHold *hold)
{
	MmrRun		run;
	MmrChange	change;
	MmrDot		dot;

	hold->sync_id = hold->node_id = 0;
	mmr_changelog_open_run(&run, xid, data, len);
	/* all changes of a captured run have one dot: if no sync waits for it, the tables do not matter */
	dot.node = run.node;
	dot.xid = xid;
	if (!run.recorded && unstable_rules(st, &dot, xid, 0) == NULL)
		return true;
	while (mmr_changelog_next(&run, &change))
	{
		const Bitmapset *unstable = unstable_rules(st, &change.dot, xid, run.via);
		const TableRules *t;
		int			rule = -1;

		if (unstable == NULL)
			continue;
		t = hash_search(st->tables, &change.relid, HASH_FIND, NULL);
		if (t == NULL)
			continue;
		while ((rule = bms_next_member(t->rules, rule)) >= 0)
		{
			if (!bms_is_member(rule, unstable))
				continue;
			*hold = st->holds[rule];
			return false;
		}
	}
	return true;
}

bool
mmr_stability_known(MmrStability *st, int32 sync_id, const MmrDot *dot)
{
	for (int i = 0; i < st->nrules; i++)
	{
		Rule	   *rule = &st->rules[i];

		if (rule->sync->id != sync_id)
			continue;
		for (int j = 0; j < rule->npeers; j++)
			if (!mmr_position_covers(mmr_context_position(rule->peers[j].context, dot->node), dot->xid))
				return false;
	}
	return true;
}
