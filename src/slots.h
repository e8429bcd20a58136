/*-------------------------------------------------------------------------
 * slots.h
 *	  How many workers the configuration needs here, and whether the server
 *	  has room for them.
 *
 * Floor 4.
 */
#ifndef MMR_SLOTS_H
#define MMR_SLOTS_H

/* Pushers that the configuration in membership's cache asks for in this database. */
extern int	mmr_slots_pushers(void);

/* ERROR with a hint unless the server has room for these and what else mmrepl runs here. */
extern void mmr_slots_check(void);

#endif							/* MMR_SLOTS_H */
