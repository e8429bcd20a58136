/*-------------------------------------------------------------------------
 * attach.c
 *	  Capture triggers on user tables: create, drop, check.
 *
 * Floor 3.
 * Reads: the configuration (membership), pg_trigger, pg_depend.
 * Writes: triggers on the user's tables and what they depend on.
 * Runs in: backends that configure, pushers that adopt a configuration.
 *
 * A member is an ordinary table, a partition included; the triggers are its
 * own.  A partitioned parent is no member (its partitions are), and children
 * by inheritance are members only if they are named.
 *
 * Invariant: both triggers depend on the extension (DROP EXTENSION takes them
 * along, silently) and the row trigger on the key's index (it cannot be
 * dropped behind our back).  pg_dump writes the first, not the second: after
 * a restore mmr_attach_reconcile puts it right.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "attach.h"
#include "catalog.h"
#include "locking.h"
#include "membership.h"
#include "session.h"

/* A table that must have the triggers. */
typedef struct AttachWanted
{
	Oid			relid;
	Oid			key_index;
	const char *key;			/* argument: index's name, "" for the primary key */
} AttachWanted;

PG_FUNCTION_INFO_V1(mmrepl_attach_reconcile);
PG_FUNCTION_INFO_V1(mmrepl_attach_problem);

static List *attach_plan(List **drop, bool warn);
static List *attach_relids(List *wanted);
static List *attach_wanted(bool warn);
static List *attach_present(void);
static const char *attach_examine(Relation rel, const AttachWanted *wanted);
static const char *attach_examine_row(const Trigger *trigger, const AttachWanted *wanted);
static const char *attach_examine_truncate(const Trigger *trigger);
static const char *attach_examine_mode(const Trigger *trigger);
static const Trigger *attach_find(Relation rel, const char *name);
static void attach_create(const AttachWanted *wanted);
static void attach_depend(Oid relid, const char *trigger, Oid key_index);
static bool attach_depends_on(Oid trigger, Oid classid, Oid objid);
static void attach_drop(Oid relid);
static void attach_check_foreign(Oid relid);
static void attach_run(const char *sql);
static Oid	attach_function(bool truncate);
static char *attach_table_name(Oid relid);

void
mmr_attach_reconcile(void)
{
	MmrSession	save;
	List	   *create;
	List	   *drop;
	ListCell   *lc;

	if (!mmr_session_become_owner(&save))
		return;
	create = attach_plan(&drop, true);
	mmr_locking_acquire(attach_relids(create), ShareRowExclusiveLock);
	foreach(lc, create)
		attach_create(lfirst(lc));
	mmr_locking_acquire(drop, AccessExclusiveLock);
	foreach(lc, drop)
		attach_drop(lfirst_oid(lc));
	mmr_session_restore(&save);
}

void
mmr_attach_probe(void)
{
	MmrSession	save;
	List	   *create;
	List	   *drop;

	if (!mmr_session_become_owner(&save))
		return;
	create = attach_plan(&drop, false);
	mmr_locking_probe(attach_relids(create), ShareRowExclusiveLock);
	mmr_locking_probe(drop, AccessExclusiveLock);
	mmr_session_restore(&save);
}

/* Tables (AttachWanted) whose triggers have to be made or corrected; *drop: oids of those that must not have any. */
static List *
attach_plan(List **drop, bool warn)
{
	List	   *create = NIL;
	ListCell   *lc;
	List	   *wanted = attach_wanted(warn);

	*drop = attach_present();
	foreach(lc, wanted)
	{
		AttachWanted *w = lfirst(lc);
		Relation	rel = try_relation_open(w->relid, AccessShareLock);

		*drop = list_delete_oid(*drop, w->relid);
		if (rel == NULL)
			continue;
		if (attach_examine(rel, w) != NULL)
			create = lappend(create, w);
		relation_close(rel, AccessShareLock);
	}
	return create;
}

static List *
attach_relids(List *wanted)
{
	List	   *relids = NIL;
	ListCell   *lc;

	foreach(lc, wanted)
		relids = lappend_oid(relids, ((AttachWanted *) lfirst(lc))->relid);
	return relids;
}

const char *
mmr_attach_problem(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	const char *problem;

	if (rel == NULL)
		return "no such table";
	problem = attach_examine(rel, NULL);
	relation_close(rel, AccessShareLock);
	return problem;
}

