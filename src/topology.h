/*-------------------------------------------------------------------------
 * topology.h
 *	  Who pushes to whom, who hands on what others wrote, and what this node
 *	  can say of everybody's changes.
 *
 * Floor 3.  All need a transaction in which membership was refreshed; nothing
 * is kept by the caller over the next refresh.
 *
 * Without a hub every source of a sync pushes to all its dbs.  With one, the
 * others exchange with the hub alone, and it hands on to each what the others
 * wrote.  A sync with makedelta lets the other syncs of a db hand on what it
 * has brought there.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_TOPOLOGY_H
#define MMR_TOPOLOGY_H

#include "departures.h"
#include "membership.h"
#include "nodes/bitmapset.h"
#include "position.h"

/* Does `from` push to `to` in this sync? */
extern bool mmr_topology_links(const MmrSync *sync, int32 from, int32 to);

/* Would it, if none of them needed a resync?  Then it tells the configuration. */
extern bool mmr_topology_speaks(const MmrSync *sync, int32 from, int32 to);

/* Does `node` hand on in `sync` what came to it by the sync `via`?  via 0: it is not known by which. */
extern bool mmr_topology_hands_on(const MmrSync *sync, int32 via, int32 node);

/* Does this node hand on anything at all in `sync`? */
extern bool mmr_topology_forwards(const MmrSync *sync);

/* Does this node hand on what comes of that table by `sync`, to anybody? */
extern bool mmr_topology_goes_on(const MmrSync *sync, Oid relid);

/*
 * Is there more than one other node that sends states of that table's rows here,
 * or gets them from here?  A source keeps what comes for any third: should the
 * author be lost, that one hears of it from here (M2).  Who only receives tells
 * nobody: it needs to compare what comes from several.
 */
extern bool mmr_topology_has_third(Oid relid);

/* Syncs that hold the table, by their place in mmr_membership_syncs(); not to be changed. */
extern Bitmapset *mmr_topology_ways(Oid relid);

/* Does what `author` writes into tables of those syncs come to `node`, straight or handed on? */
extern bool mmr_topology_reaches(const Bitmapset *ways, int32 author, int32 node);

/* Of what it writes into tables of this sync, does any come to `node` by a way that does not lead through this node? */
extern bool mmr_topology_reaches_around(const MmrSync *sync, int32 author, int32 node);

/* Does any come to it that the author has not sent by its part in this sync? */
extern bool mmr_topology_reaches_besides(const MmrSync *sync, int32 author, int32 node);

/*
 * With whom this node has still to settle what a departed source has left with targets: as a
 * source with each target that it pushes to, as a target with each source that pushes to it; 0: nobody.
 */
extern int32 mmr_topology_unasked(const MmrSync *sync, const MmrDeparture *departure);

/*
 * What has been applied here of every other node's changes to the tables of
 * the sync (B5), under the active snapshot: of some by batches of their own,
 * of some by what others have handed on.  Carried: those of whom this node hands
 * on in `sync` whatever it has.  Who may still send something here, or has departed without
 * being done with, is named even if nothing of it has come.
 */
extern MmrContext *mmr_topology_context(const MmrSync *sync);

#endif							/* MMR_TOPOLOGY_H */
