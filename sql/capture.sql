-- Capture in one database: what gets into the change log, and what does not. Workers are stopped: nothing leaves it.
CREATE EXTENSION mmrepl;
CREATE TABLE cap (id int PRIMARY KEY, v text);
CREATE TABLE cap2 (a text, b numeric, PRIMARY KEY (b, a));
UPDATE mmrepl.local_node SET node_id = 1, stopped = true;
INSERT INTO mmrepl.db VALUES (1, 'one', 'dbname=one', 1, 1), (2, 'two', 'dbname=two', 2, 2);
INSERT INTO mmrepl.dbgroup VALUES ('group');
INSERT INTO mmrepl.dbgroup_db VALUES ('group', 1, 'source', 1), ('group', 2, 'source', 2);
INSERT INTO mmrepl.rel VALUES ('public', 'cap', 'r', NULL), ('public', 'cap2', 'r', NULL);
INSERT INTO mmrepl.relgroup VALUES ('herd');
INSERT INTO mmrepl.relgroup_rel SELECT 'herd', nspname, relname FROM mmrepl.rel;
INSERT INTO mmrepl.sync (sync_id, name, relgroup, dbgroup) VALUES (1, 'sync', 'herd', 'group');
SELECT mmrepl._attach_reconcile();

-- reads what came in since the last look, and forgets it
CREATE FUNCTION news() RETURNS TABLE (tablename name, op text, key jsonb) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT c.tablename, c.op, c.key FROM mmrepl.change_log c ORDER BY c.xid, c.at;
	FOR i IN 0..15 LOOP EXECUTE format('TRUNCATE mmrepl.log_%s', i); END LOOP;
END $$;

INSERT INTO cap VALUES (1, 'a'), (2, 'b'), (3, 'c');
SELECT * FROM news();
UPDATE cap SET v = 'x' WHERE id = 1;
DELETE FROM cap WHERE id = 2;
SELECT * FROM news();
-- a key that changes is gone, and another is there
UPDATE cap SET id = 30 WHERE id = 3;
SELECT * FROM news();
-- nothing changed: nothing to tell
UPDATE cap SET v = v;
SELECT * FROM news();
INSERT INTO cap VALUES (1, 'dup') ON CONFLICT DO NOTHING;
SELECT * FROM news();
INSERT INTO cap VALUES (1, 'dup') ON CONFLICT (id) DO UPDATE SET v = 'merged';
SELECT * FROM news();
-- one entry for a key that is written again and again
BEGIN;
INSERT INTO cap VALUES (4, 'a');
UPDATE cap SET v = 'b' WHERE id = 4;
UPDATE cap SET v = 'c' WHERE id = 4;
COMMIT;
SELECT * FROM news();
BEGIN;
INSERT INTO cap VALUES (5, 'never');
ROLLBACK;
SELECT * FROM news();
-- keys of several columns
INSERT INTO cap2 VALUES ('it''s', 1.50), ('', -0.001), ('ü', 'NaN');
SELECT * FROM news();
TRUNCATE cap2, cap;
SELECT * FROM news();
-- what is applied from elsewhere is not captured again
SET session_replication_role = replica;
INSERT INTO cap VALUES (6, 'applied');
TRUNCATE cap2;
RESET session_replication_role;
SELECT * FROM news();

-- subtransactions: what is rolled back leaves nothing
BEGIN;
INSERT INTO cap VALUES (10, 'kept');
SAVEPOINT a;
INSERT INTO cap VALUES (11, 'lost');
UPDATE cap SET v = 'lost' WHERE id = 10;
SAVEPOINT b;
DELETE FROM cap WHERE id = 10;
INSERT INTO cap VALUES (12, 'lost');
RELEASE b;
ROLLBACK TO a;
INSERT INTO cap VALUES (13, 'kept');
SAVEPOINT c;
INSERT INTO cap VALUES (14, 'kept');
RELEASE c;
COMMIT;
SELECT * FROM news();
DO $$
BEGIN
	FOR i IN 21..26 LOOP
		BEGIN
			INSERT INTO cap VALUES (i, 'loop');
			IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
		EXCEPTION WHEN raise_exception THEN
			INSERT INTO cap VALUES (i + 100, 'handler');
		END;
	END LOOP;
END $$;
SELECT * FROM news();

-- more than the buffer holds, in savepoints and out of them
BEGIN;
INSERT INTO cap SELECT i FROM generate_series(1000, 20999) i;
SAVEPOINT a;
INSERT INTO cap SELECT i FROM generate_series(30000, 49999) i;
ROLLBACK TO a;
INSERT INTO cap SELECT i FROM generate_series(50000, 69999) i;
COMMIT;
SELECT op, count(*), count(DISTINCT key), min((key ->> 'id')::int), max((key ->> 'id')::int) FROM news() GROUP BY op;
-- versions of one transaction: of this node, growing, no two the same
BEGIN;
DELETE FROM cap WHERE id >= 1000;
COMMIT;
SELECT count(*), count(DISTINCT at), bool_and(db = 'one' AND author_db = 'one' AND author_xid = xid AND NOT recorded) FROM mmrepl.change_log;
SELECT count(*) FROM news();

-- prepared: in the log with the prepare, seen with the commit
BEGIN;
INSERT INTO cap VALUES (40, 'prepared');
PREPARE TRANSACTION 'cap';
SELECT * FROM mmrepl.change_log;
COMMIT PREPARED 'cap';
SELECT * FROM news();

-- a monitoring role may look, others may not
CREATE ROLE cap_monitor IN ROLE pg_monitor;
CREATE ROLE cap_nobody;
INSERT INTO cap VALUES (41);
SET ROLE cap_monitor;
SELECT tablename, op, key FROM mmrepl.change_log;
SET ROLE cap_nobody;
SELECT * FROM mmrepl.change_log;
RESET ROLE;
-- users of the table need no right on the log
GRANT INSERT ON cap TO cap_nobody;
SET ROLE cap_nobody;
INSERT INTO cap VALUES (42);
RESET ROLE;
SELECT * FROM news();

-- the table is dropped: its changes stay, without a name
CREATE TABLE cap3 (id int PRIMARY KEY);
INSERT INTO cap VALUES (43);
DROP TABLE cap CASCADE;
SELECT tablename, op, key FROM mmrepl.change_log;

DROP EXTENSION mmrepl;
DROP TABLE cap2, cap3;
DROP FUNCTION news();
DROP ROLE cap_monitor, cap_nobody;
