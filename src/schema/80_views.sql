-- What a person, or a monitoring system, wants to read.

GRANT EXECUTE ON FUNCTION mmrepl._copy_wanted(int4), mmrepl._closed_to_clients(int4) TO pg_monitor;
GRANT SELECT ON mmrepl._part, mmrepl._other TO pg_monitor;

CREATE TYPE mmrepl._worker AS (
    kind text, dboid oid, sync_id int4, node_id int4, pid int4, state text,
    since timestamptz, launched timestamptz, retry_at timestamptz, failures int4,
    sqlstate text, last_error text, last_error_at timestamptz, last_good timestamptz,
    pending_since timestamptz, pending int8, batches int8,
    inserted int8, updated int8, deleted int8, truncated int8, conflicts int8, bytes int8,
    last_inserted int8, last_updated int8, last_deleted int8, last_changes timestamptz,
    copy_tables_total int4, copy_tables_done int4, copy_rows_total int8, copy_rows_done int8,
    copy_bytes_total int8, copy_bytes_done int8, copy_started timestamptz, copy_finished timestamptz,
    copy_table text);
COMMENT ON TYPE mmrepl._worker IS 'what a worker says of itself in shared memory';

CREATE FUNCTION mmrepl._workers() RETURNS SETOF mmrepl._worker
    LANGUAGE c VOLATILE PARALLEL RESTRICTED ROWS 10 AS 'MODULE_PATHNAME', 'mmrepl_workers';
REVOKE ALL ON FUNCTION mmrepl._workers() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mmrepl._workers() TO pg_monitor;
COMMENT ON FUNCTION mmrepl._workers() IS
    'takes nothing; gives what every worker of this server says of itself in shared memory; no row if the library is not preloaded';

CREATE FUNCTION mmrepl._database_state(
    OUT preloaded bool, OUT segments_used int4, OUT commits int8, OUT changes int8, OUT applied int8, OUT contexts int8,
    OUT clock int8)
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'mmrepl_database_state';
REVOKE ALL ON FUNCTION mmrepl._database_state() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mmrepl._database_state() TO pg_monitor;
COMMENT ON FUNCTION mmrepl._database_state() IS
    'takes nothing; gives whether the library is preloaded, segments of the log in use, and since the server started: commits that captured changes, those changes, batches with changes applied, batches of any kind applied; and the time that mmrepl has given out last, microseconds since 2000';

