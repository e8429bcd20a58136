/*-------------------------------------------------------------------------
 * purge.c
 *	  Rotation of the change log, and TRUNCATE of segments whose every entry
 *	  is stable (P1, P2).
 *
 * Floor 10.  Reads mmrepl.log_N and what stability reads; empties log_N; has
 * indexes built of what cannot be emptied (segbuild.c); deletes from mmrepl.conflict_log.  Runs in the janitor, of which a
 * database has one: nobody else changes current_segment.
 *
 * A segment goes through this: it is current; it is closed, by making an empty
 * one current; it is sealed, when its ACCESS EXCLUSIVE lock could be had once:
 * whoever appends holds a lock on it to the end of his transaction, and
 * whoever locks it later sees that it is not the current one and goes
 * elsewhere (append_open in changelog.c).  From then on its contents are what
 * they are, every transaction in it being over, and can be looked at page by
 * page without a lock that keeps anybody out.  When all is stable it is
 * truncated, under the same lock again, for the readers' sake.
 *
 * A sealed segment that waits and waits, because a peer is away, gets an index,
 * so that the sessions need not keep what is in it in memory.  While everybody
 * is there none is ever built.
 *
 * No lock is ever waited for: a queue would form behind us.  Readers with an
 * older snapshot find the segment empty: what was in it can no longer matter
 * to them, that is what stable means.
 *
 * Invariant: segment_used is 0 only of a segment that is empty.  It is set to 0
 * under the lock, when it was found empty, or after the TRUNCATE has
 * committed and while it is still not current; writers set it to 1 under
 * their lock.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "capture.h"
#include "catalog.h"
#include "changelog.h"
#include "clock.h"
#include "compat.h"
#include "guc.h"
#include "membership.h"
#include "position.h"
#include "progress.h"
#include "purge.h"
#include "resync.h"
#include "segbuild.h"
#include "segindex.h"
#include "shared.h"
#include "sqlrun.h"
#include "stability.h"
#include "worker.h"

/*
 * The current segment is closed before it is full when the log has been quiet
 * for QUIET heartbeats and all is stable, or when most of it is, but never
 * twice within SPACING heartbeats (and MAX_SPACING ms): a TRUNCATE costs some
 * files and catalog rows.
 */
#define PURGE_QUIET			2
#define PURGE_SPACING		10
#define PURGE_MAX_SPACING	30000

/*
 * A segment of which nothing has become stable for so many heartbeats (and at
 * most MAX_INDEX_WAIT ms) waits for somebody who is away; so do those behind it.
 */
#define PURGE_INDEX_WAIT	15
#define PURGE_MAX_INDEX_WAIT 15000

/* Conflict history goes in transactions of so many rows. */
#define PURGE_HISTORY_ROWS	"10000"

/* What this janitor knows of a segment. */
typedef struct Segment
{
	bool		sealed;			/* nothing is appended any more: holds until it is current again */
	Oid			filenode;		/* of which the following is known: VACUUM FULL moves runs about */
	BlockNumber stable;			/* pages before this one were found stable; of a sealed segment: are */
	BlockNumber pages;
	MmrHold		hold;			/* who is waited for */
	TimestampTz moved_at;		/* when last something of it was found stable, or it was sealed */
	bool		indexed;		/* it has an index */
} Segment;

static Segment segments[MMR_SEGMENTS];

static struct
{
	uint64		changes;
	uint64		applied;
	TimestampTz moved_at;		/* when those last moved, as seen in a round */
	TimestampTz rotated_at;
	bool		warned;			/* of max_log_size */
	bool		over;			/* it is larger than that now */
}			log_state;

static Oid
segment_relid(int segment)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "log_%d", segment);
	return mmr_catalog_table(name);
}

