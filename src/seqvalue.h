/*-------------------------------------------------------------------------
 * seqvalue.h
 *	  What a sequence is, and what it has given out last.
 *
 * Floor 1.  Both need a transaction.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SEQVALUE_H
#define MMR_SEQVALUE_H

#include "catalog/pg_sequence.h"

/* As `SELECT last_value, is_called FROM sequence`. False if there is no such sequence. */
extern bool mmr_seqvalue_read(Oid relid, int64 *value, bool *is_called);

/* Its row in pg_sequence. False if there is no such sequence. */
extern bool mmr_seqvalue_form(Oid relid, FormData_pg_sequence *form);

#endif							/* MMR_SEQVALUE_H */
