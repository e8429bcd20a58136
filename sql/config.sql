-- Functions that configure, with this database as the only db: names, groups, members, and what they refuse.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS mmrepl CASCADE;
CREATE EXTENSION mmrepl;
CREATE SCHEMA conf;
SET search_path = conf, public;
RESET client_min_messages;

CREATE FUNCTION pg_temp.here() RETURNS text LANGUAGE sql AS $$
	SELECT format('host=''%s'' port=%s dbname=%s user=''%s''', split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), current_database(), current_user) $$;
-- what is configured, without what differs from run to run
CREATE VIEW pg_temp.members AS
	SELECT r.nspname, r.relname, r.kind, r.key_index, r.seq_mode, string_agg(g.relgroup, ',' ORDER BY g.relgroup) AS relgroups
	FROM mmrepl.rel r LEFT JOIN mmrepl.relgroup_rel g USING (nspname, relname) GROUP BY 1, 2 ORDER BY 1, 2;

-- this database first, under any name
SELECT mmrepl.add_db('caf\ ''"1": a', pg_temp.here());
SELECT node_id, name FROM mmrepl.db;
SELECT node_id, config_version, config_author, next_node_id, config_id IS NOT NULL AS has_id FROM mmrepl.local_node;
SELECT mmrepl.add_db('again', pg_temp.here());
SELECT mmrepl.update_db('caf\ ''"1": a', new_name => repeat('n', 63));
SELECT mmrepl.update_db(repeat('n', 63), conninfo => pg_temp.here() || ' connect_timeout=5', new_name => 'aaa01');
SELECT mmrepl.update_db('aaa01', conninfo => replace(pg_temp.here(), current_database(), 'postgres'));
SELECT mmrepl.update_db('aaa01', new_name => '');
SELECT mmrepl.update_db('aaa01', new_name => repeat('n', 64));
SELECT mmrepl.update_db('nobody');
SELECT mmrepl.add_db('aaa01', 'dbname=x');
SELECT mmrepl.add_db('x', NULL);
SELECT mmrepl.add_db('x', 'host=h password=geheim bogus=1 dbname=x');
SELECT mmrepl.add_db('x', 'host=h password=geheim');

-- groups of dbs
SELECT mmrepl.add_dbgroup('g: 1', '{aaa01:source}');
SELECT mmrepl.add_dbgroup('g: 1', '{aaa01:source}');
SELECT mmrepl.add_dbgroup('g2', '{aaa01:target}');
SELECT mmrepl.add_dbgroup('g2', '{}');
SELECT mmrepl.add_dbgroup('g2', NULL);
SELECT mmrepl.add_dbgroup('g2', '{NULL}');
SELECT mmrepl.add_dbgroup('g2', '{aaa01:king}');
SELECT mmrepl.add_dbgroup('g2', '{aaa01,aaa01:target}');
SELECT mmrepl.add_dbgroup('g2', '{aaa01,nobody}');
SELECT mmrepl.update_dbgroup('g: 1', new_name => 'g1');
SELECT mmrepl.update_db('aaa01', new_name => 'aaa01:source');
SELECT mmrepl.update_dbgroup('g1', '{aaa01:source}');
SELECT mmrepl.update_dbgroup('g1', '{aaa01:source:master}');
SELECT mmrepl.update_db('aaa01:source', new_name => 'aaa01');
SELECT * FROM mmrepl.dbgroup_db;
SELECT mmrepl.remove_dbgroup('g1');
SELECT mmrepl.remove_dbgroup('g1');

-- tables, one by one
CREATE TABLE t1 (id serial PRIMARY KEY, v text);
CREATE TABLE "T "" 2" (a int NOT NULL, b int, CONSTRAINT "Key" UNIQUE (a));
CREATE TABLE nokey (a int NOT NULL, b int, c int NOT NULL, d int);
CREATE UNIQUE INDEX nokey_null ON nokey (b, c, d);
CREATE UNIQUE INDEX nokey_part ON nokey (a) WHERE a > 0;
CREATE UNIQUE INDEX nokey_expr ON nokey ((a + c));
CREATE INDEX nokey_dup ON nokey (a);
ALTER TABLE nokey ADD CONSTRAINT nokey_defer UNIQUE (c) DEFERRABLE;
CREATE TABLE late (a int PRIMARY KEY DEFERRABLE);
CREATE UNLOGGED TABLE fast (a int PRIMARY KEY);
CREATE TEMP TABLE short (a int PRIMARY KEY);
CREATE VIEW seen AS SELECT 1 AS a;
CREATE TABLE parted (a int PRIMARY KEY) PARTITION BY RANGE (a);
CREATE TABLE part1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE SEQUENCE s1;

