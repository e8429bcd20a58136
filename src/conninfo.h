/*-------------------------------------------------------------------------
 * conninfo.h
 *	  Which connection strings are accepted.
 *
 * Floor 0.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_CONNINFO_H
#define MMR_CONNINFO_H

#include "libpq-fe.h"

/* Options that a conninfo may hold: no more than this. */
#define MMR_CONNINFO_MAX	40

/*
 * Parses and checks; the caller PQconninfoFrees.  ERROR (22023) with a hint
 * if it is malformed, has an option that is not allowed, or names no
 * database.  Nothing of its text is in the message.
 */
extern PQconninfoOption *mmr_conninfo_parse(const char *conninfo);

#endif							/* MMR_CONNINFO_H */
