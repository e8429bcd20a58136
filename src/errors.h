/*-------------------------------------------------------------------------
 * errors.h
 *	  mmrepl's own SQLSTATEs, class MR.
 *
 * A state is here only when another node or a program must tell it apart;
 * what the server already has a state for uses the server's.
 *
 * Floor 0.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_ERRORS_H
#define MMR_ERRORS_H

#include "utils/elog.h"

/* a batch does not start at the position stored here: ask again, start over */
#define ERRCODE_MMR_POSITION		MAKE_SQLSTATE('M','R','0','0','1')
/* a batch is ahead of the local clock by more than max_clock_skew: held */
#define ERRCODE_MMR_CLOCK_SKEW		MAKE_SQLSTATE('M','R','0','0','2')
/* the peer speaks another protocol version, or its library and SQL differ */
#define ERRCODE_MMR_PROTOCOL		MAKE_SQLSTATE('M','R','0','0','3')
/* a node is not who it should be (clone, restored backup, other database) */
#define ERRCODE_MMR_IDENTITY		MAKE_SQLSTATE('M','R','0','0','4')
/* mmrepl or this sync is stopped or paused at the peer */
#define ERRCODE_MMR_STOPPED			MAKE_SQLSTATE('M','R','0','0','5')
/* a table, column or type does not fit between sender and receiver */
#define ERRCODE_MMR_SCHEMA			MAKE_SQLSTATE('M','R','0','0','6')
/* bytes from the wire or the log that make no sense */
#define ERRCODE_MMR_CORRUPT			MAKE_SQLSTATE('M','R','0','0','7')
/* configurations differ: a newer one is there */
#define ERRCODE_MMR_CONFIG			MAKE_SQLSTATE('M','R','0','0','8')
/* the library is not in shared_preload_libraries */
#define ERRCODE_MMR_NOT_PRELOADED	MAKE_SQLSTATE('M','R','0','0','9')
/* a sync stops because of what it met at the receiver (a conflict under abort, a row under on_error): goes on when it is told to */
#define ERRCODE_MMR_HALTED			MAKE_SQLSTATE('M','R','0','1','0')
/* a db was away for too long: it has to be copied again */
#define ERRCODE_MMR_RESYNC			MAKE_SQLSTATE('M','R','0','1','1')

#endif							/* MMR_ERRORS_H */
