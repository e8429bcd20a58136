/*-------------------------------------------------------------------------
 * link.h
 *	  One libpq connection to another node: open, ask, close, always
 *	  interruptible, never telling a conninfo.
 *
 * Floor 1.
 *-------------------------------------------------------------------------
 */
#ifndef MMR_LINK_H
#define MMR_LINK_H

#include "libpq-fe.h"

typedef struct MmrLink MmrLink;

/*
 * Checks that conninfo has only options mmrepl allows (a short list: host,
 * hostaddr, port, dbname, user, password, sslmode, sslrootcert, ...).
 * ERROR with a hint otherwise; never quotes a value.
 */
extern void mmr_link_check_conninfo(const char *conninfo);

/*
 * Opens a connection for `purpose` ("push", "config": goes into
 * application_name), with mmrepl's session settings (search_path, client
 * encoding of this database, ISO dates, ...).  timeout in seconds.
 * ERROR (08001, 28xxx, 3D000 as the server said) naming host, port and dbname only.
 * Lives until closed; closed also by mmr_link_close_all at abort.
 */
extern MmrLink *mmr_link_open(const char *conninfo, const char *purpose, int timeout);
extern void mmr_link_close(MmrLink *link);

/* Closes whatever is open; for error recovery. No ERROR. */
extern void mmr_link_close_all(void);

/* The connection, for callers that pipeline. */
extern PGconn *mmr_link_conn(MmrLink *link);

/* "host:port/dbname", for messages. */
extern const char *mmr_link_name(MmrLink *link);

/*
 * Runs one statement with text parameters, waits for its result (latch,
 * postmaster death and interrupts are served).  ERROR with the remote
 * SQLSTATE, message, detail and hint unless the result is a success.
 * Caller PQclears.
 */
extern PGresult *mmr_link_exec(MmrLink *link, const char *sql, int nparams, const char *const *values);

/* Raises `res` (a failed one, cleared here) or the connection's own failure as a local ERROR. */
extern void mmr_link_raise(MmrLink *link, PGresult *res) pg_attribute_noreturn();

/* Waits until the connection has something to read or (want_write) can be written, serving interrupts. */
extern void mmr_link_wait(MmrLink *link, bool want_write);

#endif							/* MMR_LINK_H */
