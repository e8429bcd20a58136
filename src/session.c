/*-------------------------------------------------------------------------
 * session.c
 *	  Brackets for work done with the rights of the extension's owner, or of a table's.
 *
 * Floor 1.
 * Reads: pg_class, through the syscache.
 * Runs in: client backends, apply backends, workers.
 *
 * Invariant: the rights are those of the owner of the table that is there,
 * never a fixed superuser's: if somebody else has put a relation of that name
 * in its place, he gets no more rights than his own.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "mmrepl.h"
#include "session.h"

Oid
mmr_session_table(const char *relname)
{
	Oid			nspid = get_namespace_oid(MMR_SCHEMA, true);

	return OidIsValid(nspid) ? get_relname_relid(relname, nspid) : InvalidOid;
}

bool
mmr_session_become_owner(MmrSession *save)
{
	Oid			relid = mmr_session_table("local_node");
	HeapTuple	tuple;
	Oid			owner;

	if (!OidIsValid(relid))
		return false;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);

	GetUserIdAndSecContext(&save->userid, &save->sec_context);
	SetUserIdAndSecContext(owner,
						   save->sec_context | SECURITY_LOCAL_USERID_CHANGE);
	save->nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return true;
}

void
mmr_session_restore(const MmrSession *save)
{
	AtEOXact_GUC(true, save->nestlevel);
	SetUserIdAndSecContext(save->userid, save->sec_context);
}

void
mmr_session_begin_foreign(MmrSession *save, Oid owner)
{
	GetUserIdAndSecContext(&save->userid, &save->sec_context);
	SetUserIdAndSecContext(owner, save->sec_context | SECURITY_RESTRICTED_OPERATION);
	save->nestlevel = NewGUCNestLevel();
}

void
mmr_session_end_foreign(const MmrSession *save)
{
	AtEOXact_GUC(false, save->nestlevel);
	SetUserIdAndSecContext(save->userid, save->sec_context);
}
