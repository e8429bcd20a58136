# A local write gets between what apply looks up and what it writes, in every order; items that apply has to deal with
# twice; user code in apply's way and its rights; what a peer's role must not be able to do. A trigger that is fired for
# replicas holds apply at a chosen point (an advisory lock) while clients write; nothing here depends on time.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, conf => "mmrepl.lock_timeout = '120s'\nmmrepl.frame_size = 8\ndeadlock_timeout = '200ms'\n") } qw(aaa01 aaa02);
sql_all(q{
	CREATE TABLE t (id int PRIMARY KEY, v text);
	CREATE TABLE twice (id int PRIMARY KEY, v int, pad text);
	CREATE TABLE uniq (id int PRIMARY KEY, u int UNIQUE, v text);
	CREATE TABLE later (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED, v text);
	CREATE TABLE zlast (id int PRIMARY KEY, v text);
	CREATE TABLE kept (id int PRIMARY KEY, u int UNIQUE, v text);
	CREATE TABLE turned (id int PRIMARY KEY, v text);
	CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t)}, @nodes);
sql_all('CREATE TABLE odd (id int PRIMARY KEY, c regclass, s varchar(12), f char(4), t timestamp(6), ac aclitem, n int,
	doubled int GENERATED ALWAYS AS (n * 2) STORED)', @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);

# The gate: shut while the session holds the lock.
sql($b, q{
	CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF TG_OP = 'DELETE' OR NEW.v LIKE 'gate%' THEN
			PERFORM pg_catalog.pg_advisory_lock_shared(7);
			PERFORM pg_catalog.pg_advisory_unlock_shared(7);
		END IF;
		IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
		RETURN NEW;
	END $$;
	CREATE TRIGGER gate BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION gate();
	ALTER TABLE t ENABLE REPLICA TRIGGER gate});
my $gate = session($b);
my $waiting = q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted};
my $blocked = q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name LIKE 'mmrepl%' AND wait_event_type = 'Lock'};

sub behind_the_gate
{
	my ($name, $remote, @local) = @_;
	$gate->query_safe('SELECT pg_advisory_lock(7)');
	sql($a, $remote);
	poll_is($b, $waiting, undef, "$name: apply has looked, and not written");
	foreach my $local (@local)
	{
		ref $local ? $local->() : sql($b, $local);
	}
	$gate->query_safe('SELECT pg_advisory_unlock(7)');
	wait_synced(@nodes);
	same_rows('t', \@nodes, name => "$name: the same on both");
	return;
}

# a key that was absent when apply looked
behind_the_gate('insert and delete here', "INSERT INTO t VALUES (1, 'gate')", "INSERT INTO t VALUES (1, 'here'); DELETE FROM t WHERE id = 1");
is(sql($b, 'SELECT count(*) FROM t WHERE id = 1'), 0, 'the delete here was the last word');
behind_the_gate('insert here', "INSERT INTO t VALUES (2, 'gate')", "INSERT INTO t VALUES (2, 'here')");
is(sql($a, 'SELECT v FROM t WHERE id = 2'), 'here', 'the insert here was the later one');
behind_the_gate('upsert here', "INSERT INTO t VALUES (3, 'gate')", "INSERT INTO t VALUES (3, 'here') ON CONFLICT (id) DO UPDATE SET v = 'upserted'");
is(sql($a, 'SELECT v FROM t WHERE id = 3'), 'here', 'the upsert here was the later one');
behind_the_gate('another row gets the key', "INSERT INTO t VALUES (5, 'gate')", "INSERT INTO t VALUES (4, 'moves')", "UPDATE t SET id = 5 WHERE id = 4");
is(sql($a, 'SELECT v FROM t WHERE id = 5'), 'moves', 'the key went to the row that came later');
behind_the_gate('a row has the key for a moment', "INSERT INTO t VALUES (7, 'gate')", "INSERT INTO t VALUES (6, 'moves')", "UPDATE t SET id = 7 WHERE id = 6", "UPDATE t SET id = 8 WHERE id = 7");
is(sql($a, 'SELECT string_agg(id::text, $$ $$ ORDER BY id) FROM t WHERE id BETWEEN 6 AND 8'), '8', 'and is where it went');
behind_the_gate('two items, one of them taken back', "INSERT INTO t SELECT i, 'gate' FROM generate_series(10, 11) i", "INSERT INTO t VALUES (10, 'here'); DELETE FROM t WHERE id = 10", 'VACUUM t', 'ANALYZE t');

