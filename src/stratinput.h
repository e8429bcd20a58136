/*-------------------------------------------------------------------------
 * stratinput.h
 *	  Strategies as users write them, and as they are stored.
 *
 * Floor 4.
 */
#ifndef MMR_STRATINPUT_H
#define MMR_STRATINPUT_H

/*
 * What is to be stored (see strategy.h).  Bucardo's names are taken where
 * they mean the same.  ERROR with a hint for anything else, and for dbs and
 * functions that do not exist here.  After mmr_config_begin.
 */
extern char *mmr_stratinput_read(const char *text);

/* Does the stored strategy need something on every db (a function)? */
extern bool mmr_stratinput_needs_check(const char *stored);

/* ERROR if a stored list of priorities names a db that is no source of the dbgroup. */
extern void mmr_stratinput_require_sources(const char *stored, const char *sync, const char *dbgroup);

/*
 * In all stored lists of priorities: what that node id stood for is `after` now,
 * at the same place; NULL: it is gone.  Where nobody is left the newest stands.
 */
extern void mmr_stratinput_replace(const char *before, const char *after);

#endif							/* MMR_STRATINPUT_H */
