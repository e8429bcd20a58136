-- A db comes back as a new node (src/api_rejoin.c, src/kept.c).

CREATE TABLE mmrepl.kept (
    id                int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    nspname           name NOT NULL,
    relname           name NOT NULL,
    key               jsonb,                        -- NULL: the whole table, truncated
    content           text,                         -- of the row, as text of the table's row type; NULL: deleted
    ts                int8,                         -- when it was written, by a db that is gone; NULL: it was here
    overtaken         bool NOT NULL DEFAULT false   -- deleted since by one of the others
);
REVOKE ALL ON mmrepl.kept FROM PUBLIC;
COMMENT ON TABLE mmrepl.kept IS 'rows that were written here before a rejoin and perhaps sent to nobody: looked at when the copy is in';

CREATE FUNCTION mmrepl._rows_as_owner(tbl regclass, query text, keys jsonb[], OUT key jsonb, OUT content text) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_rows_as_owner';
REVOKE ALL ON FUNCTION mmrepl._rows_as_owner(regclass, text, jsonb[]) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._rows_as_owner(regclass, text, jsonb[]) IS
    'takes a table, a query and its parameter; gives what the query gives with the rights of the table''s owner, whose code (domains, casts) it may run';

CREATE FUNCTION mmrepl._keep_unsent(others jsonb) RETURNS int8
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m record;
    some_keys jsonb[];
    n int8;
    total int8 := 0;