# prepared here, and decided after apply has begun to wait for it
sub prepared
{
	my ($end, $id) = @_;
	behind_the_gate("prepared here, then $end", "INSERT INTO t VALUES ($id, 'gate')", "BEGIN; INSERT INTO t VALUES ($id, 'prepared'); PREPARE TRANSACTION 'p'",
		sub {
			$gate->query_safe('SELECT pg_advisory_unlock(7)');
			poll_is($b, $blocked, undef, 'apply waits for what is prepared');
			sql($b, "$end PREPARED 'p'");
			$gate->query_safe('SELECT pg_advisory_lock(7)');
		});
	return;
}
prepared('COMMIT', 20);
is(sql($a, 'SELECT v FROM t WHERE id = 20'), 'prepared', 'what was prepared was the later one');
prepared('ROLLBACK', 21);
is(sql($b, 'SELECT v FROM t WHERE id = 21'), 'gate', 'what was rolled back never was');

# a row that was there when apply looked: a client's write waits behind apply's
sql($a, "INSERT INTO t SELECT i, 'old' FROM generate_series(30, 39) i");
wait_synced(@nodes);
foreach ([ 30, "UPDATE t SET v = 'here' WHERE id = 30" ], [ 31, 'DELETE FROM t WHERE id = 31' ], [ 32, "UPDATE t SET id = 132 WHERE id = 32" ])
{
	my ($id, $local) = @$_;
	my $client = session($b);
	behind_the_gate($local, "UPDATE t SET v = 'gate' WHERE id = $id",
		sub {
			$client->query_until(qr/sent/, "\\echo sent\n$local;\n\\echo done\n");
			poll_is($b, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%} . ($local =~ s/'/''/gr) . q{%' AND pid <> pg_backend_pid()}, undef, "$local: waits");
		});
	$client->query_until(qr/done/, '');
	$client->quit;
	wait_synced(@nodes);
}
same_rows('t', \@nodes, name => 'writes that waited for apply arrive');
is(sql($a, 'SELECT string_agg(id || v, $$ $$ ORDER BY id) FROM t WHERE id IN (30, 31, 32, 132)'), '30here 132gate', 'and were the later ones');

# a reference to a row does not hold its update up
my $referrer = session($b);
$referrer->query_safe('BEGIN; INSERT INTO child VALUES (1, 33)');
sql($a, "UPDATE t SET v = 'referred to' WHERE id = 33");
wait_synced($a);
is(sql($b, 'SELECT v FROM t WHERE id = 33'), 'referred to', 'FOR KEY SHARE lets an update in');
$referrer->query_safe('COMMIT');

# An older write is under way on a row that the peer leaves as it was: it must not come out on top.
my $older = session($b);
$older->query_safe("BEGIN; UPDATE t SET v = 'older' WHERE id = 34");
sql($a, "BEGIN; UPDATE t SET v = 'between' WHERE id = 34; UPDATE t SET v = 'old' WHERE id = 34; COMMIT");
poll_is($b, $blocked, undef, 'apply waits for the older write');
$older->query_safe('COMMIT');
wait_synced(@nodes);
same_rows('t', \@nodes);
is(sql($b, 'SELECT v FROM t WHERE id = 34'), 'old', 'the later write stands, though it changed nothing');
$older->quit;
$referrer->quit;

# A key comes more than once in a batch, near enough to meet itself in a frame.
sql($a, 'INSERT INTO twice SELECT i, 0, repeat($$x$$, i % 50) FROM generate_series(1, 5000) i');
wait_synced(@nodes);
sql($a, 'BEGIN; UPDATE twice SET v = 1 WHERE id <= 2048; SAVEPOINT s; UPDATE twice SET v = 2 WHERE id BETWEEN 2000 AND 2100; COMMIT');
wait_synced(@nodes);
same_rows('twice', \@nodes);
sql($a, 'BEGIN; UPDATE twice SET v = 1 WHERE id % 3 > 0; UPDATE twice SET v = 2; DELETE FROM twice WHERE id % 7 = 0; UPDATE twice SET v = 3 WHERE id % 2 = 0; COMMIT');
wait_synced(@nodes);
same_rows('twice', \@nodes);

