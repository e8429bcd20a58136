-- What a peer's pusher calls here (src/hello.c, src/apply.c).  A role that has LOGIN, USAGE on this schema and
-- EXECUTE on these, on _asks, _life_known, _life_claim and _config_state can push; to carry a configuration, on all internal functions.

CREATE FUNCTION mmrepl._hello(protocol int4, sync_id int4, node_id int4, system_identifier int8,
    database_oid oid, encoding text, clock int8,
    OUT receiver int4, OUT "position" pg_catalog.pg_snapshot, OUT copy int4, OUT its_clock int8, OUT waits_for text)
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'mmrepl_hello';
REVOKE ALL ON FUNCTION mmrepl._hello(int4, int4, int4, int8, oid, text, int8) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._hello(int4, int4, int4, int8, oid, text, int8) IS 'handshake of a pusher: who it is and what for, and its clock (microseconds since 2000); gives this node''s id, the position up to which that sync has been applied here from there, the initial copy that it is to send first (as onetimecopy, 0: only what is in the log; NULL: none), the clock here, and for whom this db waits before it takes anything; ends other sessions that apply the same; raises MR003, MR004, MR005, MR008';

CREATE FUNCTION mmrepl._apply(frame bytea) RETURNS int8[]
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_apply';
REVOKE ALL ON FUNCTION mmrepl._apply(bytea) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._apply(bytea) IS 'applies one frame of a batch; with the last one gives the numbers of rows inserted, updated, deleted, of truncates, of conflicts, and of the source''s keys that stand aside; raises MR001, MR002, MR005, MR006, MR007';

CREATE FUNCTION mmrepl._copy_filled(sync_id int4) RETURNS text[]
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_copy_filled';
REVOKE ALL ON FUNCTION mmrepl._copy_filled(int4) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._copy_filled(int4) IS 'schema and name, one after the other, of the sync''s tables that have rows here from before the sync; after _hello';

CREATE FUNCTION mmrepl._bequests(sync_id int4, version int8, author int4) RETURNS SETOF int4
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_bequests';
REVOKE ALL ON FUNCTION mmrepl._bequests(int4, int8, int4) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._bequests(int4, int8, int4) IS 'after _hello: takes the version of the caller''s configuration and who made it; gives the departed sources of that sync of which the caller has not said yet, by _bequest_taken, that it has what they left here (of others nothing is left); NULL if the version here is another one';

CREATE FUNCTION mmrepl._bequest(sync_id int4, node_id int4, has pg_catalog.pg_snapshot) RETURNS SETOF bytea
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_bequest';
REVOKE ALL ON FUNCTION mmrepl._bequest(int4, int4, pg_catalog.pg_snapshot) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._bequest(int4, int4, pg_catalog.pg_snapshot) IS
    'after _hello: what that departed source has sent here and, beyond that position, not to the caller, as the frames of a batch, none if nothing; ends sessions of that source';

CREATE FUNCTION mmrepl._bequest_taken(sync_id int4, node_id int4) RETURNS void
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_bequest_taken';
REVOKE ALL ON FUNCTION mmrepl._bequest_taken(int4, int4) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._bequest_taken(int4, int4) IS 'after _hello: the caller has, on its disk, all that the departed source has left here';

CREATE FUNCTION mmrepl._tidings(sync_id int4) RETURNS bytea
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_tidings';
REVOKE ALL ON FUNCTION mmrepl._tidings(int4) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._tidings(int4) IS 'what has been applied here, and is on disk, of every other db''s changes to the sync, as positions; a target is asked for it, since it pushes to nobody; NULL: no part in that sync';
