/*-------------------------------------------------------------------------
 * names.c
 *	  Arguments of the functions that configure: names of dbs, groups and
 *	  syncs, and whether there are such things.
 *
 * Floor 3.
 * Reads: db, dbgroup, relgroup, sync.
 * Runs in: backends that configure.
 *
 * Invariant: a name is any text of 1 to 63 bytes; it is only ever compared,
 * stored and shown in quotes, never put into a statement.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "names.h"
#include "sqlrun.h"

/* Fixed statements, one a kind. */
static const struct
{
	const char *kind;
	const char *exists;
	const char *all;
}			kinds[] = {
	{"db", "SELECT 1 FROM mmrepl.db WHERE name = $1",
	"SELECT name FROM mmrepl.db ORDER BY node_id"},
	{"dbgroup", "SELECT 1 FROM mmrepl.dbgroup WHERE name = $1",
	"SELECT name FROM mmrepl.dbgroup ORDER BY name"},
	{"relgroup", "SELECT 1 FROM mmrepl.relgroup WHERE name = $1",
	"SELECT name FROM mmrepl.relgroup ORDER BY name"},
	{"sync", "SELECT 1 FROM mmrepl.sync WHERE name = $1",
	"SELECT name FROM mmrepl.sync ORDER BY sync_id"},
};

static int
kind_index(const char *kind)
{
	for (int i = 0; i < (int) lengthof(kinds); i++)
	{
		if (strcmp(kinds[i].kind, kind) == 0)
			return i;
	}
	elog(ERROR, "unknown kind of name \"%s\"", kind);
}

char *
mmr_names_optional(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL :
		text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

char *
mmr_names_text(FunctionCallInfo fcinfo, int argno, const char *argname)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be NULL", argname),
				 errhint("\\df mmrepl.* shows the arguments of mmrepl's functions.")));
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

char *
mmr_names_optional_name(FunctionCallInfo fcinfo, int argno, const char *argname)
{
	char	   *name = mmr_names_optional(fcinfo, argno);

	if (name == NULL)
		return NULL;
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("argument \"%s\" must not be empty", argname),
				 errhint("Names may have 1 to %d bytes.", NAMEDATALEN - 1)));
	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("argument \"%s\" is too long", argname),
				 errdetail("It has %d bytes.", (int) strlen(name)),
				 errhint("Names may have up to %d bytes.", NAMEDATALEN - 1)));
	return name;
}

char *
mmr_names_name(FunctionCallInfo fcinfo, int argno, const char *argname)
{
	(void) mmr_names_text(fcinfo, argno, argname);
	return mmr_names_optional_name(fcinfo, argno, argname);
}

List *
mmr_names_array(FunctionCallInfo fcinfo, int argno, const char *argname)
{
	List	   *result = NIL;
	Datum	   *elems;
	bool	   *nulls;
	int			n;

	if (PG_ARGISNULL(argno))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argno), TEXTOID, -1, false,
					  TYPALIGN_INT, &elems, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" must not contain NULL", argname)));
		result = lappend(result, TextDatumGetCString(elems[i]));
	}
	return result;
}

bool
mmr_names_exists(const char *kind, const char *name)
{
	return mmr_sqlrun_exec(kinds[kind_index(kind)].exists, 1, &name) > 0;
}

void
mmr_names_require(const char *kind, const char *name)
{
	List	   *all;

	if (mmr_names_exists(kind, name))
		return;
	all = mmr_sqlrun_texts(kinds[kind_index(kind)].all, 0, NULL);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("%s \"%s\" does not exist", kind, name),
			 all == NIL ?
			 errhint("There is no %s yet: make one with mmrepl.add_%s().", kind, kind) :
			 errhint("There are: %s.", mmr_names_quoted(all))));
}

void
mmr_names_require_new(const char *kind, const char *name)
{
	if (mmr_names_exists(kind, name))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("%s \"%s\" already exists", kind, name),
				 errhint("Choose another name, or remove that one with mmrepl.remove_%s().",
						 kind)));
}

char *
mmr_names_quoted(List *names)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, names)
		appendStringInfo(&buf, "%s\"%s\"", buf.len ? ", " : "",
						 (char *) lfirst(lc));
	return buf.data;
}
