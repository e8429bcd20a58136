/*-------------------------------------------------------------------------
 * node.h
 *	  Who this database is: system identifier, database oid, timeline (M3).
 *
 * Floor 3.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_NODE_H
#define MMR_NODE_H

#include "mmrepl.h"

/* Of the database this session is connected to. */
extern void mmr_node_identity(int64 *sysid, Oid *dboid, int32 *timeline);

/*
 * ERROR (ERRCODE_MMR_IDENTITY) unless mmrepl.local_node was written by this
 * very database in this very life: workers call it before they do anything.
 * Needs a transaction; takes its own snapshot.
 */
extern void mmr_node_check(void);

/* The same, but for the timeline and the mark: it is the database and the server that it was. */
extern void mmr_node_check_place(void);

/* Takes the timeline as it is now, and the mark away. */
extern void mmr_node_confirm(void);

/* What to do with a copy, and with one whose past is lost. */
#define MMR_COPY_HINT \
	"If this is a copy: DROP EXTENSION mmrepl in it. If it is the one that is to take part (a standby that was promoted): stop the other one, or correct the address on another db with mmrepl.update_db(), and call mmrepl.confirm_identity() here."
#define MMR_LOST_HINT \
	"Call mmrepl.rejoin() here: this db then gets a copy of everything from another one, and keeps what only it has."

#endif							/* MMR_NODE_H */
