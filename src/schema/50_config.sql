-- The configuration as one document, and what other dbs call to read, lock and replace it.

ALTER TABLE mmrepl.local_node ADD COLUMN config_id uuid;   -- which configuration this db is part of; NULL: none
COMMENT ON COLUMN mmrepl.local_node.config_id IS 'given by the first add_db; dbs with different ones never take each other''s configuration';

CREATE FUNCTION mmrepl._protocol_version() RETURNS int4
    LANGUAGE c IMMUTABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'mmrepl_protocol_version';
REVOKE ALL ON FUNCTION mmrepl._protocol_version() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._protocol_version() IS
    'takes nothing; gives the version of what goes over the wire between dbs';

-- Tables are read with the owner's rights: peers call this with EXECUTE alone.
CREATE FUNCTION mmrepl._config_document() RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.jsonb_build_object(
        'format', 1,
        'config_id', l.config_id,
        'version', l.config_version,
        'author', l.config_author,
        'next_node_id', l.next_node_id,
        'next_sync_id', l.next_sync_id,
        'db', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(t) ORDER BY t.node_id), '[]') FROM mmrepl.db t),
        'dbgroup', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(t) ORDER BY t.name), '[]') FROM mmrepl.dbgroup t),
        'dbgroup_db', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(t) ORDER BY t.dbgroup, t.pos), '[]') FROM mmrepl.dbgroup_db t),
        'rel', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(t) ORDER BY t.nspname, t.relname), '[]') FROM mmrepl.rel t),
        'relgroup', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(t) ORDER BY t.name), '[]') FROM mmrepl.relgroup t),
        'relgroup_rel', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(t) ORDER BY t.relgroup, t.nspname, t.relname), '[]') FROM mmrepl.relgroup_rel t),
        'sync', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(t) ORDER BY t.sync_id), '[]') FROM mmrepl.sync t))
    FROM mmrepl.local_node l
$$;
REVOKE ALL ON FUNCTION mmrepl._config_document() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._config_document() IS
    'takes nothing; gives the configuration as one document, connection strings included: secret';

