/*-------------------------------------------------------------------------
 * conninfo.c
 *	  Which connection strings are accepted.
 *
 * Floor 0.
 * Reads and writes no table.
 * Runs in: everything that connects or is configured.
 *
 * Invariant: no text that was cut out of a conninfo gets into a message, nor
 * the statement that holds it into the log: libpq's complaints about a string
 * that it cannot parse quote it, so they are not passed on.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "conninfo.h"

/* What a conninfo may hold. Not: service, options, replication, application_name, client_encoding. */
static const char *const allowed_options[] = {
	"host", "hostaddr", "port", "dbname", "user", "password", "passfile",
	"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl",
	"sslcrldir", "sslsni", "ssl_min_protocol_version",
	"ssl_max_protocol_version", "sslnegotiation", "channel_binding",
	"require_auth", "gssencmode", "krbsrvname", "requirepeer",
	"target_session_attrs", "connect_timeout", "keepalives",
	"keepalives_idle", "keepalives_interval", "keepalives_count",
	"tcp_user_timeout", NULL
};
StaticAssertDecl(lengthof(allowed_options) <= MMR_CONNINFO_MAX, "MMR_CONNINFO_MAX is too small");

static char *conninfo_options(void);
static bool conninfo_allows(const char *keyword);

PQconninfoOption *
mmr_conninfo_parse(const char *conninfo)
{
	char	   *error = NULL;
	PQconninfoOption *options = PQconninfoParse(conninfo, &error);
	const char *refused = NULL;
	bool		has_dbname = false;

	if (options == NULL)
	{
		if (error)
			PQfreemem(error);	/* may quote a password */
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errhidestmt(true),
				 errmsg("invalid connection string"),
				 errdetail("It is not a list of option = value, or has an option that does not exist. Its text is not shown because it may hold a password."),
				 errhint("Write it as in 'host=pg02 port=5432 dbname=app user=mmrepl password=...', a value with spaces or quotes in single quotes. Options that may be used: %s.",
						 conninfo_options())));
	}

	for (PQconninfoOption *o = options; o->keyword != NULL; o++)
	{
		if (o->val == NULL)
			continue;
		if (strcmp(o->keyword, "dbname") == 0 && o->val[0] != '\0')
			has_dbname = true;
		if (!conninfo_allows(o->keyword))
			refused = pstrdup(o->keyword);
	}
	if (refused || !has_dbname)
		PQconninfoFree(options);

	if (refused)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errhidestmt(true),
				 errmsg("connection option \"%s\" is not allowed", refused),
				 errhint("Options that may be used: %s.", conninfo_options())));
	if (!has_dbname)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errhidestmt(true),
				 errmsg("connection string names no database"),
				 errhint("Add dbname=... to it.")));
	return options;
}

static char *
conninfo_options(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; allowed_options[i]; i++)
		appendStringInfo(&list, "%s%s", i ? ", " : "", allowed_options[i]);
	return list.data;
}

static bool
conninfo_allows(const char *keyword)
{
	for (int i = 0; allowed_options[i]; i++)
	{
		if (strcmp(allowed_options[i], keyword) == 0)
			return true;
	}
	return false;
}
