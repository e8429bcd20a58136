/*-------------------------------------------------------------------------
 * ddl.h
 *	  What has to be done when a user's DDL concerns mmrepl.
 *
 * Floor 11.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_DDL_H
#define MMR_DDL_H

/* From _PG_init only. */
extern void mmr_ddl_init(void);

#endif							/* MMR_DDL_H */