CREATE FUNCTION mmrepl._config_replace(doc jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM mmrepl.sync;
    DELETE FROM mmrepl.relgroup_rel;
    DELETE FROM mmrepl.relgroup;
    DELETE FROM mmrepl.rel;
    DELETE FROM mmrepl.dbgroup_db;
    DELETE FROM mmrepl.dbgroup;
    DELETE FROM mmrepl.db;
    INSERT INTO mmrepl.db SELECT * FROM jsonb_populate_recordset(NULL::mmrepl.db, doc->'db');
    INSERT INTO mmrepl.dbgroup SELECT * FROM jsonb_populate_recordset(NULL::mmrepl.dbgroup, doc->'dbgroup');
    INSERT INTO mmrepl.dbgroup_db SELECT * FROM jsonb_populate_recordset(NULL::mmrepl.dbgroup_db, doc->'dbgroup_db');
    INSERT INTO mmrepl.rel SELECT * FROM jsonb_populate_recordset(NULL::mmrepl.rel, doc->'rel');
    INSERT INTO mmrepl.relgroup SELECT * FROM jsonb_populate_recordset(NULL::mmrepl.relgroup, doc->'relgroup');
    INSERT INTO mmrepl.relgroup_rel SELECT * FROM jsonb_populate_recordset(NULL::mmrepl.relgroup_rel, doc->'relgroup_rel');
    INSERT INTO mmrepl.sync SELECT * FROM jsonb_populate_recordset(NULL::mmrepl.sync, doc->'sync');
    UPDATE mmrepl.local_node SET
        config_id = (doc->>'config_id')::uuid,
        config_version = coalesce((doc->>'version')::int8, 0),
        config_author = coalesce((doc->>'author')::int4, 0),
        next_node_id = coalesce((doc->>'next_node_id')::int4, 1),
        next_sync_id = coalesce((doc->>'next_sync_id')::int4, 1);
END
$$;
REVOKE ALL ON FUNCTION mmrepl._config_replace(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._config_replace(jsonb) IS
    'takes a document; puts it in place of the tables'' rows, and nothing else: see _config_receive; of {} it makes an empty configuration';

CREATE FUNCTION mmrepl._config_state(lock bool,
        OUT node_id int4, OUT config_id uuid, OUT config_version int8, OUT config_author int4,
        OUT system_identifier int8, OUT database_oid oid)
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_config_state';
REVOKE ALL ON FUNCTION mmrepl._config_state(bool) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._config_state(bool) IS
    'takes whether to lock the configuration until the transaction ends; gives who this db is (node_id 0: none yet) and which version of which configuration it holds; raises 55P03 when another session changes it';

CREATE FUNCTION mmrepl._config_receive(doc jsonb, node_id int4, strict bool) RETURNS bool
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_config_receive';
REVOKE ALL ON FUNCTION mmrepl._config_receive(jsonb, int4, bool) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._config_receive(jsonb, int4, bool) IS
    'takes a document, the id this db has in it, and whether to refuse what this server has no worker slots for (then the caller settles triggers and sequences); replaces the configuration if the document is newer (false: it is not), makes triggers and sequences what it says; raises MR008 when it is of another configuration, or, with strict, older, MR004 when it means another database';

-- Syncs in which this db has a part.  first_source: its hub, or who has been a source of it for longest.
CREATE VIEW mmrepl._part AS
    SELECT s.sync_id, d.node_id, CASE d.role WHEN 'hub' THEN 'source' ELSE d.role END AS role, d.role = 'hub' AS is_hub,
           d.since, d.since > s.since AS joins, d.copy, d.copy_from, d.was, s.copy_round, s.onetimecopy, s.dbgroup,
           (SELECT o.node_id FROM mmrepl.dbgroup_db o WHERE o.dbgroup = s.dbgroup AND o.role <> 'target'
            AND NOT o.needs_resync ORDER BY o.role = 'hub' DESC, o.since, o.pos LIMIT 1) AS first_source
    FROM (SELECT x.node_id FROM mmrepl.local_node x LIMIT 1) l
    JOIN mmrepl.dbgroup_db d ON d.node_id = l.node_id
    JOIN mmrepl.sync s ON s.dbgroup = d.dbgroup;
COMMENT ON VIEW mmrepl._part IS 'for the functions below';

-- Those it exchanges with: all, or by way of the hub.
CREATE VIEW mmrepl._other AS
    SELECT p.sync_id, d.node_id, CASE WHEN d.needs_resync THEN 'lost' WHEN d.role = 'hub' THEN 'source' ELSE d.role END AS role, d.since
    FROM mmrepl._part p JOIN mmrepl.dbgroup_db d ON d.dbgroup = p.dbgroup AND d.node_id <> p.node_id
    WHERE p.is_hub OR d.role = 'hub'
       OR NOT EXISTS (SELECT FROM mmrepl.dbgroup_db h WHERE h.dbgroup = p.dbgroup AND h.role = 'hub');
COMMENT ON VIEW mmrepl._other IS 'for the functions below';

CREATE FUNCTION mmrepl._settle_members() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    p record;
BEGIN
    -- a target that becomes a source has all it needs, but for being known as one
    UPDATE mmrepl.sync_state SET since = x.since, opened = false,
            -- it has been there from the beginning, and none was asked for
            copied = CASE WHEN x.onetimecopy = 0 AND x.was <= s.since THEN x.copy_round ELSE copied END
        FROM mmrepl._part x JOIN mmrepl.sync s USING (sync_id)
        WHERE x.sync_id = sync_state.sync_id AND x.copy = -1 AND x.since <> sync_state.since AND x.was = sync_state.since;
    -- a part that is over, or has begun anew: nothing that is known of it holds
    DELETE FROM mmrepl.sync_state t WHERE NOT EXISTS (
        SELECT FROM mmrepl._part x WHERE x.sync_id = t.sync_id AND x.since = t.since);
    FOR p IN SELECT x.* FROM mmrepl._part x WHERE NOT EXISTS (
            SELECT FROM mmrepl.sync_state t WHERE t.sync_id = x.sync_id) LOOP
        UPDATE mmrepl.clock SET max_ts = o.max_ts FROM (SELECT max(max_ts) AS max_ts FROM mmrepl.progress) o
            WHERE o.max_ts > clock.max_ts;
        DELETE FROM mmrepl.progress WHERE sync_id = p.sync_id;
        DELETE FROM mmrepl.met WHERE sync_id = p.sync_id;
        DELETE FROM mmrepl.departed WHERE sync_id = p.sync_id;
        DELETE FROM mmrepl.known_member WHERE sync_id = p.sync_id;
        INSERT INTO mmrepl.sync_state (sync_id, since, opened) VALUES (p.sync_id, p.since, NOT p.joins);
    END LOOP;

    IF EXISTS ((SELECT sync_id, node_id, role, since FROM mmrepl.known_member EXCEPT SELECT * FROM mmrepl._other)
               UNION ALL
               (SELECT * FROM mmrepl._other EXCEPT SELECT sync_id, node_id, role, since FROM mmrepl.known_member)) THEN
        -- a batch that began before must not end after this without noticing
        LOCK TABLE mmrepl.known_member IN EXCLUSIVE MODE;
        INSERT INTO mmrepl.departed (sync_id, node_id)
            SELECT k.sync_id, k.node_id FROM mmrepl.known_member k
            WHERE k.role = 'source' AND EXISTS (SELECT FROM mmrepl._part x WHERE x.sync_id = k.sync_id)
              AND NOT EXISTS (SELECT FROM mmrepl._other o WHERE o.sync_id = k.sync_id AND o.node_id = k.node_id
                              AND o.role = 'source' AND o.since = k.since)
            ON CONFLICT DO NOTHING;
        DELETE FROM mmrepl.known_member;
        INSERT INTO mmrepl.known_member (sync_id, node_id, role, since) SELECT * FROM mmrepl._other;
        DELETE FROM mmrepl.met WHERE sync_id NOT IN (SELECT x.sync_id FROM mmrepl._part x);
        DELETE FROM mmrepl.departed WHERE sync_id NOT IN (SELECT x.sync_id FROM mmrepl._part x);
    END IF;
    -- who gives the copy has it
    UPDATE mmrepl.sync_state SET copied = x.copy_round FROM mmrepl._part x
        WHERE x.sync_id = sync_state.sync_id AND x.first_source = x.node_id AND NOT x.joins
          AND sync_state.copied < x.copy_round;
END
$$;
REVOKE ALL ON FUNCTION mmrepl._settle_members() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._settle_members() IS
    'takes nothing; after the configuration was replaced: notes which syncs this database joins and which sources have departed';

CREATE FUNCTION mmrepl._copy_wanted(sync_id int4, OUT source_node int4, OUT mode int4)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT w.source_node, w.mode FROM (
        SELECT p.joins AND t.copied = 0 AS first,
               CASE WHEN p.joins AND t.copied = 0 THEN
                   coalesce((SELECT o.node_id FROM mmrepl._other o WHERE o.sync_id = p.sync_id
                             AND o.node_id = p.copy_from AND o.role = 'source'),
                            (SELECT o.node_id FROM mmrepl._other o WHERE o.sync_id = p.sync_id AND o.role = 'source'
                             ORDER BY o.since, o.node_id LIMIT 1))
               ELSE nullif(p.first_source, p.node_id) END AS source_node,
               CASE WHEN p.joins AND t.copied = 0 THEN abs(p.copy) ELSE p.onetimecopy END::int4 AS mode
        FROM mmrepl._part p JOIN mmrepl.sync_state t ON t.sync_id = p.sync_id
        WHERE p.sync_id = $1 AND t.copied < p.copy_round) w
    WHERE w.source_node IS NOT NULL AND (w.first OR w.mode > 0)
$$;
REVOKE ALL ON FUNCTION mmrepl._copy_wanted(int4) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._copy_wanted(int4) IS
    'takes a sync; gives the node from which this database still needs an initial copy, and its kind as onetimecopy (0: nothing but what is in the log there); NULLs if none';

CREATE FUNCTION mmrepl._closed_to_clients(sync_id int4) RETURNS bool
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((
        SELECT CASE WHEN NOT t.opened THEN true
                    -- the last source left: there is nobody to wait for
                    WHEN p.joins AND t.copied = 0 THEN (SELECT w.source_node IS NOT NULL FROM mmrepl._copy_wanted($1) w) END
        FROM mmrepl.sync_state t JOIN mmrepl._part p ON p.sync_id = t.sync_id WHERE t.sync_id = $1), false)
$$;
REVOKE ALL ON FUNCTION mmrepl._closed_to_clients(int4) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._closed_to_clients(int4) IS
    'takes a sync; gives whether this database joins it and is not at the end of that: others have to hear of it, or it has not got the copy with which it joins';

-- What an apply session holds at the moment can wait for the next time: a sync's id is not used again.
CREATE FUNCTION mmrepl._forget_progress() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- the clock must not forget them (K2)
    UPDATE mmrepl.clock SET max_ts = p.max_ts FROM (SELECT max(max_ts) AS max_ts FROM mmrepl.progress) p
        WHERE p.max_ts > clock.max_ts;
    DELETE FROM mmrepl.progress WHERE (sync_id, source_node) IN (
        SELECT p.sync_id, p.source_node FROM mmrepl.progress p
        WHERE NOT EXISTS (SELECT FROM mmrepl.sync s JOIN mmrepl.dbgroup_db d ON d.dbgroup = s.dbgroup
                          WHERE s.sync_id = p.sync_id AND d.node_id = p.source_node)
          AND NOT EXISTS (SELECT FROM mmrepl.departed g WHERE g.sync_id = p.sync_id AND g.node_id = p.source_node)
        FOR UPDATE SKIP LOCKED);
    DELETE FROM mmrepl.peer_life p WHERE NOT EXISTS (SELECT FROM mmrepl.db d WHERE d.node_id = p.node_id);
    DELETE FROM mmrepl.apply_error_log e WHERE NOT EXISTS (
        SELECT FROM mmrepl.sync s JOIN mmrepl.relgroup_rel r USING (relgroup)
        WHERE s.sync_id = e.sync_id AND r.nspname = e.nspname AND r.relname = e.relname);
    DELETE FROM mmrepl.peer_state WHERE (sync_id, peer_node) IN (
        SELECT p.sync_id, p.peer_node FROM mmrepl.peer_state p
        WHERE NOT EXISTS (SELECT FROM mmrepl.sync s JOIN mmrepl.dbgroup_db d ON d.dbgroup = s.dbgroup
                          WHERE s.sync_id = p.sync_id AND d.node_id = p.peer_node)
        FOR UPDATE SKIP LOCKED);
END
$$;
REVOKE ALL ON FUNCTION mmrepl._forget_progress() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._forget_progress() IS
    'takes nothing; removes what this database remembers of syncs and dbs that are no more';

-- What can be replicated, and what fits together.

CREATE FUNCTION mmrepl._member_problem(member regclass) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_member_problem';
REVOKE ALL ON FUNCTION mmrepl._member_problem(regclass) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._member_problem(regclass) IS
    'takes a table or sequence of a sync; gives what is wrong with its capture triggers or its increment here, or NULL';

CREATE FUNCTION mmrepl._key_problem(tbl oid, key_index name) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    what text;
    i record;
    nullable text;
BEGIN
    IF key_index IS NULL THEN
        SELECT x.* INTO i FROM pg_index x WHERE x.indrelid = tbl AND x.indisprimary;
        IF NOT FOUND THEN
            RETURN 'has no primary key';
        END IF;
        what := 'primary key';
    ELSE
        SELECT x.* INTO i FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
            WHERE x.indrelid = tbl AND c.relname = key_index;
        what := format('index "%s"', key_index);
        IF NOT FOUND THEN
            RETURN format('has no %s', what);
        END IF;
    END IF;
    IF NOT i.indisunique THEN
        RETURN format('%s is not unique', what);
    ELSIF NOT i.indimmediate THEN
        RETURN format('%s is deferrable', what);
    ELSIF i.indpred IS NOT NULL THEN
        RETURN format('%s is partial', what);
    ELSIF i.indexprs IS NOT NULL THEN
        RETURN format('%s has an expression', what);
    ELSIF NOT i.indisvalid THEN
        RETURN format('%s is not valid', what);
    END IF;
    SELECT string_agg(format('"%s"', a.attname), ', ' ORDER BY a.attnum) INTO nullable
        FROM pg_attribute a
        WHERE a.attrelid = tbl AND NOT a.attnotnull
          AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]);
    IF nullable IS NOT NULL THEN
        RETURN format('%s has columns that may be NULL: %s', what, nullable);
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION mmrepl._key_problem(oid, name) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._key_problem(oid, name) IS
    'takes a table and the name of an index of it, or NULL for the primary key; gives why that cannot identify its rows, or NULL';