SELECT mmrepl.add_table('t1');
SELECT mmrepl.add_table('conf."T "" 2"', key => 'Key', relgroup => 'r 1');
SELECT mmrepl.add_table('nokey');
SELECT mmrepl.add_table('nokey', key => 'nokey_null');
SELECT mmrepl.add_table('nokey', key => 'nokey_part');
SELECT mmrepl.add_table('nokey', key => 'nokey_expr');
SELECT mmrepl.add_table('nokey', key => 'nokey_dup');
SELECT mmrepl.add_table('nokey', key => 'nokey_defer');
SELECT mmrepl.add_table('nokey', key => 'nowhere');
SELECT mmrepl.add_table('nokey', key => 't1_pkey');
SELECT mmrepl.add_table('late');
SELECT mmrepl.add_table('fast');
SELECT mmrepl.add_table('seen');
SELECT mmrepl.add_table('parted');
SELECT mmrepl.add_table('s1');
SELECT mmrepl.add_table('t1_pkey');
SELECT mmrepl.add_table('pg_class');
SELECT mmrepl.add_table('mmrepl.db');
SELECT mmrepl.add_table('missing');
SELECT mmrepl.add_table('no.such.thing.here');
SELECT mmrepl.add_table('T " 2');
SELECT mmrepl.add_table(NULL);
SELECT mmrepl.add_table('t1', relgroup => '');
SELECT * FROM pg_temp.members;

-- all of them: a key that was given stays
SELECT mmrepl.add_all_tables(schemas => '{conf}', exclude => '{part*,conf.late}', relgroup => 'r 1');
SELECT mmrepl.add_all_sequences(schemas => '{conf}', exclude => '{s_}', relgroup => 'r 1');
SELECT mmrepl.add_all_tables(schemas => '{conf,nowhere}');
SELECT mmrepl.add_sequence('s1', mode => 'both');
SELECT mmrepl.add_sequence('s1', mode => 'copy', relgroup => 'r2');
SELECT mmrepl.add_sequence('t1');
SELECT * FROM pg_temp.members;

-- out again
SELECT mmrepl.remove_table('t1', relgroup => 'r2');
SELECT mmrepl.remove_table('t1', relgroup => 'nobody');
SELECT mmrepl.remove_table('t1', relgroup => 'r 1');
SELECT mmrepl.remove_table('nokey');
SELECT mmrepl.remove_sequence('t1');
DROP TABLE "T "" 2";
SELECT mmrepl.remove_table('"T "" 2"');
SELECT mmrepl.remove_sequence('conf.s1');
SELECT * FROM pg_temp.members;
SELECT mmrepl.add_relgroup('r2');
SELECT mmrepl.remove_relgroup('r2');
SELECT mmrepl.remove_relgroup('r2');

-- syncs: what needs no other db to be refused
SELECT mmrepl.add_sync('s', 'r 1', '{aaa01}');
SELECT mmrepl.add_sync('s', 'r 1');
SELECT mmrepl.add_sync('s', 'r 1', '{aaa01}', dbgroup => 'g');
SELECT mmrepl.add_sync('s', 'nobody', '{aaa01}');
SELECT mmrepl.add_sync('s', 'r 1', '{aaa01}', onetimecopy => 3);
SELECT mmrepl.add_sync('s', 'r 1', '{aaa01}', conflict_strategy => 'random');
SELECT mmrepl.add_sync('s', 'r 1', '{aaa01}', seq_step => 0);
SELECT mmrepl.update_sync('nobody');
SELECT mmrepl.remove_sync('nobody');
SELECT mmrepl.validate_sync('nobody');
SELECT * FROM mmrepl.sync;

-- a savepoint that is rolled back takes its call with it; a refused call changes nothing, not even the version
SELECT config_version AS before FROM mmrepl.local_node \gset
BEGIN;
SAVEPOINT a;
SELECT mmrepl.add_relgroup('gone');
ROLLBACK TO a;
SELECT mmrepl.add_relgroup('kept');
COMMIT;
SELECT name FROM mmrepl.relgroup ORDER BY 1;
SELECT config_version - :before AS versions FROM mmrepl.local_node;

-- who may
CREATE ROLE regress_mmrepl_nobody;
GRANT USAGE ON SCHEMA mmrepl TO regress_mmrepl_nobody;
SET ROLE regress_mmrepl_nobody;
SELECT mmrepl.add_relgroup('x');
RESET ROLE;
GRANT EXECUTE ON FUNCTION mmrepl.add_relgroup(text) TO regress_mmrepl_nobody;
SET ROLE regress_mmrepl_nobody;
SELECT mmrepl.add_relgroup('x');
RESET ROLE;
SELECT has_function_privilege('public', p.oid, 'EXECUTE') AS bad, p.proname FROM pg_proc p
	WHERE p.pronamespace = 'mmrepl'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE');
SELECT has_column_privilege('pg_monitor', 'mmrepl.db', 'conninfo', 'SELECT');

-- out: nothing is left
SELECT mmrepl.remove_db('aaa01');
SELECT node_id, config_version > 0 AS knows_which, config_id FROM mmrepl.local_node;
SELECT count(*) FROM mmrepl.rel;

DROP OWNED BY regress_mmrepl_nobody;
DROP ROLE regress_mmrepl_nobody;
SET client_min_messages = warning;
DROP VIEW pg_temp.members;
DROP SCHEMA conf CASCADE;
DROP EXTENSION mmrepl;
