/*-------------------------------------------------------------------------
 * stability.c
 *	  Which entries of the change log are stable (P1).
 *
 * Floor 3.  Reads mmrepl.progress and mmrepl.peer_state.  Runs in the janitor.
 *
 * An entry matters as long as a peer may still send, or has to be sent, an
 * older state of its key.  Of a peer that is a source that is over when a
 * batch of its own has told that it had the entry when it sent it: the context
 * that came with its last batch covers the entry's dot.  A peer that is only a
 * target sends nothing: what it has acknowledged is enough, and concerns
 * only a node that pushes to it.
 *
 * An entry of an author who is no source of the sync (any more) is delivered
 * by nobody: no context will ever cover it, and nobody is waited for.
 *
 * Invariant: once stable, always stable, as long as the configuration stays.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "nodes/bitmapset.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "breaks.h"
#include "catalog.h"
#include "changelog.h"
#include "membership.h"
#include "position.h"
#include "progress.h"
#include "stability.h"

/* Columns of mmrepl.peer_state that are read, as src/schema/10_catalog.sql makes them. */
#define COL_PEER_SYNC	1
#define COL_PEER_NODE	2
#define COL_PEER_ACKED	3

typedef struct Peer
{
	int32		node;
	bool		source;
	MmrContext *context;		/* source: as received with its last batch */
	MmrPosition *acked;			/* target: of this node */
} Peer;

/* A sync in which this node has a part. */
typedef struct Rule
{
	MmrSync    *sync;
	int			npeers;
	Peer	   *peers;
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

	/* the dot looked at last: the rules under which it is not stable */
	int32		author;
	uint64		dot_xid;
	uint64		run_xid;
	Bitmapset  *unstable;
	MmrHold    *holds;			/* by rule: the peer it waits for */
};

/* mmrepl.peer_state: what targets have acknowledged. */
static void
load_acknowledged(MmrStability *st)
{
	Relation	rel = table_open(mmr_catalog_table("peer_state"), AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, GetActiveSnapshot(), 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		int32		sync_id = DatumGetInt32(heap_getattr(tuple, COL_PEER_SYNC, RelationGetDescr(rel), &isnull));
		int32		node = DatumGetInt32(heap_getattr(tuple, COL_PEER_NODE, RelationGetDescr(rel), &isnull));
		Datum		acked = heap_getattr(tuple, COL_PEER_ACKED, RelationGetDescr(rel), &isnull);

		for (int i = 0; i < st->nrules && !isnull; i++)
		{
			Rule	   *rule = &st->rules[i];

			for (int j = 0; j < rule->npeers && rule->sync->id == sync_id; j++)
				if (rule->peers[j].node == node)
					rule->peers[j].acked = mmr_position_from_datum(acked);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static void
load_peers(Rule *rule)
{
	List	   *progress = mmr_progress_list(rule->sync->id);
	ListCell   *lc,
			   *lc2;

	rule->peers = palloc0(sizeof(Peer) * Max(1, list_length(rule->sync->nodes)));
	foreach(lc, rule->sync->nodes)
	{
		MmrSyncNode *part = lfirst(lc);
		Peer	   *peer = &rule->peers[rule->npeers];

		if (part->node->id == mmr_membership_my_id())
			continue;
		rule->npeers++;
		peer->node = part->node->id;
		peer->source = part->role == MMR_ROLE_SOURCE;
		foreach(lc2, progress)
		{
			MmrProgress *p = lfirst(lc2);

			if (p->source_node == peer->node)
				peer->context = p->context;
		}
	}
}

/* Notes for each member of the sync that this rule holds for it. */
static void
load_tables(MmrStability *st, int rule)
{
	ListCell   *lc;

	foreach(lc, st->rules[rule].sync->tables)
	{
		MmrMember  *member = lfirst(lc);
		TableRules *t;
		bool		found;

		if (!OidIsValid(member->relid))
			continue;
		t = hash_search(st->tables, &member->relid, HASH_ENTER, &found);
		if (!found)
			t->rules = NULL;
		t->rules = bms_add_member(t->rules, rule);
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
	st->rules = palloc0(sizeof(Rule) * Max(1, list_length(syncs)));
	st->holds = palloc0(sizeof(MmrHold) * Max(1, list_length(syncs)));
	foreach(lc, syncs)
	{
		MmrSync    *sync = lfirst(lc);

		if (sync->my_role == MMR_ROLE_NONE || sync->joining)
			continue;
		st->rules[st->nrules].sync = sync;
		load_peers(&st->rules[st->nrules]);
		load_tables(st, st->nrules);
		st->nrules++;
	}
	load_acknowledged(st);
	return st;
}

static bool
is_source(MmrSync *sync, int32 node)
{
	MmrSyncNode *part = mmr_membership_sync_node(sync, node);

	return part != NULL && part->role == MMR_ROLE_SOURCE;
}

/* P1 for one sync. */
static bool
rule_says_stable(const Rule *rule, int32 author, uint64 dot_xid, uint64 run_xid, MmrHold *hold)
{
	bool		delivered = is_source(rule->sync, author);

	for (int i = 0; i < rule->npeers; i++)
	{
		const Peer *peer = &rule->peers[i];
		bool		has;

		if (peer->node == author)
			continue;
#ifdef MMR_BREAK_PURGE_ON_ACK
		if (author == mmr_membership_my_id())
			has = mmr_position_covers(peer->acked, run_xid);
		else
#endif
		if (peer->source)
			has = !delivered ||
				mmr_position_covers(mmr_context_position(peer->context, author), dot_xid);
		else
			has = rule->sync->my_role != MMR_ROLE_SOURCE ||
				mmr_position_covers(peer->acked, run_xid);
		if (!has)
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
unstable_rules(MmrStability *st, int32 author, uint64 dot_xid, uint64 run_xid)
{
	/* 0 is nobody's id: nothing has been looked at yet */
	if (author == st->author && dot_xid == st->dot_xid && run_xid == st->run_xid)
		return st->unstable;
	bms_free(st->unstable);
	st->unstable = NULL;
	for (int i = 0; i < st->nrules; i++)
		if (!rule_says_stable(&st->rules[i], author, dot_xid, run_xid, &st->holds[i]))
			st->unstable = bms_add_member(st->unstable, i);
	st->author = author;
	st->dot_xid = dot_xid;
	st->run_xid = run_xid;
	return st->unstable;
}

bool
mmr_stability_of_run(MmrStability *st, uint64 xid, const char *data, int len, MmrHold *hold)
{
	MmrRun		run;
	MmrChange	change;

	hold->sync_id = hold->node_id = 0;
	mmr_changelog_open_run(&run, xid, data, len);
	/* all changes of a captured run have one dot: if no sync waits for it, the tables do not matter */
	if (!run.recorded && unstable_rules(st, run.node, xid, xid) == NULL)
		return true;
	while (mmr_changelog_next(&run, &change))
	{
		const Bitmapset *unstable = unstable_rules(st, change.dot.node, change.dot.xid, xid);
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
