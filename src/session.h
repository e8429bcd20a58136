/*-------------------------------------------------------------------------
 * session.h
 *	  Brackets for work done with the rights of the extension's owner, or of a table's.
 *
 * Floor 1.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_SESSION_H
#define MMR_SESSION_H

typedef struct MmrSession
{
	Oid			userid;
	int			sec_context;
	int			nestlevel;
} MmrSession;

/*
 * From here to mmr_session_restore the session has the rights of the owner of
 * mmrepl's tables and search_path is "pg_catalog, pg_temp".  False, and
 * nothing done, if the extension is not in this database.  Needs a
 * transaction; an ERROR in between is cleaned up by the (sub)transaction's
 * abort.
 */
extern bool mmr_session_become_owner(MmrSession *save);
extern void mmr_session_restore(const MmrSession *save);

/*
 * From here to mmr_session_end_foreign code of the owner of a table may run: as him,
 * in a restricted context (A9).  What it sets with SET is forgotten at the end: the
 * next code may be somebody else's.  As above, in a transaction.
 */
extern void mmr_session_begin_foreign(MmrSession *save, Oid owner);
extern void mmr_session_end_foreign(const MmrSession *save);

/* Oid of a table of mmrepl's own, InvalidOid if there is none (extension absent). */
extern Oid	mmr_session_table(const char *relname);

#endif							/* MMR_SESSION_H */
