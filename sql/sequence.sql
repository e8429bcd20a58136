-- Interleaved sequences in one database: what the configuration says is written by hand, the other side's report too.
\set VERBOSITY terse
CREATE EXTENSION mmrepl;
CREATE TABLE seq_t (id serial PRIMARY KEY, v text);
CREATE TABLE seq_u (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
CREATE SEQUENCE seq_down INCREMENT -1 MINVALUE -1000 MAXVALUE -1;
CREATE SEQUENCE seq_cycle MINVALUE 1 MAXVALUE 25 CYCLE;
CREATE SEQUENCE seq_fresh START 1000;
CREATE SEQUENCE seq_small AS smallint CACHE 5;
CREATE SEQUENCE seq_odd INCREMENT 2 START 2 MINVALUE 2;
CREATE SEQUENCE "Seq ""x";
INSERT INTO seq_t (v) SELECT 'x' FROM generate_series(1, 7);
INSERT INTO seq_t VALUES (103, 'explicit');
INSERT INTO seq_u SELECT FROM generate_series(1, 12);
SELECT nextval('seq_down'), nextval('seq_down'), nextval('seq_cycle'), nextval('seq_small'), nextval('seq_odd');

UPDATE mmrepl.local_node SET node_id = 2, stopped = true;
INSERT INTO mmrepl.db VALUES (1, 'one', 'dbname=one', 1, 1), (2, 'two', 'dbname=two', 2, 2), (3, 'three', 'dbname=three', 3, 3);
INSERT INTO mmrepl.dbgroup VALUES ('group'), ('oneway');
INSERT INTO mmrepl.dbgroup_db VALUES ('group', 1, 'source', 1), ('group', 2, 'source', 2), ('group', 3, 'target', 3),
    ('oneway', 2, 'source', 1), ('oneway', 3, 'target', 2);
INSERT INTO mmrepl.rel SELECT 'public', relname, 'S', NULL FROM pg_class
    WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace AND (relname LIKE 'seq\_%' OR relname LIKE 'Seq%');
INSERT INTO mmrepl.relgroup VALUES ('herd');
INSERT INTO mmrepl.relgroup_rel SELECT 'herd', nspname, relname FROM mmrepl.rel;
CREATE VIEW seqs AS SELECT sequencename, start_value, min_value, max_value, increment_by, last_value FROM pg_sequences
    WHERE schemaname = 'public' ORDER BY sequencename COLLATE "C";
CREATE VIEW problems AS SELECT relname, mmrepl._sequence_problem(nspname, relname) FROM mmrepl.rel ORDER BY relname COLLATE "C";

-- one way: not interleaved
INSERT INTO mmrepl.sync (sync_id, name, relgroup, dbgroup) VALUES (1, 'sync', 'herd', 'oneway');
SELECT mmrepl._sequence_apply('[]');
SELECT count(*) FROM mmrepl.sequence_state;

-- two sources
UPDATE mmrepl.sync SET dbgroup = 'group';
SELECT * FROM problems;
BEGIN;
SELECT x->>'r' AS relname, x->'used' AS used, x->'rows' AS rows, x->'changing' AS changing
    FROM json_array_elements(mmrepl._sequence_collect()::json) AS x ORDER BY x->>'r' COLLATE "C";
SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND pid = pg_backend_pid();
SELECT mmrepl._sequence_apply('[{"n":"public","r":"seq_u_id_seq","used":5000},{"n":"public","r":"seq_t_id_seq","used":50,"rows":90}]');
COMMIT;
SELECT * FROM seqs;
SELECT * FROM problems WHERE _sequence_problem IS NOT NULL;
SELECT nextval('seq_t_id_seq') AS t, nextval('seq_u_id_seq') AS u, nextval('seq_u_id_seq') AS u2, nextval('seq_down') AS down,
    nextval('seq_down') AS down2, nextval('seq_fresh') AS fresh, nextval('seq_small') AS small, nextval('seq_odd') AS odd,
    nextval('"Seq ""x"') AS quoted;
SELECT nextval('seq_cycle') FROM generate_series(1, 5);

-- a second time changes nothing, and locks nothing
BEGIN;
SELECT mmrepl._sequence_apply('[]');
SELECT count(*) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND pid = pg_backend_pid();
COMMIT;
SELECT nextval('seq_t_id_seq');

-- stays in its slot after RESTART IDENTITY; is put back there after a setval
TRUNCATE seq_u RESTART IDENTITY;
INSERT INTO seq_u DEFAULT VALUES RETURNING id;
SELECT setval('seq_t_id_seq', 500);
SELECT * FROM problems WHERE _sequence_problem IS NOT NULL;
SELECT mmrepl._sequence_apply('[]');
SELECT nextval('seq_t_id_seq');

-- a row at the end of the range is not the end of the sequence
INSERT INTO seq_t VALUES (2147483647, 'last');
SELECT setval('seq_t_id_seq', 600);
SELECT mmrepl._sequence_apply('[]');
SELECT nextval('seq_t_id_seq');

-- no room, no slot; in two syncs that differ the slot is the db's number
ALTER SEQUENCE seq_small MAXVALUE 100;
SELECT setval('seq_small', 92);
UPDATE mmrepl.sync SET seq_step = 50;
\set VERBOSITY default
SELECT mmrepl._sequence_apply('[]');
UPDATE mmrepl.sync SET seq_step = 1;
SELECT mmrepl._sequence_apply('[]');
UPDATE mmrepl.sync SET seq_step = 10;
INSERT INTO mmrepl.dbgroup VALUES ('other');
INSERT INTO mmrepl.dbgroup_db VALUES ('other', 2, 'source', 1), ('other', 3, 'source', 2);
INSERT INTO mmrepl.sync (sync_id, name, relgroup, dbgroup) VALUES (2, 'second', 'herd', 'other');
SELECT mmrepl._sequence_apply('[]');
DELETE FROM mmrepl.sync WHERE sync_id = 2;
\set VERBOSITY terse
SELECT mmrepl._sequence_apply('[]');

-- one of them by copy
UPDATE mmrepl.rel SET seq_mode = 'copy' WHERE relname = 'seq_fresh';
SELECT mmrepl._sequence_apply('[]');
SELECT increment_by, last_value FROM seqs WHERE sequencename = 'seq_fresh';
SELECT nextval('seq_fresh');

-- restored, above what others have used
DELETE FROM mmrepl.sync;
SELECT mmrepl._sequence_apply('[{"n":"public","r":"seq_u_id_seq","used":7000}]');
SELECT * FROM seqs;
SELECT count(*) FROM mmrepl.sequence_state;
SELECT nextval('seq_u_id_seq'), nextval('seq_odd'), nextval('seq_odd');

DROP VIEW problems;
DROP EXTENSION mmrepl;
DROP VIEW seqs;
DROP TABLE seq_t, seq_u;
DROP SEQUENCE seq_down, seq_cycle, seq_fresh, seq_small, seq_odd, "Seq ""x";
