# The network breaks: in the middle of a batch, silently or not, and just when the peer has committed; a peer is away
# while both sides write.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, link => 1, conf => "mmrepl.frame_size = 64\n") } qw(aaa01 aaa02);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT 0)}, @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);
sql($a, "INSERT INTO t SELECT i, 'base' FROM generate_series(1, 1000) i");
wait_synced(@nodes);

# In the middle of a batch, at several places of it.
my $at = 10_000;
foreach my $bytes (1, 500, 70_000, 400_000)
{
	foreach ([ $a, $b ], [ $b, $a ])
	{
		my ($from, $to) = @$_;
		my $case = $from->name . ' to ' . $to->name . ", cut after $bytes bytes";
		my $link = $to->{mmrepl_link};
		$link->budget($bytes);
		sql($from, "INSERT INTO t SELECT $at + i, repeat('y', 40) FROM generate_series(1, 10000) i; UPDATE t SET n = n + 1 WHERE id <= 500; DELETE FROM t WHERE id = $at + 1");
		my $moved = $link->moved;
		# frozen: nothing goes up any more, and nothing is visible
		ok(poll($from, "SELECT bool_or(state NOT IN ('good', 'idle')) FROM mmrepl.worker_status WHERE kind = 'pusher'"), "$case: the pusher is at it");
		is(sql($to, "SELECT count(*) FROM t WHERE id > $at"), 0, "$case: nothing of the batch is visible");
		# users of neither side notice
		sql($to, "UPDATE t SET v = 'free' WHERE id BETWEEN 501 AND 600");
		sql($from, "UPDATE t SET v = 'free' WHERE id BETWEEN 601 AND 700");
		$link->reset;
		$link->heal;
		wait_synced(@nodes);
		is(sql($to, "SELECT count(*) FROM t WHERE id > $at"), 9999, "$case: all of it arrived");
		same_rows('t', \@nodes, name => "$case: the same rows");
		$at += 20_000;
	}
}

# The answer is lost: the peer has committed, and who sent it does not know. Answers are let through one at a time until the
# change is seen at the peer; that moment the connection breaks.
foreach my $round (1 .. 6)
{
	my ($from, $to) = $round % 2 ? ($a, $b) : ($b, $a);
	my $case = "answer lost, round $round";
	my $link = $to->{mmrepl_link};
	wait_synced(@nodes);
	my $before = sql($from, 'SELECT coalesce(sum(n), 0) FROM t');
	$link->hold('down');
	sql($from, "UPDATE t SET n = n + 1 WHERE id <= 100; INSERT INTO t VALUES ($at + $round, 'lost answer'); DELETE FROM t WHERE id = 900 + $round");
	my ($seen, $released) = (0, 0);
	while (!$seen && $released < 20_000)
	{
		$seen = sql($to, "SELECT count(*) FROM t WHERE id = $at + $round");
		$link->release unless $seen;
		$released++;
	}
	is($seen, 1, "$case: the peer has committed ($released looks)");
	$link->reset;
	# a peer may write over it before the sender comes back
	sql($to, "UPDATE t SET v = 'over $round' WHERE id = $at + $round; UPDATE t SET n = n + 1 WHERE id <= 10");
	$link->heal;
	wait_synced(@nodes);
	same_rows('t', \@nodes, name => "$case: the same rows");
	is(sql($from, "SELECT v FROM t WHERE id = $at + $round"), "over $round", "$case: what came after stands");
	is(sql($from, 'SELECT coalesce(sum(n), 0) FROM t'), $before + 110, "$case: once, not twice");
}
is(conflicts($_), '', 'nothing of that is a conflict on ' . $_->name) foreach @nodes;

# Nobody reaches anybody while both write; the same keys too.
$_->{mmrepl_link}->cut foreach @nodes;
foreach my $round (1 .. 20)
{
	sql($a, "INSERT INTO t VALUES (1000000 + $round, 'a'); UPDATE t SET v = 'a$round' WHERE id = $round");
	sql($b, "INSERT INTO t VALUES (2000000 + $round, 'b'); UPDATE t SET v = 'b$round' WHERE id = $round + 10; DELETE FROM t WHERE id = 100 + $round");
}
ok(poll($a, "SELECT bool_and(state NOT IN ('good', 'idle')) AND bool_and(lag_seconds > 0) FROM mmrepl.peer_lag WHERE direction = 'to'"), 'status tells that the peer is away, and since when');
my $lag = sql($a, q{SELECT max(lag_seconds) FROM mmrepl.peer_lag WHERE direction = 'to'});
ok(poll($a, "SELECT max(lag_seconds) > $lag FROM mmrepl.peer_lag WHERE direction = 'to'"), 'and the lag grows while nothing else happens');
$_->{mmrepl_link}->heal foreach @nodes;
wait_synced(@nodes);
same_rows('t', \@nodes, name => 'the same rows after both wrote apart');
is(sql($a, "SELECT string_agg(v, ',' ORDER BY id) FROM t WHERE id BETWEEN 11 AND 20"), join(',', map { "a$_" } 11 .. 20), 'the newest stands');
is(sql($a, "SELECT string_agg(v, ',' ORDER BY id) FROM t WHERE id BETWEEN 21 AND 30"), join(',', map { "b$_" } 11 .. 20), 'on either side');

# One server is gone, hard, in the middle of writes; comes back; the other way round.
foreach my $away ($b, $a)
{
	my ($here) = grep { $_ != $away } @nodes;
	sql($away, "INSERT INTO t SELECT $at + 100 + i, 'last words' FROM generate_series(1, 5000) i");
	$away->stop('immediate');
	sql($here, "INSERT INTO t SELECT $at + 10000 + i, 'alone' FROM generate_series(1, 5000) i; UPDATE t SET n = -1 WHERE id BETWEEN 200 AND 300");
	$away->start;
	sql($away, "UPDATE t SET v = 'back' WHERE id BETWEEN 250 AND 350");
	wait_synced(@nodes);
	same_rows('t', \@nodes, name => $away->name . ' was away: the same rows');
	is(sql($here, "SELECT count(*) FROM t WHERE v = 'last words' AND id > $at"), 5000, 'what it had committed is not lost');
	$at += 20_000;
}

finish(\@nodes, qr/terminat|could not connect|connection|starting up|shutting down/, 't');
