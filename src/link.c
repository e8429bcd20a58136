/*-------------------------------------------------------------------------
 * link.c
 *	  One libpq connection to another node: open, ask, close.
 *
 * Floor 1.
 * Reads and writes no table.
 * Runs in: pushers, the janitor, backends that configure.
 *
 * Invariants: no libpq call here blocks except the name lookup inside
 * PQconnectStartParams; every wait serves interrupts and the death of the
 * postmaster.  No conninfo, and no text that was cut out of one, ever gets
 * into a message, nor does the statement that holds it into the log.
 *
 * There is no cancel request (libpq 15 can only send it blocking): a
 * connection that is given up is closed, and the other side notices that by
 * client_connection_check_interval, also in the middle of a statement.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/ilist.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "conninfo.h"
#include "link.h"
#include "mmrepl.h"

struct MmrLink
{
	dlist_node	node;
	PGconn	   *conn;
	char	   *name;			/* host:port/dbname */
	char	   *purpose;
};

/* Given to libpq unless the conninfo says otherwise: a cut network is noticed within some ten seconds. */
static const char *const link_defaults[][2] = {
	{"keepalives_idle", "5"},
	{"keepalives_interval", "2"},
	{"keepalives_count", "3"},
	{"tcp_user_timeout", "10000"},
};

/*
 * The session at the other end, the same whatever its role or database has
 * set.  A session whose client has gone must go soon, for it may hold locks.
 */
static const char link_session[] =
	"SET search_path = pg_catalog, pg_temp;"
	"SET datestyle = 'ISO, MDY';"
	"SET intervalstyle = postgres;"
	"SET timezone = 'GMT';"
	"SET extra_float_digits = 3;"
	"SET bytea_output = hex;"
	"SET xmloption = content;"
	"SET standard_conforming_strings = on;"
	"SET client_min_messages = warning;"
	"SET row_security = off;"
	"SET statement_timeout = 0;"
	"SET lock_timeout = 0;"
	"SET idle_in_transaction_session_timeout = 0;"
	"SET idle_session_timeout = 0;"
	"SET default_transaction_isolation = 'read committed';"
	"SET default_transaction_read_only = off;"
	"SET default_transaction_deferrable = off;"
	"SET client_connection_check_interval = '2s';"
	"SET tcp_keepalives_idle = 5;"
	"SET tcp_keepalives_interval = 2;"
	"SET tcp_keepalives_count = 3;"
	"SET tcp_user_timeout = '10s'";

static dlist_head links = DLIST_STATIC_INIT(links);
static bool callback_registered = false;

static int	link_options(MmrLink *link, PQconninfoOption *options, int timeout,
						 const char **keywords, const char **values, char *appname);
static void link_connect(MmrLink *link, PQconninfoOption *options, int timeout);
static int	link_await_connection(MmrLink *link, TimestampTz deadline);
static void link_raise_connect(MmrLink *link, bool timed_out, int timeout) pg_attribute_noreturn();
static void link_free(MmrLink *link);
static PGresult *link_get_result(MmrLink *link);
static void link_notice(void *arg, const PGresult *res);
static void link_at_xact_end(XactEvent event, void *arg);
static char *link_clean(const char *text);

void
mmr_link_check_conninfo(const char *conninfo)
{
	PQconninfoFree(mmr_conninfo_parse(conninfo));
}

