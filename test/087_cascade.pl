# Cascades: what a sync with makedelta brings to a db goes on by that db's other syncs, to the end of the chain and
# back; without it, it does not.
use strict;
use warnings;
use MmreplCluster;
use MmreplDb;
use Test::More;

my $server = new_node('one', conf => "mmrepl.max_workers = 64\nmmrepl.heartbeat_interval = 100\n");
my ($a, $b, $c, $d) = my @all = map { MmreplDb->new($server, $_, link => 1) } qw(a b c d);

sql_all('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE multi (a int, b text, v text, PRIMARY KEY (a, b));', @all);
sql($a, 'CREATE EXTENSION mmrepl');
sql($a, "SELECT mmrepl.add_db('" . $_->name . "', '" . conninfo($_) . "')") foreach @all;
sql($a, "SELECT mmrepl.add_table(x, relgroup => 'herd') FROM unnest('{t,multi}'::text[]) x;");

# One step for everything that anybody has committed, per db on the way.
sub settled
{
	foreach my $step (1 .. 4)
	{
		foreach my $node (@all)
		{
			sql($node, 'SELECT mmrepl.wait_for_sync(name, 100) FROM mmrepl.syncs AS s WHERE EXISTS (SELECT FROM mmrepl.peer_lag AS p WHERE p.sync = s.name AND direction = \'to\')');
		}
	}
	return;
}
my $size = q{SELECT coalesce(sum(pg_relation_size(inhrelid)), 0) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass};

sub drained
{
	my ($name) = @_;
	return ok(!grep({ !poll($_, $size, 0) } @all), $name);
}

# a and b; from b to c.
sql($a, q{SELECT mmrepl.add_sync('ab', relgroup => 'herd', dbs => '{a:source,b:source}');
	SELECT mmrepl.add_sync('bc', relgroup => 'herd', dbs => '{b:source,c:target}')});
sql($a, "INSERT INTO t VALUES (1, 'a'); INSERT INTO multi VALUES (1, 'x', 'a')");
sql($b, "INSERT INTO t VALUES (2, 'b')");
settled();
is(sql($c, "SELECT string_agg(id::text, ',') FROM t"), '2', 'without makedelta only what b itself wrote goes on');
is(sql($b, "SELECT string_agg(id::text, ',' ORDER BY id) FROM t"), '1,2', 'b has both');
drained('logs drain without makedelta');
# what came is sent on when b changes it: rows travel whole
sql($b, "UPDATE t SET v = 'b' WHERE id = 1");
settled();
is(sql($c, "SELECT string_agg(id::text, ',' ORDER BY id) FROM t"), '1,2', 'a row that b changed goes on');

sql($a, q{SELECT mmrepl.remove_sync('bc'); SELECT mmrepl.remove_sync('ab')});
sql_all('TRUNCATE t, multi', @all);
like(sql_error($a, q{SELECT mmrepl.add_sync('ab', relgroup => 'herd', dbs => '{a:source,b:source}', makedelta => 'maybe')}), qr/invalid input syntax for type boolean/, 'makedelta is on or off');
sql($a, q{SELECT mmrepl.add_sync('ab', relgroup => 'herd', dbs => '{a:source,b:source}', makedelta => 'on');
	SELECT mmrepl.add_sync('bc', relgroup => 'herd', dbs => '{b:source,c:source}', makedelta => 'on')});
