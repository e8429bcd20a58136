/*-------------------------------------------------------------------------
 * rowerror.c
 *	  Whose fault an error is.
 *
 * Floor 1.  Reads and writes nothing.  Runs in apply backends (may this item
 * be set aside?) and pushers (is the batch worth sending again with care?).
 *
 * What user code raises can be anything, so the list is of what is not a
 * row's fault: whatever the server itself raises because of other sessions,
 * of a lack of something, of an order to stop, or because storage is broken.
 * Of those the whole batch is tried again, and nothing is set aside.
 *
 * Invariant: what passes by itself never sets a row aside.  (The other way
 * round, a row that holds up its batch, is a nuisance; a row set aside without need
 * comes back by itself, but others would see a state that never was.)
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "errors.h"
#include "rowerror.h"

#define CLASS(a, b)		MAKE_SQLSTATE(a, b, '0', '0', '0')

bool
mmr_rowerror_is(int sqlstate)
{
	switch (sqlstate)
	{
		case ERRCODE_LOCK_NOT_AVAILABLE:
		case ERRCODE_OBJECT_IN_USE:
		case ERRCODE_DATA_CORRUPTED:
		case ERRCODE_INDEX_CORRUPTED:
			return false;
			/* what comes does not fit the table, or cannot be read */
		case ERRCODE_MMR_SCHEMA:
		case ERRCODE_MMR_CORRUPT:
			return true;
		default:
			break;
	}
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case CLASS('0', '8'):	/* connection */
		case CLASS('2', '5'):	/* transaction state: read only, timeouts */
		case CLASS('2', '8'):	/* authorization */
		case CLASS('4', '0'):	/* deadlock, serialization */
		case CLASS('5', '3'):	/* memory, disk, connections */
		case CLASS('5', '7'):	/* cancel, shutdown */
		case CLASS('5', '8'):	/* I/O */
		case CLASS('7', '2'):	/* snapshot too old */
		case CLASS('F', '0'):	/* configuration file */
		case CLASS('M', 'R'):	/* mmrepl's own */
			return false;
		default:
			return true;
	}
}