CREATE FUNCTION mmrepl._describe_member(nsp name, rel name, kind "char", key_index name, deep bool) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c record;
    problem text;
    hint text;
    cols jsonb;
    keys jsonb;
BEGIN
    SELECT k.oid, k.relkind, k.relpersistence INTO c
        FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace
        WHERE n.nspname = nsp AND k.relname = rel;
    IF NOT FOUND THEN
        problem := 'does not exist';
        hint := 'Create it on all dbs first.';
    ELSIF c.relpersistence = 't' THEN
        problem := 'is temporary';
        hint := 'No other session sees it: only permanent tables can be replicated.';
    ELSIF nsp = 'mmrepl' THEN
        problem := 'belongs to mmrepl itself';
        hint := 'Each db keeps its own: only user tables can be replicated.';
    ELSIF nsp = 'information_schema' OR nsp LIKE 'pg\_%' THEN
        problem := 'belongs to the system';
        hint := 'Only user tables can be replicated.';
    ELSIF kind = 'S' AND c.relkind <> 'S' THEN
        problem := 'is not a sequence';
        hint := 'Tables are added with mmrepl.add_table().';
    ELSIF kind = 'r' AND c.relkind <> 'r' THEN
        problem := CASE c.relkind
            WHEN 'p' THEN 'is a partitioned table' WHEN 'f' THEN 'is a foreign table' WHEN 'v' THEN 'is a view'
            WHEN 'm' THEN 'is a materialized view' ELSE 'is not a table' END;
        hint := CASE c.relkind
            WHEN 'p' THEN 'It holds no rows itself: add its partitions.'
            WHEN 'f' THEN 'Its rows are on another server.'
            WHEN 'v' THEN 'It holds no rows itself: add the tables it reads.'
            WHEN 'm' THEN 'Refresh it on each db, and add the tables it reads.'
            ELSE 'Sequences are added with mmrepl.add_sequence().' END;
    ELSIF c.relpersistence = 'u' THEN
        problem := 'is unlogged';
        hint := 'Make it logged: ALTER TABLE ... SET LOGGED.';
    ELSIF kind = 'r' THEN
        problem := mmrepl._key_problem(c.oid, key_index);
        hint := CASE WHEN problem IS NOT NULL THEN
            'Add a primary key, or name a unique index of NOT NULL columns, neither partial nor deferrable: mmrepl.add_table(..., key => ''index'').' END;
    END IF;

    IF problem IS NULL AND deep THEN
        problem := mmrepl._member_problem(c.oid);
    END IF;
    IF c.oid IS NOT NULL AND kind = 'r' THEN
        SELECT jsonb_object_agg(a.attname,
                format_type(a.atttypid, a.atttypmod)
                || CASE WHEN t.typtype = 'e'
                   THEN (SELECT format(' (%s)', string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder))
                         FROM pg_enum e WHERE e.enumtypid = t.oid)
                   ELSE '' END
                || CASE WHEN a.attcollation <> t.typcollation
                   THEN (SELECT format(' collate %I', l.collname) FROM pg_collation l WHERE l.oid = a.attcollation)
                   ELSE '' END
                || CASE WHEN a.attgenerated <> '' THEN ' generated' ELSE '' END)
            INTO cols
            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped;
        SELECT jsonb_agg(a.attname ORDER BY o.n) INTO keys
            FROM pg_index x
            JOIN pg_class k ON k.oid = x.indexrelid
            CROSS JOIN LATERAL unnest((x.indkey::int2[])[0:x.indnkeyatts - 1]) WITH ORDINALITY AS o(attnum, n)
            JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = o.attnum
            WHERE x.indrelid = c.oid
              AND CASE WHEN key_index IS NULL THEN x.indisprimary ELSE k.relname = key_index END;
    ELSIF c.oid IS NOT NULL AND c.relkind = 'S' THEN
        SELECT jsonb_build_object('values', format_type(s.seqtypid, NULL)) INTO cols
            FROM pg_sequence s WHERE s.seqrelid = c.oid;
    END IF;
    RETURN jsonb_build_object('name', format('%I.%I', nsp, rel), 'problem', problem, 'hint', hint,
        'columns', coalesce(cols, '{}'), 'key', keys, 'exists', c.oid IS NOT NULL);
