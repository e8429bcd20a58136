/*-------------------------------------------------------------------------
 * joining.h
 *	  Who is to come into a dbgroup whose syncs run: what it is to get.
 *
 * Floor 6.  After mmr_config_begin, before mmr_config_publish.
 */
#ifndef MMR_JOINING_H
#define MMR_JOINING_H

/*
 * For the dbs that this call puts into the group: kind of initial copy, as
 * onetimecopy (-1: copy, and ERROR unless their tables are empty), and the db
 * that gives it, NULL for the one that has been a source for longest.
 */
extern void mmr_joining_settle(const char *dbgroup, int onetimecopy, const char *copy_from);

#endif							/* MMR_JOINING_H */
