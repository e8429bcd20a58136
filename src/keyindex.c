/*-------------------------------------------------------------------------
 * keyindex.c
 *	  Which index tells the rows of a table apart.
 *
 * Floor 1.
 * Reads: pg_index, pg_attribute, pg_constraint, through caches, without locks.
 * Runs in: everywhere, inside a transaction.
 *
 * Invariant: an index that it gives holds every row of the table, each under
 * its own key, as soon as the row is there.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "nodes/bitmapset.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "keyindex.h"

/* Can rows be told apart by this index, whatever transaction looks? */
static bool
index_identifies_rows(Oid relid, Oid indexoid)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexoid));
	Form_pg_index index;
	bool		good;

	if (!HeapTupleIsValid(tuple))
		return false;
	index = (Form_pg_index) GETSTRUCT(tuple);
	good = index->indrelid == relid && index->indisunique &&
		index->indimmediate && index->indisvalid && index->indislive &&
		heap_attisnull(tuple, Anum_pg_index_indpred, NULL) &&
		heap_attisnull(tuple, Anum_pg_index_indexprs, NULL);
	for (int i = 0; good && i < index->indnkeyatts; i++)
	{
		HeapTuple	att = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid),
										  Int16GetDatum(index->indkey.values[i]));

		good = HeapTupleIsValid(att) &&
			((Form_pg_attribute) GETSTRUCT(att))->attnotnull;
		if (HeapTupleIsValid(att))
			ReleaseSysCache(att);
	}
	ReleaseSysCache(tuple);
	return good;
}

Oid
mmr_keyindex_find(Oid relid, const char *key_name)
{
	Oid			indexoid = InvalidOid;

	if (key_name != NULL)
		indexoid = get_relname_relid(key_name, get_rel_namespace(relid));
	else
	{
		Oid			constraint = InvalidOid;

		bms_free(get_primary_key_attnos(relid, false, &constraint));
		if (OidIsValid(constraint))
			indexoid = get_constraint_index(constraint);
	}
	if (OidIsValid(indexoid) && index_identifies_rows(relid, indexoid))
		return indexoid;
	return InvalidOid;
}
