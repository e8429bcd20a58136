-- What a session keeps from one transaction to the next, for capture to be quick, is never what was. Workers are stopped.
CREATE EXTENSION mmrepl;
CREATE TABLE ses (id int PRIMARY KEY, v text);
CREATE TABLE ses_text (v text, k text COLLATE "C" PRIMARY KEY);
CREATE TABLE ses_num (gone int, b numeric, a int NOT NULL, f float8, PRIMARY KEY (b, a, f));
ALTER TABLE ses_num DROP COLUMN gone;
CREATE TABLE ses_late (v text);
INSERT INTO ses_late VALUES (NULL);
ALTER TABLE ses_late ADD COLUMN id int DEFAULT 7, ADD PRIMARY KEY (id);
CREATE FUNCTION configure() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE mmrepl.local_node SET node_id = 1, stopped = true;
	INSERT INTO mmrepl.db VALUES (1, 'one', 'dbname=one', 1, 1), (2, 'two', 'dbname=two', 2, 2);
	INSERT INTO mmrepl.dbgroup VALUES ('group');
	INSERT INTO mmrepl.dbgroup_db VALUES ('group', 1, 'source', 1), ('group', 2, 'source', 2);
	INSERT INTO mmrepl.rel SELECT 'public', relname, 'r', NULL FROM pg_class WHERE relname ~ '^ses' AND relkind = 'r';
	INSERT INTO mmrepl.relgroup VALUES ('herd');
	INSERT INTO mmrepl.relgroup_rel SELECT 'herd', nspname, relname FROM mmrepl.rel;
	INSERT INTO mmrepl.sync (sync_id, name, relgroup, dbgroup) VALUES (1, 'sync', 'herd', 'group');
	PERFORM mmrepl._attach_reconcile();
END $$;
SELECT configure();

-- reads what came in since the last look, and forgets it; of a long key its beginning and length
CREATE FUNCTION news() RETURNS TABLE (db text, tablename text, op text, key text) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT c.db::text, c.tablename::text, c.op::text, CASE WHEN length(c.key::text) < 100 THEN c.key::text
		ELSE left(c.key::text, 12) || ' ' || length(c.key::text) END FROM mmrepl.change_log c ORDER BY c.xid, c.at;
	FOR i IN 0..15 LOOP EXECUTE format('TRUNCATE mmrepl.log_%s', i); END LOOP;
END $$;

-- the same key again: in the next transaction, and after a subtransaction that was rolled back
INSERT INTO ses VALUES (1);
UPDATE ses SET v = 'a' WHERE id = 1;
SELECT * FROM news();
BEGIN;
SAVEPOINT a;
INSERT INTO ses VALUES (2);
ROLLBACK TO a;
INSERT INTO ses VALUES (2);
UPDATE ses SET v = 'b' WHERE id = 1;
SAVEPOINT b;
UPDATE ses SET v = 'c' WHERE id = 1;
ROLLBACK TO b;
UPDATE ses SET v = 'd' WHERE id = 1;
COMMIT;
SELECT * FROM news();
BEGIN;
INSERT INTO ses VALUES (3);
ROLLBACK;
INSERT INTO ses VALUES (3);
SELECT * FROM news();
-- one that fails, after it has captured
INSERT INTO ses VALUES (4), (5), (1);
INSERT INTO ses VALUES (5), (4);
SELECT * FROM news();

-- runs of all lengths, one after the other: about where the header of a short value ends, and where a row is not one any more
DO $$
BEGIN
	FOR i IN 80..140 LOOP
		INSERT INTO ses_text VALUES (NULL, repeat(chr(97 + i % 26), i));
		COMMIT;
	END LOOP;
	FOR i IN 1850..2050 LOOP
		INSERT INTO ses_text VALUES (NULL, repeat(chr(97 + i % 26), i));
		COMMIT;
	END LOOP;
END $$;
SELECT count(*), count(DISTINCT key), bool_and(key ->> 'k' = repeat(left(key ->> 'k', 1), length(key ->> 'k'))) AS whole,
	sum(length(key ->> 'k')) = sum(DISTINCT length(key ->> 'k')) AS once FROM mmrepl.change_log;
SELECT count(*) FROM news();
-- a key that is too long for a page, which the log keeps elsewhere; then a short one again
INSERT INTO ses_text VALUES ('x', repeat('long', 20000));
INSERT INTO ses_text VALUES ('y', 'short');
BEGIN;
INSERT INTO ses_text VALUES ('z', 'before');
UPDATE ses_text SET v = 'changed' WHERE length(k) = 80000;
INSERT INTO ses_text VALUES ('z', 'behind');
COMMIT;
SELECT * FROM news();
-- the long key itself changes, by a byte
UPDATE ses_text SET k = overlay(k PLACING '!' FROM 79999) WHERE length(k) = 80000;
SELECT op, left(tablename, 9), right(key ->> 'k', 5) AS ending FROM mmrepl.change_log ORDER BY at;
SELECT count(*) FROM news();

-- keys that are the same in other bytes; those that are not
INSERT INTO ses_num VALUES (1.0, 1, 0), (2, 2, 2);
SELECT * FROM news();
UPDATE ses_num SET b = 1.00 WHERE a = 1;
SELECT * FROM news();
UPDATE ses_num SET f = '-0' WHERE a = 1;
SELECT * FROM news();
UPDATE ses_num SET a = 3 WHERE a = 2;
SELECT * FROM news();
-- a column that came later than the row
UPDATE ses_late SET v = 'x';
DELETE FROM ses_late;
SELECT * FROM news();

-- this db gets another number: from the next transaction on
UPDATE mmrepl.local_node SET node_id = 2;
SELECT mmrepl._wake();
INSERT INTO ses VALUES (10);
SELECT * FROM news();

-- the tables of the log are others than before
DROP EXTENSION mmrepl;
INSERT INTO ses VALUES (11);
CREATE EXTENSION mmrepl;
SELECT configure();
INSERT INTO ses VALUES (12);
SELECT * FROM news();
BEGIN;
DROP EXTENSION mmrepl;
CREATE EXTENSION mmrepl;
SELECT configure();
INSERT INTO ses VALUES (13);
COMMIT;
SELECT * FROM news();
-- they come back as they were
INSERT INTO ses VALUES (14);
BEGIN;
DROP EXTENSION mmrepl;
ROLLBACK;
INSERT INTO ses VALUES (15);
SELECT * FROM news();
-- and are rewritten
VACUUM FULL mmrepl.log_0, mmrepl.log_1;
INSERT INTO ses VALUES (16);
SELECT * FROM news();

-- who drops the extension has nobody to tell of what was written before
BEGIN;
INSERT INTO ses VALUES (17);
DROP EXTENSION mmrepl;
INSERT INTO ses VALUES (18);
COMMIT;
SELECT count(*) FROM ses WHERE id > 16;
DROP TABLE ses, ses_text, ses_num, ses_late;
DROP FUNCTION news(), configure();
