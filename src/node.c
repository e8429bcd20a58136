/*-------------------------------------------------------------------------
 * node.c
 *	  Who this database is (M3), and whether that is still true.
 *
 * Floor 3.
 * Reads: mmrepl.local_node.  Writes: its identity, by mmr_node_confirm only.
 * Runs in: workers at their start, backends that receive or configure.
 *
 * Invariant: positions that peers keep mean something only in the life in
 * which they were taken.  System identifier and database oid tell a copy
 * (CREATE DATABASE ... TEMPLATE, another cluster); the timeline tells a
 * promoted standby and a restored backup.  Crash recovery keeps the timeline.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/indexing.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "errors.h"
#include "mmrepl.h"
#include "node.h"

typedef struct NodeIdentity
{
	int64		sysid;
	Oid			dboid;
	int32		timeline;
	char	   *refused;		/* why it does not take part any more (life.h); NULL: it does */
} NodeIdentity;

PG_FUNCTION_INFO_V1(mmrepl_node_identity);

static void node_kept(NodeIdentity *kept, bool take, int32 timeline);
static AttrNumber node_attnum(Relation rel, const char *name);
static void node_raise_copy(const NodeIdentity *kept, const NodeIdentity *now) pg_attribute_noreturn();

void
mmr_node_identity(int64 *sysid, Oid *dboid, int32 *timeline)
{
	TimeLineID	tli;

	if (RecoveryInProgress())
		(void) GetXLogReplayRecPtr(&tli);
	else
		tli = GetWALInsertionTimeLine();
	*sysid = (int64) GetSystemIdentifier();
	*dboid = MyDatabaseId;
	*timeline = (int32) tli;
}

/* Who this is, and who it was; ERROR if that is another database. */
static void
node_compare(NodeIdentity *now, NodeIdentity *kept)
{
	mmr_node_identity(&now->sysid, &now->dboid, &now->timeline);
	node_kept(kept, false, 0);
	if (now->sysid != kept->sysid || now->dboid != kept->dboid)
		node_raise_copy(kept, now);
}

void
mmr_node_check_place(void)
{
	NodeIdentity now;
	NodeIdentity kept;

	node_compare(&now, &kept);
}

void
mmr_node_confirm(void)
{
	NodeIdentity now;
	NodeIdentity kept;

	mmr_node_identity(&now.sysid, &now.dboid, &now.timeline);
	node_kept(&kept, true, now.timeline);
}

void
mmr_node_check(void)
{
	NodeIdentity now;
	NodeIdentity kept;

	node_compare(&now, &kept);
	if (kept.refused != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("database \"%s\" does not take part any more: %s",
						get_database_name(MyDatabaseId), kept.refused),
				 errdetail("It is a copy, or was put back to an earlier state, or another server has taken its place. Nothing is sent and nothing is taken."),
				 errhint(MMR_LOST_HINT " If it is a copy: DROP EXTENSION mmrepl in it. If what was in the way is gone: call mmrepl.confirm_identity().")));
	if (now.timeline != kept.timeline)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("database \"%s\" is on timeline %d, but replication was set up or confirmed on timeline %d",
						get_database_name(MyDatabaseId), now.timeline, kept.timeline),
				 errdetail("A standby was promoted, or a backup was restored. What was committed last before that may be missing here while other dbs have it."),
				 errhint("If nothing was lost (the standby had received everything), call mmrepl.confirm_identity() here: it asks the others whether that is so. Otherwise call mmrepl.rejoin(): this db then gets a copy of everything, and keeps what only it has.")));
}

/*
 * Reads the row of local_node; take: writes the timeline into it, and takes the mark away.  Columns
 * are found by name: later versions may have more.
 */
static void
node_kept(NodeIdentity *kept, bool take, int32 timeline)
{
	Relation	rel = table_open(mmr_catalog_table("local_node"),
								 take ? RowExclusiveLock : AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple = systable_getnext(scan);
	AttrNumber	tli_att = node_attnum(rel, "timeline");
	TupleDesc	desc = RelationGetDescr(rel);
	Datum		refused;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_MMR_IDENTITY),
				 errmsg("%s.local_node is empty", MMR_SCHEMA),
				 errhint("Drop the extension and create it again.")));
	kept->sysid = DatumGetInt64(heap_getattr(tuple, node_attnum(rel, "system_identifier"), desc, &isnull));
	kept->dboid = DatumGetObjectId(heap_getattr(tuple, node_attnum(rel, "database_oid"), desc, &isnull));
	kept->timeline = DatumGetInt32(heap_getattr(tuple, tli_att, desc, &isnull));
	refused = heap_getattr(tuple, node_attnum(rel, "refused"), desc, &isnull);
	kept->refused = isnull ? NULL : TextDatumGetCString(refused);
	if (take && (kept->timeline != timeline || kept->refused != NULL))
	{
		Datum		values[2] = {Int32GetDatum(timeline), (Datum) 0};
		bool		nulls[2] = {false, true};
		int			atts[2] = {tli_att, node_attnum(rel, "refused")};
		HeapTuple	changed = heap_modify_tuple_by_cols(tuple, desc, 2, atts, values, nulls);

		CatalogTupleUpdate(rel, &tuple->t_self, changed);
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
}

static AttrNumber
node_attnum(Relation rel, const char *name)
{
	AttrNumber	att = get_attnum(RelationGetRelid(rel), name);

	if (att == InvalidAttrNumber)
		elog(ERROR, "column %s.%s.%s is missing", MMR_SCHEMA,
			 RelationGetRelationName(rel), name);
	return att;
}

static void
node_raise_copy(const NodeIdentity *kept, const NodeIdentity *now)
{
	bool		cluster = (kept->sysid != now->sysid);

	ereport(ERROR,
			(errcode(ERRCODE_MMR_IDENTITY),
			 errmsg("database \"%s\" is a copy of the one for which replication was set up",
					get_database_name(MyDatabaseId)),
			 cluster ?
			 errdetail("The server's system identifier is %llu, and was %llu.",
					   (unsigned long long) now->sysid, (unsigned long long) kept->sysid) :
			 errdetail("The database's oid is %u, and was %u.", now->dboid, kept->dboid),
			 errhint("To use the copy by itself, DROP EXTENSION %s in it. To let it take part, do that, then add it with mmrepl.add_db() as a new db.",
					 MMR_EXTENSION)));
}

/* mmrepl._node_identity(OUT system_identifier int8, OUT database_oid oid, OUT timeline int4) */
Datum
mmrepl_node_identity(PG_FUNCTION_ARGS)
{
	NodeIdentity now;
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	mmr_node_identity(&now.sysid, &now.dboid, &now.timeline);
	values[0] = Int64GetDatum(now.sysid);
	values[1] = ObjectIdGetDatum(now.dboid);
	values[2] = Int32GetDatum(now.timeline);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
