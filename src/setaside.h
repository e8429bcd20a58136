/*-------------------------------------------------------------------------
 * setaside.h
 *	  Keys whose state from a peer could not be applied here
 *	  (mmrepl.apply_error_log), kept in this session's memory, too.
 *
 * Floor 4.  All need a transaction.
 *
 * The memory is as fresh as the last refresh: what another session has set
 * aside or settled meanwhile turns up with the next one.  That is enough:
 * what stands here is decided by what is in the table when it is written.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SETASIDE_H
#define MMR_SETASIDE_H

#include "changelog.h"
#include "key.h"
#include "membership.h"

/* One of them. Lives until the next refresh. */
typedef struct MmrStanding
{
	int64		id;
	int32		sync_id;
	int32		source_node;	/* who sent it last */
	Oid			relid;
	uint64		hash;
	const char *key;
	int			keylen;
	MmrVersion	version;		/* of the state that is not here */
	MmrDot		dot;
	MmrSettled	settled;
	bool		gone;			/* resolved in this session */
} MmrStanding;

/* What is to be written down about an item. */
typedef struct MmrSetAside
{
	int32		sync_id;
	int32		source_node;
	Relation	rel;
	MmrKey	   *table_key;
	const MmrChange *change;
	uint64		hash;
	const char *row;			/* JSON, or NULL */
	const ErrorData *error;
} MmrSetAside;

/* Reads what has changed since; of tables of that sync. */
extern void mmr_setaside_refresh(MmrSync *sync);

/* True if nothing stands: lookups can be skipped. */
extern bool mmr_setaside_none(void);

/* How many stand, of tables of this sync. */
extern int	mmr_setaside_count(void);

/* NULL if nothing stands of that key. */
extern MmrStanding *mmr_setaside_find(MmrKey *key, uint64 hash, const char *data, int len);

/* Does something stand of that table? */
extern bool mmr_setaside_of_table(Oid relid);

/* List of MmrStanding of this sync that `source` has to be asked for: it sent them, or who did is no source any more. */
extern List *mmr_setaside_of(MmrSync *sync, int32 source);

/* Writes one down, or that it has failed once more. */
extern void mmr_setaside_put(const MmrSetAside *s);

/* A state of the key not older than the one set aside has been dealt with here. */
extern void mmr_setaside_resolve(MmrStanding *s);

/* Those of the list that are due; they are not due again before a while. */
extern List *mmr_setaside_take_due(List *standing, int limit);

/* For who changes the table by other ways: at commit all sessions read it again. */
extern void mmr_setaside_changed(void);

/* Is that node no source of the sync (any more)? */
extern bool mmr_setaside_orphaned(MmrSync *sync, int32 node);

#endif							/* MMR_SETASIDE_H */
