/*-------------------------------------------------------------------------
 * names.h
 *	  Arguments of the functions that configure: names of dbs, groups and
 *	  syncs, and whether there are such things.
 *
 * Floor 3.
 */
#ifndef MMR_NAMES_H
#define MMR_NAMES_H

#include "fmgr.h"
#include "nodes/pg_list.h"

/* An argument that may not be NULL. */
extern char *mmr_names_text(FunctionCallInfo fcinfo, int argno, const char *argname);

/* NULL if it is. */
extern char *mmr_names_optional(FunctionCallInfo fcinfo, int argno);

/* The same for what is to be a name: ERROR unless it has 1 to 63 bytes. */
extern char *mmr_names_name(FunctionCallInfo fcinfo, int argno, const char *argname);
extern char *mmr_names_optional_name(FunctionCallInfo fcinfo, int argno, const char *argname);

/* List of char * of a text[] argument without NULLs; NIL if the argument is NULL. */
extern List *mmr_names_array(FunctionCallInfo fcinfo, int argno, const char *argname);

/* kind: "db", "dbgroup", "relgroup", "sync". ERROR that names those there are unless it is one. */
extern void mmr_names_require(const char *kind, const char *name);

/* ERROR if there is one already. */
extern void mmr_names_require_new(const char *kind, const char *name);

extern bool mmr_names_exists(const char *kind, const char *name);

/* A list for a message: "a", "b", "c" */
extern char *mmr_names_quoted(List *names);

#endif							/* MMR_NAMES_H */
