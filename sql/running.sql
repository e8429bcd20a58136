-- start, stop, pause, resume, kick, wait_for_sync, as far as they go without a peer.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS mmrepl CASCADE;
CREATE EXTENSION mmrepl;

-- nothing to push: served at once
SELECT mmrepl.kick(), mmrepl.kick(timeout => 5), mmrepl.wait_for_sync(), mmrepl.wait_for_sync(timeout => 0.5);

-- unknown sync, bad timeout
SELECT mmrepl.kick('nix');
SELECT mmrepl.wait_for_sync('nix', 1);
SELECT mmrepl.pause('nix');
SELECT mmrepl.resume('nix');
SELECT mmrepl.kick(timeout => -1);
SELECT mmrepl.wait_for_sync(timeout => 'nan');

-- stopped: only here, and workers leave
SELECT mmrepl.stop();
SELECT stopped FROM mmrepl.local_node;
SELECT mmrepl.wait_for_sync();
SELECT mmrepl.kick();
SELECT mmrepl.stop();
CREATE FUNCTION pg_temp.wait_workers(wanted int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE n int;
BEGIN
	FOR i IN 1..3000 LOOP
		SELECT count(*) INTO n FROM pg_stat_get_activity(NULL) AS a
			JOIN pg_stat_get_backend_idset() AS b ON pg_stat_get_backend_pid(b) = a.pid
			WHERE pg_stat_get_backend_dbid(b) = (SELECT oid FROM pg_database WHERE datname = current_database())
			  AND a.application_name LIKE 'mmrepl%';
		IF n = wanted THEN RETURN 'ok'; END IF;
		PERFORM pg_sleep(0.01);
		PERFORM pg_stat_clear_snapshot();
	END LOOP;
	RETURN n || ' workers';
END $$;
SELECT pg_temp.wait_workers(0);
BEGIN;
SELECT mmrepl.start();
ROLLBACK;
SELECT pg_temp.wait_workers(0);
SELECT mmrepl.start();
SELECT stopped FROM mmrepl.local_node;
SELECT pg_temp.wait_workers(1);
-- one that began while it was stopped may just be leaving
DO $$ BEGIN
	FOR i IN 1..3000 LOOP
		EXIT WHEN EXISTS (SELECT FROM mmrepl.worker_status WHERE kind = 'janitor' AND state = 'good');
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
SELECT kind, sync, db, pid > 0 AS runs FROM mmrepl.worker_status WHERE kind <> 'launcher';

-- who may
CREATE ROLE mmr_nobody;
GRANT USAGE ON SCHEMA mmrepl TO mmr_nobody;
SET ROLE mmr_nobody;
SELECT mmrepl.start();
SELECT mmrepl.stop();
SELECT mmrepl.pause('nix');
SELECT mmrepl.resume('nix');
SELECT mmrepl.kick();
SELECT mmrepl.wait_for_sync();
SELECT mmrepl._wake();
RESET ROLE;
-- a right to call it is not enough to stop
GRANT EXECUTE ON FUNCTION mmrepl.stop(), mmrepl.kick(text, float8), mmrepl.wait_for_sync(text, float8) TO mmr_nobody;
SET ROLE mmr_nobody;
SELECT mmrepl.stop();
SELECT mmrepl.kick(), mmrepl.wait_for_sync();
RESET ROLE;

-- the database goes on without them
DROP OWNED BY mmr_nobody;
DROP EXTENSION mmrepl;
SELECT pg_temp.wait_workers(0);
DROP ROLE mmr_nobody;
