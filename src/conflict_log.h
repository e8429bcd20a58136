/*-------------------------------------------------------------------------
 * conflict_log.h
 *	  The history of conflicts (mmrepl.conflict_log).
 *
 * Floor 3.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_CONFLICT_LOG_H
#define MMR_CONFLICT_LOG_H

#include "executor/tuptable.h"
#include "utils/rel.h"

#include "key.h"
#include "resolve.h"

typedef struct MmrConflictRecord
{
	int32		sync_id;
	Relation	rel;
	MmrKey	   *key;			/* NULL with key_values: a whole table */
	const Datum *key_values;
	MmrConflict conflict;
	MmrResolution resolution;
	TupleTableSlot *local;		/* NULL: no row here */
	TupleTableSlot *remote;		/* NULL: no row there */
	const char *remote_json;	/* instead: it fits no slot here */
	bool		local_known;
	MmrVersion	local_version;
	MmrVersion	remote_version;
	const char *error;			/* why the table's strategy was not followed; NULL: it was, or none */
} MmrConflictRecord;

/*
 * Writes it down, with the rights of mmrepl's owner, in the current
 * transaction: the history tells of what really happened, and only of that.
 * Needs an active snapshot.
 *
 * With resolution MMR_ABORT: ERROR (ERRCODE_MMR_HALTED); it is written when the
 * session ends, or with mmr_conflict_log_halted().
 */
extern void mmr_conflict_log_write(const MmrConflictRecord *c);

/* In a transaction after such an ERROR, in a process that goes on: writes it now.  False: there is none. */
extern bool mmr_conflict_log_halted(void);

/* What came as JSON, as jsonb; as the string {"mmrepl.text": ...} if jsonb cannot hold it.  In a transaction. */
extern Datum mmr_conflict_log_jsonb(const char *json);

/* A key as people read it: jsonb, an object of its columns. */
extern Datum mmr_conflict_log_key(MmrKey *key, const Datum *values);

#endif							/* MMR_CONFLICT_LOG_H */
