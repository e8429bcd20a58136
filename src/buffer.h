/*-------------------------------------------------------------------------
 * buffer.h
 *	  Captured changes of the transaction under way, before they go to the log.
 *
 * Floor 3.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_BUFFER_H
#define MMR_BUFFER_H

#include "changelog.h"

/*
 * Puts a change of the current subtransaction in; writes to the log when
 * enough has gathered.  Of several changes of a key in a row the newest stays.
 * Key bytes are copied. The change's dot is not looked at.
 */
extern void mmr_buffer_add(int32 node, const MmrChange *change);

/* Writes everything to the log: before commit or prepare. */
extern void mmr_buffer_flush(void);

/* A subtransaction is about to commit: writes to the log if its parent would have gathered too much then. */
extern void mmr_buffer_precommit_sub(SubTransactionId sub, SubTransactionId parent);

/* A subtransaction ends: what it changed becomes its parent's, or nothing. */
extern void mmr_buffer_subcommit(SubTransactionId sub, SubTransactionId parent);
extern void mmr_buffer_subabort(SubTransactionId sub);

/* The transaction is over. Returns how many changes it had captured. */
extern int64 mmr_buffer_end(void);

/* The node in whose name the transaction captures, given with its first change; 0 if it has none yet. */
extern int32 mmr_buffer_node(void);

#endif							/* MMR_BUFFER_H */
