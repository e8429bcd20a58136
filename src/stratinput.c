/*-------------------------------------------------------------------------
 * stratinput.c
 *	  Strategies as users write them, and as they are stored.
 *
 * Floor 4.
 * Reads: db, dbgroup_db; the server's catalog of functions.
 * Runs in: backends that configure.
 *
 * Invariant: what is stored does not change its meaning when a db gets
 * another name, or a session has another search_path.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "lib/stringinfo.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "names.h"
#include "sqlrun.h"
#include "stratinput.h"
#include "strategy.h"

#define HINT_ALL \
	"There is: latest (the newer row stands), priority: db1, db2 (the row of the db named first stands), " \
	"abort (the sync stops), function: schema.name (your function gives the row that stands)."

/* Bucardo's names: what they are here, or why they are not taken. */
static const struct
{
	const char *name;
	const char *ours;
	const char *hint;
}			words[] = {
	{"latest", "latest", NULL},
	{"default", "latest", NULL},
	{"bucardo_latest", "latest", NULL},
	{"abort", "abort", NULL},
	{"bucardo_abort", "abort", NULL},
	{"bucardo_latest_all_tables", NULL, "mmrepl compares row with row, never tables: use latest."},
	{"latest_all_tables", NULL, "mmrepl compares row with row, never tables: use latest."},
	{"latest_all", NULL, "mmrepl compares row with row, never tables: use latest."},
	{"bucardo_custom", NULL, "Give a function that makes one row of two: function: schema.name."},
	{"bucardo_source", NULL, "Name the dbs in the order in which they win: priority: db1, db2."},
	{"bucardo_target", NULL, "Name the dbs in the order in which they win: priority: db1, db2."},
	{"bucardo_skip", NULL, "Rows that are skipped stay different. Use abort to decide by hand."},
	{"bucardo_random", NULL, "All nodes must decide alike. Use latest."},
};

static void
refuse(const char *text, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown conflict strategy \"%s\"", text),
			 errhint("%s", hint)));
}

/* The rest behind a keyword and a colon or space; NULL if it does not begin so. */
static const char *
behind_word(const char *text, const char *word)
{
	size_t		len = strlen(word);
	const char *rest = text + len;

	if (pg_strncasecmp(text, word, len) != 0 || (*rest != ':' && !isspace((unsigned char) *rest)))
		return NULL;
	while (isspace((unsigned char) *rest))
		rest++;
	if (*rest == ':')
		rest++;
	while (isspace((unsigned char) *rest))
		rest++;
	return rest;
}

/* Names between spaces or commas, in double quotes if they hold some; NULL: a quote is left open. */
static bool
split_names(const char *text, List **names)
{
	StringInfoData name;

	*names = NIL;
	initStringInfo(&name);
	while (*text != '\0')
	{
		if (isspace((unsigned char) *text) || *text == ',')
		{
			text++;
			continue;
		}
		resetStringInfo(&name);
		if (*text == '"')
		{
			for (text++; *text != '"' || text[1] == '"'; text++)
			{
				if (*text == '\0')
					return false;
				text += *text == '"';
				appendStringInfoChar(&name, *text);
			}
			text++;
		}
		else
			while (*text != '\0' && *text != ',' && !isspace((unsigned char) *text))
				appendStringInfoChar(&name, *text++);
		*names = lappend(*names, pstrdup(name.data));
	}
	return true;
}

/* Node ids of the dbs; ERROR if one does not exist, or comes twice. */
static char *
read_priority(const char *text, List *names)
{
	StringInfoData stored;
	List	   *seen = NIL;
	ListCell   *lc;

	if (names == NIL)
		refuse(text, "Name the dbs in the order in which they win: priority: db1, db2.");
	initStringInfo(&stored);
	appendStringInfoString(&stored, "priority:");
	foreach(lc, names)
	{
		const char *name = lfirst(lc);
		char	   *id;

		mmr_names_require("db", name);
		id = mmr_sqlrun_text("SELECT node_id FROM mmrepl.db WHERE name = $1", 1, &name);
		if (list_member_int(seen, atoi(id)))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("db \"%s\" is named twice in the conflict strategy", name)));
		appendStringInfo(&stored, "%s%s", seen ? "," : "", id);
		seen = lappend_int(seen, atoi(id));
	}
	return stored.data;
}

