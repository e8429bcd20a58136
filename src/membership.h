/*-------------------------------------------------------------------------
 * membership.h
 *	  Which dbs, syncs and tables there are: the configuration as C structs,
 *	  cached per session until it changes (MmrDatabase.config_generation,
 *	  relcache invalidation).
 *
 * Floor 2.  All need a transaction (they may read catalogs).  What they give
 * lives until the next call of mmr_membership_refresh in this session.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_MEMBERSHIP_H
#define MMR_MEMBERSHIP_H

#include "mmrepl.h"
#include "nodes/pg_list.h"
#include "strategy.h"

typedef struct MmrNode
{
	int32		id;
	char	   *name;
	char	   *conninfo;
	int64		system_identifier;
	Oid			database_oid;
} MmrNode;

typedef struct MmrSyncNode
{
	MmrNode    *node;
	MmrRole		role;
	bool		hub;			/* a source by which all others hear of each other */
	bool		lost;			/* it needs a resync: nothing flows to it or from it meanwhile */
	int			pos;			/* order of naming, from 1 */
	int64		since;			/* which part of it in the sync this is: changes when it leaves and comes again */
} MmrSyncNode;

typedef struct MmrMember
{
	char	   *nspname;
	char	   *relname;
	Oid			relid;			/* InvalidOid: no such table here (any more) */
	Oid			key_index;		/* InvalidOid: no usable key */
	MmrStrategy *strategy;		/* its own, or the sync's; NULL: latest */
} MmrMember;

typedef struct MmrSync
{
	int32		id;
	char	   *name;
	char	   *relgroup;
	char	   *dbgroup;
	int			onetimecopy;
	MmrStrategy *strategy;		/* of conflicts; NULL: latest */
	char	   *on_error;
	int			seq_step;
	bool		paused;
	char	   *halted;			/* why it has paused itself; NULL: it has not */
	bool		makedelta;		/* what it brings to a db is handed on by that db's other syncs */
	int			copy_round;		/* grows when a copy is asked for again */
	List	   *nodes;			/* MmrSyncNode, by pos; includes this node */
	MmrSyncNode *hub;			/* NULL: every source pushes to all */
	MmrRole		my_role;		/* MMR_ROLE_NONE: this node has no part in it */
	bool		joining;		/* this node has, but waits until all others know of it (join.h) */
	bool		lost;			/* this node needs a resync: it captures, but nothing flows to it or from it */
	bool		blank;			/* it has come into the sync when that ran, and has got no copy yet */
	bool		closed;			/* it joins, or lacks the copy with which it has joined: a source keeps clients out (closed.h) */
	List	   *tables;			/* MmrMember */
	List	   *sequences;		/* MmrMember with key_index unset */
} MmrSync;

/* Rereads what has changed; called at the start of a unit of work. True if anything was reread. */
extern bool mmr_membership_refresh(void);

/*
 * False: a change of configuration has committed since.  Asked after a snapshot was
 * taken: true says that nothing it sees was captured under a later one, for a
 * table gets its triggers with the configuration that names it.
 */
extern bool mmr_membership_is_current(void);

/*
 * The next refresh reads everything again: for who has changed the tables in
 * this transaction, and at its end.  No ERROR.
 */
extern void mmr_membership_invalidate(void);

/* Grows whenever something was reread and may be different: for who keeps what follows from it. */
extern uint64 mmr_membership_changes(void);

/* This node's id, 0 if it has none yet; and whether mmrepl.stop() stopped it here. */
extern int32 mmr_membership_my_id(void);
extern bool mmr_membership_stopped(void);
extern int64 mmr_membership_config_version(void);

/* List of MmrNode, all of them, this node included. */
extern List *mmr_membership_nodes(void);

/* NULL if there is none. */
extern MmrNode *mmr_membership_node(int32 node_id);
extern MmrNode *mmr_membership_node_by_name(const char *name);
extern MmrSync *mmr_membership_sync(int32 sync_id);
extern MmrSync *mmr_membership_sync_by_name(const char *name);

/* List of MmrSync, all of them. */
extern List *mmr_membership_syncs(void);

/* The member of this sync with that relid, or NULL. */
extern MmrMember *mmr_membership_table(MmrSync *sync, Oid relid);

/* The node's entry in the sync, or NULL; and is it a source of it? */
extern MmrSyncNode *mmr_membership_sync_node(MmrSync *sync, int32 node_id);
extern bool mmr_membership_is_source(MmrSync *sync, int32 node_id);

/* Syncs (MmrSync) that hold this table and in which this node has a part. */
extern List *mmr_membership_syncs_of_table(Oid relid);

#endif							/* MMR_MEMBERSHIP_H */
