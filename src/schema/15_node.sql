
-- Who this database is.

CREATE FUNCTION mmrepl._node_identity(OUT system_identifier int8, OUT database_oid oid, OUT timeline int4)
    LANGUAGE c STABLE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'mmrepl_node_identity';
REVOKE ALL ON FUNCTION mmrepl._node_identity() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._node_identity() IS
    'takes nothing; gives what tells this database from all others: the server''s system identifier (as a signed number), the database''s oid, the timeline it writes';

CREATE FUNCTION mmrepl._identity_problem() RETURNS text
    LANGUAGE sql STABLE PARALLEL RESTRICTED
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN l.refused IS NOT NULL THEN l.refused
        WHEN i.system_identifier <> l.system_identifier OR i.database_oid <> l.database_oid
            THEN 'this database is a copy of the one for which replication was set up'
        WHEN i.timeline <> l.timeline
            THEN format('the server is on timeline %s, but replication was set up or confirmed on timeline %s: see mmrepl.confirm_identity()', i.timeline, l.timeline)
        END
    FROM mmrepl.local_node AS l CROSS JOIN mmrepl._node_identity() AS i
$$;
REVOKE ALL ON FUNCTION mmrepl._identity_problem() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mmrepl._identity_problem(), mmrepl._node_identity() TO pg_monitor;
COMMENT ON FUNCTION mmrepl._identity_problem() IS
    'takes nothing; gives why this database does not take part in replication, being a copy, promoted, or put back to its past; NULL if it does';

CREATE FUNCTION mmrepl._server_run() RETURNS int8
    LANGUAGE c VOLATILE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'mmrepl_server_run';
REVOKE ALL ON FUNCTION mmrepl._server_run() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._server_run() IS
    'takes nothing; gives the random number of this run of the server, NULL if mmrepl has not begun';

CREATE FUNCTION mmrepl._life_known(node_id int4, OUT its_id int4, OUT server_run int8, OUT its_run int8, OUT system_identifier int8, OUT database_oid oid,
        OUT known_run int8, OUT known_xid int8)
    LANGUAGE sql VOLATILE PARALLEL RESTRICTED SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT l.node_id, mmrepl._server_run(), (SELECT x.run FROM mmrepl.life x WHERE x.ended IS NULL), l.system_identifier, l.database_oid,
        (SELECT x.run FROM mmrepl.peer_life x WHERE x.node_id = $1),
        -- a position without a batch was copied from somebody else's
        (SELECT max(pg_snapshot_xmax(x.position)::text::int8) FROM mmrepl.progress x WHERE x.source_node = $1 AND x.batches > 0)
    FROM mmrepl.local_node l
$$;
REVOKE ALL ON FUNCTION mmrepl._life_known(int4) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._life_known(int4) IS
    'takes a db; gives who this database is, in which run of its server, which of them it has written down, of which run of that db it has heard last, and the highest transaction number it has applied of it';

CREATE FUNCTION mmrepl._life_note(node_id int4, run int8) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO mmrepl.peer_life (node_id, run) VALUES ($1, $2)
        ON CONFLICT ON CONSTRAINT peer_life_pkey DO UPDATE SET run = excluded.run WHERE peer_life.run <> excluded.run
$$;
REVOKE ALL ON FUNCTION mmrepl._life_note(int4, int8) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._life_note(int4, int8) IS
    'takes a db and the run of its server; remembers it';

CREATE FUNCTION mmrepl._life_claim(node_id int4, system_identifier int8, database_oid oid, run int8, known_run int8, known_xid int8) RETURNS bool
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ended int8;
BEGIN
    -- who is somebody else, or does not take part, hears so in the handshake
    IF NOT EXISTS (SELECT FROM mmrepl.db d WHERE d.node_id = $1 AND d.system_identifier = $2 AND d.database_oid = $3)
       OR EXISTS (SELECT FROM mmrepl.local_node l WHERE l.refused IS NOT NULL) THEN
        RETURN false;
    END IF;
    IF $5 IS NOT NULL THEN
        SELECT coalesce(l.ended, pg_snapshot_xmax(pg_current_snapshot())::text::int8) INTO ended FROM mmrepl.life l WHERE l.run = $5;
        IF NOT FOUND OR $6 > ended THEN
            RAISE EXCEPTION USING ERRCODE = 'MR004',
                MESSAGE = format('db "%s" has been put back to an earlier state, or another server has taken its place',
                    (SELECT d.name FROM mmrepl.db d JOIN mmrepl.local_node l USING (node_id))),
                DETAIL = format('Node %s has applied changes of it, or heard of it, that are not there.', $1),
                HINT = 'Call mmrepl.rejoin() on it.';
        END IF;
    END IF;
    PERFORM mmrepl._life_note($1, $4);
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION mmrepl._life_claim(int4, int8, oid, int8, int8, int8) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._life_claim(int4, int8, oid, int8, int8, int8) IS
    'takes who a db is, the run of its server, and what it knows of this database (_life_known); remembers the run; gives whether it did; raises MR004 when what it knows of this database is not of this database''s past';

INSERT INTO mmrepl.local_node (system_identifier, database_oid, timeline)
    SELECT i.system_identifier, i.database_oid, i.timeline FROM mmrepl._node_identity() AS i;
