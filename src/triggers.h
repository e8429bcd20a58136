/*-------------------------------------------------------------------------
 * triggers.h
 *	  One trigger of ours on a user table: find, check, make, drop.
 *
 * Floor 2.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_TRIGGERS_H
#define MMR_TRIGGERS_H

#include "commands/trigger.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"

typedef enum MmrTriggerKind
{
	MMR_TRIGGER_ROW,			/* capture */
	MMR_TRIGGER_TRUNCATE,
	MMR_TRIGGER_CLOSED,			/* keep clients out: what names the table... */
	MMR_TRIGGER_CLOSED_ROW		/* ...and what comes by way of a parent */
} MmrTriggerKind;

#define MMR_TRIGGER_KINDS	4

/* Tables (oids) that have one of these two now. */
extern List *mmr_triggers_tables(MmrTriggerKind one, MmrTriggerKind other);

/* The trigger of that name, whosever it is, or NULL. */
extern const Trigger *mmr_triggers_find(Relation rel, MmrTriggerKind kind);

/* Says what is not as it must be, or NULL. */
extern const char *mmr_triggers_problem(const Trigger *trigger, MmrTriggerKind kind);
extern bool mmr_triggers_depend_on(Oid trigger, Oid classid, Oid objid);

/* ERROR if somebody else's has the name of one of ours.  The table is locked. */
extern void mmr_triggers_check_foreign(Oid relid);

/*
 * Under ShareRowExclusiveLock: makes it right, whatever it was; fires in ORIGIN
 * mode, goes with the extension, and keeps the index, if one is given.  argument: as SQL.
 */
extern void mmr_triggers_make(Oid relid, MmrTriggerKind kind, const char *argument, Oid key_index);

/* Under AccessExclusiveLock: drops it, if it is there and ours. */
extern void mmr_triggers_drop(Oid relid, MmrTriggerKind kind);

#endif							/* MMR_TRIGGERS_H */