# Collisions in frames before the last, which is of another table; swaps; constraints that are checked later.
foreach my $table (qw(uniq later))
{
	sql($a, "INSERT INTO $table SELECT i, i, 'old' FROM generate_series(1, 2000) i");
	wait_synced(@nodes);
	sql($b, 'SELECT mmrepl.pause(name) FROM mmrepl.syncs');
	sql($b, "UPDATE $table SET u = 5000 + id, v = 'here' WHERE id <= 20; INSERT INTO $table SELECT 3000 + i, 6000 + i, 'here' FROM generate_series(1, 20) i");
	sql($a, "BEGIN; UPDATE $table SET u = 6000 + id, v = 'there' WHERE id BETWEEN 1 AND 20; INSERT INTO $table SELECT 4000 + i, 5000 + i, 'there' FROM generate_series(1, 20) i;"
		  . "UPDATE $table SET u = -u WHERE id > 20; UPDATE $table SET u = 2021 + u WHERE id BETWEEN 21 AND 2000; UPDATE $table SET v = repeat('x', 100) WHERE id > 20;"
		  . "INSERT INTO zlast SELECT i + (SELECT count(*) FROM zlast), repeat('z', 100) FROM generate_series(1, 500) i; COMMIT");
	sql($b, 'SELECT mmrepl.resume(name) FROM mmrepl.syncs');
	wait_synced(@nodes);
	same_rows($table, \@nodes);
	cmp_ok(sql($a, "SELECT count(*) FROM mmrepl.conflict_log WHERE relname = '$table'")
		  + sql($b, "SELECT count(*) FROM mmrepl.conflict_log WHERE relname = '$table'"), '>', 0, "$table: there were conflicts");
}

# A user's trigger that will not let the loser of a collision go.
sql_all(q{CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER stay BEFORE DELETE ON kept FOR EACH ROW EXECUTE FUNCTION stay(); ALTER TABLE kept ENABLE REPLICA TRIGGER stay}, $b);
sql($b, 'SELECT mmrepl.pause(name) FROM mmrepl.syncs');
sql($b, "INSERT INTO kept VALUES (1, 1, 'here')");
sql($a, "INSERT INTO kept VALUES (2, 1, 'there')");
sql($b, 'SELECT mmrepl.resume(name) FROM mmrepl.syncs');
wait_synced(@nodes);
is(sql($_, 'SELECT string_agg(v, $$ $$) FROM kept'), $_ == $a ? 'there' : 'here', 'what a trigger keeps stays, and nothing waits for it on ' . $_->name) foreach @nodes;

# One that changes keys is found out, and nothing spins for ever.
sql($b, q{CREATE FUNCTION turn() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.id := 1; RETURN NEW; END';
	CREATE TRIGGER turn BEFORE INSERT ON turned FOR EACH ROW EXECUTE FUNCTION turn(); ALTER TABLE turned ENABLE REPLICA TRIGGER turn});
sql($a, "INSERT INTO turned VALUES (1, 'one')");
wait_synced(@nodes);
sql($a, "INSERT INTO turned VALUES (2, 'two')");
poll_is($a, q{SELECT last_error LIKE '%keep changing%' FROM mmrepl.status}, undef, 'a trigger that changes the key is reported');
sql($b, 'DROP TRIGGER turn ON turned');
wait_synced(@nodes);

# Types whose values mean something in one database only; types that were changed here already, and there not yet.
sql($b, 'ALTER TABLE odd ALTER s TYPE varchar(6), ALTER f TYPE char(6), ALTER t TYPE timestamp(0)');
sql($a, q{INSERT INTO odd VALUES (1, 't', 'sechs  ', 'four', '2024-01-01 10:00:00.7', 'postgres=r/postgres', 12)});
wait_synced(@nodes);
is(sql($b, q{SELECT c || '|' || s || '|' || octet_length(f) || '|' || t || '|' || ac || '|' || doubled FROM odd}),
	't|sechs |6|2024-01-01 10:00:01|postgres=r/postgres|24', 'values are made to fit');
sql($a, q{UPDATE odd SET s = 'short', c = 'pg_catalog.pg_class', n = 5});
wait_synced(@nodes);
is(sql($b, q{SELECT c::text || doubled FROM odd}), 'pg_class10', 'also in an UPDATE, generated columns too');

finish(\@nodes, qr/canceling statement due to lock timeout|deadlock detected|terminating connection|keep changing|connection to client lost/, qw(t turned twice uniq later zlast child));
