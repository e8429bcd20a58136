-- Are the dbs equal?  (src/api_compare.c, src/comparing.c)

CREATE FUNCTION mmrepl._compare_columns(sync_id int4, nspname text, relname text) RETURNS text[]
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_compare_columns';
REVOKE ALL ON FUNCTION mmrepl._compare_columns(int4, text, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._compare_columns(int4, text, text) IS
    'takes a table of a sync; gives about how many rows it has here, and the columns that can be compared; NULL if it is not here, or has no usable key';

CREATE FUNCTION mmrepl._compare_digest(sync_id int4, nspname text, relname text, columns text[], buckets int4) RETURNS int8[]
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_compare_digest';
REVOKE ALL ON FUNCTION mmrepl._compare_digest(int4, text, text, text[], int4) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._compare_digest(int4, text, text, text[], int4) IS
    'takes a table of a sync, columns, and a number of buckets (a power of two) among which rows are spread by their keys; gives the sum of the hashes and the number of the rows of each';

CREATE FUNCTION mmrepl._compare_rows(sync_id int4, nspname text, relname text, columns text[], buckets int4, wanted int4[],
    OUT key bytea, OUT hash int8) RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_compare_rows';
REVOKE ALL ON FUNCTION mmrepl._compare_rows(int4, text, text, text[], int4, int4[]) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._compare_rows(int4, text, text, text[], int4, int4[]) IS
    'as _compare_digest, and which buckets; gives key and hash of each of their rows';

CREATE FUNCTION mmrepl._compare_keys(sync_id int4, nspname text, relname text, columns text[], keys bytea[],
    OUT hash int8, OUT in_flight bool, OUT set_aside bool) RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_compare_keys';
REVOKE ALL ON FUNCTION mmrepl._compare_keys(int4, text, text, text[], bytea[]) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._compare_keys(int4, text, text, text[], bytea[]) IS
    'takes a table of a sync, columns and keys; gives for each key the hash of its row (NULL: there is none), whether the log has an entry of it that some db may not have yet, and whether a state of it stands aside here';

CREATE FUNCTION mmrepl._reauthor(sync_id int4, nspname text, relname text, keys bytea[]) RETURNS int8
    LANGUAGE c VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'mmrepl_reauthor';
REVOKE ALL ON FUNCTION mmrepl._reauthor(int4, text, text, bytea[]) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._reauthor(int4, text, text, bytea[]) IS
    'takes a table of a sync and keys; has their rows, or that there is none, travel from here as if they had been written now; keeps writers of the table out until the transaction ends; raises 55P03, 55000';

CREATE FUNCTION mmrepl.compare_sync(sync text, dbs text[] DEFAULT NULL, tables text[] DEFAULT NULL, OUT db text,
    OUT schemaname name, OUT tablename name, OUT key jsonb, OUT difference text, OUT in_flight bool, OUT set_aside bool)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_compare_sync';
REVOKE ALL ON FUNCTION mmrepl.compare_sync(text, text[], text[]) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.compare_sync(text, text[], text[]) IS
    'takes the name of a sync, other dbs of it (NULL: all) and tables (name or schema.name, NULL: all); gives each row of this db that is missing there, missing here, or differs; in_flight: it was written lately and is on its way to some db, so it may become equal by itself; set_aside: it cannot be applied on one of both (see apply_error); reads what is committed; raises 42704, 42P01 for what is not in the sync, 08xxx when a db cannot be reached';

CREATE FUNCTION mmrepl.repair_sync(sync text, "from" text DEFAULT NULL, dbs text[] DEFAULT NULL, tables text[] DEFAULT NULL) RETURNS int8
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_repair_sync';
REVOKE ALL ON FUNCTION mmrepl.repair_sync(text, text, text[], text[]) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.repair_sync(text, text, text[], text[]) IS
    'takes the name of a sync, the db whose rows are right (NULL: this one), and as compare_sync the dbs and tables to compare; has what differs (and is not in flight) written anew on that db, as it is there, so that it travels to all the others; commits by itself, table by table; gives how many rows; raises what compare_sync raises, 55P03 when a table stays locked, 55000 if the db is no source';

CREATE FUNCTION mmrepl.orphans(sync text, OUT schemaname name, OUT tablename name, OUT constraint_name name,
    OUT key jsonb, OUT parent regclass, OUT missing jsonb)
    RETURNS SETOF record
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fk record;
    given text := sync;
BEGIN
    IF NOT EXISTS (SELECT FROM mmrepl.sync s WHERE s.name = given) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = format('sync "%s" does not exist', given),
            HINT = 'The view mmrepl.syncs shows those there are.';
    END IF;
    FOR fk IN
        SELECT t.schemaname, t.tablename, c.conname, c.conrelid::regclass AS child, c.confrelid::regclass AS parent,
               -- the key that tells the child's rows apart, and the values that refer
               (SELECT string_agg(format('%L, c.%s', CASE WHEN k LIKE '"%' THEN replace(substr(k, 2, length(k) - 2), '""', '"') ELSE k END, k), ', ' ORDER BY n) FROM unnest(t.key_columns) WITH ORDINALITY AS x(k, n)) AS key,
               string_agg(format('%L, c.%I', f.attname, a.attname), ', ' ORDER BY p.n) AS missing,
               string_agg(format('c.%I IS NOT NULL', a.attname),
                          CASE c.confmatchtype WHEN 'f' THEN ' OR ' ELSE ' AND ' END ORDER BY p.n) AS refers,
               string_agg(format('p.%I OPERATOR(%I.%s) c.%I', f.attname, op.nspname, o.oprname, a.attname), ' AND ' ORDER BY p.n) AS meets
        FROM mmrepl.syncs AS s
        JOIN mmrepl.tables AS t ON s.name = ANY (t.syncs)
        JOIN pg_namespace AS ns ON ns.nspname = t.schemaname
        JOIN pg_class AS r ON r.relnamespace = ns.oid AND r.relname = t.tablename
        JOIN pg_constraint AS c ON c.conrelid = r.oid AND c.contype = 'f'
        CROSS JOIN LATERAL unnest(c.conkey, c.confkey, c.conpfeqop) WITH ORDINALITY AS p(child, parent, op, n)
        JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = p.child
        JOIN pg_attribute AS f ON f.attrelid = c.confrelid AND f.attnum = p.parent
        JOIN pg_operator AS o ON o.oid = p.op
        JOIN pg_namespace AS op ON op.oid = o.oprnamespace
        WHERE s.name = given AND t.key_columns IS NOT NULL
        GROUP BY t.schemaname, t.tablename, t.key_columns, c.oid, c.conname, c.conrelid, c.confrelid, c.confmatchtype
        ORDER BY t.schemaname, t.tablename, c.conname
    LOOP
        schemaname := fk.schemaname;
        tablename := fk.tablename;
        constraint_name := fk.conname;
        parent := fk.parent;
        -- regclass quotes itself, the rest is quoted above
        FOR key, missing IN EXECUTE format('SELECT jsonb_build_object(%s), jsonb_build_object(%s) FROM ONLY %s AS c
                WHERE (%s) AND NOT EXISTS (SELECT FROM %s AS p WHERE %s)',
            fk.key, fk.missing, fk.child, fk.refers, fk.parent, fk.meets)
        LOOP
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION mmrepl.orphans(text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.orphans(text) IS
    'takes the name of a sync; gives each row of its tables here that refers by a foreign key to a row that is not here: table, constraint, its key, and the table and values that are missing; reads all these tables, with the caller''s rights; raises 42704 for an unknown sync';
