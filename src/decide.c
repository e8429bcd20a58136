/*-------------------------------------------------------------------------
 * decide.c
 *	  What stands in a conflict when the table's strategy is not latest (A6).
 *
 * Floor 6.  Reads rows; calls the user's function.  Runs in apply backends of
 * sources, once a conflict.
 *
 * Each node may decide what it likes: what it decides against the versions is
 * a new write, and among writes the newest stands.  What has to be looked
 * after is that this ends.  A result that meets a write which had not seen
 * it may be decided again, since each write can be met by each node only
 * once.  A result that meets a result is one level up, and there is a
 * highest level.  And a function has a say in the matter of results only if
 * it adds nothing when it is given the same once more.
 *
 * Invariant: of equal rows none is written anew.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "decide.h"
#include "mergefn.h"

/* Is it over by itself, or no matter of this row? Then the batch is tried again as a whole. */
static bool
is_transient(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* deadlock, serialization */
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* canceled, shutdown */
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):	/* system */
			return true;
	}
	return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE || sqlstate == ERRCODE_DATA_CORRUPTED ||
		sqlstate == ERRCODE_INDEX_CORRUPTED;
}

/* The function of this batch's table; NULL, and decision->error, if there is none. */
static MmrMergeFn *
decide_function(MmrMerge *m, MmrMergeTable *table, MmrDecision *decision)
{
	char	   *problem;

	if (table->mergefn == NULL)
	{
		table->mergefn = mmr_mergefn_open(table->rel, table->strategy->nspname,
										  table->strategy->proname, m->batch_cxt, &problem);
		if (table->mergefn == NULL)
			decision->error = problem;
	}
	return table->mergefn;
}

/* Has the row the item's key? */
static bool
has_key(MmrMergeTable *table, TupleTableSlot *row, const MmrMergeItem *item)
{
	StringInfoData key;

	for (int i = 0; i < table->key->ncolumns; i++)
		if (row->tts_isnull[table->key->columns[i].attnum - 1])
			return false;
	initStringInfo(&key);
	mmr_key_encode(table->key, row, &key);
	return mmr_key_equal(table->key, key.data, key.len, item->change.key, item->change.keylen);
}

/*
 * Calls the function.  True: decision->merged is the row it wants.  Both
 * nodes call it with the older side first.
 */
static bool
call_function(MmrMergeTable *table, MmrTarget *t, const MmrMergeItem *item,
			  const MmrMeeting *meeting, MmrDecision *decision)
{
	MmrMergeSide a = {t->found, meeting->local};
	MmrMergeSide b = {t->row, meeting->remote};
	MmrMergeSide w = {decision->merged, MMR_VERSION_NONE};
	TupleTableSlot *again;
	bool		stable = true;

	if (mmr_version_compare(&a.version, &b.version) > 0)
	{
		MmrMergeSide swap = a;

		a = b;
		b = swap;
	}
	if (!mmr_mergefn_call(table->mergefn, table->rel, &a, &b, decision->merged))
		return false;
	if (!has_key(table, decision->merged, item))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the merge function gave a row with another key")));
	mmr_target_check(t, decision->merged);
	if (meeting->local_settled.level == 0 && meeting->remote_settled.level == 0)
		return true;
	/* a result that is given one of its sides again must stay what it is */
	w.version = b.version;
	again = MakeSingleTupleTableSlot(RelationGetDescr(t->rel), &TTSOpsVirtual);
	if (mmr_mergefn_call(table->mergefn, table->rel, &a, &w, again))
		stable = mmr_mergefn_same(again, decision->merged);
	if (stable && mmr_mergefn_call(table->mergefn, table->rel, &b, &w, again))
		stable = mmr_mergefn_same(again, decision->merged);
	ExecDropSingleTupleTableSlot(again);
	return stable;
}

