/*-------------------------------------------------------------------------
 * catalog.h
 *	  Where mmrepl's own objects are in this database, and who owns them.
 *
 * Floor 1.  All need a transaction.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_CATALOG_H
#define MMR_CATALOG_H

#include "mmrepl.h"

/* Schema mmrepl, or InvalidOid. */
extern Oid	mmr_catalog_schema(void);

/* Is the extension here, and complete? False while CREATE EXTENSION (here) runs. */
extern bool mmr_catalog_present(void);

/* ERROR with a hint unless it is. */
extern void mmr_catalog_require(void);

/*
 * Is it here?  If so it stays until the transaction ends: DROP EXTENSION waits.
 * First thing in a transaction of a worker, or of a peer, that reads mmrepl's
 * tables: or a DROP EXTENSION in that moment ends in an ERROR about a table.
 */
extern bool mmr_catalog_hold(void);

/* The same, with the ERROR of mmr_catalog_require. */
extern void mmr_catalog_require_held(void);

/* Own table by its name; ERROR if there is none. Cached until it changes. */
extern Oid	mmr_catalog_table(const char *relname);

/* Moves when a table of anybody's has changed, or gone: what was looked up before may not hold. */
extern uint64 mmr_catalog_changes(void);

/* The same for a function: its oid by name and argument types. Not cached. */
extern Oid	mmr_catalog_function(const char *proname, int nargs, const Oid *argtypes);

/* Extension's oid and owner; ERROR if it is not here. */
extern Oid	mmr_catalog_extension(void);
extern Oid	mmr_catalog_owner(void);

#endif							/* MMR_CATALOG_H */
