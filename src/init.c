/*-------------------------------------------------------------------------
 * init.c
 *	  What happens when the library is loaded.
 *
 * Floor 12.
 * Runs in the postmaster (shared_preload_libraries), or in a session that
 * calls one of our functions when the library was not preloaded: then there
 * are settings and functions, but no shared memory and no workers.
 *
 * Invariant: nothing here but calls of other modules' init functions.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "breaks.h"
#include "capture.h"
#include "ddl.h"
#include "guc.h"
#include "launcher.h"
#include "shared.h"
#include "wake.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
#ifdef MMR_BROKEN
	if (getenv("MMREPL_BROKEN") == NULL)
		ereport(FATAL,
				(errmsg("this mmrepl was built without one of its rules, for a test of the tests"),
				 errhint("Build it anew, without MMR_BREAK_*.")));
#endif
	mmr_guc_init();
	mmr_shared_init();
	mmr_wake_init();
	mmr_capture_init();
	mmr_ddl_init();
	mmr_launcher_init();
}
