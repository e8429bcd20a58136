/*-------------------------------------------------------------------------
 * sessions.h
 *	  Sessions that peers' pushers have open here, ended from outside.
 *
 * Floor 2.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SESSIONS_H
#define MMR_SESSIONS_H

/* Ends those in which that node applies that sync here, but not this one.  Does not wait for them. */
extern void mmr_sessions_end(int32 sync_id, int32 node_id);

#endif							/* MMR_SESSIONS_H */
