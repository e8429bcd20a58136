/*-------------------------------------------------------------------------
 * triggers.c
 *	  One trigger of ours on a user table: find, check, make, drop.
 *
 * Floor 2.
 * Reads and writes: pg_trigger, pg_depend.
 * Runs in: backends that configure, workers.
 *
 * Invariant: a trigger that somebody else has given one of our names is
 * neither replaced nor dropped.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_trigger.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "catalog.h"
#include "mmrepl.h"
#include "triggers.h"

/* events: what CREATE TRIGGER says, with the table */
static const struct
{
	const char *name;
	const char *function;
	int16		type;
	const char *events;
}			triggers[MMR_TRIGGER_KINDS] =
{
	[MMR_TRIGGER_ROW] = {"mmrepl_capture", "_capture",
		TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE,
	"AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW"},
	[MMR_TRIGGER_TRUNCATE] = {"mmrepl_capture_truncate", "_capture_truncate", TRIGGER_TYPE_TRUNCATE,
	"AFTER TRUNCATE ON %s FOR EACH STATEMENT"},
	[MMR_TRIGGER_CLOSED] = {"mmrepl_closed", "_closed",
		TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE | TRIGGER_TYPE_TRUNCATE,
	"BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT"},
	[MMR_TRIGGER_CLOSED_ROW] = {"mmrepl_closed_row", "_closed",
		TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE,
	"BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW"}
};

static void
trigger_run(const char *sql)
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
trigger_function(MmrTriggerKind kind)
{
	return mmr_catalog_function(triggers[kind].function, 0, NULL);
}

static char *
trigger_table(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

List *
mmr_triggers_tables(MmrTriggerKind one, MmrTriggerKind other)
{
	Oid			functions[2] = {trigger_function(one), trigger_function(other)};
	Relation	rel = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	List	   *result = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger form = (Form_pg_trigger) GETSTRUCT(tuple);

		if ((form->tgfoid == functions[0] || form->tgfoid == functions[1]) &&
			(strcmp(NameStr(form->tgname), triggers[one].name) == 0 ||
			 strcmp(NameStr(form->tgname), triggers[other].name) == 0))
			result = list_append_unique_oid(result, form->tgrelid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

const Trigger *
mmr_triggers_find(Relation rel, MmrTriggerKind kind)
{
	TriggerDesc *desc = rel->trigdesc;

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
	{
		if (strcmp(desc->triggers[i].tgname, triggers[kind].name) == 0)
			return &desc->triggers[i];
	}
	return NULL;
}

bool
mmr_triggers_depend_on(Oid trigger, Oid classid, Oid objid)
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

static const char *
trigger_mode_problem(const Trigger *trigger)
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

const char *
mmr_triggers_problem(const Trigger *trigger, MmrTriggerKind kind)
{
	if (trigger->tgfoid != trigger_function(kind))
		return "of another function";
	if (trigger->tgtype != triggers[kind].type || trigger->tgqual != NULL || trigger->tgnattr != 0)
		return "altered";
	if (!mmr_triggers_depend_on(trigger->tgoid, ExtensionRelationId, mmr_catalog_extension()))
		return "not bound to extension and key";
	return trigger_mode_problem(trigger);
}

/* CREATE OR REPLACE must not take the place of what is somebody else's. */
void
mmr_triggers_check_foreign(Oid relid)
{
	Relation	rel = table_open(relid, NoLock);

	for (MmrTriggerKind kind = 0; kind < MMR_TRIGGER_KINDS; kind++)
	{
		const Trigger *trigger = mmr_triggers_find(rel, kind);

		if (trigger != NULL && trigger->tgfoid != trigger_function(kind))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("table \"%s\" has a trigger \"%s\" that is not of %s",
							RelationGetRelationName(rel), triggers[kind].name, MMR_EXTENSION),
					 errhint("Rename or drop that trigger.")));
	}
	table_close(rel, NoLock);
}

/*
 * Straight into pg_depend: ALTER TRIGGER ... DEPENDS ON EXTENSION would take
 * an ACCESS EXCLUSIVE lock.
 */
static void
trigger_depend(Oid relid, MmrTriggerKind kind, Oid key_index)
{
	Oid			oid = get_trigger_oid(relid, triggers[kind].name, false);
	Oid			extension = mmr_catalog_extension();
	ObjectAddress self;
	ObjectAddress other;

	ObjectAddressSet(self, TriggerRelationId, oid);
	if (!mmr_triggers_depend_on(oid, ExtensionRelationId, extension))
	{
		ObjectAddressSet(other, ExtensionRelationId, extension);
		recordDependencyOn(&self, &other, DEPENDENCY_AUTO_EXTENSION);
	}
	if (OidIsValid(key_index) && !mmr_triggers_depend_on(oid, RelationRelationId, key_index))
	{
		ObjectAddressSet(other, RelationRelationId, key_index);
		recordDependencyOn(&self, &other, DEPENDENCY_NORMAL);
	}
}

void
mmr_triggers_make(Oid relid, MmrTriggerKind kind, const char *argument, Oid key_index)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE OR REPLACE TRIGGER %s ", triggers[kind].name);
	appendStringInfo(&sql, triggers[kind].events, trigger_table(relid));
	appendStringInfo(&sql, " EXECUTE FUNCTION %s.%s(%s)", MMR_SCHEMA, triggers[kind].function, argument);
	trigger_run(sql.data);
	pfree(sql.data);
	trigger_depend(relid, kind, key_index);
}

void
mmr_triggers_drop(Oid relid, MmrTriggerKind kind)
{
	Relation	rel;
	const Trigger *trigger;
	bool		ours;

	if (get_rel_name(relid) == NULL)
		return;
	rel = table_open(relid, NoLock);
	trigger = mmr_triggers_find(rel, kind);
	ours = trigger != NULL && trigger->tgfoid == trigger_function(kind);
	table_close(rel, NoLock);
	if (ours)
		trigger_run(psprintf("DROP TRIGGER %s ON %s", triggers[kind].name, trigger_table(relid)));
}
