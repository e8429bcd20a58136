/*-------------------------------------------------------------------------
 * life.h
 *	  Is this database's past still the one that its peers have seen (M3)?
 *
 * Floor 5.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_LIFE_H
#define MMR_LIFE_H

#include "link.h"

/* Launcher, first of all: the server runs, and gives out transaction numbers from here on, or from the first that was captured. */
extern void mmr_life_begin(void);

/*
 * Janitor, before any pusher starts: writes down this run of the server, and
 * asks everybody who answers what is known of us.  ERROR
 * (ERRCODE_MMR_IDENTITY), and the mark set, if our past is not the one they
 * know.  Transactions of its own.
 */
extern void mmr_life_start(void);

/* Janitor, in each round: looks again, now and then, who answers at our own address, until we do. */
extern void mmr_life_round(void);

/*
 * Pusher, before the handshake: the same with that peer, and tells it of this run.
 * Transactions of its own.
 */
extern void mmr_life_claim(MmrLink *link, int32 peer);

/*
 * For confirm_identity, in its transaction: as at the start, under the identity as it is now; ERROR with
 * nothing changed if something is against it.  refused: the mark, NULL if
 * there is none; if it says that something is lost, everybody has to answer.
 */
extern void mmr_life_confirm(const char *refused);

/* Begins anew, in the caller's transaction: for a database that becomes another node. */
extern void mmr_life_begin_anew(void);

#endif							/* MMR_LIFE_H */
