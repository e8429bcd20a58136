# The log of a healthy pair stays small: segments drain to empty. A peer that is away holds it, an open or prepared
# transaction loses nothing by it.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, link => 1, conf => "mmrepl.segment_size = 64\n") } qw(aaa01 aaa02);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, v text)}, @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);

my $size = q{SELECT coalesce(sum(pg_relation_size(inhrelid)), 0) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass};
my $used = q{SELECT count(*) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass AND pg_relation_size(inhrelid) > 0};

# Far more than the log may hold at once, both ways.
my $highest = 0;
foreach my $round (1 .. 40)
{
	sql($a, "INSERT INTO t SELECT $round * 10000 + i, 'a' FROM generate_series(1, 2000) i");
	sql($b, "INSERT INTO t SELECT $round * 10000 + 5000 + i, 'b' FROM generate_series(1, 2000) i; DELETE FROM t WHERE id < ($round - 1) * 10000");
	wait_synced(@nodes) if $round % 4 == 0;
	my $now = sql($a, $size);
	$highest = $now if $now > $highest;
}
wait_synced(@nodes);
foreach my $node (@nodes)
{
	poll_is($node, "$size", 0, 'the log of ' . $node->name . ' drains to nothing');
	is(sql($node, 'SELECT count(*) FROM mmrepl.change_log'), 0, 'change_log shows none');
}
note("at its highest the log held $highest bytes");
same_rows('t', \@nodes);

# A peer that is away holds what it has not got; the rest of the ring goes on, or grows.
$b->{mmrepl_link}->cut;
foreach my $round (50 .. 80)
{
	sql($a, "INSERT INTO t SELECT $round * 10000 + i, repeat('h', 50) FROM generate_series(1, 2000) i");
}
cmp_ok(sql($a, $size), '>', 31 * 2000 * 4, 'a peer that is away holds the log');
is(sql($a, "SELECT count(*) > 0 FROM mmrepl.change_log"), 't', 'change_log shows what waits');
ok(poll($a, 'SELECT max(pending) > 0 FROM mmrepl.peer_lag'), 'and peer_lag how much');
$b->{mmrepl_link}->heal;
wait_synced(@nodes);
same_rows('t', \@nodes);
poll_is($_, $size, 0, 'then it drains on ' . $_->name) foreach @nodes;

# A transaction from before a rotation appends to a segment that is closed since: nothing of it is truncated away.
my $open = session($a);
$open->query_safe("BEGIN; INSERT INTO t VALUES (1, 'open')");
sql($b, "BEGIN; INSERT INTO t VALUES (2, 'prepared'); PREPARE TRANSACTION 'p'");
foreach my $round (1 .. 20)
{
	sql($_->[0], "INSERT INTO t SELECT 1000000 + $round * 10000 + $_->[1] + i, 'r' FROM generate_series(1, 2000) i") foreach ([ $a, 0 ], [ $b, 5000 ]);
}
wait_synced(@nodes);
$open->query_safe("INSERT INTO t SELECT 3000000 + i, 'open, later' FROM generate_series(1, 5000) i");
sql($a, "INSERT INTO t SELECT 4000000 + i, 'r' FROM generate_series(1, 20000) i");
wait_synced(@nodes);
$open->query_safe('COMMIT');
sql($b, "COMMIT PREPARED 'p'");
wait_synced(@nodes);
is(sql($b, "SELECT count(*) FROM t WHERE v LIKE 'open%'"), 5001, 'an open transaction over rotations arrives whole');
is(sql($a, "SELECT count(*) FROM t WHERE v = 'prepared'"), 1, 'a prepared one too');
same_rows('t', \@nodes);
$open->quit;
poll_is($_, $size, 0, 'and the log drains on ' . $_->name) foreach @nodes;

# A million changes in one transaction, more than the ring holds by its size: it grows, and goes again.
sql($a, 'INSERT INTO t SELECT 10000000 + i FROM generate_series(1, 300000) i');
sql($a, 'DELETE FROM t WHERE id > 10000000');
wait_synced(@nodes);
poll_is($_, $size, 0, 'also after a big transaction, on ' . $_->name) foreach @nodes;

# Updates of few rows do not pile up: an empty log, table sizes aside.
sql($b, "UPDATE t SET v = 'x' WHERE id IN (SELECT id FROM t LIMIT 5)") for 1 .. 50;
wait_synced(@nodes);
poll_is($_, $used, 0, 'no segment is in use on ' . $_->name) foreach @nodes;
finish(\@nodes, qr/could not connect|connection/, 't');
