/*-------------------------------------------------------------------------
 * attach.c
 *	  Triggers on user tables, which capture, or keep clients out: create, drop, check.
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
 * While this node joins a sync, clients are to write nothing to its tables:
 * triggers of a statement refuse that (closed.c), and triggers of a row what comes by
 * way of a partitioned parent, which does not fire the others.  They ask
 * whether it is so still, so that nothing depends on when they go.
 *
 * Invariant: both capture triggers depend on the extension (DROP EXTENSION takes them
 * along, silently) and the row trigger on the key's index (it cannot be
 * dropped behind our back).  pg_dump writes the first, not the second: after
 * a restore mmr_attach_reconcile puts it right.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "attach.h"
#include "locking.h"
#include "membership.h"
#include "session.h"
#include "triggers.h"

/* A table that must have triggers. */
typedef struct AttachWanted
{
	Oid			relid;
	bool		captured;
	bool		closed;			/* to clients */
	Oid			key_index;
	const char *key;			/* argument: index's name; "", none: the primary key */
} AttachWanted;

PG_FUNCTION_INFO_V1(mmrepl_attach_reconcile);
PG_FUNCTION_INFO_V1(mmrepl_attach_problem);

static List *attach_plan(List **drop, bool warn);
static List *attach_relids(List *wanted);
static List *attach_wanted(bool warn);
static AttachWanted *attach_entry(List **wanted, Oid relid);
static const char *attach_examine(Relation rel, const AttachWanted *wanted);
static const char *attach_examine_closed(Relation rel);
static const char *attach_examine_row(const Trigger *trigger, const AttachWanted *wanted);
static void attach_create(const AttachWanted *wanted);

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
	{
		mmr_triggers_drop(lfirst_oid(lc), MMR_TRIGGER_ROW);
		mmr_triggers_drop(lfirst_oid(lc), MMR_TRIGGER_TRUNCATE);
	}
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

List *
mmr_attach_left_closed(void)
{
	List	   *left = mmr_triggers_tables(MMR_TRIGGER_CLOSED, MMR_TRIGGER_CLOSED_ROW);
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, mmr_membership_syncs())
	{
		MmrSync    *sync = lfirst(lc);

		if (sync->my_role != MMR_ROLE_SOURCE || !sync->closed)
			continue;
		foreach(lc2, sync->tables)
			left = list_delete_oid(left, ((MmrMember *) lfirst(lc2))->relid);
	}
	return left;
}

void
mmr_attach_reopen(Oid relid)
{
	MmrSession	save;

	if (!mmr_session_become_owner(&save))
		return;
	mmr_triggers_drop(relid, MMR_TRIGGER_CLOSED);
	mmr_triggers_drop(relid, MMR_TRIGGER_CLOSED_ROW);
	mmr_session_restore(&save);
}

/* Tables (AttachWanted) whose triggers have to be made or corrected; *drop: oids of those that must not be captured. */
static List *
attach_plan(List **drop, bool warn)
{
	List	   *create = NIL;
	ListCell   *lc;
	List	   *wanted = attach_wanted(warn);

	*drop = mmr_triggers_tables(MMR_TRIGGER_ROW, MMR_TRIGGER_TRUNCATE);
	foreach(lc, wanted)
	{
		AttachWanted *w = lfirst(lc);
		Relation	rel = try_relation_open(w->relid, AccessShareLock);

		if (w->captured)
			*drop = list_delete_oid(*drop, w->relid);
		if (rel == NULL)
			continue;
		if ((w->captured && attach_examine(rel, w) != NULL) || (w->closed && attach_examine_closed(rel) != NULL))
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
	ListCell   *lc;

	if (rel == NULL)
		return "no such table";
	problem = attach_examine(rel, NULL);
	(void) mmr_membership_refresh();
	foreach(lc, mmr_membership_syncs_of_table(relid))
	{
		MmrSync    *sync = lfirst(lc);

		if (sync->my_role == MMR_ROLE_SOURCE && sync->closed)
			problem = attach_examine_closed(rel) != NULL ? "those that keep clients out until this db has joined are not as they should be" :
				"clients are kept out until this db has joined";
	}
	relation_close(rel, AccessShareLock);
	return problem;
}

/* Tables of syncs in which this node is a source. */
static List *
attach_wanted(bool warn)
{
	List	   *result = NIL;
	ListCell   *lc;
	ListCell   *lc2;

	/* what this transaction has changed counts */
	mmr_membership_invalidate();
	(void) mmr_membership_refresh();

	foreach(lc, mmr_membership_syncs())
	{
		MmrSync    *sync = lfirst(lc);

		if (sync->my_role != MMR_ROLE_SOURCE)
			continue;
		foreach(lc2, sync->tables)
		{
			MmrMember  *member = lfirst(lc2);
			AttachWanted *w;
			Relation	rel;

			if (!OidIsValid(member->relid))
			{
				if (warn && !sync->joining)
					ereport(WARNING,
							(errcode(ERRCODE_UNDEFINED_TABLE),
							 errmsg("table \"%s.%s\" of sync \"%s\" does not exist here",
									member->nspname, member->relname, sync->name)));
				continue;
			}
			w = attach_entry(&result, member->relid);
			w->closed |= sync->closed;
			/* who joins captures nothing before all others know of it */
			if (sync->joining || w->captured)
				continue;
			if (!OidIsValid(member->key_index))
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("table \"%s.%s\" has no usable key here",
								member->nspname, member->relname),
						 errhint("Give it a primary key, or name a unique index whose columns are NOT NULL with mmrepl.add_table(..., key => ...).")));
			w->captured = true;
			w->key_index = member->key_index;
			rel = table_open(member->relid, AccessShareLock);
			w->key = RelationGetPrimaryKeyIndex(rel) == member->key_index ? "" :
				get_rel_name(member->key_index);
			table_close(rel, AccessShareLock);
		}
	}
	return result;
}

