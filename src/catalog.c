/*-------------------------------------------------------------------------
 * catalog.c
 *	  Where mmrepl's own objects are in this database, and who owns them.
 *
 * Floor 1.
 * Reads: pg_extension, pg_class, pg_proc.
 * Runs in: every process that mmrepl runs in.
 *
 * Invariant: a cached oid is never given out after its table was dropped;
 * absence is never cached.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "errors.h"
#include "mmrepl.h"

/* Own tables looked up in this session. Few: they are searched one by one. */
#define CATALOG_CACHED	64

typedef struct CatalogEntry
{
	NameData	name;
	Oid			relid;
} CatalogEntry;

static struct
{
	bool		registered;
	uint64		changes;
	int			count;
	CatalogEntry entries[CATALOG_CACHED];
} cache;

static void catalog_invalidate(Datum arg, Oid relid);

Oid
mmr_catalog_schema(void)
{
	return get_namespace_oid(MMR_SCHEMA, true);
}

bool
mmr_catalog_present(void)
{
	Oid			extension = get_extension_oid(MMR_EXTENSION, true);

	if (!OidIsValid(extension))
		return false;
	return !(creating_extension && CurrentExtensionObject == extension);
}

void
mmr_catalog_require(void)
{
	if (!mmr_catalog_present())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" is not installed in this database", MMR_EXTENSION),
				 errhint("Run CREATE EXTENSION %s.", MMR_EXTENSION)));
}

bool
mmr_catalog_hold(void)
{
	Oid			extension = get_extension_oid(MMR_EXTENSION, true);

	if (!OidIsValid(extension) || (creating_extension && CurrentExtensionObject == extension))
		return false;
	/* It may have been dropped while we waited for the lock, which reads what is new. */
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	return get_extension_oid(MMR_EXTENSION, true) == extension;
}

void
mmr_catalog_require_held(void)
{
	if (!mmr_catalog_hold())
		mmr_catalog_require();
}

Oid
mmr_catalog_table(const char *relname)
{
	Oid			relid;

	if (!cache.registered)
	{
		CacheRegisterRelcacheCallback(catalog_invalidate, (Datum) 0);
		cache.registered = true;
	}
	for (int i = 0; i < cache.count; i++)
	{
		if (strcmp(NameStr(cache.entries[i].name), relname) == 0)
			return cache.entries[i].relid;
	}

	relid = get_relname_relid(relname, get_namespace_oid(MMR_SCHEMA, false));
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist", MMR_SCHEMA, relname),
				 errhint("The SQL side of extension \"%s\" is damaged or older than its library; see ALTER EXTENSION %s UPDATE.",
						 MMR_EXTENSION, MMR_EXTENSION)));
	if (cache.count < CATALOG_CACHED)
	{
		namestrcpy(&cache.entries[cache.count].name, relname);
		cache.entries[cache.count++].relid = relid;
	}
	return relid;
}

uint64
mmr_catalog_changes(void)
{
	return cache.changes;
}

Oid
mmr_catalog_function(const char *proname, int nargs, const Oid *argtypes)
{
	oidvector  *args = buildoidvector(argtypes, nargs);
	Oid			oid;

	oid = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						  CStringGetDatum(proname),
						  PointerGetDatum(args),
						  ObjectIdGetDatum(get_namespace_oid(MMR_SCHEMA, false)));
	pfree(args);
	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s.%s does not exist", MMR_SCHEMA, proname),
				 errhint("The SQL side of extension \"%s\" is damaged or older than its library; see ALTER EXTENSION %s UPDATE.",
						 MMR_EXTENSION, MMR_EXTENSION)));
	return oid;
}

Oid
mmr_catalog_extension(void)
{
	mmr_catalog_require();
	return get_extension_oid(MMR_EXTENSION, false);
}

Oid
mmr_catalog_owner(void)
{
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	Oid			owner = InvalidOid;

	/* no syscache has pg_extension */
	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum(MMR_EXTENSION));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (!OidIsValid(owner))
		mmr_catalog_require();
	return owner;
}

static void
catalog_invalidate(Datum arg, Oid relid)
{
	cache.changes++;
	if (!OidIsValid(relid))
	{
		cache.count = 0;
		return;
	}
	for (int i = 0; i < cache.count; i++)
	{
		if (cache.entries[i].relid == relid)
		{
			cache.entries[i] = cache.entries[--cache.count];
			return;
		}
	}
}
