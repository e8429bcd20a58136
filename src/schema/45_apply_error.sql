-- Rows that cannot be applied here (src/setaside.c): they stand aside until they can, or somebody discards them.

CREATE TABLE mmrepl.apply_error_log (
    id                int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id           int4 NOT NULL,
    source_node       int4 NOT NULL,                -- who sent it last
    relid             oid NOT NULL,
    nspname           name NOT NULL,
    relname           name NOT NULL,
    key               bytea NOT NULL,               -- as in the change log
    shown_key         jsonb NOT NULL,
    op                int4 NOT NULL,
    ts                int8 NOT NULL,                -- version of the state that is not here; 0: of an initial copy
    node              int4 NOT NULL,
    rank              int4 NOT NULL,
    level             int4 NOT NULL,                -- how it settled a conflict, if it did
    settled_node      int4 NOT NULL,
    dot_node          int4 NOT NULL,                -- its author's transaction
    dot_xid           int8 NOT NULL,
    row               jsonb,                        -- as it came; NULL: the key is gone there, or it cannot be read
    sqlstate          text NOT NULL,
    message           text NOT NULL,
    detail            text,
    constraint_name   text,
    context           text,
    first_at          timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_at           timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    tries             int4 NOT NULL DEFAULT 1,
    next_at           timestamptz NOT NULL          -- not asked for again before
);
CREATE UNIQUE INDEX apply_error_log_key ON mmrepl.apply_error_log (relid, pg_catalog.sha256(key));
COMMENT ON TABLE mmrepl.apply_error_log IS 'rows that came and cannot be applied here; read it through the view apply_error';
REVOKE ALL ON mmrepl.apply_error_log FROM PUBLIC;

CREATE FUNCTION mmrepl._asks(sync_id int4, careful bool, OUT nspname text, OUT relname text, OUT key bytea)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_asks';
REVOKE ALL ON FUNCTION mmrepl._asks(int4, bool) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._asks(int4, bool) IS
    'after _hello: takes the sync, and whether the next batch is one that failed because of a row; gives the keys that could not be applied and are to be sent again now, and a row of NULLs if there are any at all, due or not';

CREATE FUNCTION mmrepl.retry_apply_error(id int8 DEFAULT NULL, sync text DEFAULT NULL) RETURNS int8
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_retry_apply_error';
REVOKE ALL ON FUNCTION mmrepl.retry_apply_error(int8, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.retry_apply_error(int8, text) IS
    'takes an id of the view apply_error, or a sync: all of it; at commit has these rows tried again as soon as their sources look, within mmrepl.heartbeat_interval; gives how many; raises 42704 for an unknown id or sync, 22023 unless one of both is given';

CREATE FUNCTION mmrepl.discard_apply_error(id int8 DEFAULT NULL, sync text DEFAULT NULL) RETURNS int8
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_discard_apply_error';
REVOKE ALL ON FUNCTION mmrepl.discard_apply_error(int8, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.discard_apply_error(int8, text) IS
    'takes an id of the view apply_error, or a sync: all of it; gives these rows up: they stay here as they are and differ from the other dbs until their next write (compare_sync shows them); gives how many; raises 42704, 22023 as retry_apply_error';