END
$$;
REVOKE ALL ON FUNCTION mmrepl._describe_member(name, name, "char", name, bool) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._describe_member(name, name, "char", name, bool) IS
    'takes schema, name, kind (r, S) and key index of a member, and whether to look at its triggers too; gives what it is like in this database, and why it cannot be replicated (problem, hint)';

-- Tables are read with the owner's rights: peers call this with EXECUTE alone.
CREATE FUNCTION mmrepl._filled_tables(members jsonb) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m record;
    filled bool;
    names text[] := '{}';
BEGIN
    FOR m IN SELECT x.v->>'n' AS nsp, x.v->>'r' AS rel FROM jsonb_array_elements(members) AS x(v)
             WHERE to_regclass(format('%I.%I', x.v->>'n', x.v->>'r')) IS NOT NULL ORDER BY 1, 2 LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I)', m.nsp, m.rel) INTO filled;
        IF filled THEN
            names := names || format('%I.%I', m.nsp, m.rel);
        END IF;
    END LOOP;
    RETURN nullif(array_to_string(names, ', '), '');
END
$$;
REVOKE ALL ON FUNCTION mmrepl._filled_tables(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._filled_tables(jsonb) IS
    'takes tables as an array of {n: schema, r: name}; gives the names of those that have a row here, NULL if none has';

CREATE FUNCTION mmrepl._strategy_problem(member regclass, key_index name, strategy text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_strategy_problem';
REVOKE ALL ON FUNCTION mmrepl._strategy_problem(regclass, name, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._strategy_problem(regclass, name, text) IS
    'takes a table, its key index (NULL: the primary key) and a conflict strategy as it is stored; gives why that cannot settle the table''s conflicts here, or NULL; a merge function is tried on samples, as the table''s owner';

CREATE FUNCTION mmrepl._describe_members(members jsonb, deep bool) RETURNS jsonb
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(pg_catalog.jsonb_agg(d.v || CASE WHEN m.v->>'s' IS NOT NULL AND d.v->>'problem' IS NULL
            THEN pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('problem',
                -- not by to_regclass: who asks need not have rights on the schema
                mmrepl._strategy_problem((SELECT c.oid::regclass FROM pg_class c
                    JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = (m.v->>'n')::name AND c.relname = (m.v->>'r')::name),
                    (m.v->>'i')::name, m.v->>'s')))
            ELSE '{}' END ORDER BY m.n), '[]')
    FROM pg_catalog.jsonb_array_elements(members) WITH ORDINALITY AS m(v, n)
    CROSS JOIN LATERAL mmrepl._describe_member((m.v->>'n')::name, (m.v->>'r')::name,
            (m.v->>'k')::"char", (m.v->>'i')::name, deep) AS d(v)
$$;
REVOKE ALL ON FUNCTION mmrepl._describe_members(jsonb, bool) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._describe_members(jsonb, bool) IS
    'takes members as an array of {n: schema, r: name, k: kind, i: key index, s: conflict strategy, as stored}; gives the array of their _describe_member';

CREATE FUNCTION mmrepl._compare_members(descriptions jsonb) RETURNS SETOF text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH d AS MATERIALIZED (
        SELECT x.n AS dbn, format('"%s"', x.v->>'db') AS db, m.n AS mn, m.v->>'name' AS name,
            m.v->>'problem' AS problem, (m.v->>'exists')::bool AS here, m.v->'columns' AS columns, m.v->'key' AS key
        FROM jsonb_array_elements($1) WITH ORDINALITY AS x(v, n)
        CROSS JOIN LATERAL jsonb_array_elements(x.v->'members') WITH ORDINALITY AS m(v, n)),
    -- each by itself: what is wrong on several dbs is told once
    problems AS (
        SELECT mn, 1 AS part, min(dbn)::text AS item,
            format('%s: %s on %s', min(name), problem, string_agg(db, ', ' ORDER BY dbn)) AS line
        FROM d WHERE problem IS NOT NULL GROUP BY mn, problem),
    -- columns that are not the same everywhere
    columns AS (
        SELECT d.mn, 2, c.item,
            format('%s: column "%s" is %s', min(d.name), c.item,
                string_agg(format('%s on %s', coalesce(d.columns->>c.item, 'missing'), d.db), ', ' ORDER BY d.dbn))
        FROM (SELECT DISTINCT d.mn, k.item FROM d CROSS JOIN LATERAL jsonb_object_keys(d.columns) AS k(item)) c
        JOIN d ON d.mn = c.mn AND d.here
        GROUP BY d.mn, c.item
        HAVING count(DISTINCT coalesce(d.columns->>c.item, '')) > 1),
    keys AS (
        SELECT mn, 3, '',
            format('%s: the key is %s', min(name), string_agg(format('(%s) on %s',
                (SELECT string_agg(k, ', ') FROM jsonb_array_elements_text(key) AS k), db), ', ' ORDER BY dbn))
        FROM d WHERE jsonb_typeof(key) = 'array'
        GROUP BY mn HAVING count(DISTINCT key) > 1)
    SELECT line FROM (SELECT * FROM problems UNION ALL SELECT * FROM columns UNION ALL SELECT * FROM keys) p
    ORDER BY mn, part, item
$$;
REVOKE ALL ON FUNCTION mmrepl._compare_members(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._compare_members(jsonb) IS
    'takes an array of {db, members: as _describe_members gave it there}; gives a line for each thing that is wrong on a db or differs between them';

CREATE FUNCTION mmrepl._find_members(schemas jsonb, exclude jsonb, kind "char",
        OUT nspname name, OUT relname name, OUT key name, OUT problem text) RETURNS SETOF record
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT n.nspname, c.relname, r.key_index,
        CASE WHEN EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
             THEN 'belongs to an extension'
             ELSE mmrepl._describe_member(n.nspname, c.relname, $3, r.key_index, false)->>'problem' END
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN mmrepl.rel r ON r.nspname = n.nspname AND r.relname = c.relname AND r.kind = $3
    WHERE CASE WHEN $3 = 'S' THEN c.relkind = 'S' ELSE c.relkind IN ('r', 'p', 'f', 'v', 'm') END
      AND n.nspname NOT IN ('mmrepl', 'information_schema') AND n.nspname NOT LIKE 'pg\_%'
      AND ($1 IS NULL OR $1 ? n.nspname)
      AND NOT EXISTS (SELECT FROM jsonb_array_elements_text($2) AS x(pattern)
            WHERE c.relname LIKE replace(replace(replace(x.pattern, '\', '\\'), '_', '\_'), '*', '%')
               OR n.nspname || '.' || c.relname LIKE replace(replace(replace(x.pattern, '\', '\\'), '_', '\_'), '*', '%'))
    ORDER BY n.nspname, c.relname
$$;
REVOKE ALL ON FUNCTION mmrepl._find_members(jsonb, jsonb, "char") FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._find_members(jsonb, jsonb, "char") IS
    'takes schemas (NULL: all but the system''s), patterns of what to leave out, a kind (r, S); gives what there is in this database, its key if it was added before, and why it cannot be replicated';

