# Risk: a server that was put back to its past, or was given up, comes back with numbers that its peers count as known, loses what only it
# had, or gives out values of sequences twice. Method: two ways into trouble, one way out, under load. Would pass wrongly if it had been well before: looked at.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

my ($one, $two, $three) = my @all = map { new_node($_, link => 1) } qw(aaa01 aaa02 aaa03);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text, twice int GENERATED ALWAYS AS (id * 2) STORED); CREATE TABLE s (id serial PRIMARY KEY, v text)', @all);
# code of a table's owner, and as whom it runs
sql_all(q{CREATE ROLE app; GRANT CREATE ON SCHEMA public TO app; CREATE TABLE seen (who name PRIMARY KEY); GRANT ALL ON seen TO app;
	CREATE FUNCTION see(json) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO public.seen VALUES (current_user) ON CONFLICT DO NOTHING; RETURN true; END $$;
	SET ROLE app; CREATE DOMAIN watched AS json CHECK (public.see(VALUE)); CREATE TABLE owned (id int PRIMARY KEY, v watched)}, @all);
join_nodes(\@all, exclude => ['public.seen']);
sql($one, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 100) AS g");
sql($_, "INSERT INTO s (v) SELECT '" . $_->name . "' FROM generate_series(1, 20)") foreach @all;
wait_synced(@all);
my $joined = 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied > 0';

# back to its past: what it had written since is with the others, who do not believe it any more
$three->stop;
my $past = $three->basedir . '/past';
PostgreSQL::Test::RecursiveCopy::copypath($three->data_dir, $past);
$three->start;
poll_is($three, q{SELECT bool_and(state = 'good') FROM mmrepl.status}, 't', 'stopped and started it is still itself');
# many transactions: numbers that its peers know of are not reached again before somebody looks
sql($three, join ';', ("INSERT INTO s (v) VALUES ('lost and found')") x 50, 'DELETE FROM t WHERE id = 1');
sql($three, 'DO $$ BEGIN FOR i IN 1 .. 5000 LOOP UPDATE t SET v = i WHERE id = 3; COMMIT; END LOOP; END $$');
wait_synced(@all);
$three->stop('immediate');
File::Path::rmtree($three->data_dir);
PostgreSQL::Test::RecursiveCopy::copypath($past, $three->data_dir);
chmod 0700, $three->data_dir;
$three->start;
poll_is($three, q{SELECT bool_and(last_error ~ '(heard of a life|applied changes) of this database') FROM mmrepl.status}, 't', 'put back to its past it does not push');
like(slurp_file($three->logfile), qr/HINT:  Call mmrepl\.rejoin\(\) here/, 'the log says what to do');
sql($three, "INSERT INTO t VALUES (1001, 'only here'); UPDATE t SET v = 'changed on both' WHERE id = 2; INSERT INTO t VALUES (1002, 'here too'); DELETE FROM t WHERE id = 4");
sql($one, "UPDATE t SET v = 'changed on both, as aaa01 has it' WHERE id = 2; INSERT INTO t VALUES (1002, 'there too')");
sql_all('TRUNCATE seen', @all);
sql($_, q{SET ROLE app; INSERT INTO owned VALUES (1, '"} . $_->name . q{"'), (2, '"} . $_->name . q{\u0000"')}) foreach $three, $one;
sql($three, q{SET ROLE app; INSERT INTO owned VALUES (3, '"only here"')});
like(sql_error($three, "SELECT mmrepl.rejoin(copy_from => 'nobody')"), qr/"nobody" does not exist/, 'copy_from is checked');
my @load = map { start_load($_, "INSERT INTO s (v) VALUES ('load')") } $one, $two;
# it waits for who empties the log
my $clock = session($three);
$clock->query_safe('BEGIN; LOCK TABLE mmrepl.clock IN SHARE ROW EXCLUSIVE MODE');
my $rejoins = session($three);
$rejoins->query_until(qr/asked/, "\\echo asked\nSELECT mmrepl.rejoin(copy_from => 'aaa02');\n");
poll_is($three, q{SELECT count(*) FROM pg_locks WHERE relation = 'mmrepl.clock'::regclass AND NOT granted}, 1, 'a rejoin waits for the janitor');
$clock->query_safe('COMMIT');
$clock->quit;
$rejoins->query('SELECT 1');
$rejoins->quit;
is(sql($three, 'SELECT node_id FROM mmrepl.local_node'), 4, 'it has a new number');
poll_is($three, $joined, 1, 'it has joined');
poll_is($three, 'SELECT count(*) FROM mmrepl.kept', 0, 'what was kept is settled');
push @load, start_load($three, "INSERT INTO s (v) VALUES ('load')");
poll_is($one, "SELECT count(*) > 10 FROM s WHERE v = 'load' AND id % 10 = 3", 't', 'it writes in its old place');
ok(stop_load($_), 'no writer was refused: no value of a sequence came twice') foreach @load;
wait_synced(@all);
is(sql($_, "SELECT count(*) FROM s WHERE v = 'lost and found'"), 50, 'what it had lost is there, ' . $_->name) foreach @all;
is(sql($_, 'SELECT v, twice FROM t WHERE id = 1001'), 'only here|2002', 'what only it had is kept, ' . $_->name) foreach @all;
is(sql($_, 'SELECT v FROM t WHERE id IN (2, 1002) ORDER BY id'), "changed on both, as aaa01 has it\nthere too", 'elsewhere the others stand, ' . $_->name) foreach @all;
is(sql($three, q{SELECT local_row->>'v' FROM mmrepl.conflict_history WHERE key @> '{"id": 1002}'}), 'here too', 'what it lost is in the history');
is(sql($three, q{SELECT string_agg(local_row::text, ' ' ORDER BY key) FROM mmrepl.conflict_history WHERE tablename = 'owned'}),
	q({"v": "aaa03", "id": 1} {"mmrepl.text": "(2,\"\"\"aaa03\\\\\\\\u0000\"\"\")"}), 'also what jsonb cannot hold');
