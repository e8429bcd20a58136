/*-------------------------------------------------------------------------
 * launcher.h
 *	  The worker that starts all others.
 *
 * Floor 10.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_LAUNCHER_H
#define MMR_LAUNCHER_H

/* From _PG_init only: registers the launcher when the server starts. */
extern void mmr_launcher_init(void);

#endif							/* MMR_LAUNCHER_H */