BEGIN
    CREATE TEMPORARY TABLE IF NOT EXISTS mmrepl_unsent (relid oid, key jsonb, ts int8) ON COMMIT DROP;
    TRUNCATE pg_temp.mmrepl_unsent;
    INSERT INTO pg_temp.mmrepl_unsent
        WITH has AS MATERIALIZED (
            SELECT r.nspname, r.relname, p.author, p.has
            FROM (SELECT p.sync_id, l.node_id AS author, p.acked AS has FROM mmrepl.local_node AS l CROSS JOIN mmrepl.peer_state AS p
                  JOIN mmrepl.sync AS s USING (sync_id)
                  JOIN mmrepl.dbgroup_db AS d ON d.dbgroup = s.dbgroup AND d.node_id = p.peer_node AND d.role <> 'target' AND NOT d.needs_resync
                  UNION ALL
                  -- not of this database: what the other has of it may be of a life that is lost, with the same numbers
                  SELECT o.sync_id, o.author, o.has FROM mmrepl.local_node AS l
                  JOIN jsonb_to_recordset(others->'has') AS o(sync_id int4, author int4, has pg_snapshot) ON o.author <> l.node_id) AS p
            JOIN mmrepl.sync AS s USING (sync_id) JOIN mmrepl.relgroup_rel AS r USING (relgroup)
            WHERE p.has IS NOT NULL)
        SELECT c.relid, c.key, CASE WHEN bool_and(c.author_id <> l.node_id) THEN max(c.ts) END
        FROM mmrepl.local_node AS l CROSS JOIN mmrepl._change_log() AS c
        JOIN pg_class AS t ON t.oid = c.relid JOIN pg_namespace AS n ON n.oid = t.relnamespace
        WHERE (c.key IS NOT NULL OR c.op = 'truncate')
          -- a source has what it wrote; of one that is no more this database may be the last who has it
          AND (c.author_id = l.node_id OR NOT others->'sources' @> to_jsonb(c.author_id))
          -- one who has it is enough, if he passes it on
          AND NOT EXISTS (SELECT FROM has AS h WHERE h.nspname = n.nspname AND h.relname = t.relname AND h.author = c.author_id
                          AND pg_visible_in_snapshot(c.author_xid, h.has))
        GROUP BY c.relid, c.key;
    FOR m IN SELECT n.nspname, c.relname, u.relid, u.key IS NULL AS whole,
                    (SELECT string_agg(format('t.%1$I = r.%1$I', k), ' AND ') FROM jsonb_object_keys(u.key) AS k) AS matches
             FROM (SELECT DISTINCT ON (relid, key IS NULL) relid, key FROM pg_temp.mmrepl_unsent ORDER BY relid, key IS NULL) AS u
             JOIN pg_class AS c ON c.oid = u.relid JOIN pg_namespace AS n ON n.oid = c.relnamespace LOOP
        IF m.whole THEN
            INSERT INTO mmrepl.kept (nspname, relname) VALUES (m.nspname, m.relname);
            total := total + 1;
            CONTINUE;
        END IF;
        FOR some_keys IN SELECT array_agg(x.key) FROM (SELECT u.key, row_number() OVER () / 1000 AS part FROM pg_temp.mmrepl_unsent AS u
                    WHERE u.relid = m.relid AND u.key IS NOT NULL) AS x GROUP BY x.part LOOP
            INSERT INTO mmrepl.kept (nspname, relname, key, content)
                SELECT m.nspname, m.relname, r.key, r.content FROM mmrepl._rows_as_owner(m.relid::regclass,
                    format('SELECT u.key, t::text FROM unnest($1) AS u(key) CROSS JOIN LATERAL jsonb_populate_record(NULL::%1$I.%2$I, u.key) AS r
                            LEFT JOIN %1$I.%2$I AS t ON %3$s', m.nspname, m.relname, m.matches), some_keys) AS r;
            GET DIAGNOSTICS n = ROW_COUNT;
            total := total + n;
        END LOOP;
        UPDATE mmrepl.kept AS k SET ts = u.ts FROM pg_temp.mmrepl_unsent AS u
            WHERE k.nspname = m.nspname AND k.relname = m.relname AND u.relid = m.relid AND u.ts IS NOT NULL AND k.key = u.key;
    END LOOP;
    RETURN total;
END
$$;
REVOKE ALL ON FUNCTION mmrepl._keep_unsent(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._keep_unsent(jsonb) IS
    'takes what another db says (sources: which dbs are; has: what it has applied of whom); puts aside the rows written or deleted here of which no source has confirmed that it has them, and those in the log that are of no source any more and that the other db lacks; gives how many';

CREATE FUNCTION mmrepl._forget_all() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s regclass;
BEGIN
    FOR s IN SELECT i.inhrelid::regclass FROM pg_inherits AS i WHERE i.inhparent = 'mmrepl.log'::regclass LOOP
        EXECUTE format('TRUNCATE ONLY %s', s);
    END LOOP;
    FOR i IN 0..15 LOOP
        EXECUTE format('TRUNCATE mmrepl.log_%s_index', i);
    END LOOP;
    DELETE FROM mmrepl.progress;
    DELETE FROM mmrepl.peer_state;
    DELETE FROM mmrepl.sync_state;
    DELETE FROM mmrepl.met;
    DELETE FROM mmrepl.known_member;
    DELETE FROM mmrepl.departed;
    DELETE FROM mmrepl.peer_life;
    DELETE FROM mmrepl.apply_error_log;
    UPDATE mmrepl.local_node SET node_id = NULL, config_version = 0, config_author = 0,
        system_identifier = i.system_identifier, database_oid = i.database_oid, timeline = i.timeline
        FROM mmrepl._node_identity() AS i;
END
$$;
REVOKE ALL ON FUNCTION mmrepl._forget_all() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._forget_all() IS
    'takes nothing; this database forgets who it was, its change log and what it had applied; not the configuration';

CREATE FUNCTION mmrepl._kept_is_overtaken() RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE mmrepl.kept AS k SET overtaken = true FROM mmrepl._change_log() AS c
        JOIN pg_class AS t ON t.oid = c.relid JOIN pg_namespace AS n ON n.oid = t.relnamespace
        WHERE k.ts IS NOT NULL AND n.nspname = k.nspname AND t.relname = k.relname AND c.key = k.key AND c.op = 'delete' AND c.ts > k.ts
$$;
REVOKE ALL ON FUNCTION mmrepl._kept_is_overtaken() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._kept_is_overtaken() IS
    'takes nothing; when the copy is in, which brings the log of who gave it: marks those rows in mmrepl.kept that a db wrote that is gone, and that another one has deleted since';

CREATE FUNCTION mmrepl._kept_is_lost(kept_id int8, as_text bool) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    k record;
    now_there jsonb;
    was jsonb;
    there text;
BEGIN
    SELECT x.*, (SELECT min(s.sync_id) FROM mmrepl.sync s JOIN mmrepl.relgroup_rel g ON g.relgroup = s.relgroup
                 WHERE g.nspname = x.nspname AND g.relname = x.relname) AS sync_id
        INTO k FROM mmrepl.kept AS x WHERE x.id = kept_id;
    there := format('%I.%I', k.nspname, k.relname);
    IF k.sync_id IS NULL OR to_regclass(there) IS NULL THEN
        RETURN;
    ELSIF as_text THEN
        was := jsonb_build_object('mmrepl.text', k.content);
    ELSIF k.key IS NOT NULL THEN
        SELECT r.key, r.content::jsonb INTO now_there, was FROM mmrepl._rows_as_owner(there::regclass,
            format('SELECT (SELECT to_jsonb(t) FROM %1$s AS t, jsonb_populate_record(NULL::%1$s, $1[1]) AS r WHERE %2$s), to_jsonb(%3$L::%1$s)::text', there,
                   (SELECT string_agg(format('t.%1$I = r.%1$I', c), ' AND ') FROM jsonb_object_keys(k.key) AS c), k.content), ARRAY[k.key]) AS r;
        IF now_there IS NOT DISTINCT FROM was THEN
            RETURN;
        END IF;
    END IF;
    INSERT INTO mmrepl.conflict_log (sync_id, nspname, relname, key, conflict_type, resolution, local_row, remote_row, remote_ts, remote_node)
        VALUES (k.sync_id, k.nspname, k.relname, k.key,
                CASE WHEN k.key IS NULL THEN 'truncate_conflict' WHEN was IS NULL THEN 'delete_origin_differs' ELSE 'update_origin_differs' END,
                'apply_remote', was, now_there, 0, 0);
END
$$;
REVOKE ALL ON FUNCTION mmrepl._kept_is_lost(int8, bool) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._kept_is_lost(int8, bool) IS
    'takes a row of mmrepl.kept that is not written again, and whether it is to be shown as text (jsonb cannot hold it); tells of it in the conflict history, unless what is there is the same';

CREATE FUNCTION mmrepl._advance_sequences() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s record;
    highest int8;
    last int8;
BEGIN
    FOR s IN SELECT c.oid::regclass AS seq, q.seqincrement AS step, d.refobjid::regclass AS tbl, a.attname AS col
             FROM mmrepl.rel AS r
             JOIN pg_namespace AS n ON n.nspname = r.nspname
             JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = r.relname
             JOIN pg_sequence AS q ON q.seqrelid = c.oid
             JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
                 AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
             JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE r.kind = 'S' AND q.seqincrement > 0 AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) LOOP
        EXECUTE format('SELECT max(%I) FROM %s', s.col, s.tbl) INTO highest;
        EXECUTE format('SELECT last_value FROM %s', s.seq) INTO last;
        IF highest >= last THEN
            PERFORM setval(s.seq, last + ((highest - last) / s.step + 1) * s.step, false);
        END IF;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION mmrepl._advance_sequences() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._advance_sequences() IS
    'takes nothing; sequences of tables'' columns go on above what the tables hold, in their own steps: what this database gave out in a life that it lost is not given out again';

CREATE FUNCTION mmrepl._replace_db(name text, system_identifier int8, database_oid oid, started text, copy_from text,
        OUT node_id int4, OUT document jsonb)
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_replace_db';
REVOKE ALL ON FUNCTION mmrepl._replace_db(text, int8, oid, text, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._replace_db(text, int8, oid, text, text) IS
    'takes the name of a db, who it is now, when its server was started, and the db that is to give it a copy (NULL: any); gives it a new node id in all its dbgroups, on all dbs but itself, and gives that and the configuration; raises MR004 when another server answers to its connection string';

CREATE FUNCTION mmrepl.rejoin(via text DEFAULT NULL, copy_from text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_rejoin';
REVOKE ALL ON FUNCTION mmrepl.rejoin(text, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.rejoin(text, text) IS
    'to be called on a db that was given up, restored or promoted with losses; takes a db to ask (NULL: the first that answers) and the source that is to give the copy (NULL: the one that has been there for longest); this db becomes a new node of the same name and place and gets a copy of everything; rows written here that no other db has are kept if their keys are nowhere else, and go to the conflict history otherwise';

CREATE FUNCTION mmrepl.confirm_identity() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_confirm_identity';
REVOKE ALL ON FUNCTION mmrepl.confirm_identity() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.confirm_identity() IS
    'takes nothing; after a promotion, or when this db was refused as a copy of one that is stopped now: asks the other dbs whether anything is lost, and lets replication go on under the new timeline; raises MR004 in a copy (other server or database, or the original still answers at the connection string) and when a db that answers has what is not here';
