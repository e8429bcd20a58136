/*-------------------------------------------------------------------------
 * news.h
 *	  What has happened in this database since a pusher looked last: commits,
 *	  batches of peers, somebody who waits, another configuration.
 *
 * Floor 5.  Needs no transaction.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_NEWS_H
#define MMR_NEWS_H

#include "shared.h"

typedef struct MmrNews
{
	MmrWorker  *me;
	MmrDatabase *db;
	uint64		generation;		/* of the configuration of the session */
	uint64		commits;		/* counters at the last look */
	uint64		ticket;
	uint64		applied;
	TimestampTz looked_at;
} MmrNews;

/* Looks; call it before the snapshot: what the counters say is in that, or looked at again. */
extern void mmr_news_look(MmrNews *n);

/* Has the configuration changed since the session began? */
extern bool mmr_news_of_config(const MmrNews *n);

/* Has anything happened since the last look?  Also (applied) here by batches of peers? */
extern bool mmr_news_any(const MmrNews *n, bool applied);

/* A batch that looked at `since` is through: if many commit meanwhile, lets them gather for the next one. */
extern void mmr_news_gather(const MmrNews *n, TimestampTz since);

#endif							/* MMR_NEWS_H */