/* The function by schema and name; which of that name fits a table is looked at table by table. */
static char *
read_function(const char *text, const char *rest)
{
	List	   *parts;
	char	   *nspname;
	char	   *proname;
	FuncCandidateList found;

	if (strchr(rest, '(') != NULL)
		refuse(text, "Name the function without its arguments: function: schema.name. They follow from the table.");
	if (!SplitIdentifierString(pstrdup(rest), '.', &parts) || parts == NIL || list_length(parts) > 2)
		refuse(text, "Name the function as in function: schema.name.");
	proname = llast(parts);
	if (list_length(parts) == 2)
		found = mmr_func_candidates(list_make2(makeString(linitial(parts)), makeString(proname)));
	else
		found = mmr_func_candidates(list_make1(makeString(proname)));
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s of the conflict strategy does not exist", rest),
				 errhint("Create it on all dbs first; one outside search_path needs its schema.")));
	nspname = get_namespace_name(get_func_namespace(found->oid));
	return psprintf("function:%s", quote_qualified_identifier(nspname, proname));
}

char *
mmr_stratinput_read(const char *text)
{
	List	   *names;
	const char *rest;

	while (isspace((unsigned char) *text))
		text++;
	if ((rest = behind_word(text, "function")) != NULL)
		return read_function(text, rest);
	rest = behind_word(text, "priority");
	if (!split_names(rest ? rest : text, &names))
		refuse(text, "A double quote is left open.");
	if (rest != NULL)
		return read_priority(text, names);
	if (list_length(names) == 1)
		for (int i = 0; i < (int) lengthof(words); i++)
		{
			if (pg_strcasecmp(linitial(names), words[i].name) != 0)
				continue;
			if (words[i].ours == NULL)
				refuse(text, words[i].hint);
			return pstrdup(words[i].ours);
		}
	/* as Bucardo has it: dbs, in the order in which they win */
	if (names == NIL || !mmr_names_exists("db", linitial(names)))
		refuse(text, HINT_ALL);
	return read_priority(text, names);
}

bool
mmr_stratinput_needs_check(const char *stored)
{
	MmrStrategy *s = mmr_strategy_parse(stored);

	return s != NULL && s->kind == MMR_STRATEGY_FUNCTION;
}

void
mmr_stratinput_require_sources(const char *stored, const char *sync, const char *dbgroup)
{
	MmrStrategy *s = mmr_strategy_parse(stored);

	for (int i = 0; s != NULL && i < s->nnodes; i++)
	{
		const char *args[2] = {dbgroup, psprintf("%d", s->nodes[i])};

		if (mmr_sqlrun_exec("SELECT 1 FROM mmrepl.dbgroup_db WHERE dbgroup = $1 AND node_id = $2::int4"
							" AND role <> 'target'", 2, args) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("db \"%s\" is not a source of sync \"%s\"",
							mmr_sqlrun_text("SELECT name FROM mmrepl.db WHERE node_id = $1::int4", 1, &args[1]), sync),
					 errhint("Only sources write: name those of the sync, in the order in which they win.")));
	}
}

void
mmr_stratinput_replace(const char *before, const char *after)
{
	const char *args[2] = {before, after};
	const char *const tables[] = {"sync", "rel"};

	for (int i = 0; i < lengthof(tables); i++)
		mmr_sqlrun_exec(psprintf("UPDATE mmrepl.%s AS t SET conflict_strategy = coalesce('priority:' || nullif("
								 "array_to_string(array_remove(array_replace(l.ids, $1::text, $2::text), NULL), ','), ''), 'latest')"
								 " FROM mmrepl.%s AS o CROSS JOIN LATERAL (SELECT string_to_array(substr(o.conflict_strategy, 10), ',')) AS l (ids)"
								 " WHERE t.ctid = o.ctid AND o.conflict_strategy LIKE 'priority:%%' AND $1::text = ANY (l.ids)",
								 tables[i], tables[i]), 2, args);
}
