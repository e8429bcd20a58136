-- What a peer's pusher calls here (src/hello.c, src/apply.c).  A role that has LOGIN, USAGE on this schema and
-- EXECUTE on these three and on _config_state can push; to carry a configuration, on all internal functions.

CREATE FUNCTION mmrepl._hello(protocol int4, sync_id int4, node_id int4, system_identifier int8,
    database_oid oid, encoding text,
    OUT receiver int4, OUT "position" pg_catalog.pg_snapshot, OUT copied bool, OUT now timestamptz)
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'mmrepl_hello';
REVOKE ALL ON FUNCTION mmrepl._hello(int4, int4, int4, int8, oid, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._hello(int4, int4, int4, int8, oid, text) IS 'handshake of a pusher: who it is and what for; gives this node''s id and the position up to which that sync has been applied here from there; ends other sessions that apply the same; raises MR003, MR004, MR005, MR008';

CREATE FUNCTION mmrepl._apply(frame bytea) RETURNS int8[]
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_apply';
REVOKE ALL ON FUNCTION mmrepl._apply(bytea) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._apply(bytea) IS 'applies one frame of a batch; with the last one gives the numbers of rows inserted, updated, deleted, of truncates and of conflicts; raises MR001, MR002, MR005, MR006, MR007';

CREATE FUNCTION mmrepl._copy_filled(sync_id int4) RETURNS text[]
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_copy_filled';
REVOKE ALL ON FUNCTION mmrepl._copy_filled(int4) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._copy_filled(int4) IS 'schema and name, one after the other, of the sync''s tables that have rows here from before the sync; after _hello';

