-- The change log at its edges: long keys, keys that are equal and look different, statements of all kinds,
-- loops of subtransactions that gather more than the buffer holds. Workers are stopped: nothing leaves it.
CREATE EXTENSION mmrepl;
CREATE TABLE log_t (id bigint PRIMARY KEY, v text);
CREATE TABLE log_long (k text PRIMARY KEY, v int);
CREATE TABLE log_num (n numeric PRIMARY KEY, v int);
CREATE TABLE log_equal (i interval, f float8, v int, PRIMARY KEY (i, f));
CREATE TABLE log_child (id int PRIMARY KEY, parent bigint REFERENCES log_t ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE log_types (i2 smallint, i8 bigint, d date, ts timestamptz, u uuid, b bytea, c char(5), e bool, iv interval, f float8,
    PRIMARY KEY (i2, i8, d, ts, u, b, c, e, iv, f));
CREATE TABLE log_part (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE log_part1 PARTITION OF log_part FOR VALUES FROM (0) TO (100);
CREATE TABLE log_part2 PARTITION OF log_part FOR VALUES FROM (100) TO (200);
UPDATE mmrepl.local_node SET node_id = 1, stopped = true;
INSERT INTO mmrepl.db VALUES (1, 'one', 'dbname=one', 1, 1), (2, 'two', 'dbname=two', 2, 2);
INSERT INTO mmrepl.dbgroup VALUES ('group');
INSERT INTO mmrepl.dbgroup_db VALUES ('group', 1, 'source', 1), ('group', 2, 'source', 2);
INSERT INTO mmrepl.rel SELECT 'public', relname, 'r', NULL FROM pg_class WHERE relkind = 'r' AND relname LIKE 'log\_%'
    AND relnamespace = 'public'::regnamespace;
INSERT INTO mmrepl.relgroup VALUES ('herd');
INSERT INTO mmrepl.relgroup_rel SELECT 'herd', nspname, relname FROM mmrepl.rel;
INSERT INTO mmrepl.sync (sync_id, name, relgroup, dbgroup) VALUES (1, 'sync', 'herd', 'group');
SELECT mmrepl._attach_reconcile();
CREATE FUNCTION news() RETURNS TABLE (tablename name, op text, key jsonb) LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT c.tablename, c.op, c.key FROM mmrepl.change_log c ORDER BY c.at;
	FOR i IN 0..15 LOOP EXECUTE format('TRUNCATE mmrepl.log_%s', i); END LOOP;
END $$;
-- is what the log has the same as what the table has?
CREATE FUNCTION log_agrees() RETURNS bool LANGUAGE sql AS $$
	SELECT coalesce((SELECT array_agg(id ORDER BY id) FROM log_t), '{}') =
	       coalesce((SELECT array_agg(id ORDER BY id) FROM (
	           SELECT DISTINCT ON (key) (key ->> 'id')::bigint AS id, op FROM mmrepl.change_log
	           WHERE tablename = 'log_t' AND op <> 'truncate' ORDER BY key, at DESC) AS newest WHERE op <> 'delete'), '{}')
$$;

-- keys longer than a page: the index holds them compressed, so does the log
INSERT INTO log_long SELECT repeat(chr(97 + i), 3000 * (i + 1) * (i + 1)), i FROM generate_series(0, 5) i;
UPDATE log_long SET v = v + 10 WHERE v >= 3;
UPDATE log_long SET k = k || 'x' WHERE v = 1;
-- 2.5 kB that cannot be compressed
INSERT INTO log_long SELECT string_agg(md5(i::text), '' ORDER BY i), 100 FROM generate_series(1, 78) i;
SELECT op, count(*), min(length(key ->> 'k')), max(length(key ->> 'k')),
       count(*) FILTER (WHERE EXISTS (SELECT FROM log_long WHERE k = key ->> 'k')) AS in_table
FROM news() GROUP BY op ORDER BY op;

-- equal keys that look different are one key
INSERT INTO log_num VALUES (1.0, 1), (2.50, 2), (-0.0, 3);
UPDATE log_num SET n = 1.000 WHERE n = 1;
UPDATE log_num SET n = 3 WHERE n = 2.5;
DELETE FROM log_num WHERE n = 0.00;
INSERT INTO log_equal VALUES ('1 day', 0, 1);
UPDATE log_equal SET i = '24 hours', f = '-0';
INSERT INTO log_equal VALUES ('1 day', 0, 2) ON CONFLICT (i, f) DO UPDATE SET i = excluded.i;
SELECT * FROM news();

-- keys of many types come back as they were
SET timezone = 'UTC';
INSERT INTO log_types VALUES (-32768, -9223372036854775808, '-infinity', '2026-02-03 04:05:06.789+02', '0000abcd-0000-0000-0000-00000000ffff', '\x00ff', 'ab', true, '1 month -2 days', 'NaN'),
    (32767, 9223372036854775807, '4713-01-01 BC', 'infinity', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '', '', false, '0', '-Infinity');
SELECT * FROM news();

-- COPY, MERGE, ON CONFLICT, foreign keys, rows that move to another partition, data-modifying WITH
COPY log_t FROM stdin;
1	copied
2	copied
\.
MERGE INTO log_t USING (VALUES (2), (3)) AS s (id) ON log_t.id = s.id
    WHEN MATCHED THEN UPDATE SET v = 'merged' WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'merged');
INSERT INTO log_t VALUES (3, 'again'), (4, 'new') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
INSERT INTO log_child VALUES (10, 1), (20, 2);
UPDATE log_t SET id = 100 WHERE id = 1;
DELETE FROM log_t WHERE id = 2;
WITH gone AS (DELETE FROM log_t WHERE id = 3 RETURNING id) INSERT INTO log_t SELECT id + 1000 FROM gone;
INSERT INTO log_part VALUES (1, 'a'), (150, 'b');
UPDATE log_part SET id = id + 100 WHERE id = 1;
TRUNCATE log_part;
SELECT * FROM news();
TRUNCATE log_t CASCADE;
SELECT * FROM news();

-- deferred and cascading changes of triggers come in too, also those at the end of the transaction
CREATE FUNCTION log_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log_t VALUES (new.id + 1, 'deferred'); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER log_more AFTER INSERT ON log_child DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION log_more();
INSERT INTO log_child VALUES (1000);
SELECT * FROM news();
DROP TRIGGER log_more ON log_child;
TRUNCATE log_t CASCADE;
SELECT count(*) FROM news();

-- insert, truncate, insert again: the key is newer than the TRUNCATE
BEGIN;
INSERT INTO log_t VALUES (1);
TRUNCATE log_t CASCADE;
INSERT INTO log_t VALUES (1);
COMMIT;
SELECT tablename, op, key FROM mmrepl.change_log ORDER BY at;
SELECT log_agrees();

-- a loop that catches errors, far over the buffer (8 kB is the least): every turn changes, every third is undone
ALTER SYSTEM SET mmrepl.capture_buffer = 8;
SELECT pg_reload_conf();
CREATE FUNCTION log_loop(lo int, hi int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN lo..hi LOOP
		BEGIN
			INSERT INTO log_t VALUES (i), (-i);
			DELETE FROM log_t WHERE id = -i + 7;
			BEGIN
				UPDATE log_t SET v = 'nested' WHERE id = i;
				INSERT INTO log_t VALUES (i + 1000000);
				IF i % 5 = 0 THEN RAISE EXCEPTION USING errcode = 'P0005'; END IF;
			EXCEPTION WHEN SQLSTATE 'P0005' THEN
				DELETE FROM log_t WHERE id = -i + 1;
			END;
			IF i % 3 = 0 THEN RAISE EXCEPTION USING errcode = 'P0003'; END IF;
		EXCEPTION WHEN SQLSTATE 'P0003' THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT log_loop(101, 3000);
SELECT log_agrees(), count(*) FROM log_t;
-- the same inside savepoints, of which some roll back after the loop has written to the log
BEGIN;
INSERT INTO log_t VALUES (2000000);
SAVEPOINT a;
SELECT log_loop(10001, 12000);
ROLLBACK TO a;
SAVEPOINT b;
SELECT log_loop(20001, 22000);
SAVEPOINT c;
DELETE FROM log_t WHERE id BETWEEN 20001 AND 20500;
SELECT log_loop(30001, 31000);
RELEASE c;
DELETE FROM log_t WHERE id = 2000000;
RELEASE b;
SAVEPOINT d;
DELETE FROM log_t;
ROLLBACK TO d;
COMMIT;
SELECT log_agrees(), count(*) FROM log_t;
SELECT count(*) > 0 FROM news();
ALTER SYSTEM RESET mmrepl.capture_buffer;
SELECT pg_reload_conf();

-- a cursor, a function that rolls back, a procedure that commits in a loop
CREATE PROCEDURE log_commits() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..6 LOOP
		INSERT INTO log_t VALUES (5000000 + i);
		IF i % 2 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
	END LOOP;
END $$;
CALL log_commits();
SELECT op, key, count(*) OVER () FROM news() ORDER BY key;
-- an error at commit leaves nothing, and the session goes on
CREATE CONSTRAINT TRIGGER log_fails AFTER DELETE ON log_t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
BEGIN;
INSERT INTO log_t VALUES (6000000);
DELETE FROM log_t WHERE id = 6000000;
COMMIT;
DROP TRIGGER log_fails ON log_t;
SELECT * FROM news();

-- the sessions of a SERIALIZABLE world do not fail by it
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*) FROM mmrepl.change_log;
INSERT INTO log_num VALUES (78, 7);
COMMIT;
SELECT * FROM news();

DROP EXTENSION mmrepl;
DROP TABLE log_t, log_long, log_num, log_equal, log_child, log_types, log_part;
DROP FUNCTION news(), log_agrees(), log_more(), log_loop(int, int);
DROP PROCEDURE log_commits();
