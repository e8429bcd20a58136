/*-------------------------------------------------------------------------
 * guc.h
 *	  Settings of the server.  Settings of a sync live in the catalog.
 *
 * Floor 0.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_GUC_H
#define MMR_GUC_H

extern int	mmr_guc_max_clock_skew;		/* ms: batches further ahead are held (SIGHUP) */
extern int	mmr_guc_heartbeat_interval; /* ms: an idle pusher looks again, contexts are sent at most that often (SIGHUP) */
extern int	mmr_guc_batch_delay;		/* ms: while many transactions commit, from batch to batch (SIGHUP) */
extern int	mmr_guc_connect_timeout;	/* s (SIGHUP) */
extern int	mmr_guc_restart_delay;		/* ms: a worker that failed waits so long, doubling up to ten times this (SIGHUP) */
extern int	mmr_guc_lock_timeout;		/* ms: apply waits no longer for one lock (SIGHUP) */
extern int	mmr_guc_segment_size;		/* kB: the log goes on in the next segment (SIGHUP) */
extern int	mmr_guc_capture_buffer;		/* kB: changes gathered in a backend before they go to the log (SIGHUP) */
extern int	mmr_guc_frame_size;			/* kB: size at which a frame of a batch is sent (SIGHUP) */
extern int	mmr_guc_max_log_size;		/* MB, 0: no limit (SIGHUP) */
extern int	mmr_guc_conflict_history_minutes;	/* mmrepl.conflict_history_retention, 0: for ever (SIGHUP) */
extern int	mmr_guc_max_apply_errors;
extern int	mmr_guc_max_databases;		/* postmaster */
extern int	mmr_guc_max_workers;		/* postmaster: slots, apply backends included */

/* From _PG_init only. */
extern void mmr_guc_init(void);

#endif							/* MMR_GUC_H */
