
-- The change log for people (src/api_log.c).

CREATE FUNCTION mmrepl._change_log(OUT segment int4, OUT xid xid8, OUT relid oid, OUT op text, OUT key jsonb,
    OUT ts int8, OUT node_id int4, OUT rank int4, OUT author_id int4, OUT author_xid xid8, OUT recorded bool)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000 AS 'MODULE_PATHNAME', 'mmrepl_change_log';
REVOKE ALL ON FUNCTION mmrepl._change_log() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mmrepl._change_log() TO pg_monitor;
COMMENT ON FUNCTION mmrepl._change_log() IS
    'takes nothing; gives every change in the log that the caller''s snapshot sees, decoded; key: NULL for a whole table, or where the table is no member any more';

CREATE VIEW mmrepl.change_log AS
    SELECT c.xid, n.nspname AS schemaname, t.relname AS tablename, c.op, c.key,
           mmrepl._version_time(c.ts) AS at, w.name AS db, c.rank,
           a.name AS author_db, c.author_xid, c.recorded, c.segment
    FROM mmrepl._change_log() AS c
    LEFT JOIN pg_class AS t ON t.oid = c.relid
    LEFT JOIN pg_namespace AS n ON n.oid = t.relnamespace
    LEFT JOIN mmrepl.db AS w ON w.node_id = c.node_id
    LEFT JOIN mmrepl.db AS a ON a.node_id = c.author_id;
GRANT SELECT ON mmrepl.change_log TO pg_monitor;
COMMENT ON VIEW mmrepl.change_log IS
    'what is in the change log now: changes that some db may not have yet; xid: transaction here that logged it; at, db, rank: version of the row''s state; author_db, author_xid: who wrote it; recorded: came from there and is kept to be compared';