/* The same in a subtransaction: what the user's code does wrong is no reason to stop. */
static bool
call_guarded(MmrMergeTable *table, MmrTarget *t, const MmrMergeItem *item,
			 const MmrMeeting *meeting, MmrDecision *decision)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool result = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		result = call_function(table, t, item, meeting, decision);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		if (is_transient(edata->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		/* what it kept of the call under way is of no use */
		mmr_mergefn_close(table->mergefn);
		table->mergefn = NULL;
		decision->error = edata->message;
		result = false;
	}
	PG_END_TRY();
	return result;
}

static void
decide_by_function(MmrMerge *m, MmrMergeTable *table, MmrTarget *t, const MmrMergeItem *item,
				   const MmrMeeting *meeting, const MmrVerdict *verdict, MmrDecision *decision)
{
	int			level = mmr_resolve_level(meeting);
	bool		like_local;
	bool		like_remote;

	/* a delete is no row: the newer of the two stands */
	if (!meeting->local_row || !meeting->remote_row || level > MMR_SETTLED_LEVELS)
		return;
	if (decide_function(m, table, decision) == NULL)
		return;
	decision->merged = MakeSingleTupleTableSlot(RelationGetDescr(t->rel), &TTSOpsVirtual);
	if (call_guarded(table, t, item, meeting, decision))
	{
		like_local = mmr_mergefn_same(decision->merged, t->found);
		like_remote = mmr_mergefn_same(decision->merged, t->row);
		if (!(verdict->resolution == MMR_APPLY_REMOTE ? like_remote : like_local))
			decision->want = like_local ? MMR_WANT_LOCAL :
				like_remote ? MMR_WANT_REMOTE : MMR_WANT_MERGED;
		decision->settled.node = m->my_node;
		decision->settled.level = level;
	}
	if (decision->want != MMR_WANT_MERGED)
	{
		ExecDropSingleTupleTableSlot(decision->merged);
		decision->merged = NULL;
	}
}

static void
decide_by_priority(MmrMergeTable *table, const MmrMeeting *meeting, const MmrVerdict *verdict,
				   MmrDecision *decision)
{
	int32		local = mmr_resolve_owner(&meeting->local, &meeting->local_settled);
	int32		remote = mmr_resolve_owner(&meeting->remote, &meeting->remote_settled);
	int			first = mmr_strategy_place(table->strategy, local) -
		mmr_strategy_place(table->strategy, remote);

	if (first == 0)
		return;
	if (first < 0 && verdict->resolution == MMR_APPLY_REMOTE)
		decision->want = MMR_WANT_LOCAL;
	else if (first > 0 && verdict->resolution == MMR_KEEP_LOCAL)
		decision->want = MMR_WANT_REMOTE;
	decision->settled.node = first < 0 ? local : remote;
	decision->settled.level = 1;
}

/* Is there the same on both sides? */
static bool
is_same(MmrTarget *t, const MmrMeeting *meeting)
{
	if (meeting->local_row != meeting->remote_row)
		return false;
	return !meeting->local_row || mmr_mergefn_same(t->found, t->row);
}

void
mmr_decide(MmrMerge *m, MmrMergeTable *table, MmrTarget *t, const MmrMergeItem *item,
		   const MmrMeeting *meeting, const MmrVerdict *verdict, MmrDecision *decision)
{
	memset(decision, 0, sizeof(*decision));
	if (!mmr_resolve_is_open(meeting))
		return;
	if (is_same(t, meeting))
	{
		decision->quiet = meeting->local_settled.level > 0 || meeting->remote_settled.level > 0 ||
			table->strategy->kind == MMR_STRATEGY_ABORT;
		return;
	}
	switch (table->strategy->kind)
	{
		case MMR_STRATEGY_PRIORITY:
			decide_by_priority(table, meeting, verdict, decision);
			break;
		case MMR_STRATEGY_FUNCTION:
			decide_by_function(m, table, t, item, meeting, verdict, decision);
			break;
		case MMR_STRATEGY_ABORT:
			decision->abort = true;
			break;
	}
}
