-- Start, stop, pause, hurry and wait.

CREATE FUNCTION mmrepl._wake() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_wake';
REVOKE ALL ON FUNCTION mmrepl._wake() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._wake() IS
    'at commit: wakes the launcher and every worker of this database, which then read the configuration again; a WARNING if this server has no room for one more database (mmrepl.max_databases)';

CREATE FUNCTION mmrepl.start() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_start';
REVOKE ALL ON FUNCTION mmrepl.start() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.start() IS
    'at commit: lets replication of this database go on after mmrepl.stop(); for the owner of the extension and superusers';

CREATE FUNCTION mmrepl.stop() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_stop';
REVOKE ALL ON FUNCTION mmrepl.stop() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.stop() IS
    'at commit: stops replication of this database alone, to and from it, until mmrepl.start(), over restarts too; changes are still captured; no worker stays connected, so the database can be copied by CREATE DATABASE ... TEMPLATE, renamed or dropped; for the owner of the extension and superusers';

CREATE FUNCTION mmrepl.pause(sync text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_pause';
REVOKE ALL ON FUNCTION mmrepl.pause(text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.pause(text) IS
    'takes the name of a sync; pauses it on all its dbs until mmrepl.resume(sync), over restarts too; changes are still captured; raises 42704 for an unknown sync';

CREATE FUNCTION mmrepl.resume(sync text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_resume';
REVOKE ALL ON FUNCTION mmrepl.resume(text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.resume(text) IS
    'takes the name of a sync; lets it go on, on all its dbs; raises 42704 for an unknown sync';

CREATE FUNCTION mmrepl.kick(sync text DEFAULT NULL, timeout float8 DEFAULT NULL) RETURNS bool
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_kick';
REVOKE ALL ON FUNCTION mmrepl.kick(text, float8) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.kick(text, float8) IS
    'takes the name of a sync, NULL: all that are not paused, and seconds; has what waits here pushed now, also to peers that failed and wait for their next attempt; without timeout gives true at once, with it waits as wait_for_sync does; raises 42704 for an unknown sync, MR005 for one that is paused or stopped';

CREATE FUNCTION mmrepl.wait_for_sync(sync text DEFAULT NULL, timeout float8 DEFAULT NULL) RETURNS bool
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_wait_for_sync';
REVOKE ALL ON FUNCTION mmrepl.wait_for_sync(text, float8) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.wait_for_sync(text, float8) IS
    'takes the name of a sync, NULL: all that are not paused, and seconds (NULL or 0: without limit); waits until all that was committed in this database before the call is applied on every peer and gives true, or false and a WARNING that names the peers that lag and why; raises 42704 for an unknown sync, MR005 for one that is paused or stopped';
