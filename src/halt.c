/*-------------------------------------------------------------------------
 * halt.c
 *	  A sync stops by itself, on all its dbs, until somebody resumes it.
 *
 * Floor 6.
 * Reads and writes: sync, through the configuration's document.
 * Runs in: pushers, told by their peer (ERRCODE_MMR_HALTED), or by what they apply here (heir.h).
 *
 * Invariant: a sync has a reason only while it is paused.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "config.h"
#include "halt.h"
#include "membership.h"
#include "sqlrun.h"

void
mmr_halt_sync(int32 sync_id, int32 node_id, const char *message, int64 version)
{
	const char *args[2];
	MmrSync    *sync;
	MmrNode    *node;

	mmr_config_begin();
	sync = mmr_membership_sync(sync_id);
	node = mmr_membership_node(node_id);
	if (sync == NULL || node == NULL || sync->paused ||
		mmr_membership_config_version() != version)
		return;
	args[0] = psprintf("%d", sync_id);
	args[1] = psprintf("on db \"%s\": %s", node->name, message);
	mmr_sqlrun_exec("UPDATE mmrepl.sync SET paused = true, halted = $2 WHERE sync_id = $1::int4", 2, args);
	ereport(LOG,
			(errmsg("sync \"%s\" is halted: %s", sync->name, args[1]),
			 errhint("mmrepl.conflict_history on that db shows the rows. Remove the cause, then call mmrepl.resume().")));
	mmr_config_publish(NIL);
}
