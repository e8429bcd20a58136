/*-------------------------------------------------------------------------
 * keyindex.h
 *	  Which index tells the rows of a table apart.
 *
 * Floor 1.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_KEYINDEX_H
#define MMR_KEYINDEX_H

/*
 * The index of that name in the table's schema, or the primary key's if
 * key_name is NULL.  InvalidOid if there is none or it cannot serve: it must
 * be unique, immediate, valid, without predicate and expressions, and its
 * columns NOT NULL.  Takes no lock on the table.
 */
extern Oid	mmr_keyindex_find(Oid relid, const char *key_name);

#endif							/* MMR_KEYINDEX_H */
