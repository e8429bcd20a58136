/*-------------------------------------------------------------------------
 * compat.h
 *	  The only place that looks at PG_VERSION_NUM: differences between
 *	  PostgreSQL 15 (the oldest served) and later versions.
 *
 * Floor 0.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_COMPAT_H
#define MMR_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "mmrepl needs PostgreSQL 15 or later"
#endif

/* 16 replaced per-kind ownership checks by one function (afbfc02983f) */
#if PG_VERSION_NUM < 160000
#define mmr_owns_relation(relid, role)	pg_class_ownercheck(relid, role)
#else
#define mmr_owns_relation(relid, role)	object_ownercheck(RelationRelationId, relid, role)
#endif

/* 16 renamed RelFileNode to RelFileLocator (b0a55e43299) */
#if PG_VERSION_NUM < 160000
#define mmr_filenode(rel)	((rel)->rd_node.relNode)
#else
#define mmr_filenode(rel)	((rel)->rd_locator.relNumber)
#endif

#endif							/* MMR_COMPAT_H */