is(sql($c, "SELECT string_agg(name || ' ' || makedelta, ',' ORDER BY name) FROM mmrepl.syncs"), 'ab true,bc true', 'syncs tell of makedelta');
sql($a, "INSERT INTO t SELECT i, 'a' FROM generate_series(1, 300) i; INSERT INTO multi SELECT i, 'k', 'a' FROM generate_series(1, 30) i");
sql($c, "INSERT INTO t SELECT i, 'c' FROM generate_series(1001, 1300) i");
settled();
same_rows($_, [ $a, $b, $c ]) foreach qw(t multi);
is(sql($a, 'SELECT count(*) FROM t'), 600, 'both ends have all');
# a row from end to end and back: everybody has seen what he changes
foreach my $round (1 .. 3)
{
	sql($a, "UPDATE t SET v = v || 'a' WHERE id = 1001");
	poll($c, "SELECT v = 'c' || repeat('ac', @{[ $round - 1 ]}) || 'a' FROM t WHERE id = 1001");
	sql($c, "UPDATE t SET v = v || 'c' WHERE id = 1001; DELETE FROM t WHERE id = $round; UPDATE multi SET a = -a WHERE a = $round");
	poll($a, "SELECT v = 'c' || repeat('ac', $round) FROM t WHERE id = 1001");
}
settled();
same_rows($_, [ $a, $b, $c ]) foreach qw(t multi);
is(sql($_, 'SELECT count(*) FROM mmrepl.conflict_history'), 0, 'no conflict on ' . $_->name) foreach ($a, $b, $c);
drained('logs drain');
# each batch of changes goes once over each link
my $sent = 'SELECT coalesce(sum(inserted + updated + deleted), 0) FROM mmrepl.peer_lag WHERE direction = \'to\'';
my %before = map { $_->name => sql($_, $sent) } ($a, $b, $c);
sql($a, "INSERT INTO t VALUES (5000, 'once')");
poll($c, 'SELECT count(*) = 1 FROM t WHERE id = 5000');
settled();
is(join(',', map { sql($_, $sent) - $before{ $_->name } } ($a, $b, $c)), '1,1,0', 'a row goes once over each link, and not back');

# The chain is lengthened while all write: what is there comes as a copy, what is under way by the log.
sql($a, "INSERT INTO t SELECT i, 'more' FROM generate_series(10000, 12000) i");
my $writer = session($a);
$writer->query_safe("BEGIN; INSERT INTO t SELECT i, 'open' FROM generate_series(20000, 20010) i");
sql($c, "SELECT mmrepl.add_sync('cd', relgroup => 'herd', dbs => '{c:source,d:source}', makedelta => true, onetimecopy => 1)");
sql($a, "UPDATE t SET v = 'while copying' WHERE id % 7 = 0; TRUNCATE multi; INSERT INTO multi VALUES (7, 'seven', 'after')");
$writer->query_safe('COMMIT');
$writer->quit;
sql($d, "INSERT INTO t VALUES (30000, 'd')");
settled();
poll($a, 'SELECT count(*) = 1 FROM t WHERE id = 30000');
settled();
same_rows($_, [ $a, $b, $c, $d ]) foreach qw(t multi);
drained('logs drain over four');

# Cut in the middle: the ends go on, and TRUNCATEs, deletes and writes of the same rows meet later.
foreach my $round (1 .. 3)
{
	$c->{mmrepl_link}->cut;
	my $n = 0;
	foreach my $node ($a, $b, $c, $d)
	{
		$n++;
		sql($node, "UPDATE t SET v = 'r$round by $n' WHERE id BETWEEN 10 AND 60; DELETE FROM t WHERE id BETWEEN 60 + $n AND 62 + $n;
			INSERT INTO t SELECT 100000 * $round + g, '$n' FROM generate_series($n, $n + 3) g ON CONFLICT (id) DO UPDATE SET v = excluded.v");
		sql($node, "TRUNCATE t; INSERT INTO t VALUES (200000 * $round + $n, 'after')") if $n == $round;
	}
	$c->{mmrepl_link}->heal;
	settled();
	poll($_, "SELECT count(*) = 1 FROM t WHERE id = 200000 * $round + $round") foreach ($a, $b, $c, $d);
	settled();
	same_rows('t', [ $a, $b, $c, $d ]);
}
drained('logs drain after conflicts');

# M4 in a chain: the far end holds as known to its neighbour what the middle still compares.
sql($d, "INSERT INTO t VALUES (9000, 'old')");
settled();
$b->{mmrepl_link}->cut;
$a->{mmrepl_link}->cut;
sql($a, 'TRUNCATE t');
sql($d, "INSERT INTO t VALUES (9001, 'newer than the TRUNCATE')");
poll($c, 'SELECT count(*) = 1 FROM t WHERE id = 9001');
ok(poll($d, $size, 0), 'the end forgets what its neighbour has');
$_->{mmrepl_link}->heal foreach ($a, $b);
foreach my $node ($a, $b, $c, $d)
{
	is(poll($node, "SELECT string_agg(id::text, ',') = '9001' FROM t"), 1, 'the newer row survives on ' . $node->name);
}
settled();
same_rows('t', [ $a, $b, $c, $d ]);

$server->stop;
log_clean($server, qr/could not connect|connection|invalid input syntax|terminat|configuration has changed while a batch was applied/);
done_testing();
