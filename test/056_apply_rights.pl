# User code that applying runs, and the rights it has; what a role that may push must not be able to do.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, start => 1) } qw(aaa01 aaa02);
sql_all(q{
	CREATE ROLE app LOGIN; GRANT CREATE ON SCHEMA public TO app;
	CREATE TABLE seen (what text, who name, PRIMARY KEY (what, who)); GRANT ALL ON seen TO PUBLIC;
	CREATE FUNCTION see(text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO public.seen VALUES ($1, current_user) ON CONFLICT DO NOTHING; RETURN true; END $$;
	SET ROLE app;
	CREATE DOMAIN amount AS numeric CHECK (public.see('domain'));
	CREATE FUNCTION expr(text, numeric) RETURNS numeric IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM public.see($1); RETURN $2; END $$;
	CREATE TABLE rights (id amount, list amount[], v int CHECK (public.see('check')), u int, s text,
		g numeric GENERATED ALWAYS AS (public.expr('generated', id)) STORED, PRIMARY KEY (id, list));
	CREATE INDEX ON rights (public.expr('index', id)) WHERE public.expr('predicate', 1) = 1 AND public.expr('predicate', v) > 0;
	CREATE FUNCTION trig() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		PERFORM public.see(TG_NAME); RETURN NEW; END $$;
	CREATE TRIGGER before BEFORE INSERT OR UPDATE ON rights FOR EACH ROW EXECUTE FUNCTION trig();
	CREATE TRIGGER after AFTER INSERT OR UPDATE ON rights FOR EACH ROW EXECUTE FUNCTION trig();
	CREATE TRIGGER of_column AFTER UPDATE OF s ON rights FOR EACH ROW EXECUTE FUNCTION trig();
	CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON rights DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trig();
	ALTER TABLE rights ENABLE REPLICA TRIGGER before, ENABLE REPLICA TRIGGER after, ENABLE REPLICA TRIGGER of_column,
		ENABLE ALWAYS TRIGGER deferred;
	CREATE TYPE feel AS ENUM ('good', 'bad');
	CREATE FUNCTION feel_json(feel) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM public.see('cast'); RETURN '"felt"'; END $$;
	CREATE CAST (feel AS json) WITH FUNCTION feel_json(feel);
	CREATE TABLE felt (f feel PRIMARY KEY, v int);
	RESET ROLE;
	CREATE ROLE other LOGIN; GRANT CREATE ON SCHEMA public TO other;
	CREATE SCHEMA others AUTHORIZATION other; GRANT USAGE ON SCHEMA others TO PUBLIC;
	SET ROLE other;
	CREATE FUNCTION others.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'of another'::text $$;
	CREATE FUNCTION others.turn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		PERFORM pg_catalog.set_config('search_path', 'others, pg_catalog', false), pg_catalog.set_config('lock_timeout', '1ms', false);
		RETURN NEW; END $$;
	CREATE TABLE turning (id int PRIMARY KEY);
	CREATE TRIGGER turn BEFORE INSERT ON turning FOR EACH ROW EXECUTE FUNCTION others.turn();
	ALTER TABLE turning ENABLE REPLICA TRIGGER turn;
	SET ROLE app;
	CREATE FUNCTION help() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := lower(NEW.v); RETURN NEW; END $$;
	CREATE TABLE helped (id int PRIMARY KEY, v text);
	CREATE TRIGGER help BEFORE INSERT ON helped FOR EACH ROW EXECUTE FUNCTION help();
	ALTER TABLE helped ENABLE REPLICA TRIGGER help}, @nodes);
join_nodes(\@nodes, exclude => ['public.seen']);
wait_synced(@nodes);
sql_all('TRUNCATE seen', @nodes);
sql($a, q{SET session_replication_role = replica; SET ROLE app; TRUNCATE seen});
sql($a, q{SET ROLE app; INSERT INTO rights VALUES (1, '{1,2}', 1, 1, 'x'), (2, '{}', 2, 2, 'y')});
sql($a, q{SET ROLE app; UPDATE rights SET v = v + 1, s = 'z'});
wait_synced(@nodes);
sql($b, q{SET ROLE app; UPDATE rights SET v = v + 1; DELETE FROM rights WHERE id = 2});
wait_synced(@nodes);

# What stands aside is shown, which runs casts to json.
sql($b, 'ALTER TABLE felt ADD CONSTRAINT good CHECK (v > 0)');
sql($a, q{SET ROLE app; INSERT INTO felt VALUES ('bad', -1)});
poll_is($b, q{SELECT count(*) = 1 FROM mmrepl.apply_error}, undef, 'a row stands aside');
like(sql($b, q{SELECT to_jsonb(e) FROM mmrepl.apply_error e}), qr/felt/, 'and its key is shown as its type wants it');
sql($b, 'ALTER TABLE felt DROP CONSTRAINT good');
poll_is($b, q{SELECT count(*) = 0 FROM mmrepl.apply_error}, undef, 'and no more');
# (before anybody else reads the table: planning does that, too)
is(sql($_, q{SELECT string_agg(what || ' ' || who, ', ') FROM seen WHERE who <> 'app'}), '', 'on ' . $_->name . ' user code runs as the owner of the table only')
  foreach @nodes;
is(sql($b, q{SELECT string_agg(DISTINCT what, ' ' ORDER BY what) FROM seen}), 'after before cast check deferred domain generated index of_column predicate', 'and all of it runs');

# What one owner's code sets is not for the code of others.
sql($a, q{BEGIN; SET LOCAL ROLE other; INSERT INTO turning VALUES (1), (2); SET LOCAL ROLE app; INSERT INTO helped VALUES (1, 'OWN'); COMMIT});
wait_synced(@nodes);
is(sql($b, 'SELECT v FROM helped'), 'own', 'a search_path goes with the code that has set it');

# What goes wrong in a session that is not a pusher's.
sql($b, q{CREATE ROLE pusher LOGIN; GRANT USAGE ON SCHEMA mmrepl TO pusher;
	GRANT EXECUTE ON FUNCTION mmrepl._hello(int4, int4, int4, int8, oid, text, int8), mmrepl._apply(bytea), mmrepl._copy_filled(int4) TO pusher});
my $as = 'SET SESSION AUTHORIZATION pusher;';
like(sql_error($b, "$as SELECT mmrepl._copy_filled(sync_id) FROM (VALUES (1)) s(sync_id)"), qr/there was no handshake/, 'no look at tables without a handshake');
like(sql_error($b, "$as SELECT mmrepl._apply('\\x4d0142')"), qr/malformed/, 'a frame that is cut off');
like(sql_error($b, "$as SELECT mmrepl._apply('\\x4d014200010100000000')"), qr/handshake/, 'a batch without a handshake');
my $hello = sql($a, q{SELECT format('SELECT mmrepl._hello(%s, 1, (SELECT node_id FROM mmrepl.db WHERE name = ''aaa01''), %s, %s, ''UTF8'', 0)', 1, system_identifier, database_oid)
	FROM mmrepl.db WHERE name = 'aaa01'});
my $position = sql($b, q{SELECT encode(pg_catalog.pg_snapshot_send(position), 'hex') FROM mmrepl.progress});
ok($position, 'there is a position');
# head of a copy: no position has to fit
my $head = "decode('4d01420101' || '01' || '00000000', 'hex')";
# who says hello next ends the session before
sql($a, 'SELECT mmrepl.stop()');
poll_is($b, q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'mmrepl push%' AND pid IN (SELECT pid FROM mmrepl.worker_status WHERE kind = 'apply')}, 0, 'no pusher comes in between');
like(sql_error($b, "$hello; BEGIN; SELECT mmrepl._apply($head); COMMIT"), qr/part of a batch/, 'no commit of half a batch');
like(sql_error($b, "$hello; BEGIN; SELECT mmrepl._apply($head); $hello"), qr/inside a batch/, 'no handshake inside a batch');
like(sql_error($b, "$hello; BEGIN; SELECT mmrepl._apply($head); SELECT mmrepl._apply('\\x4d01490901'); COMMIT"), qr/unknown table/, 'a table that was not described');
like(sql_error($b, "$hello; BEGIN; SAVEPOINT s; SELECT mmrepl._apply($head)"), qr/subtransaction/, 'no batch in a subtransaction');
sql($a, 'SELECT mmrepl.start()');
wait_synced(@nodes);

# What the database says of encodings is for clients only.
sql($a, q{CREATE TYPE mood AS ENUM ('froh', 'grün'); CREATE TABLE words (id int PRIMARY KEY, j jsonb, m mood, n name)});
sql($b, q{CREATE TYPE mood AS ENUM ('froh', 'grün'); CREATE TABLE words (id int PRIMARY KEY, j jsonb, m mood, n name)});
sql_all("ALTER DATABASE app SET client_encoding = 'LATIN1'", @nodes);
sql($a, q{SELECT mmrepl.add_table('words', relgroup => 'herd')});
$_->restart foreach @nodes;
sql($a, q{SET client_encoding = 'UTF8'; INSERT INTO words VALUES (1, '{"ä": "ö"}', 'grün', 'ü')});
wait_synced(@nodes);
same_rows('words', \@nodes);
is(sql($b, q{SET client_encoding = 'UTF8'; SELECT j->>'ä' || m || n FROM words}), 'ögrünü', 'they arrive as they are');

finish(\@nodes, qr/is stopped at the receiver|connection to client lost|terminating connection|malformed|handshake|subtransaction|part of a batch|inside a batch|unknown table|due to administrator command|shutting down|could not connect|connection|violates check constraint/, qw(rights words felt turning));
