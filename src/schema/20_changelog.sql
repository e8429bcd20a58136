-- The change log: a ring of segments.  A row is a packed run of changes of one
-- transaction; no index, no updates, emptied by TRUNCATE only.

CREATE TABLE mmrepl.log (
    xid               xid8 NOT NULL,                -- top-level transaction that appended it
    changes           bytea NOT NULL                -- see src/changelog.c
);
ALTER TABLE mmrepl.log ALTER changes SET STORAGE MAIN;
COMMENT ON TABLE mmrepl.log IS 'change log, parent of the segments; read it through the view change_log';

DO $$
BEGIN
    FOR i IN 0..15 LOOP
        EXECUTE pg_catalog.format('CREATE TABLE mmrepl.log_%s () INHERITS (mmrepl.log)
            WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off)', i);
        EXECUTE pg_catalog.format('ALTER TABLE mmrepl.log_%s ALTER changes SET STORAGE MAIN', i);
        EXECUTE pg_catalog.format('REVOKE ALL ON mmrepl.log_%s FROM PUBLIC', i);
    END LOOP;
END $$;
REVOKE ALL ON mmrepl.log FROM PUBLIC;

-- Indexes of segments that wait long for a peer; empty in a healthy cluster.
-- What a page holds is read as it lies there: it is never compressed, and there is no TOAST table.
CREATE TABLE mmrepl.log_index (
    page              bytea NOT NULL                -- see src/segindex.h
);
ALTER TABLE mmrepl.log_index ALTER page SET STORAGE PLAIN;
COMMENT ON TABLE mmrepl.log_index IS 'pattern of the indexes of segments of the change log; empty';
REVOKE ALL ON mmrepl.log_index FROM PUBLIC;
DO $$
BEGIN
    FOR i IN 0..15 LOOP
        EXECUTE pg_catalog.format('CREATE TABLE mmrepl.log_%s_index (LIKE mmrepl.log_index INCLUDING STORAGE)
            WITH (autovacuum_enabled = off)', i);
        EXECUTE pg_catalog.format('REVOKE ALL ON mmrepl.log_%s_index FROM PUBLIC', i);
    END LOOP;
END $$;


CREATE TABLE mmrepl.clock (
    singleton         bool PRIMARY KEY DEFAULT true CHECK (singleton),
    max_ts            int8 NOT NULL                 -- microseconds since 2000
) WITH (fillfactor = 10);
INSERT INTO mmrepl.clock (max_ts) VALUES (0);
REVOKE ALL ON mmrepl.clock FROM PUBLIC;
GRANT SELECT ON mmrepl.clock TO pg_monitor;
COMMENT ON TABLE mmrepl.clock IS 'a time that no entry was above that has left the change log: versions to come are, also after a restart; one row';
