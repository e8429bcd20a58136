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
#if PG_VERSION_NUM < 160000
#define MmrFileLocator				RelFileNode
#define mmr_file_locator(rel)		((rel)->rd_node)
#define mmr_file_same(a, b)			RelFileNodeEquals(a, b)
#else
#define MmrFileLocator				RelFileLocator
#define mmr_file_locator(rel)		((rel)->rd_locator)
#define mmr_file_same(a, b)			RelFileLocatorEquals(a, b)
#endif

/* A page of a table that is locked, but not open */
#define mmr_read_buffer(locator, block) \
	ReadBufferWithoutRelcache(locator, MAIN_FORKNUM, block, RBM_NORMAL, NULL, true)

/* The last leaf of a btree, locked for reading; InvalidBuffer: it is empty.  17 took snapshots that are too old out */
#if PG_VERSION_NUM < 170000
#define mmr_btree_last_leaf(index)	_bt_get_endpoint(index, 0, true, NULL)
#else
#define mmr_btree_last_leaf(index)	_bt_get_endpoint(index, 0, true)
#endif

/* 17 moved it (ab355e3a88d) */
#if PG_VERSION_NUM < 170000
#define mmr_my_lxid()				(MyProc->lxid)
#else
#define mmr_my_lxid()				(MyProc->vxid.lxid)
#endif

/*
 * An executor state with this one table in its range table.  16 moved
 * permissions out of range table entries (a61b1f74823), 18 added the set of
 * unpruned entries (cbc127917e0).
 */
#define MMR_RANGE_TABLE_ENTRY(rte, rel, lock) \
	RangeTblEntry *rte = makeNode(RangeTblEntry); \
	rte->rtekind = RTE_RELATION; \
	rte->relid = RelationGetRelid(rel); \
	rte->relkind = (rel)->rd_rel->relkind; \
	rte->rellockmode = (lock)
#if PG_VERSION_NUM < 160000
#define mmr_init_range_table(estate, rel, lock) \
	do { \
		MMR_RANGE_TABLE_ENTRY(rte, rel, lock); \
		ExecInitRangeTable(estate, list_make1(rte)); \
	} while (0)
#elif PG_VERSION_NUM < 180000
#define mmr_init_range_table(estate, rel, lock) \
	do { \
		List	   *perminfos = NIL; \
		MMR_RANGE_TABLE_ENTRY(rte, rel, lock); \
		addRTEPermissionInfo(&perminfos, rte); \
		ExecInitRangeTable(estate, list_make1(rte), perminfos); \
	} while (0)
#else
#define mmr_init_range_table(estate, rel, lock) \
	do { \
		List	   *perminfos = NIL; \
		MMR_RANGE_TABLE_ENTRY(rte, rel, lock); \
		addRTEPermissionInfo(&perminfos, rte); \
		ExecInitRangeTable(estate, list_make1(rte), perminfos, bms_make_singleton(1)); \
	} while (0)
#endif

/* Which columns an UPDATE through that result relation sets; 16 moved it, too */
#if PG_VERSION_NUM < 160000
#define mmr_set_updated_columns(rri, estate, columns) \
	(exec_rt_fetch((rri)->ri_RangeTableIndex, estate)->updatedCols = (columns))
#else
#define mmr_set_updated_columns(rri, estate, columns) \
	(getRTEPermissionInfo((estate)->es_rteperminfos, \
						  exec_rt_fetch((rri)->ri_RangeTableIndex, estate))->updatedCols = (columns))
#endif

/* 16 added run_as_table_owner (1e10d49b65d) */
#if PG_VERSION_NUM < 160000
#define mmr_truncate_guts(rels, relids) \
	ExecuteTruncateGuts(rels, relids, NIL, DROP_RESTRICT, false)
#else
#define mmr_truncate_guts(rels, relids) \
	ExecuteTruncateGuts(rels, relids, NIL, DROP_RESTRICT, false, true)
#endif

/* Functions of that name, whatever their arguments; 19 tells why there is none */
#if PG_VERSION_NUM < 190000
#define mmr_func_candidates(names) \
	FuncnameGetCandidates(names, -1, NIL, false, false, false, true)
#else
#define mmr_func_candidates(names) \
	FuncnameGetCandidates(names, -1, NIL, false, false, false, true, &(int) {0})
#endif

/* 16 replaced per-kind checks of privileges by one function (c727f511bd7) */
#if PG_VERSION_NUM < 160000
#define mmr_may_execute(funcid, role) \
	(pg_proc_aclcheck(funcid, role, ACL_EXECUTE) == ACLCHECK_OK)
#else
#define mmr_may_execute(funcid, role) \
	(object_aclcheck(ProcedureRelationId, funcid, role, ACL_EXECUTE) == ACLCHECK_OK)
#endif

#endif							/* MMR_COMPAT_H */