MmrLink *
mmr_link_open(const char *conninfo, const char *purpose, int timeout)
{
	PQconninfoOption *options = mmr_conninfo_parse(conninfo);
	MmrLink    *volatile link;
	PGresult   *res;

	if (!callback_registered)
	{
		RegisterXactCallback(link_at_xact_end, NULL);
		callback_registered = true;
	}

	PG_TRY();
	{
		const char *host = NULL;
		const char *port = NULL;
		const char *dbname = NULL;
		MemoryContext old;

		for (PQconninfoOption *o = options; o->keyword != NULL; o++)
		{
			const char *val = o->val ? o->val : "";

			if (strcmp(o->keyword, "host") == 0 && val[0])
				host = val;
			else if (strcmp(o->keyword, "hostaddr") == 0 && val[0] && !host)
				host = val;
			else if (strcmp(o->keyword, "port") == 0 && val[0])
				port = val;
			else if (strcmp(o->keyword, "dbname") == 0 && val[0])
				dbname = val;
		}

		old = MemoryContextSwitchTo(TopMemoryContext);
		link = palloc0(sizeof(MmrLink));
		link->name = psprintf("%s:%s/%s", host ? host : "local",
							  port ? port : "5432",
							  dbname ? dbname : "?");
		link->purpose = pstrdup(purpose);
		MemoryContextSwitchTo(old);
		dlist_push_tail(&links, &link->node);

		link_connect(link, options, timeout);
	}
	PG_FINALLY();
	{
		PQconninfoFree(options);
	}
	PG_END_TRY();

	PG_TRY();
	{
		res = mmr_link_exec(link, link_session, 0, NULL);
		PQclear(res);
	}
	PG_CATCH();
	{
		mmr_link_close(link);
		PG_RE_THROW();
	}
	PG_END_TRY();

	return link;
}

/*
 * A link that is not open any more is left alone: an error may have closed
 * it (mmr_link_close_all) behind the back of its holder.
 */
void
mmr_link_close(MmrLink *link)
{
	dlist_iter	iter;

	dlist_foreach(iter, &links)
	{
		if (dlist_container(MmrLink, node, iter.cur) == link)
		{
			link_free(link);
			return;
		}
	}
}

void
mmr_link_close_all(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &links)
		link_free(dlist_container(MmrLink, node, iter.cur));
}

PGconn *
mmr_link_conn(MmrLink *link)
{
	return link->conn;
}

const char *
mmr_link_name(MmrLink *link)
{
	return link->name;
}

PGresult *
mmr_link_exec(MmrLink *link, const char *sql, int nparams, const char *const *values)
{
	PGresult   *volatile last = NULL;
	PGresult   *res;
	int			sent;

	/* without parameters by the simple protocol: sql may then hold several statements */
	if (nparams == 0)
		sent = PQsendQuery(link->conn, sql);
	else
		sent = PQsendQueryParams(link->conn, sql, nparams, NULL, values, NULL, NULL, 0);
	if (!sent)
		mmr_link_raise(link, NULL);

	PG_TRY();
	{
		while ((res = link_get_result(link)) != NULL)
		{
			ExecStatusType status = PQresultStatus(res);

			/* the first failure tells more than what follows it */
			if (last != NULL && PQresultStatus(last) == PGRES_FATAL_ERROR)
				PQclear(res);
			else
			{
				PQclear(last);
				last = res;
			}
			if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT ||
				status == PGRES_COPY_BOTH ||
				PQstatus(link->conn) == CONNECTION_BAD)
				break;
		}
	}
	PG_CATCH();
	{
		PQclear(last);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (last == NULL)
		mmr_link_raise(link, NULL);
	switch (PQresultStatus(last))
	{
		case PGRES_EMPTY_QUERY:
		case PGRES_COMMAND_OK:
		case PGRES_TUPLES_OK:
		case PGRES_SINGLE_TUPLE:
		case PGRES_COPY_IN:
		case PGRES_COPY_OUT:
		case PGRES_COPY_BOTH:
			break;
		default:
			mmr_link_raise(link, last);
	}
	return last;
}

void
mmr_link_raise(MmrLink *link, PGresult *res)
{
	const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	char	   *primary = link_clean(PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY));
	char	   *detail = link_clean(PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL));
	char	   *hint = link_clean(PQresultErrorField(res, PG_DIAG_MESSAGE_HINT));
	char	   *context = link_clean(PQresultErrorField(res, PG_DIAG_CONTEXT));
	char	   *more;
	int			sqlstate = ERRCODE_CONNECTION_FAILURE;

	if (state && strlen(state) == 5)
		sqlstate = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
	if (primary == NULL)
		primary = link_clean(PQresultErrorMessage(res));
	if (primary == NULL)
		primary = link_clean(PQerrorMessage(link->conn));
	PQclear(res);

	/* libpq's own have several lines: the first says it */
	more = primary ? strchr(primary, '\n') : NULL;
	if (more)
	{
		*more++ = '\0';
		if (detail == NULL)
			detail = more + strspn(more, "\t ");
	}

	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg_internal("%s", primary ? primary : "connection failed without a message"),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 context ? errcontext("%s", context) : 0,
			 errcontext("connection to %s", link->name)));
}

