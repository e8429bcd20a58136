-- Capture triggers in one database: made, checked, repaired, bound to extension and key, gone again.
CREATE EXTENSION mmrepl;
CREATE TABLE att_t (id int PRIMARY KEY, v text);
CREATE TABLE att_u (id int PRIMARY KEY, w int NOT NULL UNIQUE);
CREATE TABLE "att ""x" (id int PRIMARY KEY);
CREATE TABLE att_p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE att_p1 PARTITION OF att_p FOR VALUES FROM (0) TO (100);
UPDATE mmrepl.local_node SET node_id = 1, stopped = true;
INSERT INTO mmrepl.db VALUES (1, 'one', 'dbname=one', 1, 1), (2, 'two', 'dbname=two', 2, 2);
INSERT INTO mmrepl.dbgroup VALUES ('group');
INSERT INTO mmrepl.dbgroup_db VALUES ('group', 1, 'source', 1), ('group', 2, 'source', 2);
INSERT INTO mmrepl.rel VALUES ('public', 'att_t', 'r', NULL), ('public', 'att_u', 'r', 'att_u_w_key'),
    ('public', 'att "x', 'r', NULL), ('public', 'att_p1', 'r', NULL);
INSERT INTO mmrepl.relgroup VALUES ('herd');
INSERT INTO mmrepl.relgroup_rel SELECT 'herd', nspname, relname FROM mmrepl.rel;
CREATE VIEW problems AS SELECT c.oid::regclass AS rel, mmrepl._attach_problem(c.oid) AS problem FROM pg_class c
    WHERE relkind = 'r' AND relname LIKE 'att%' ORDER BY relname COLLATE "C";
CREATE VIEW triggers AS SELECT tgrelid::regclass AS rel, tgname, tgenabled, pg_get_triggerdef(t.oid) ~ 'att_u_w_key' AS other_key
    FROM pg_trigger t WHERE tgname LIKE 'mmrepl%' ORDER BY tgrelid::regclass::text COLLATE "C", tgname;

-- a target captures nothing
UPDATE mmrepl.dbgroup_db SET role = 'target' WHERE node_id = 1;
INSERT INTO mmrepl.sync (sync_id, name, relgroup, dbgroup) VALUES (1, 'sync', 'herd', 'group');
SELECT mmrepl._attach_reconcile();
SELECT * FROM triggers;

UPDATE mmrepl.dbgroup_db SET role = 'source' WHERE node_id = 1;
SELECT * FROM problems;
SELECT mmrepl._attach_reconcile();
SELECT * FROM problems;
SELECT * FROM triggers;

-- a second time changes nothing and takes no lock
BEGIN;
SELECT mmrepl._attach_reconcile();
SELECT count(*) FROM pg_locks WHERE mode IN ('ShareRowExclusiveLock', 'AccessExclusiveLock') AND pid = pg_backend_pid();
COMMIT;

-- the key cannot go
ALTER TABLE att_t DROP CONSTRAINT att_t_pkey;
ALTER TABLE att_u DROP CONSTRAINT att_u_w_key;
REINDEX TABLE CONCURRENTLY att_u;
ALTER TABLE att_u DROP CONSTRAINT att_u_w_key;

-- what users do to triggers is seen and put right
ALTER TABLE att_t DISABLE TRIGGER ALL;
ALTER TABLE att_u ENABLE ALWAYS TRIGGER mmrepl_capture;
DROP TRIGGER mmrepl_capture_truncate ON "att ""x";
CREATE OR REPLACE TRIGGER mmrepl_capture AFTER INSERT ON att_p1 FOR EACH ROW EXECUTE FUNCTION mmrepl._capture('');
SELECT * FROM problems;
SELECT mmrepl._attach_reconcile();
SELECT * FROM problems;

-- another key
UPDATE mmrepl.rel SET key_index = NULL WHERE relname = 'att_u';
SELECT mmrepl._attach_reconcile();
ALTER TABLE att_u DROP CONSTRAINT att_u_w_key;
ALTER TABLE att_u DROP CONSTRAINT att_u_pkey;

-- a trigger of that name that is somebody else's stays
CREATE FUNCTION att_nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
DROP TRIGGER mmrepl_capture ON att_t;
CREATE TRIGGER mmrepl_capture AFTER INSERT ON att_t FOR EACH ROW EXECUTE FUNCTION att_nothing();
SELECT mmrepl._attach_problem('att_t');
SELECT mmrepl._attach_reconcile();
DROP TRIGGER mmrepl_capture ON att_t;

-- a member that is not here is told, no key is an error, and nothing has changed then
INSERT INTO mmrepl.rel VALUES ('public', 'att_gone', 'r', NULL);
INSERT INTO mmrepl.relgroup_rel VALUES ('herd', 'public', 'att_gone');
SELECT mmrepl._attach_reconcile();
CREATE TABLE att_gone (id int);
SELECT mmrepl._attach_reconcile();
DROP TABLE att_gone;

-- a member that leaves
DELETE FROM mmrepl.relgroup_rel WHERE relname IN ('att_gone', 'att_u');
SELECT mmrepl._attach_reconcile();
SELECT * FROM problems;

-- the extension takes the rest along, and tables work
DROP VIEW problems;
DROP EXTENSION mmrepl;
SELECT * FROM triggers;
INSERT INTO att_t VALUES (1, 'works');
ALTER TABLE att_t DROP CONSTRAINT att_t_pkey;
DROP VIEW triggers;
DROP TABLE att_t, att_u, "att ""x", att_p;
DROP FUNCTION att_nothing;
