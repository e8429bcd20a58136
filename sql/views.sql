-- Views, over a configuration written by hand and stopped, so that no worker moves anything.
SET client_min_messages = warning;
SET timezone = 'UTC';
DROP EXTENSION IF EXISTS mmrepl CASCADE;
CREATE EXTENSION mmrepl;

-- all there, all empty but what counts something
SELECT * FROM mmrepl.status;
SELECT * FROM mmrepl.peer_lag;
SELECT * FROM mmrepl.copy_progress;
SELECT * FROM mmrepl.conflict_history;
SELECT * FROM mmrepl.conflict_summary;
SELECT * FROM mmrepl.dbs;
SELECT * FROM mmrepl.dbgroups;
SELECT * FROM mmrepl.relgroups;
SELECT * FROM mmrepl.tables;
SELECT * FROM mmrepl.sequences;
SELECT * FROM mmrepl.syncs;
SELECT name, labels FROM mmrepl.metrics ORDER BY name;

SELECT mmrepl.stop();
CREATE TABLE vt (a int, b text, c int, PRIMARY KEY (b, a));
CREATE TABLE "v T" (id int PRIMARY KEY, u int NOT NULL CONSTRAINT "v u" UNIQUE);
CREATE SEQUENCE vs;
BEGIN;
UPDATE mmrepl.local_node SET node_id = 1;
INSERT INTO mmrepl.db VALUES
	(1, 'aaa01', 'host=h1 port=5433 dbname=radius user=u password=secret', 1, 1),
	(2, 'aaa02', 'postgresql://u:secret@h2/radius?sslmode=disable', 1, 2),
	(3, 'it''s "x"', 'hostaddr=10.0.0.1 dbname=''a b''', 1, 3),
	(4, 'broken', 'secret=secret', 1, 4);
INSERT INTO mmrepl.dbgroup VALUES ('masters'), ('fan');
INSERT INTO mmrepl.dbgroup_db VALUES ('masters', 1, 'source', 1), ('masters', 2, 'source', 2),
	('fan', 2, 'source', 1), ('fan', 1, 'target', 2), ('fan', 3, 'target', 3);
INSERT INTO mmrepl.relgroup VALUES ('herd'), ('empty');
INSERT INTO mmrepl.rel (nspname, relname, kind, key_index) VALUES ('public', 'vt', 'r', NULL), ('public', 'v T', 'r', 'v u'),
	('public', 'gone', 'r', NULL), ('public', 'vs', 'S', NULL), ('public', 'vgone', 'S', NULL);
INSERT INTO mmrepl.relgroup_rel SELECT 'herd', nspname, relname FROM mmrepl.rel;
INSERT INTO mmrepl.sync (sync_id, name, relgroup, dbgroup) VALUES (1, 'both', 'herd', 'masters'), (2, 'down', 'empty', 'fan');
INSERT INTO mmrepl.progress (sync_id, source_node, batches, inserted, updated, deleted, conflicts,
		last_good, last_changes, last_inserted, last_updated, last_deleted)
	VALUES (1, 2, 7, 10, 20, 30, 4, '2020-01-01', '2020-01-01', 1, 2, 3);
INSERT INTO mmrepl.peer_state VALUES (1, 2, NULL, '2020-01-02', '2020-01-03', 'could not connect', NULL, '');
INSERT INTO mmrepl.conflict_log (at, sync_id, nspname, relname, key, conflict_type, resolution, local_row, remote_row,
		local_ts, local_node, remote_ts, remote_node) VALUES
	('2020-01-01', 1, 'public', 'vt', '{"a": 1, "b": "x"}', 'update_origin_differs', 'apply_remote',
	 '{"a": 1, "b": "x", "c": 1}', '{"a": 1, "b": "x", "c": 2}', 820540800000000, 1, 820540800000001, 2),
	('2020-01-02', 1, 'public', 'vt', '{"a": 2, "b": "x"}', 'update_origin_differs', 'apply_remote',
	 '{"a": 2, "b": "x", "c": 1}', '{"a": 2, "b": "x", "c": 2}', 0, 1, 820540800000001, 2),
	('2020-01-03', 1, 'public', 'vt', NULL, 'truncate_conflict', 'keep_local', NULL, NULL, NULL, NULL, 820540800000001, 2);
COMMIT;

SELECT name, here, host, port, dbname, dbgroups, syncs FROM mmrepl.dbs;
SELECT * FROM mmrepl.dbgroups;
SELECT * FROM mmrepl.relgroups;
SELECT * FROM mmrepl.tables;
SELECT schemaname, sequencename, mode, increment_by, relgroups, syncs, problem IS NULL AS fine FROM mmrepl.sequences;
SELECT * FROM mmrepl.syncs;
-- lag grows from the last good time on: it is never shown as good
SELECT sync, peer, state, last_good, last_iud, last_bad, lag_seconds > 1000 AS lags, pending, conflicts, waits_for, last_error
  FROM mmrepl.status;
SELECT sync, peer, direction, state, last_good, lag_seconds >= 0 AS lags, last_bad, last_error, last_iud,
       batches, inserted, updated, deleted, conflicts
  FROM mmrepl.peer_lag;
SELECT * FROM mmrepl.conflict_history;
SELECT * FROM mmrepl.conflict_summary;
SELECT name, labels, value FROM mmrepl.metrics WHERE name IN ('mmrepl_up', 'mmrepl_conflicts_total', 'mmrepl_rows_total')
  ORDER BY name, labels::text;

-- monitoring reads all views and no secret; others read nothing
CREATE ROLE mmr_monitor IN ROLE pg_monitor;
CREATE ROLE mmr_nobody;
GRANT USAGE ON SCHEMA mmrepl TO mmr_nobody;
DO $$
DECLARE v text; r text;
BEGIN
	FOREACH r IN ARRAY '{mmr_monitor,mmr_nobody}'::text[] LOOP
		EXECUTE format('SET LOCAL ROLE %I', r);
		FOR v IN SELECT relname FROM pg_class
				 WHERE relnamespace = 'mmrepl'::regnamespace AND relkind = 'v' AND relname NOT LIKE '\_%' ORDER BY 1 LOOP
			BEGIN
				EXECUTE format('SELECT count(*) FROM mmrepl.%I', v);
				IF r = 'mmr_nobody' THEN RAISE WARNING '% reads %', r, v; END IF;
			EXCEPTION WHEN insufficient_privilege THEN
				IF r = 'mmr_monitor' THEN RAISE WARNING '% does not read %', r, v; END IF;
			END;
		END LOOP;
	END LOOP;
END $$;
SET ROLE mmr_monitor;
SELECT conninfo FROM mmrepl.db;
SELECT count(*) FROM mmrepl.dbs AS d WHERE d::text LIKE '%secret%';
RESET ROLE;
-- every view and column is explained
SELECT relname FROM pg_class WHERE relnamespace = 'mmrepl'::regnamespace AND relkind = 'v'
   AND obj_description(oid, 'pg_class') IS NULL;

DROP OWNED BY mmr_nobody;
DROP EXTENSION mmrepl;
DROP TABLE vt, "v T";
DROP SEQUENCE vs;
DROP ROLE mmr_monitor, mmr_nobody;
