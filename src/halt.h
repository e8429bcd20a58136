/*-------------------------------------------------------------------------
 * halt.h
 *	  A sync stops by itself, on all its dbs, until somebody resumes it.
 *
 * Floor 6.
 */
#ifndef MMR_HALT_H
#define MMR_HALT_H

/*
 * Pauses the sync because of what that db said, which the views then show on
 * every db.
 * Nothing if it is paused already, or if the configuration is not of that
 * version any more: somebody may have resumed it since.  A change of the
 * configuration: in a transaction, ERROR if it cannot be made now.
 */
extern void mmr_halt_sync(int32 sync_id, int32 node_id, const char *message, int64 version);

#endif							/* MMR_HALT_H */