/* Is everything stable that lies on the page?  Runs of transactions under way are not. */
static bool
page_is_stable(Relation rel, BlockNumber block, Snapshot snapshot, const MmrPosition *pos,
			   MmrStability *st, MmrHold *hold)
{
	static PGAlignedBlock copy;
	OffsetNumber visible[MaxHeapTuplesPerPage];
	int			n = 0;
	bool		decided = true;
	Buffer		buffer = ReadBuffer(rel, block);
	Page		page = BufferGetPage(buffer);

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	for (OffsetNumber off = FirstOffsetNumber; off <= PageGetMaxOffsetNumber(page); off++)
	{
		ItemId		item = PageGetItemId(page, off);
		HeapTupleData tuple;
		uint64		xid;

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(rel);
		ItemPointerSet(&tuple.t_self, block, off);
		if (HeapTupleSatisfiesVisibility(&tuple, snapshot, buffer))
			visible[n++] = off;
		else
		{
			/* first column, fixed and not null: right behind the header */
			memcpy(&xid, (char *) tuple.t_data + tuple.t_data->t_hoff, sizeof(xid));
			decided &= mmr_position_covers(pos, xid);
		}
	}
	memcpy(copy.data, page, BLCKSZ);
	UnlockReleaseBuffer(buffer);

	hold->sync_id = hold->node_id = 0;
	for (int i = 0; decided && i < n; i++)
	{
		ItemId		item = PageGetItemId((Page) copy.data, visible[i]);
		HeapTupleData tuple;
		Datum		values[2];
		bool		nulls[2];
		struct varlena *v;

		tuple.t_data = (HeapTupleHeader) PageGetItem((Page) copy.data, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(rel);
		heap_deform_tuple(&tuple, RelationGetDescr(rel), values, nulls);
		v = PG_DETOAST_DATUM_PACKED(values[1]);
		decided = mmr_stability_of_run(st, DatumGetUInt64(values[0]), VARDATA_ANY(v),
									   VARSIZE_ANY_EXHDR(v), hold);
		if ((Pointer) v != DatumGetPointer(values[1]))
			pfree(v);
	}
	return decided;
}

/* Looks on where it stopped the last time.  Counts the pages, and those found stable. */
static void
segment_scan(int segment, MmrStability *st)
{
	Segment    *seg = &segments[segment];
	Relation	rel = mmr_changelog_open_segment(segment, AccessShareLock);
	MmrPosition *pos;
	BlockNumber before;

	if (rel == NULL)
		return;
	/* after the seal, or runs of a transaction that has just ended might be invisible */
	PushActiveSnapshot(GetLatestSnapshot());
	pos = mmr_position_active();
	seg->pages = RelationGetNumberOfBlocks(rel);
	if (seg->filenode != mmr_filenode(rel))
	{
		seg->stable = 0;
		seg->indexed = mmr_segindex_exists(segment) && mmr_segbuild_done(segment, rel);
	}
	seg->filenode = mmr_filenode(rel);
	seg->stable = Min(seg->stable, seg->pages);
	seg->hold.sync_id = 0;
	before = seg->stable;
	while (seg->stable < seg->pages &&
		   page_is_stable(rel, seg->stable, GetActiveSnapshot(), pos, st, &seg->hold))
	{
		seg->stable++;
		CHECK_FOR_INTERRUPTS();
	}
	if (seg->stable != before || seg->moved_at == 0)
		seg->moved_at = GetCurrentTimestamp();
	PopActiveSnapshot();
	table_close(rel, AccessShareLock);
}

/*
 * Learns what can be learned of a segment while nobody has a lock on it that
 * would keep us out: it is empty, or (if it is closed) sealed.
 */
static void
segment_seal(MmrDatabase *db, int segment, bool closed)
{
	Oid			relid = segment_relid(segment);
	Relation	rel;

	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
		return;
	rel = try_table_open(relid, NoLock);
	if (rel != NULL)
	{
		segments[segment].sealed = closed;
		segments[segment].stable = 0;
		segments[segment].moved_at = 0;
		segments[segment].pages = RelationGetNumberOfBlocks(rel);
		if (segments[segment].pages == 0)
			pg_atomic_write_u32(&db->segment_used[segment], 0);
		table_close(rel, NoLock);
	}
	UnlockRelationOid(relid, AccessExclusiveLock);
}

static bool
segment_is_empty(int segment)
{
	Relation	rel = mmr_changelog_open_segment(segment, AccessShareLock);
	bool		empty;

	if (rel == NULL)
		return false;
	empty = RelationGetNumberOfBlocks(rel) == 0;
	table_close(rel, AccessShareLock);
	return empty;
}

/* Truncates a sealed segment that is stable, in a transaction of its own. */
static void
segment_truncate(MmrDatabase *db, int segment)
{
	Oid			relid;
	Relation	rel;
	bool		done = false;

	mmr_worker_start_transaction("emptying a segment of the change log");
	if (!mmr_catalog_hold())
	{
		mmr_worker_commit_transaction();
		return;
	}
	/* K2: what leaves the log must not be forgotten by the clock */
	mmr_capture_prepare_clock();
	relid = segment_relid(segment);
	if (ConditionalLockRelationOid(relid, AccessExclusiveLock))
	{
		rel = try_table_open(relid, NoLock);
		if (rel != NULL && segments[segment].filenode == mmr_filenode(rel) &&
			(!OidIsValid(rel->rd_rel->reltoastrelid) ||
			 ConditionalLockRelationOid(rel->rd_rel->reltoastrelid, AccessExclusiveLock)) &&
			mmr_segbuild_clear(segment) &&
			mmr_progress_note_ts(mmr_clock_last()))
		{
			mmr_truncate_guts(list_make1(rel), list_make1_oid(relid));
			done = true;
		}
		if (rel != NULL)
			table_close(rel, NoLock);
	}
	mmr_worker_commit_transaction();
	if (done)
	{
		/* it is not current, and will not be before we say so: nobody appends */
		pg_atomic_write_u32(&db->segment_used[segment], 0);
		pg_atomic_write_u32(&db->segment_indexed[segment], 0);
		memset(&segments[segment], 0, sizeof(Segment));
	}
}

/*
 * After a restart the current segment is one that may have an index: what is
 * appended now is not in it, and nobody uses it.  It has to go before
 * the segment is closed, or it would be taken for whole.
 */
static void
segment_drop_index(MmrDatabase *db, int segment)
{
	bool		done = false;

	mmr_worker_start_transaction("emptying an index of the change log");
	if (mmr_catalog_hold())
		done = mmr_segbuild_clear(segment);
	mmr_worker_commit_transaction();
	if (done)
		pg_atomic_write_u32(&db->segment_indexed[segment], 0);
}

/* Has the index of a sealed segment built, in a transaction of its own; false: not now. */
static bool
segment_build_index(MmrDatabase *db, int segment)
{
	Segment    *seg = &segments[segment];
	Relation	rel;
	bool		done = false;

	mmr_worker_start_transaction("building an index of the change log");
	if (mmr_catalog_hold())
	{
		mmr_membership_refresh();
		rel = mmr_changelog_open_segment(segment, AccessShareLock);
		if (rel != NULL)
		{
			/* nothing moves its runs about, or empties it, before we are through */
			done = seg->filenode == mmr_filenode(rel) && mmr_segbuild_run(segment, rel);
			table_close(rel, NoLock);
		}
	}
	/* before anybody can see it */
	if (done)
		pg_atomic_write_u32(&db->segment_indexed[segment], 1);
	mmr_worker_commit_transaction();
	seg->indexed = done;
	return done;
}

/* Which sealed segment is to have an index now?  -1: none. */
static int
index_is_due(TimestampTz now)
{
	int			wait = Min((int64) PURGE_INDEX_WAIT * mmr_guc_heartbeat_interval, PURGE_MAX_INDEX_WAIT);
	bool		stuck = false;
	int			largest = -1;

	for (int i = 0; i < MMR_SEGMENTS; i++)
	{
		Segment    *seg = &segments[i];

		if (!seg->sealed || seg->pages == 0 || seg->stable == seg->pages)
			continue;
		stuck |= TimestampDifferenceExceeds(seg->moved_at, now, wait);
		/* what is small may as well stay in memory: those that wait are closed when they are full */
		if (!seg->indexed && (uint64) seg->pages * (BLCKSZ / 1024) * 4 >= (uint64) mmr_guc_segment_size &&
			(largest < 0 || seg->pages > segments[largest].pages))
			largest = i;
	}
	return stuck ? largest : -1;
}

/* Is it time to close the current segment? */
static bool
rotation_is_due(MmrDatabase *db, const Segment *seg, TimestampTz now)
{
	int			spacing = Min((int64) PURGE_SPACING * mmr_guc_heartbeat_interval, PURGE_MAX_SPACING);
	int			quiet = Min((int64) PURGE_QUIET * mmr_guc_heartbeat_interval, PURGE_MAX_SPACING);

	if (seg->pages == 0)
		return false;
	if ((uint64) seg->pages * (BLCKSZ / 1024) >= (uint64) mmr_guc_segment_size)
		return true;
	if (!TimestampDifferenceExceeds(log_state.rotated_at, now, spacing))
		return false;
	/* what most of is stable will soon be so as a whole; what waits for a peer stays together */
	if (seg->stable == seg->pages)
		return TimestampDifferenceExceeds(log_state.moved_at, now, quiet) ||
			seg->pages >= (uint64) mmr_guc_segment_size / (BLCKSZ / 1024) / 16;
	return seg->pages >= 4 && seg->stable >= seg->pages - seg->pages / 4;
}

/* Makes an empty segment the current one, if there is one; the segment closed, or -1. */
static int
rotate(MmrDatabase *db, TimestampTz now)
{
	int			current = pg_atomic_read_u32(&db->current_segment) % MMR_SEGMENTS;

	for (int i = 1; i < MMR_SEGMENTS; i++)
	{
		int			next = (current + i) % MMR_SEGMENTS;

		if (pg_atomic_read_u32(&db->segment_used[next]) != 0)
			continue;
		memset(&segments[next], 0, sizeof(Segment));
		memset(&segments[current], 0, sizeof(Segment));
		pg_atomic_write_u32(&db->current_segment, next);
		pg_memory_barrier();
		log_state.rotated_at = now;
		return current;
	}
	return -1;
}

/* Once, when the log has outgrown mmrepl.max_log_size: names those it is kept for. */
static void
warn_of_size(void)
{
	uint64		kb = 0;
	StringInfoData names;

	for (int i = 0; i < MMR_SEGMENTS; i++)
		kb += (uint64) segments[i].pages * (BLCKSZ / 1024);
	if (mmr_guc_max_log_size == 0 || kb <= (uint64) mmr_guc_max_log_size * 1024)
	{
		log_state.warned = log_state.over = false;
		return;
	}
	log_state.over = true;
	if (log_state.warned)
		return;
	initStringInfo(&names);
	for (int i = 0; i < MMR_SEGMENTS; i++)
	{
		MmrHold    *hold = &segments[i].hold;
		MmrSync    *sync = hold->sync_id != 0 ? mmr_membership_sync(hold->sync_id) : NULL;
		MmrNode    *node = hold->sync_id != 0 ? mmr_membership_node(hold->node_id) : NULL;
		bool		named = sync == NULL || node == NULL;

		for (int j = 0; j < i && !named; j++)
			named = memcmp(&segments[j].hold, hold, sizeof(MmrHold)) == 0;
		if (!named)
			appendStringInfo(&names, "%sdb \"%s\" of sync \"%s\"", names.len > 0 ? ", " : "",
							 node->name, sync->name);
	}
	log_state.warned = true;
	ereport(LOG,
			(errmsg("the change log has grown to %llu MB", (unsigned long long) kb / 1024),
			 names.len > 0 ?
			 errdetail("It is kept for %s.", names.data) :
			 errdetail("It is kept because of transactions that are still open, or prepared."),
			 errhint("One that is away is given up; for the others it is kept until they have everything: see the views status and change_log.")));
	pfree(names.data);
}

/* Looks at a segment; true if it can be truncated. */
static bool
inspect(MmrDatabase *db, int segment, bool closed, MmrStability *st)
{
	Segment    *seg = &segments[segment];

	if (!seg->sealed && (closed || segment_is_empty(segment)))
		segment_seal(db, segment, closed);
	if (pg_atomic_read_u32(&db->segment_used[segment]) == 0)
		return false;
	segment_scan(segment, st);
	return seg->sealed && seg->stable == seg->pages;
}

/* Looks at all segments and closes the current one if it is time; fills in those to be truncated, and how many. */
static int
survey(MmrDatabase *db, int *ripe)
{
	int			n = 0;
	int			current = pg_atomic_read_u32(&db->current_segment) % MMR_SEGMENTS;
	TimestampTz now = GetCurrentTimestamp();
	uint64		changes = pg_atomic_read_u64(&db->changes);
	uint64		applied = pg_atomic_read_u64(&db->applied);
	MmrStability *st;

	if (changes != log_state.changes || applied != log_state.applied || log_state.moved_at == 0)
		log_state.moved_at = now;
	log_state.changes = changes;
	log_state.applied = applied;

	mmr_membership_refresh();
	st = mmr_stability_load();
	for (int i = 0; i < MMR_SEGMENTS; i++)
	{
		if (pg_atomic_read_u32(&db->segment_used[i]) == 0)
		{
			memset(&segments[i], 0, sizeof(Segment));
			/* of a segment that somebody has emptied by hand */
			if (mmr_segindex_exists(i) && mmr_segbuild_clear(i))
				pg_atomic_write_u32(&db->segment_indexed[i], 0);
		}
		else if (inspect(db, i, i != current, st))
			ripe[n++] = i;
	}
	if (pg_atomic_read_u32(&db->segment_indexed[current]) == 0 &&
		rotation_is_due(db, &segments[current], now))
	{
		int			closed = rotate(db, now);

		if (closed >= 0 && inspect(db, closed, true, st))
			ripe[n++] = closed;
	}
	/* what was written to a member that has just come was not looked at as such */
	if (!mmr_membership_is_current())
	{
		for (int i = 0; i < MMR_SEGMENTS; i++)
			segments[i].stable = 0;
		n = 0;
	}
	warn_of_size();
	return n;
}

static bool
log_is_used(MmrDatabase *db)
{
	for (int i = 0; i < MMR_SEGMENTS; i++)
		if (pg_atomic_read_u32(&db->segment_used[i]) != 0)
			return true;
	return false;
}

/* P3: those for whom too much is kept. */
static void
give_up(void)
{
	for (int i = 0; i < MMR_SEGMENTS && log_state.over; i++)
	{
		MmrHold		hold = segments[i].hold;

		/* what is held now will be looked at again before anybody else is given up */
		if (hold.sync_id != 0 && mmr_resync_give_up(hold.sync_id, hold.node_id))
			return;
	}
}

bool
mmr_purge_round(void)
{
	MmrDatabase *db = mmr_shared_database();
	int			ripe[MMR_SEGMENTS];
	int			n = 0;
	int			due;
	int			current;

	/* nothing is in the log: an idle database costs no transaction */
	if (db == NULL || !log_is_used(db))
		return false;
	current = pg_atomic_read_u32(&db->current_segment) % MMR_SEGMENTS;
	if (pg_atomic_read_u32(&db->segment_indexed[current]) != 0)
		segment_drop_index(db, current);
	mmr_worker_start_transaction("looking at the change log");
	if (mmr_catalog_hold())
		n = survey(db, ripe);
	mmr_worker_commit_transaction();
	for (int i = 0; i < n; i++)
		segment_truncate(db, ripe[i]);
	give_up();
	while ((due = index_is_due(GetCurrentTimestamp())) >= 0 &&
		   pg_atomic_read_u32(&mmr_shared_my_worker->leave) == 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (!segment_build_index(db, due))
			break;
	}
	return log_is_used(db);
}

void
mmr_purge_history(void)
{
	uint64		gone;

	if (mmr_guc_conflict_history_minutes == 0)
		return;
	do
	{
		gone = 0;
		mmr_worker_start_transaction("removing old conflicts from the history");
		if (mmr_catalog_hold())
		{
			char	   *minutes = psprintf("%d", mmr_guc_conflict_history_minutes);
			const char *args[1] = {minutes};

			gone = mmr_sqlrun_exec("DELETE FROM mmrepl.conflict_log WHERE id IN ("
								   "SELECT id FROM mmrepl.conflict_log"
								   " WHERE at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(mins => $1::int4)"
								   " ORDER BY at LIMIT " PURGE_HISTORY_ROWS ")", 1, args);
		}
		mmr_worker_commit_transaction();
		CHECK_FOR_INTERRUPTS();
	} while (gone > 0);
}
