/*-------------------------------------------------------------------------
 * guc.c
 *	  Defines every setting of mmrepl from one table.
 *
 * Floor 0.
 * Reads and writes nothing but the variables below.
 * Runs in every process that loads the library; mmr_guc_init from _PG_init.
 *
 * Invariant: nothing here can be changed by an ordinary user, because it all
 * changes what is replicated or when.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "guc.h"

int			mmr_guc_max_clock_skew;
int			mmr_guc_heartbeat_interval;
int			mmr_guc_batch_delay;
int			mmr_guc_connect_timeout;
int			mmr_guc_restart_delay;
int			mmr_guc_lock_timeout;
int			mmr_guc_segment_size;
int			mmr_guc_capture_buffer;
int			mmr_guc_frame_size;
int			mmr_guc_max_log_size;
int			mmr_guc_conflict_history_minutes;
int			mmr_guc_max_apply_errors;
int			mmr_guc_max_databases;
int			mmr_guc_max_workers;

typedef struct GucInt
{
	const char *name;
	const char *short_desc;
	const char *long_desc;
	int		   *variable;
	int			boot;
	int			min;
	int			max;
	GucContext	context;
	int			flags;
} GucInt;

static const GucInt guc_ints[] =
{
	{
		"mmrepl.max_clock_skew",
		"Longest time that the clock of another db may be ahead of this one.",
		"Changes that come from further ahead are held and reported until time has caught up.",
		&mmr_guc_max_clock_skew, 60 * 1000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS
	},
	{
		"mmrepl.heartbeat_interval",
		"Time after which an idle pusher looks at its peer again.",
		"Changes themselves are sent at once; this bounds how late a dead peer is noticed.",
		&mmr_guc_heartbeat_interval, 1000, 10, 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS
	},
	{
		"mmrepl.batch_delay",
		"Time from one batch to the next while many small transactions commit.",
		"Nothing waits for it that comes when little else does. 0 sends at once, whatever that costs.",
		&mmr_guc_batch_delay, 5, 0, 1000, PGC_SIGHUP, GUC_UNIT_MS
	},
	{
		"mmrepl.connect_timeout",
		"Longest time that connecting to another db may take.",
		NULL,
		&mmr_guc_connect_timeout, 10, 1, 3600, PGC_SIGHUP, GUC_UNIT_S
	},
	{
		"mmrepl.restart_delay",
		"Time after which a worker that failed is started again.",
		"Doubles with each failure in a row, up to ten times this.",
		&mmr_guc_restart_delay, 5000, 10, 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS
	},
	{
		"mmrepl.lock_timeout",
		"Longest time that applying waits for one lock before it gives way and tries again.",
		"0 waits without limit.",
		&mmr_guc_lock_timeout, 5000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS
	},
	{
		"mmrepl.segment_size",
		"Size at which the change log goes on in its next segment.",
		NULL,
		&mmr_guc_segment_size, 16 * 1024, 8, 1024 * 1024, PGC_SIGHUP, GUC_UNIT_KB
	},
	{
		"mmrepl.capture_buffer",
		"Memory in which a session gathers changes before they go to the change log.",
		NULL,
		&mmr_guc_capture_buffer, 64, 8, 1024 * 1024, PGC_SIGHUP, GUC_UNIT_KB
	},
	{
		"mmrepl.frame_size",
		"Size at which a part of a batch is sent to the peer.",
		NULL,
		&mmr_guc_frame_size, 256, 8, 64 * 1024, PGC_SIGHUP, GUC_UNIT_KB
	},
	{
		"mmrepl.max_log_size",
		"Size of the change log above which a peer that is away is given up.",
		"Such a peer has to be copied again. 0 keeps what it needs without limit.",
		&mmr_guc_max_log_size, 0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB
	},
	{
		"mmrepl.conflict_history_retention",
		"Time for which settled conflicts are kept in conflict_history.",
		"0 keeps them for ever.",
		&mmr_guc_conflict_history_minutes, 30 * 24 * 60, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MIN
	},
	{
		"mmrepl.max_apply_errors",
		"Number of rows of a sync that may stand aside because they cannot be applied.",
		"Where more cannot be applied the sync waits until something is done about it. 0 sets no limit.",
		&mmr_guc_max_apply_errors, 10000, 0, INT_MAX, PGC_SIGHUP, 0
	},
	{
		"mmrepl.max_databases",
		"Number of databases of this server that can have mmrepl.",
		NULL,
		&mmr_guc_max_databases, 64, 1, 10000, PGC_POSTMASTER, 0
	},
	{
		"mmrepl.max_workers",
		"Number of workers and receiving sessions that mmrepl can keep track of.",
		"One for the server, one per database, and per sync and peer one that sends and one that receives.",
		&mmr_guc_max_workers, 128, 4, 10000, PGC_POSTMASTER, 0
	},
};

void
mmr_guc_init(void)
{
	for (int i = 0; i < (int) lengthof(guc_ints); i++)
	{
		const GucInt *g = &guc_ints[i];

		/* Loaded by a session: too late for what sizes shared memory. */
		if (g->context == PGC_POSTMASTER &&
			!process_shared_preload_libraries_in_progress)
		{
			*g->variable = g->boot;
			continue;
		}

		DefineCustomIntVariable(g->name, g->short_desc, g->long_desc,
								g->variable, g->boot, g->min, g->max,
								g->context, g->flags, NULL, NULL, NULL);
	}

	/* From here on a misspelt mmrepl.something is an error. */
	MarkGUCPrefixReserved("mmrepl");
}