is(sql($three, 'SELECT string_agg(who, $$,$$) FROM seen'), 'app', 'code of a table\'s owner runs as he');
is(sql($three, q{SELECT conflict_type || coalesce(local_row->>'v', '') FROM mmrepl.conflict_history WHERE key @> '{"id": 4}'}), 'delete_origin_differs', 'a delete that nobody heard of is, too');
is(sql($_, 'SELECT v FROM t WHERE id = 4'), 'before', 'and did not happen, ' . $_->name) foreach @all;
same_rows($_, \@all) foreach qw(t s);
is(sql($_, 'SELECT string_agg(v::text, $$ $$ ORDER BY id) FROM owned'), q{"aaa01" "aaa01\u0000" "only here"}, 'so it is on ' . $_->name) foreach @all;

# given up, with rows that nobody else has; a copy of it that asks in its name gets nothing
sql($_, "UPDATE mmrepl.dbgroup_db SET needs_resync = true WHERE node_id = 4;
	UPDATE mmrepl.local_node SET config_version = config_version + 1; SELECT mmrepl._settle_members(); SELECT mmrepl._wake()") foreach $one;
poll_is($three, q{SELECT bool_and(state = 'needs resync') FROM mmrepl.status}, 't', 'it knows that it was given up');
sql($three, "INSERT INTO t VALUES (1003, 'written while given up')");
my $other = sql_error($one, "SELECT * FROM mmrepl._replace_db('aaa03', 1, 1, '0', NULL)");
like($other, qr/another server answers/, 'another server cannot take its place');

# the server dies when the others have committed, and it has not
my $self = sql($three, q{SELECT format('%s, %s, ''%s''', (SELECT system_identifier FROM pg_control_system()), (SELECT oid FROM pg_database
	WHERE datname = current_database()), extract(epoch FROM pg_postmaster_start_time()))});
is(sql($one, "SELECT node_id FROM mmrepl._replace_db('aaa03', $self, NULL)"), 5, 'the others know it by a new number, and it does not');
$three->stop('immediate');
$three->start;
poll_is($three, q{SELECT count(*) > 0 FROM mmrepl.worker_status WHERE last_error ~ 'is another node by now'}, 't', 'it hears so, and forgets nothing');
is(sql($three, "SELECT node_id, (SELECT count(*) > 0 FROM mmrepl.change_log WHERE tablename = 't' AND key @> '{\"id\": 1003}') FROM mmrepl.local_node"), '4|t', 'what it was, and what it has written');
sql($three, "SELECT mmrepl.rejoin()");
# and as soon as it has
$three->stop('immediate');
$three->start;
is(sql($three, 'SELECT node_id FROM mmrepl.local_node'), 6, 'under one more number');
poll_is($three, $joined, 1, 'it has joined again');
poll_is($_, 'SELECT v FROM t WHERE id = 1003', 'written while given up', 'what only it had reaches ' . $_->name) foreach @all;
wait_synced(@all);
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' drains') foreach @all;
is(sql($_, q{SELECT count(*) FROM mmrepl.validate_sync('sync')}), 0, 'sound, as ' . $_->name . ' sees it') foreach @all;
finish(\@all, qr/that are not here|of this database that this one has not had|does not take part|put back to an earlier|needs a resync|does not exist|another server answers|could not connect|terminating|connection|another node by now|server closed|joins the sync|not joined yet|configuration has changed|is not in the configuration|claims to be it|wrong database|WARNING|cannot be used|another session/,
	qw(t s));