/* Tables of syncs in which this node is a source. */
static List *
attach_wanted(bool warn)
{
	List	   *result = NIL;
	List	   *seen = NIL;
	ListCell   *lc;
	ListCell   *lc2;

	/* what this transaction has changed counts */
	mmr_membership_invalidate();
	(void) mmr_membership_refresh();

	foreach(lc, mmr_membership_syncs())
	{
		MmrSync    *sync = lfirst(lc);

		/* who joins captures nothing before all others know of it */
		if (sync->my_role != MMR_ROLE_SOURCE || sync->joining)
			continue;
		foreach(lc2, sync->tables)
		{
			MmrMember  *member = lfirst(lc2);
			AttachWanted *w;
			Relation	rel;

			if (list_member_oid(seen, member->relid))
				continue;
			if (!OidIsValid(member->relid))
			{
				if (warn)
					ereport(WARNING,
							(errcode(ERRCODE_UNDEFINED_TABLE),
							 errmsg("table \"%s.%s\" of sync \"%s\" does not exist here",
									member->nspname, member->relname, sync->name)));
				continue;
			}
			if (!OidIsValid(member->key_index))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("table \"%s.%s\" has no usable key here",
								member->nspname, member->relname),
						 errhint("Give it a primary key, or name a unique index whose columns are NOT NULL with mmrepl.add_table(..., key => ...).")));
			seen = lappend_oid(seen, member->relid);
			w = palloc0(sizeof(AttachWanted));
			w->relid = member->relid;
			w->key_index = member->key_index;
			rel = table_open(member->relid, AccessShareLock);
			w->key = RelationGetPrimaryKeyIndex(rel) == member->key_index ? "" :
				get_rel_name(member->key_index);
			table_close(rel, AccessShareLock);
			result = lappend(result, w);
		}
	}
	return result;
}

