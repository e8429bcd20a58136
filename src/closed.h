/*-------------------------------------------------------------------------
 * closed.h
 *	  Clients write nothing to the tables of a sync that this database joins.
 *
 * Floor 6.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_CLOSED_H
#define MMR_CLOSED_H

#include "datatype/timestamp.h"

/*
 * Janitor, with membership as it is: drops triggers that keep nobody out any more, in transactions of its
 * own.  *next: not later than this, if some are left because their tables are in use.
 */
extern void mmr_closed_round(TimestampTz *next);

#endif							/* MMR_CLOSED_H */