void
mmr_link_wait(MmrLink *link, bool want_write)
{
	int			rc;

	if (PQsocket(link->conn) == PGINVALID_SOCKET)
		mmr_link_raise(link, NULL);
	rc = WaitLatchOrSocket(MyLatch,
						   WL_EXIT_ON_PM_DEATH | WL_LATCH_SET | WL_SOCKET_READABLE |
						   (want_write ? WL_SOCKET_WRITEABLE : 0),
						   PQsocket(link->conn), 0, PG_WAIT_EXTENSION);
	if (rc & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Fills the arrays for libpq and gives the time for the whole attempt, in
 * seconds: what the conninfo says or else `timeout`, for each host it names.
 */
static int
link_options(MmrLink *link, PQconninfoOption *options, int timeout,
			 const char **keywords, const char **values, char *appname)
{
	int			n = 0;
	int			hosts = 1;

	for (int i = 0; i < (int) lengthof(link_defaults); i++)
	{
		keywords[n] = link_defaults[i][0];
		values[n++] = link_defaults[i][1];
	}
	for (PQconninfoOption *o = options; o->keyword != NULL; o++)
	{
		if (o->val == NULL || o->val[0] == '\0')
			continue;
		/* libpq takes the last of two */
		keywords[n] = o->keyword;
		values[n++] = o->val;
		if (strcmp(o->keyword, "connect_timeout") == 0 && atoi(o->val) > 0)
			timeout = atoi(o->val);
		if (strcmp(o->keyword, "host") == 0)
		{
			for (const char *p = o->val; *p; p++)
				hosts += (*p == ',');
		}
	}
	snprintf(appname, NAMEDATALEN, "%s %s", MMR_EXTENSION, link->purpose);
	keywords[n] = "application_name";
	values[n++] = appname;
	keywords[n] = "client_encoding";
	values[n++] = GetDatabaseEncodingName();
	keywords[n] = NULL;
	values[n] = NULL;
	return timeout * hosts;
}

/* Opens link->conn; on failure frees the link and raises. */
static void
link_connect(MmrLink *link, PQconninfoOption *options, int timeout)
{
	const char *keywords[MMR_CONNINFO_MAX + lengthof(link_defaults) + 3];
	const char *values[lengthof(keywords)];
	char		appname[NAMEDATALEN];
	const int	total = link_options(link, options, timeout, keywords, values, appname);

	if (!AcquireExternalFD())
	{
		link_free(link);
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not establish connection"),
				 errdetail("There are too many open files on the local server."),
				 errhint("Raise the server's max_files_per_process and/or \"ulimit -n\" limits.")));
	}
	link->conn = PQconnectStartParams(keywords, values, 0);
	if (link->conn == NULL)
	{
		ReleaseExternalFD();
		link_free(link);
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}

	PG_TRY();
	{
		TimestampTz deadline = 0;

		/* verbose: the message then has the SQLSTATE, which libpq does not give otherwise */
		PQsetErrorVerbosity(link->conn, PQERRORS_VERBOSE);
		PQsetNoticeReceiver(link->conn, link_notice, link);
		if (total > 0)
			deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   (int64) total * 1000);
		switch (link_await_connection(link, deadline))
		{
			case 0:
				break;
			case 1:
				link_raise_connect(link, false, total);
			default:
				link_raise_connect(link, true, total);
		}
		PQsetErrorVerbosity(link->conn, PQERRORS_DEFAULT);
		if (PQsetnonblocking(link->conn, 1) != 0)
			mmr_link_raise(link, NULL);
	}
	PG_CATCH();
	{
		link_free(link);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* 0: connected, 1: failed, 2: out of time. */
static int
link_await_connection(MmrLink *link, TimestampTz deadline)
{
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	if (PQstatus(link->conn) == CONNECTION_BAD)
		return 1;

	while (status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED)
	{
		int			io = (status == PGRES_POLLING_READING) ?
			WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		long		wait = -1;
		int			rc;

		if (deadline != 0)
		{
			wait = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
			if (wait <= 0)
				return 2;
		}
		rc = WaitLatchOrSocket(MyLatch,
							   WL_EXIT_ON_PM_DEATH | WL_LATCH_SET | io |
							   (wait >= 0 ? WL_TIMEOUT : 0),
							   PQsocket(link->conn), wait, PG_WAIT_EXTENSION);
		if (rc & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		if (rc & io)
			status = PQconnectPoll(link->conn);
	}
	return status == PGRES_POLLING_OK ? 0 : 1;
}

/*
 * libpq's message for a failed connection has the form
 *		connection to server at "...", port 5432 failed: FATAL:  28P01: text
 *		LOCATION:  function, file.c:123
 * Takes the state out of it, and the location away.
 */
static void
link_raise_connect(MmrLink *link, bool timed_out, int timeout)
{
	int			sqlstate = ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
	StringInfoData detail;
	char	   *text;

	if (timed_out)
		ereport(ERROR,
				(errcode(sqlstate),
				 errhidestmt(true),
				 errmsg("could not connect to %s", link->name),
				 errdetail("There was no answer within %d s.", timeout),
				 errhint("Check that the server runs, its address, port and firewall, or raise \"mmrepl.connect_timeout\".")));

	initStringInfo(&detail);
	text = link_clean(PQerrorMessage(link->conn));
	for (char *line = text ? strtok(text, "\n") : NULL; line; line = strtok(NULL, "\n"))
	{
		char	   *p = line;
		size_t		len = strlen(line);
		size_t		digits = strspn(line + len - Min(len, 1), "0123456789");

		/* LOCATION, in whatever language: ends with .c:123 */
		if (digits && strstr(line, ".c:"))
			continue;
		while ((p = strstr(p, ":  ")) != NULL)
		{
			const char *s = p + 3;

			if (strspn(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 &&
				s[5] == ':' && s[6] == ' ')
			{
				sqlstate = MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4]);
				memmove(p + 2, s + 7, strlen(s + 7) + 1);
				p[1] = ' ';
				break;
			}
			p += 3;
		}
		appendStringInfo(&detail, "%s%s", detail.len ? "\n" : "", line);
	}
	ereport(ERROR,
			(errcode(sqlstate),
			 errhidestmt(true),
			 errmsg("could not connect to %s", link->name),
			 detail.len ? errdetail_internal("%s", detail.data) : 0));
}

static void
link_free(MmrLink *link)
{
	dlist_delete(&link->node);
	if (link->conn)
	{
		ReleaseExternalFD();
		PQfinish(link->conn);
	}
	pfree(link->name);
	pfree(link->purpose);
	pfree(link);
}

/* Like PQgetResult, but flushes what waits to be sent and serves interrupts. */
static PGresult *
link_get_result(MmrLink *link)
{
	int			unsent = PQflush(link->conn);

	while (unsent > 0 || (unsent == 0 && PQisBusy(link->conn)))
	{
		mmr_link_wait(link, unsent > 0);
		if (PQconsumeInput(link->conn) == 0)
			break;				/* PQgetResult tells */
		unsent = PQflush(link->conn);
	}
	return PQgetResult(link->conn);
}

/* What the other side remarks is not for this server's log, except when one looks. */
static void
link_notice(void *arg, const PGresult *res)
{
	MmrLink    *link = (MmrLink *) arg;
	const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);

	if (message_level_is_interesting(DEBUG1))
	{
		char	   *text = link_clean(message);

		elog(DEBUG1, "%s: %s", link->name, text ? text : "(no text)");
	}
}

static void
link_at_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PARALLEL_ABORT)
		mmr_link_close_all();
}

/*
 * A palloc'd copy without trailing newlines, valid in this database's
 * encoding: before a connection stands, the server answers in its own.
 * NULL if there is nothing.
 */
static char *
link_clean(const char *text)
{
	char	   *copy;
	size_t		len;

	if (text == NULL || text[0] == '\0')
		return NULL;
	copy = pstrdup(text);
	len = strlen(copy);
	while (len > 0 && (copy[len - 1] == '\n' || copy[len - 1] == ' '))
		copy[--len] = '\0';
	if (!pg_verifymbstr(copy, len, true))
	{
		for (size_t i = 0; i < len; i++)
		{
			if (IS_HIGHBIT_SET(copy[i]))
				copy[i] = '?';
		}
	}
	return len > 0 ? copy : NULL;
}