/* Tables that have one of our triggers now. */
static List *
attach_present(void)
{
	Oid			row = attach_function(false);
	Oid			truncate = attach_function(true);
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	List	   *result = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

		if ((form->tgfoid == row || form->tgfoid == truncate) &&
			(strcmp(NameStr(form->tgname), MMR_TRIGGER_ROW) == 0 ||
			 strcmp(NameStr(form->tgname), MMR_TRIGGER_TRUNCATE) == 0))
			result = list_append_unique_oid(result, form->tgrelid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/* NULL: both triggers are as they must be. wanted NULL: whatever the key is, if there is one. */
static const char *
attach_examine(Relation rel, const AttachWanted *wanted)
{
	const Trigger *row = attach_find(rel, MMR_TRIGGER_ROW);
	const Trigger *truncate = attach_find(rel, MMR_TRIGGER_TRUNCATE);
	const char *problem;

	if (row == NULL && truncate == NULL)
		return "missing";
	if (row == NULL)
		return "row trigger missing";
	if (truncate == NULL)
		return "truncate trigger missing";
	if ((problem = attach_examine_row(row, wanted)) != NULL)
		return problem;
	if ((problem = attach_examine_truncate(truncate)) != NULL)
		return problem;
	if (wanted == NULL)
	{
		Oid			index = row->tgargs[0][0] == '\0' ? RelationGetPrimaryKeyIndex(rel) :
		get_relname_relid(row->tgargs[0], RelationGetNamespace(rel));

		if (!OidIsValid(index))
			return "for a key that is gone";
	}
	return NULL;
}

static const char *
attach_examine_row(const Trigger *trigger, const AttachWanted *wanted)
{
	Oid			extension = mmr_catalog_extension();

	if (trigger->tgfoid != attach_function(false))
		return "of another function";
	if (trigger->tgtype != (TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT |
							TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE) ||
		trigger->tgnattr != 0 || trigger->tgqual != NULL || trigger->tgnargs != 1)
		return "altered";
	if (wanted != NULL && strcmp(trigger->tgargs[0], wanted->key) != 0)
		return "for another key";
	if (!attach_depends_on(trigger->tgoid, ExtensionRelationId, extension) ||
		(wanted != NULL &&
		 !attach_depends_on(trigger->tgoid, RelationRelationId, wanted->key_index)))
		return "not bound to extension and key";
	return attach_examine_mode(trigger);
}

static const char *
attach_examine_truncate(const Trigger *trigger)
{
	if (trigger->tgfoid != attach_function(true))
		return "of another function";
	if (trigger->tgtype != TRIGGER_TYPE_TRUNCATE || trigger->tgqual != NULL)
		return "altered";
	if (!attach_depends_on(trigger->tgoid, ExtensionRelationId, mmr_catalog_extension()))
		return "not bound to extension and key";
	return attach_examine_mode(trigger);
}

static const char *
attach_examine_mode(const Trigger *trigger)
{
	switch (trigger->tgenabled)
	{
		case TRIGGER_FIRES_ON_ORIGIN:
			return NULL;
		case TRIGGER_DISABLED:
			return "disabled";
		default:
			return "fires for replicated changes too";
	}
}

static const Trigger *
attach_find(Relation rel, const char *name)
{
	TriggerDesc *desc = rel->trigdesc;

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
	{
		if (strcmp(desc->triggers[i].tgname, name) == 0)
			return &desc->triggers[i];
	}
	return NULL;
}

/* Under ShareRowExclusiveLock: makes both triggers right, whatever they were. */
static void
attach_create(const AttachWanted *wanted)
{
	char	   *table;

	if (get_rel_name(wanted->relid) == NULL)
		return;					/* dropped while we waited */
	attach_check_foreign(wanted->relid);
	table = attach_table_name(wanted->relid);
	attach_run(psprintf("CREATE OR REPLACE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %s"
						" FOR EACH ROW EXECUTE FUNCTION %s._capture(%s)",
						MMR_TRIGGER_ROW, table, MMR_SCHEMA, quote_literal_cstr(wanted->key)));
	attach_run(psprintf("CREATE OR REPLACE TRIGGER %s AFTER TRUNCATE ON %s"
						" FOR EACH STATEMENT EXECUTE FUNCTION %s._capture_truncate()",
						MMR_TRIGGER_TRUNCATE, table, MMR_SCHEMA));
	attach_depend(wanted->relid, MMR_TRIGGER_ROW, wanted->key_index);
	attach_depend(wanted->relid, MMR_TRIGGER_TRUNCATE, InvalidOid);
	CommandCounterIncrement();
}

/*
 * Straight into pg_depend: ALTER TRIGGER ... DEPENDS ON EXTENSION would take
 * an ACCESS EXCLUSIVE lock.
 */
static void
attach_depend(Oid relid, const char *trigger, Oid key_index)
{
	Oid			oid = get_trigger_oid(relid, trigger, false);
	Oid			extension = mmr_catalog_extension();
	ObjectAddress self;
	ObjectAddress other;

	ObjectAddressSet(self, TriggerRelationId, oid);
	if (!attach_depends_on(oid, ExtensionRelationId, extension))
	{
		ObjectAddressSet(other, ExtensionRelationId, extension);
		recordDependencyOn(&self, &other, DEPENDENCY_AUTO_EXTENSION);
	}
	if (OidIsValid(key_index) && !attach_depends_on(oid, RelationRelationId, key_index))
	{
		ObjectAddressSet(other, RelationRelationId, key_index);
		recordDependencyOn(&self, &other, DEPENDENCY_NORMAL);
	}
}

static bool
attach_depends_on(Oid trigger, Oid classid, Oid objid)
{
	Relation	rel = table_open(DependRelationId, AccessShareLock);
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&key[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(TriggerRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigger));
	scan = systable_beginscan(rel, DependDependerIndexId, true, NULL, 2, key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);

		found = (form->refclassid == classid && form->refobjid == objid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* Under AccessExclusiveLock. */
static void
attach_drop(Oid relid)
{
	const char *names[] = {MMR_TRIGGER_ROW, MMR_TRIGGER_TRUNCATE};
	char	   *table;
	bool		ours[2];

	if (get_rel_name(relid) == NULL)
		return;
	for (int i = 0; i < 2; i++)
	{
		Relation	rel = table_open(relid, NoLock);
		const Trigger *trigger = attach_find(rel, names[i]);

		ours[i] = (trigger != NULL && trigger->tgfoid == attach_function(i == 1));
		table_close(rel, NoLock);
	}
	table = attach_table_name(relid);
	for (int i = 0; i < 2; i++)
	{
		if (ours[i])
			attach_run(psprintf("DROP TRIGGER %s ON %s", names[i], table));
	}
}

/* CREATE OR REPLACE must not take the place of what is somebody else's. */
static void
attach_check_foreign(Oid relid)
{
	const char *names[] = {MMR_TRIGGER_ROW, MMR_TRIGGER_TRUNCATE};
	Relation	rel = table_open(relid, NoLock);

	for (int i = 0; i < 2; i++)
	{
		const Trigger *trigger = attach_find(rel, names[i]);

		if (trigger != NULL && trigger->tgfoid != attach_function(i == 1))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("table \"%s\" has a trigger \"%s\" that is not of %s",
							RelationGetRelationName(rel), names[i], MMR_EXTENSION),
					 errhint("Rename or drop that trigger.")));
	}
	table_close(rel, NoLock);
}

static void
attach_run(const char *sql)
{
	int			rc;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rc = SPI_execute(sql, false, 0);
	if (rc != SPI_OK_UTILITY)
		elog(ERROR, "changing a trigger failed: %s", SPI_result_code_string(rc));
	SPI_finish();
	CommandCounterIncrement();
}

static Oid
attach_function(bool truncate)
{
	return mmr_catalog_function(truncate ? "_capture_truncate" : "_capture", 0, NULL);
}

static char *
attach_table_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/* mmrepl._attach_reconcile() */
Datum
mmrepl_attach_reconcile(PG_FUNCTION_ARGS)
{
	mmr_attach_reconcile();
	PG_RETURN_VOID();
}

/* mmrepl._attach_problem(regclass) */
Datum
mmrepl_attach_problem(PG_FUNCTION_ARGS)
{
	const char *problem = mmr_attach_problem(PG_GETARG_OID(0));

	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}
