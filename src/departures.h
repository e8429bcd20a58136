/*-------------------------------------------------------------------------
 * departures.h
 *	  Sources that have departed from a sync and are not done with yet.
 *
 * Floor 2.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_DEPARTURES_H
#define MMR_DEPARTURES_H

#include "nodes/pg_list.h"

typedef struct MmrDeparture
{
	int32		sync_id;
	int32		node_id;
	bool		taken;			/* over, what the log here holds of it */
	List	   *asked;			/* ids: with whom it is settled what targets hold of it */
} MmrDeparture;

/* Those of the sync, 0: of all, under the active snapshot: List of MmrDeparture, palloc'd. */
extern List *mmr_departures(int32 sync_id);

/* The same one now, under the latest snapshot; NULL if there is none. */
extern MmrDeparture *mmr_departures_find(int32 sync_id, int32 node_id);

#endif							/* MMR_DEPARTURES_H */
