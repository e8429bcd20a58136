/*-------------------------------------------------------------------------
 * strategy.c
 *	  How the conflicts of a sync or a table are settled, as the
 *	  configuration says it.
 *
 * Floor 1.  Reads and writes nothing.  Runs wherever the configuration is
 * read.
 *
 * Invariant: what cannot be understood means latest, on which every node can
 * fall back at any time.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "strategy.h"

/* The rest of the text behind a prefix, or NULL. */
static const char *
behind(const char *text, const char *prefix)
{
	size_t		len = strlen(prefix);

	return strncmp(text, prefix, len) == 0 ? text + len : NULL;
}

static void
parse_nodes(MmrStrategy *s, const char *text)
{
	s->nodes = palloc(sizeof(int32) * (strlen(text) / 2 + 1));
	while (*text >= '0' && *text <= '9')
	{
		char	   *end;

		s->nodes[s->nnodes++] = (int32) strtol(text, &end, 10);
		text = *end == ',' ? end + 1 : end;
	}
}

MmrStrategy *
mmr_strategy_parse(const char *stored)
{
	MmrStrategy *s = palloc0(sizeof(MmrStrategy));
	const char *rest;
	List	   *names;

	if (stored == NULL || strcmp(stored, "latest") == 0)
		return NULL;
	if (strcmp(stored, "abort") == 0)
	{
		s->kind = MMR_STRATEGY_ABORT;
		return s;
	}
	if ((rest = behind(stored, "priority:")) != NULL)
	{
		s->kind = MMR_STRATEGY_PRIORITY;
		parse_nodes(s, rest);
		return s;
	}
	if ((rest = behind(stored, "function:")) != NULL &&
		SplitIdentifierString(pstrdup(rest), '.', &names) && list_length(names) == 2)
	{
		s->kind = MMR_STRATEGY_FUNCTION;
		s->nspname = pstrdup(linitial(names));
		s->proname = pstrdup(lsecond(names));
		return s;
	}
	return NULL;
}

int
mmr_strategy_place(const MmrStrategy *strategy, int32 node)
{
	int			place = 0;

	while (place < strategy->nnodes && strategy->nodes[place] != node)
		place++;
	return place;
}
