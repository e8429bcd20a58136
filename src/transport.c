/*-------------------------------------------------------------------------
 * transport.c
 *	  A batch as frames to the peer, its answer back.
 *
 * Floor 3.  Runs in pushers.
 *
 * Most batches are one frame: one statement, one round trip, one commit there.
 * A large one streams through libpq's pipeline, between BEGIN and COMMIT: the
 * peer applies a frame while the next is read here, and what is in flight
 * is bounded by the socket's buffers.
 *
 * Invariant: "finished" is said only after the peer has answered that its
 * transaction is committed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"

#include "errors.h"
#include "transport.h"

#define STATEMENT	"mmrepl_apply"

/* Sends out what libpq has buffered, taking in what comes meanwhile. */
static void
transport_flush(MmrTransport *t)
{
	PGconn	   *conn = mmr_link_conn(t->link);

	for (;;)
	{
		int			rc = PQflush(conn);

		if (rc == 0)
			return;
		if (rc < 0)
			mmr_link_raise(t->link, NULL);
		mmr_link_wait(t->link, true);
		if (!PQconsumeInput(conn))
			mmr_link_raise(t->link, NULL);
	}
}

static void
transport_must(MmrTransport *t, int ok)
{
	if (!ok)
		mmr_link_raise(t->link, NULL);
}

/* Next result, waiting for it; NULL as PQgetResult. */
static PGresult *
transport_result(MmrTransport *t)
{
	PGconn	   *conn = mmr_link_conn(t->link);

	while (PQisBusy(conn))
	{
		mmr_link_wait(t->link, false);
		if (!PQconsumeInput(conn))
			mmr_link_raise(t->link, NULL);
	}
	return PQgetResult(conn);
}

/* "{1,2,3,4,5,6}": the answer to the last frame. */
static void
transport_read_counts(MmrTransport *t, PGresult *res)
{
	if (PQntuples(res) != 1 || PQgetisnull(res, 0, 0) ||
		sscanf(PQgetvalue(res, 0, 0), "{" INT64_FORMAT "," INT64_FORMAT "," INT64_FORMAT ","
			   INT64_FORMAT "," INT64_FORMAT "," INT64_FORMAT "}", &t->counts[0], &t->counts[1],
			   &t->counts[2], &t->counts[3], &t->counts[4], &t->counts[5]) != 6)
		ereport(ERROR,
				(errcode(ERRCODE_MMR_PROTOCOL),
				 errmsg("unexpected answer of the peer to a batch")));
}

/* Checks and frees a result; reads the answer out of the one to the last frame. */
static void
transport_take(MmrTransport *t, PGresult *res)
{
	ExecStatusType status = PQresultStatus(res);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		mmr_link_raise(t->link, res);
	if (status == PGRES_TUPLES_OK && !PQgetisnull(res, 0, 0))
		transport_read_counts(t, res);
	PQclear(res);
}

/* One statement outside a pipeline, to its end. */
static void
transport_drain(MmrTransport *t)
{
	PGresult   *res;

	transport_flush(t);
	while ((res = transport_result(t)) != NULL)
		transport_take(t, res);
}

void
mmr_transport_open(MmrTransport *t, MmrLink *link)
{
	Oid			types[1] = {BYTEAOID};
	PGconn	   *conn = mmr_link_conn(link);

	memset(t, 0, sizeof(*t));
	t->link = link;
	if (PQsetnonblocking(conn, 1) != 0)
		mmr_link_raise(link, NULL);
	transport_must(t, PQsendPrepare(conn, STATEMENT, "SELECT mmrepl._apply($1)", 1, types));
	transport_drain(t);
}

static void
transport_send_frame(MmrTransport *t, StringInfo frame)
{
	const char *values[1] = {frame->data};
	int			lengths[1] = {frame->len};
	int			formats[1] = {1};

	t->bytes += frame->len;
	transport_must(t, PQsendQueryPrepared(mmr_link_conn(t->link), STATEMENT, 1, values, lengths,
										  formats, 0));
}

/* A statement of the pipeline. */
static void
transport_send_command(MmrTransport *t, const char *sql)
{
	transport_must(t, PQsendQueryParams(mmr_link_conn(t->link), sql, 0, NULL, NULL, NULL, NULL, 0));
	t->unanswered++;
}

/* Takes the answers that are there, without waiting: an error is noticed early. */
static void
transport_poll(MmrTransport *t)
{
	PGconn	   *conn = mmr_link_conn(t->link);

	transport_must(t, PQconsumeInput(conn));
	while (t->unanswered > 0 && !PQisBusy(conn))
	{
		PGresult   *res = PQgetResult(conn);

		if (res == NULL)
			t->unanswered--;
		else
			transport_take(t, res);
	}
}

void
mmr_transport_frame(void *arg, StringInfo frame, bool last)
{
	MmrTransport *t = arg;
	PGconn	   *conn = mmr_link_conn(t->link);

	if (!t->streaming && !last)
	{
		transport_must(t, PQenterPipelineMode(conn));
		t->streaming = true;
		t->unanswered = 0;
		transport_send_command(t, "BEGIN ISOLATION LEVEL READ COMMITTED");
	}
	transport_send_frame(t, frame);
	t->sent_last = last;
	if (t->streaming)
	{
		t->unanswered++;
		transport_must(t, PQsendFlushRequest(conn));
	}
	transport_flush(t);
	if (t->streaming)
		transport_poll(t);
}

/* Ends the pipeline with that command, and waits until everything is answered. */
static void
transport_end_pipeline(MmrTransport *t, const char *command)
{
	PGconn	   *conn = mmr_link_conn(t->link);
	bool		synced = false;

	transport_send_command(t, command);
	transport_must(t, PQpipelineSync(conn));
	transport_flush(t);
	while (!synced)
	{
		PGresult   *res = transport_result(t);

		if (res == NULL)
			t->unanswered--;
		else if (PQresultStatus(res) == PGRES_PIPELINE_SYNC)
		{
			synced = true;
			PQclear(res);
		}
		else
			transport_take(t, res);
	}
	transport_must(t, PQexitPipelineMode(conn));
	t->streaming = false;
}

void
mmr_transport_finish(MmrTransport *t)
{
	Assert(t->sent_last);
	if (t->streaming)
		transport_end_pipeline(t, "COMMIT");
	else
		transport_drain(t);
	t->sent_last = false;
}

void
mmr_transport_cancel(MmrTransport *t)
{
	if (t->streaming)
		transport_end_pipeline(t, "ROLLBACK");
	t->sent_last = false;
}

void
mmr_transport_listen(MmrTransport *t)
{
	PGconn	   *conn = mmr_link_conn(t->link);
	PGnotify   *notify;

	transport_must(t, PQconsumeInput(conn));
	/* messages that nobody asked for are taken note of on the way */
	while ((notify = PQnotifies(conn)) != NULL)
		PQfreemem(notify);
	transport_must(t, PQstatus(conn) == CONNECTION_OK);
}