/* The table's entry in the list, made if there is none. */
static AttachWanted *
attach_entry(List **wanted, Oid relid)
{
	AttachWanted *w;
	ListCell   *lc;

	foreach(lc, *wanted)
	{
		w = lfirst(lc);
		if (w->relid == relid)
			return w;
	}
	w = palloc0(sizeof(AttachWanted));
	w->relid = relid;
	*wanted = lappend(*wanted, w);
	return w;
}

/* The index that the trigger goes by; "": the primary key. */
static const char *
attach_argument(const Trigger *trigger)
{
	return trigger->tgnargs > 0 ? trigger->tgargs[0] : "";
}

/* NULL: both capture triggers are as they must be. wanted NULL: whatever the key is, if there is one. */
static const char *
attach_examine(Relation rel, const AttachWanted *wanted)
{
	const Trigger *row = mmr_triggers_find(rel, MMR_TRIGGER_ROW);
	const Trigger *truncate = mmr_triggers_find(rel, MMR_TRIGGER_TRUNCATE);
	const char *problem;

	if (row == NULL && truncate == NULL)
		return "missing";
	if (row == NULL)
		return "row trigger missing";
	if (truncate == NULL)
		return "truncate trigger missing";
	if ((problem = attach_examine_row(row, wanted)) != NULL)
		return problem;
	if ((problem = mmr_triggers_problem(truncate, MMR_TRIGGER_TRUNCATE)) != NULL)
		return problem;
	if (wanted == NULL)
	{
		const char *key = attach_argument(row);
		Oid			index = key[0] == '\0' ? RelationGetPrimaryKeyIndex(rel) :
		get_relname_relid(key, RelationGetNamespace(rel));

		if (!OidIsValid(index))
			return "for a key that is gone";
	}
	return NULL;
}

/* NULL: clients are kept out. */
static const char *
attach_examine_closed(Relation rel)
{
	for (MmrTriggerKind kind = MMR_TRIGGER_CLOSED; kind <= MMR_TRIGGER_CLOSED_ROW; kind++)
	{
		const Trigger *trigger = mmr_triggers_find(rel, kind);
		const char *problem = trigger ? mmr_triggers_problem(trigger, kind) : "missing";

		if (problem != NULL)
			return problem;
	}
	return NULL;
}

static const char *
attach_examine_row(const Trigger *trigger, const AttachWanted *wanted)
{
	const char *problem = mmr_triggers_problem(trigger, MMR_TRIGGER_ROW);

	if (problem != NULL)
		return problem;
	if (trigger->tgnargs > 1)
		return "altered";
	if (wanted != NULL && strcmp(attach_argument(trigger), wanted->key) != 0)
		return "for another key";
	if (wanted != NULL && !mmr_triggers_depend_on(trigger->tgoid, RelationRelationId, wanted->key_index))
		return "not bound to extension and key";
	return NULL;
}

/* Under ShareRowExclusiveLock: makes its triggers right, whatever they were. */
static void
attach_create(const AttachWanted *wanted)
{
	if (get_rel_name(wanted->relid) == NULL)
		return;					/* dropped while we waited */
	mmr_triggers_check_foreign(wanted->relid);
	if (wanted->captured)
	{
		/* the server copies a trigger's arguments for each statement: the usual has none */
		mmr_triggers_make(wanted->relid, MMR_TRIGGER_ROW,
						  wanted->key[0] == '\0' ? "" : quote_literal_cstr(wanted->key), wanted->key_index);
		mmr_triggers_make(wanted->relid, MMR_TRIGGER_TRUNCATE, "", InvalidOid);
	}
	if (wanted->closed)
	{
		mmr_triggers_make(wanted->relid, MMR_TRIGGER_CLOSED, "", InvalidOid);
		mmr_triggers_make(wanted->relid, MMR_TRIGGER_CLOSED_ROW, "", InvalidOid);
	}
	CommandCounterIncrement();
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
