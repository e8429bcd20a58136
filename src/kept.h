/*-------------------------------------------------------------------------
 * kept.h
 *	  What a db had written before a rejoin and perhaps sent to nobody.
 *
 * Floor 5.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_KEPT_H
#define MMR_KEPT_H

/* Janitor: once the copies are in, writes again what is still missing, in transactions of its own. */
extern void mmr_kept_round(void);

#endif							/* MMR_KEPT_H */
