/*-------------------------------------------------------------------------
 * bulk.h
 *	  New rows of one table, gathered and written together.
 *
 * Floor 5.  Between mmr_target_begin and mmr_target_end.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_BULK_H
#define MMR_BULK_H

#include "target.h"

typedef struct MmrBulk MmrBulk;

/* Told what has become of a row, in the order they were added; its slot is t->row then. */
typedef void (*MmrBulkDone) (void *arg, void *item, MmrWrite result);

/* For a target that is open, in its context; the rows of how many items may come. */
extern MmrBulk *mmr_bulk_create(MmrTarget *t, int most, MmrBulkDone done);

/* Can rows of this table wait?  Call it when t->ndefaults is known. */
extern bool mmr_bulk_allowed(MmrBulk *b);

/*
 * Takes t->row, whose values must stay where they are until it is written, and gives t
 * another slot.  size: about how large the row is.
 */
extern void mmr_bulk_add(MmrBulk *b, void *item, int size);

/* How many rows wait; are they enough? */
extern int	mmr_bulk_waiting(MmrBulk *b);
extern bool mmr_bulk_full(MmrBulk *b);

/* Writes those that wait. */
extern void mmr_bulk_write(MmrBulk *b, void *arg);

extern void mmr_bulk_end(MmrBulk *b);

#endif							/* MMR_BULK_H */
