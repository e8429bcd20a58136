/*-------------------------------------------------------------------------
 * sqlrun.h
 *	  Statements on mmrepl's own tables, run with the owner's rights.
 *
 * Floor 2.
 *
 * Parameters are all text (cast in the statement, `$1::int4`), NULL is NULL.
 * Each sees what the ones before it did.  What they give is palloc'd in
 * CurrentMemoryContext.
 */
#ifndef MMR_SQLRUN_H
#define MMR_SQLRUN_H

#include "nodes/pg_list.h"

/* Number of rows it returned or changed. */
extern uint64 mmr_sqlrun_exec(const char *sql, int nargs, const char *const *args);

/* First column of the first row, NULL if there is none or it is NULL. */
extern char *mmr_sqlrun_text(const char *sql, int nargs, const char *const *args);

/* First column of all rows: List of char *. */
extern List *mmr_sqlrun_texts(const char *sql, int nargs, const char *const *args);

/* All columns of the first row, or NULL if there is none. */
extern char **mmr_sqlrun_row(const char *sql, int nargs, const char *const *args);

#endif							/* MMR_SQLRUN_H */
