/*-------------------------------------------------------------------------
 * mmrepl.h
 *	  Words everybody uses: names, limits, operation codes.  No prototypes.
 *
 * Floor 0.
 *-------------------------------------------------------------------------
 */
#ifndef MMREPL_H
#define MMREPL_H

#define MMR_SCHEMA				"mmrepl"
#define MMR_EXTENSION			"mmrepl"
#define MMR_LIBRARY				"mmrepl"

/* Version of what goes over the wire; peers with another one are refused. */
#define MMR_PROTOCOL_VERSION	1

/* Change log: a ring of this many segment tables mmrepl.log_0 .. log_N-1. */
#define MMR_SEGMENTS			16

/* What happened to a key. Stored in the log and sent: never renumber. */
typedef enum MmrOp
{
	MMR_OP_INSERT = 1,
	MMR_OP_UPDATE = 2,
	MMR_OP_DELETE = 3,
	MMR_OP_TRUNCATE = 4			/* no key: the whole table */
} MmrOp;

/* Role of a db in a sync. */
typedef enum MmrRole
{
	MMR_ROLE_NONE = 0,			/* not a member */
	MMR_ROLE_SOURCE = 1,		/* changed by its clients, and receives */
	MMR_ROLE_TARGET = 2			/* only receives */
} MmrRole;

/* Text of a shared-memory error or state message, with its terminator. */
#define MMR_MSGLEN				256

#endif							/* MMREPL_H */