CREATE FUNCTION mmrepl._conninfo_shown(conninfo text, OUT host text, OUT port text, OUT dbname text)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'mmrepl_conninfo_shown';
REVOKE ALL ON FUNCTION mmrepl._conninfo_shown(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mmrepl._conninfo_shown(text) TO pg_monitor;
COMMENT ON FUNCTION mmrepl._conninfo_shown(text) IS
    'takes a conninfo; gives of it what is no secret, NULL what it does not name';

CREATE FUNCTION mmrepl._version_time(ts int8) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN ts <> 0 THEN '2000-01-01 00:00:00+00'::timestamptz + ts * interval '1 microsecond' END;
REVOKE ALL ON FUNCTION mmrepl._version_time(int8) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mmrepl._version_time(int8) TO pg_monitor;
COMMENT ON FUNCTION mmrepl._version_time(int8) IS
    'takes the time of a version, microseconds since 2000; gives it as a timestamp, NULL for a row that came by copy';

GRANT EXECUTE ON FUNCTION mmrepl._attach_problem(regclass), mmrepl._sequence_problem(name, name) TO pg_monitor;

CREATE FUNCTION mmrepl._strategy_text(stored text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN $1 LIKE 'priority:%' THEN
            (SELECT 'priority: ' || string_agg(coalesce(d.name, 'db ' || i.id), ', ' ORDER BY i.n)
             FROM unnest(string_to_array(substr($1, 10), ',')) WITH ORDINALITY AS i(id, n)
             LEFT JOIN mmrepl.db AS d ON d.node_id = i.id::int4)
        WHEN $1 LIKE 'function:%' THEN 'function: ' || substr($1, 10)
        ELSE $1 END
$$;
REVOKE ALL ON FUNCTION mmrepl._strategy_text(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mmrepl._strategy_text(text) TO pg_monitor;
COMMENT ON FUNCTION mmrepl._strategy_text(text) IS
    'takes a conflict strategy as it is stored, gives it as users write it';

-- Per sync in which this db has a part and other db of it: who is who, and both workers.
CREATE VIEW mmrepl._peer AS
    WITH w AS MATERIALIZED (
        SELECT w AS worker FROM mmrepl._workers() AS w
        WHERE w.dboid = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
    ), a AS (
        SELECT (w.worker).sync_id, (w.worker).node_id,
               array_agg((w.worker).pid ORDER BY (w.worker).pid) FILTER (WHERE (w.worker).pid IS NOT NULL) AS pids,
               max((w.worker).retry_at) AS ended
        FROM w WHERE (w.worker).kind = 'apply'
        GROUP BY 1, 2
    )
    SELECT s.sync_id, s.name AS sync, d.node_id, d.name AS peer,
           me.role <> 'target' AS sends, other.role <> 'target' AS receives,
           CASE WHEN NOT st.preloaded THEN 'not loaded'
                WHEN l.refused IS NOT NULL THEN 'bad'
                WHEN l.stopped THEN 'stopped'
                WHEN s.halted IS NOT NULL THEN 'halted'
                WHEN me.needs_resync OR other.needs_resync THEN 'needs resync'
                WHEN s.paused THEN 'paused' END AS held, coalesce(l.refused, s.halted) AS halted,
           EXISTS (SELECT FROM mmrepl.sync_state AS t WHERE t.sync_id = s.sync_id AND NOT t.opened) AS joins,
           p.worker AS pusher, r AS progress, ps AS peer_state,
           a.pids AS apply_pids, a.ended AS apply_ended,
           (SELECT count(*) FROM mmrepl.apply_error_log AS e
            WHERE e.sync_id = s.sync_id AND e.source_node = d.node_id) AS apply_errors,
           d.node_id IS NOT DISTINCT FROM (SELECT c.source_node FROM mmrepl._copy_wanted(s.sync_id) AS c) AS awaits_copy
    -- LIMIT: the planner takes a table that was never analyzed for a large one, and compiles the query for it
    FROM (SELECT x.node_id, x.stopped, mmrepl._identity_problem() AS refused FROM mmrepl.local_node AS x LIMIT 1) AS l
    CROSS JOIN mmrepl._database_state() AS st
    JOIN mmrepl.dbgroup_db AS me ON me.node_id = l.node_id
    JOIN mmrepl.sync AS s ON s.dbgroup = me.dbgroup
    CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM mmrepl.dbgroup_db AS x WHERE x.dbgroup = s.dbgroup AND x.role = 'hub') AS here) AS h
    JOIN mmrepl.dbgroup_db AS other ON other.dbgroup = s.dbgroup AND other.node_id <> l.node_id
         AND (NOT h.here OR me.role = 'hub' OR other.role = 'hub')
    JOIN mmrepl.db AS d ON d.node_id = other.node_id
    LEFT JOIN w AS p ON (p.worker).kind = 'pusher' AND (p.worker).sync_id = s.sync_id AND (p.worker).node_id = d.node_id
    LEFT JOIN a ON a.sync_id = s.sync_id AND a.node_id = d.node_id
    LEFT JOIN mmrepl.progress AS r ON r.sync_id = s.sync_id AND r.source_node = d.node_id
    LEFT JOIN mmrepl.peer_state AS ps ON ps.sync_id = s.sync_id AND ps.peer_node = d.node_id;
COMMENT ON VIEW mmrepl._peer IS 'for the views below';

CREATE VIEW mmrepl.peer_lag AS
    WITH both_ways AS (
        SELECT p.sync, p.peer, 'to' AS direction,
               coalesce(p.held,
                        CASE WHEN (p.pusher).kind IS NULL THEN 'no worker'
                             WHEN (p.pusher).pid IS NULL AND (p.pusher).state NOT IN ('starting', 'waiting') THEN 'bad'
                             ELSE (p.pusher).state END) AS state,
               greatest((p.pusher).last_good, (p.peer_state).last_good) AS last_good,
               greatest((p.pusher).last_error_at, (p.peer_state).last_bad) AS last_bad,
               coalesce(p.halted, (p.pusher).last_error, (p.peer_state).last_error) AS last_error,
               CASE WHEN (p.pusher).pid IS NOT NULL AND (p.pusher).state IN ('good', 'pushing')
                    THEN coalesce((p.pusher).pending_since,
                                  CASE WHEN (p.pusher).state = 'good' THEN clock_timestamp() END) END AS behind_since,
               (p.pusher).since AS first_seen,
               coalesce((p.pusher).pending, 0) AS pending,
               (p.pusher).inserted, (p.pusher).updated, (p.pusher).deleted, (p.pusher).truncated,
               (p.pusher).batches, (p.pusher).bytes,
               (p.pusher).last_inserted, (p.pusher).last_updated, (p.pusher).last_deleted, (p.pusher).last_changes,
               NULL::int8 AS conflicts, NULL::int8 AS apply_errors, NULL::int4[] AS apply_pids
        FROM mmrepl._peer AS p WHERE p.sends
        UNION ALL
        SELECT p.sync, p.peer, 'from',
               coalesce(p.held,
                        CASE WHEN p.joins THEN 'joining'
                             WHEN p.apply_pids IS NULL THEN 'not connected'
                             WHEN p.awaits_copy THEN 'copying'
                             ELSE 'good' END),
               CASE WHEN p.apply_pids IS NOT NULL THEN clock_timestamp()
                    ELSE greatest((p.progress).last_good, p.apply_ended) END,
               NULL, p.halted,
               CASE WHEN p.held IS NULL AND p.apply_pids IS NOT NULL AND NOT p.awaits_copy
                    THEN clock_timestamp() END,
               NULL, NULL,
               (p.progress).inserted, (p.progress).updated, (p.progress).deleted, (p.progress).truncated,
               (p.progress).batches, NULL,
               (p.progress).last_inserted, (p.progress).last_updated, (p.progress).last_deleted,
               (p.progress).last_changes, coalesce((p.progress).conflicts, 0), p.apply_errors, p.apply_pids
        FROM mmrepl._peer AS p WHERE p.receives
    )
    SELECT b.sync, b.peer, b.direction, b.state,
           round(greatest(extract(epoch FROM clock_timestamp()
                 - coalesce(b.behind_since, b.last_good, b.first_seen, pg_postmaster_start_time())), 0), 1) AS lag_seconds,
           b.pending, b.last_good, b.last_bad,
           CASE WHEN b.state NOT IN ('good', 'pushing', 'copying')
                AND (b.state NOT IN ('paused', 'stopped') OR b.last_good IS NULL OR b.last_bad > b.last_good)
                THEN b.last_error END AS last_error,
           b.last_changes,
           CASE WHEN b.last_changes IS NOT NULL
                THEN concat_ws('/', b.last_inserted, b.last_updated, b.last_deleted) END AS last_iud,
           b.batches, b.inserted, b.updated, b.deleted, b.truncated, b.conflicts, b.apply_errors, b.bytes,
           (SELECT string_agg(DISTINCT concat_ws(' ', x.pid::text, s.application_name, s.state), ', ')
            FROM unnest(b.apply_pids) AS a(pid)
            CROSS JOIN LATERAL unnest(pg_blocking_pids(a.pid)) AS x(pid)
            LEFT JOIN pg_stat_activity AS s ON s.pid = x.pid) AS waits_for
    FROM both_ways AS b
    ORDER BY b.sync, b.peer, b.direction DESC;
GRANT SELECT ON mmrepl.peer_lag TO pg_monitor;
COMMENT ON VIEW mmrepl.peer_lag IS
    'per sync, peer and direction (to: what is pushed there; from: what is applied here); lag_seconds: age of the oldest change that is not there yet, and while that cannot be known, time since it last was good; pushed counts since the server started, applied ones for ever; waits_for: sessions here whose locks applying waits for';

CREATE VIEW mmrepl.status AS
    SELECT coalesce(t.sync, f.sync) AS sync, coalesce(t.peer, f.peer) AS peer,
           CASE WHEN t.state IS NULL THEN f2.state
                WHEN t.state IN ('good', 'pushing') AND f.state = 'not connected' THEN 'not receiving'
                WHEN t.state = 'good' THEN f2.state
                ELSE t.state END AS state,
           date_trunc('second', coalesce(t.last_good, f.last_good)) AS last_good,
           date_trunc('second', clock_timestamp() - coalesce(t.last_good, f.last_good)) AS time,
           CASE WHEN t.last_changes >= f.last_changes OR f.last_changes IS NULL THEN t.last_iud
                ELSE f.last_iud END AS last_iud,
           date_trunc('second', t.last_bad) AS last_bad,
           greatest(t.lag_seconds, f.lag_seconds) AS lag_seconds,
           t.pending, f.conflicts, f.apply_errors, f.waits_for, t.last_error
    FROM (SELECT * FROM mmrepl.peer_lag WHERE direction = 'to') AS t
    FULL JOIN (SELECT * FROM mmrepl.peer_lag WHERE direction = 'from') AS f
         ON f.sync = t.sync AND f.peer = t.peer
    CROSS JOIN LATERAL (SELECT CASE WHEN f.waits_for IS NOT NULL THEN 'blocked'
                                    WHEN f.apply_errors > 0 AND coalesce(t.state, f.state) = 'good' THEN 'errors'
                                    ELSE coalesce(t.state, f.state) END AS state) AS f2
    ORDER BY 1, 2;
GRANT SELECT ON mmrepl.status TO pg_monitor;
COMMENT ON VIEW mmrepl.status IS
    'per sync and peer, as this db sees it: state, last time all was well, how long ago, inserts/updates/deletes of the last batch (either way), last failure, lag (grows while the peer is away), changes that wait, conflicts settled here, rows from there that cannot be applied here (see apply_error), sessions here that applying waits for, what is wrong now';

CREATE VIEW mmrepl.copy_progress AS
    SELECT p.sync, p.peer, (p.pusher).copy_table AS table_name,
           (p.pusher).copy_tables_done AS tables_done, (p.pusher).copy_tables_total AS tables_total,
           (p.pusher).copy_rows_done AS rows_done,
           greatest((p.pusher).copy_rows_total, (p.pusher).copy_rows_done) AS rows_total,
           pg_size_pretty((p.pusher).copy_bytes_done) AS done,
           pg_size_pretty(greatest((p.pusher).copy_bytes_total, (p.pusher).copy_bytes_done)) AS total,
           round((100 * x.share)::numeric, 1) AS percent,
           date_trunc('second', (p.pusher).copy_started) AS started, date_trunc('second', (p.pusher).copy_finished) AS finished,
           date_trunc('second', x.elapsed) AS elapsed,
           CASE WHEN (p.pusher).copy_finished IS NULL AND x.share > 0
                THEN date_trunc('second', x.elapsed * (1 / x.share - 1)) END AS remaining
    FROM mmrepl._peer AS p
    CROSS JOIN LATERAL (
        SELECT coalesce((p.pusher).copy_finished, clock_timestamp()) - (p.pusher).copy_started AS elapsed,
               CASE WHEN (p.pusher).copy_finished IS NOT NULL THEN 1.0::float8
                    ELSE least(coalesce((p.pusher).copy_bytes_done::float8 / nullif((p.pusher).copy_bytes_total, 0),
                                        (p.pusher).copy_rows_done::float8 / nullif((p.pusher).copy_rows_total, 0),
                                        0), 0.999) END AS share) AS x
    WHERE (p.pusher).copy_started IS NOT NULL
    ORDER BY p.sync, p.peer;
GRANT SELECT ON mmrepl.copy_progress TO pg_monitor;
COMMENT ON VIEW mmrepl.copy_progress IS
    'initial copies that this db sends, or has sent since its server started: totals are estimates; remaining: time, as it goes now';

CREATE VIEW mmrepl.worker_status AS
    SELECT w.kind, s.name AS sync, d.name AS db, w.pid,
           CASE WHEN w.kind = 'apply' THEN CASE WHEN a.state = 'active' OR a.state LIKE 'idle in transaction%' THEN 'applying' ELSE 'good' END
                WHEN w.pid IS NULL AND w.state NOT IN ('starting', 'waiting') THEN 'bad'
                ELSE w.state END AS state,
           date_trunc('second', w.launched) AS started, date_trunc('second', w.last_good) AS last_good, w.failures,
           CASE WHEN w.pid IS NULL THEN date_trunc('second', w.retry_at) END AS retry_at,
           date_trunc('second', w.last_error_at) AS last_bad, w.sqlstate, w.last_error
    FROM mmrepl._workers() AS w
    LEFT JOIN mmrepl.sync AS s ON s.sync_id = w.sync_id
    LEFT JOIN mmrepl.db AS d ON d.node_id = w.node_id
    LEFT JOIN pg_stat_activity AS a ON a.pid = w.pid
    WHERE (w.dboid IS NULL
           OR w.dboid = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
      AND (w.pid IS NOT NULL OR w.kind <> 'apply')
    ORDER BY array_position('{launcher,janitor,pusher,apply}', w.kind), s.name, d.name, w.pid;
GRANT SELECT ON mmrepl.worker_status TO pg_monitor;
COMMENT ON VIEW mmrepl.worker_status IS
    'the launcher of this server, and the workers of this database; apply: sessions in which peers apply here; no row at all: the library is not preloaded';

CREATE VIEW mmrepl.dbs AS
    SELECT d.name, d.node_id = l.node_id AS here, c.host, c.port, c.dbname,
           ARRAY(SELECT g.dbgroup || ':' || g.role FROM mmrepl.dbgroup_db AS g
                 WHERE g.node_id = d.node_id ORDER BY 1) AS dbgroups,
           ARRAY(SELECT s.name FROM mmrepl.dbgroup_db AS g JOIN mmrepl.sync AS s ON s.dbgroup = g.dbgroup
                 WHERE g.node_id = d.node_id ORDER BY 1) AS syncs,
           d.node_id
    FROM mmrepl.db AS d
    CROSS JOIN LATERAL mmrepl._conninfo_shown(d.conninfo) AS c
    LEFT JOIN mmrepl.local_node AS l ON true
    ORDER BY d.name;
GRANT SELECT ON mmrepl.dbs TO pg_monitor;
COMMENT ON VIEW mmrepl.dbs IS 'databases that take part; here: this one';

CREATE VIEW mmrepl.dbgroups AS
    SELECT g.name,
           ARRAY(SELECT d.name || ':' || m.role FROM mmrepl.dbgroup_db AS m JOIN mmrepl.db AS d USING (node_id)
                 WHERE m.dbgroup = g.name ORDER BY m.pos) AS dbs,
           ARRAY(SELECT s.name FROM mmrepl.sync AS s WHERE s.dbgroup = g.name ORDER BY 1) AS syncs
    FROM mmrepl.dbgroup AS g
    ORDER BY g.name;
GRANT SELECT ON mmrepl.dbgroups TO pg_monitor;
COMMENT ON VIEW mmrepl.dbgroups IS 'groups of dbs, with the role of each, in the order in which they were named';

CREATE VIEW mmrepl.relgroups AS
    SELECT g.name,
           (SELECT count(*) FROM mmrepl.relgroup_rel AS m JOIN mmrepl.rel AS r USING (nspname, relname)
            WHERE m.relgroup = g.name AND r.kind = 'r') AS tables,
           (SELECT count(*) FROM mmrepl.relgroup_rel AS m JOIN mmrepl.rel AS r USING (nspname, relname)
            WHERE m.relgroup = g.name AND r.kind = 'S') AS sequences,
           ARRAY(SELECT s.name FROM mmrepl.sync AS s WHERE s.relgroup = g.name ORDER BY 1) AS syncs
    FROM mmrepl.relgroup AS g
    ORDER BY g.name;
GRANT SELECT ON mmrepl.relgroups TO pg_monitor;
COMMENT ON VIEW mmrepl.relgroups IS 'groups of tables and sequences; their members are in tables and sequences';

-- Per table or sequence known to mmrepl: groups and syncs, and whether this db is a source of one of those.
CREATE VIEW mmrepl._member AS
    SELECT r.nspname, r.relname, r.kind, r.key_index, r.seq_mode, r.conflict_strategy, c.oid AS relid,
           ARRAY(SELECT m.relgroup FROM mmrepl.relgroup_rel AS m
                 WHERE m.nspname = r.nspname AND m.relname = r.relname ORDER BY 1) AS relgroups,
           ARRAY(SELECT s.name FROM mmrepl.relgroup_rel AS m JOIN mmrepl.sync AS s USING (relgroup)
                 WHERE m.nspname = r.nspname AND m.relname = r.relname ORDER BY 1) AS syncs,
           EXISTS (SELECT FROM mmrepl.relgroup_rel AS m JOIN mmrepl.sync AS s USING (relgroup)
                   JOIN mmrepl.dbgroup_db AS g USING (dbgroup) JOIN mmrepl.local_node AS l USING (node_id)
                   WHERE m.nspname = r.nspname AND m.relname = r.relname) AS used,
           EXISTS (SELECT FROM mmrepl.relgroup_rel AS m JOIN mmrepl.sync AS s USING (relgroup)
                   JOIN mmrepl.dbgroup_db AS g USING (dbgroup) JOIN mmrepl.local_node AS l USING (node_id)
                   WHERE m.nspname = r.nspname AND m.relname = r.relname AND g.role <> 'target') AS captured,
           EXISTS (SELECT FROM mmrepl.relgroup_rel AS m JOIN mmrepl.sync AS s USING (relgroup)
                   JOIN mmrepl.dbgroup_db AS me ON me.dbgroup = s.dbgroup JOIN mmrepl.local_node AS l ON l.node_id = me.node_id
                   WHERE m.nspname = r.nspname AND m.relname = r.relname
                     AND 2 <= (SELECT count(*) FROM mmrepl.dbgroup_db AS g
                               WHERE g.dbgroup = s.dbgroup AND g.role <> 'target')) AS multi_master
    FROM mmrepl.rel AS r
    LEFT JOIN pg_namespace AS n ON n.nspname = r.nspname
    LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = r.relname;
COMMENT ON VIEW mmrepl._member IS 'for the views below';

CREATE VIEW mmrepl.tables AS
    SELECT m.nspname AS schemaname, m.relname AS tablename, coalesce(m.key_index, k.indexname) AS key_index,
           k.columns AS key_columns, m.relgroups, m.syncs, mmrepl._strategy_text(m.conflict_strategy) AS conflict_strategy,
           CASE WHEN m.relid IS NULL THEN 'no such table here'
                WHEN k.columns IS NULL THEN CASE WHEN m.key_index IS NULL THEN 'no primary key here'
                                                 ELSE 'no such index here' END
                WHEN m.captured THEN 'capture triggers: ' || mmrepl._attach_problem(m.relid::regclass) END AS problem
    FROM mmrepl._member AS m
    LEFT JOIN LATERAL (
        SELECT i.relname AS indexname,
               ARRAY(SELECT pg_get_indexdef(x.indexrelid, n, true)
                     FROM generate_series(1, x.indnkeyatts) AS n ORDER BY n) AS columns
        FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
        WHERE x.indrelid = m.relid
          AND CASE WHEN m.key_index IS NULL THEN x.indisprimary ELSE i.relname = m.key_index END) AS k ON true
    WHERE m.kind = 'r'
    ORDER BY 1, 2;
GRANT SELECT ON mmrepl.tables TO pg_monitor;
COMMENT ON VIEW mmrepl.tables IS
    'tables known to mmrepl: the unique index and the columns that identify their rows, where they belong, a conflict strategy of their own, and what is wrong with them here (NULL: nothing)';

CREATE VIEW mmrepl.sequences AS
    SELECT m.nspname AS schemaname, m.relname AS sequencename,
           coalesce(m.seq_mode, CASE WHEN m.multi_master THEN 'interleave'
                                     WHEN m.used THEN 'copy' END) AS mode,
           s.last_value, s.increment_by, t.old_increment, m.relgroups, m.syncs,
           CASE WHEN m.relid IS NULL THEN 'no such sequence here'
                WHEN m.used THEN mmrepl._sequence_problem(m.nspname, m.relname) END AS problem
    FROM mmrepl._member AS m
    LEFT JOIN pg_sequences AS s ON s.schemaname = m.nspname AND s.sequencename = m.relname
    LEFT JOIN mmrepl.sequence_state AS t ON t.nspname = m.nspname AND t.relname = m.relname
    WHERE m.kind = 'S'
    ORDER BY 1, 2;
GRANT SELECT ON mmrepl.sequences TO pg_monitor;
COMMENT ON VIEW mmrepl.sequences IS
    'sequences known to mmrepl: interleaved among the sources or copied one way, the increment now and before, and what is wrong with them here (NULL: nothing)';

CREATE VIEW mmrepl.syncs AS
    SELECT s.name,
           CASE WHEN l.stopped THEN 'stopped here' WHEN s.halted IS NOT NULL THEN 'halted: ' || s.halted
                WHEN s.paused THEN 'paused' ELSE 'active' END AS state,
           s.relgroup, s.dbgroup, g.dbs, r.tables, r.sequences,
           s.onetimecopy, mmrepl._strategy_text(s.conflict_strategy) AS conflict_strategy, s.on_error, s.makedelta,
           EXISTS (SELECT FROM mmrepl._part AS p WHERE p.sync_id = s.sync_id AND p.role = 'source')
               AND mmrepl._closed_to_clients(s.sync_id) AS closed
    FROM mmrepl.sync AS s
    JOIN mmrepl.dbgroups AS g ON g.name = s.dbgroup
    JOIN mmrepl.relgroups AS r ON r.name = s.relgroup
    LEFT JOIN mmrepl.local_node AS l ON true
    ORDER BY s.name;
GRANT SELECT ON mmrepl.syncs TO pg_monitor;
COMMENT ON VIEW mmrepl.syncs IS 'syncs, as they are configured; how they do is in status; closed: this db joins the sync and refuses what clients write to its tables (25006) until it has its copy';

CREATE VIEW mmrepl.conflict_history AS
    SELECT c.at, s.name AS sync, c.nspname AS schemaname, c.relname AS tablename, c.key,
           c.conflict_type, c.resolution, c.local_row, c.remote_row,
           l.name AS local_db, mmrepl._version_time(c.local_ts) AS local_time,
           r.name AS remote_db, mmrepl._version_time(c.remote_ts) AS remote_time,
           c.error, c.id
    FROM mmrepl.conflict_log AS c
    LEFT JOIN mmrepl.sync AS s ON s.sync_id = c.sync_id
    LEFT JOIN mmrepl.db AS l ON l.node_id = c.local_node
    LEFT JOIN mmrepl.db AS r ON r.node_id = c.remote_node
    ORDER BY c.id;
GRANT SELECT ON mmrepl.conflict_history TO pg_monitor;
COMMENT ON VIEW mmrepl.conflict_history IS
    'conflicts settled here: which row of which table, what kind, which side stands, both rows, and for both the db that wrote them and when';

CREATE VIEW mmrepl.apply_error AS
    SELECT e.id, s.name AS sync, d.name AS source, e.nspname AS schemaname, e.relname AS tablename, e.shown_key AS key,
           CASE e.op WHEN 1 THEN 'insert' WHEN 2 THEN 'update' ELSE 'delete' END AS op,
           e.message, e.sqlstate, e.constraint_name, e.detail, e.context, e.row,
           mmrepl._version_time(e.ts) AS at, w.name AS db,
           e.first_at AS first_error, e.last_at AS last_error, e.tries, e.next_at AS next_try
    FROM mmrepl.apply_error_log AS e
    LEFT JOIN mmrepl.sync AS s ON s.sync_id = e.sync_id
    LEFT JOIN mmrepl.db AS d ON d.node_id = e.source_node
    LEFT JOIN mmrepl.db AS w ON w.node_id = e.node
    ORDER BY e.id;
GRANT SELECT ON mmrepl.apply_error TO pg_monitor;
COMMENT ON VIEW mmrepl.apply_error IS
    'rows that came and cannot be applied here: why, what came (NULL: the key is gone there), when it was written and by which db, how often it was tried; they are tried again by themselves, with what the source has then, until it works, or something newer is written, or discard_apply_error gives them up';

CREATE VIEW mmrepl.conflict_summary AS
    SELECT h.sync, h.schemaname, h.tablename, h.conflict_type, h.resolution,
           count(*) AS conflicts, min(h.at) AS first, max(h.at) AS last
    FROM mmrepl.conflict_history AS h
    GROUP BY h.sync, h.schemaname, h.tablename, h.conflict_type, h.resolution
    ORDER BY count(*) DESC, h.sync, h.schemaname, h.tablename, h.conflict_type, h.resolution;
GRANT SELECT ON mmrepl.conflict_summary TO pg_monitor;
COMMENT ON VIEW mmrepl.conflict_summary IS 'conflict_history counted by table, kind and resolution';

CREATE VIEW mmrepl.metrics AS
    WITH s AS MATERIALIZED (
        SELECT x.*, jsonb_build_object('sync', x.sync, 'peer', x.peer) AS labels FROM mmrepl.status AS x
    ), p AS MATERIALIZED (
        SELECT x.*, jsonb_build_object('sync', x.sync, 'peer', x.peer, 'direction', x.direction) AS labels
        FROM mmrepl.peer_lag AS x
    )
    SELECT 'mmrepl_up' AS name, s.labels,
           (s.state IN ('good', 'pushing', 'copying', 'blocked', 'errors'))::int::float8 AS value FROM s
    UNION ALL SELECT 'mmrepl_lag_seconds', p.labels, p.lag_seconds::float8 FROM p
    UNION ALL SELECT 'mmrepl_pending_changes', s.labels, s.pending::float8 FROM s WHERE s.pending IS NOT NULL
    UNION ALL SELECT 'mmrepl_conflicts_total', s.labels, s.conflicts::float8 FROM s WHERE s.conflicts IS NOT NULL
    UNION ALL SELECT 'mmrepl_apply_errors', s.labels, s.apply_errors::float8 FROM s WHERE s.apply_errors IS NOT NULL
    UNION ALL SELECT 'mmrepl_batches_total', p.labels, p.batches::float8 FROM p WHERE p.batches IS NOT NULL
    UNION ALL
    SELECT 'mmrepl_rows_total', p.labels || jsonb_build_object('op', o.op), o.rows::float8
    FROM p CROSS JOIN LATERAL (VALUES ('insert', p.inserted), ('update', p.updated), ('delete', p.deleted)) AS o(op, rows)
    WHERE o.rows IS NOT NULL
    UNION ALL SELECT 'mmrepl_bytes_total', p.labels, p.bytes::float8 FROM p WHERE p.bytes IS NOT NULL
    UNION ALL
    SELECT x.name, '{}'::jsonb, x.value
    FROM mmrepl._database_state() AS d
    CROSS JOIN LATERAL (VALUES ('mmrepl_captured_commits_total', d.commits::float8),
                               ('mmrepl_captured_changes_total', d.changes::float8),
                               ('mmrepl_log_segments', d.segments_used::float8),
                               ('mmrepl_clock_ahead_seconds', greatest(0, extract(epoch FROM
                                   mmrepl._version_time(d.clock) - clock_timestamp()))::float8)) AS x(name, value)
    WHERE x.value IS NOT NULL
    UNION ALL
    SELECT 'mmrepl_log_bytes', '{}'::jsonb, sum(pg_relation_size(i.inhrelid))::float8
    FROM pg_inherits AS i WHERE i.inhparent = 'mmrepl.log'::regclass;
GRANT SELECT ON mmrepl.metrics TO pg_monitor;
COMMENT ON VIEW mmrepl.metrics IS
    'everything countable as name, labels, value, in the words of Prometheus; _total ones only grow, those of direction "to" and of capture from zero when the server starts';
