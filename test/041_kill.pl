# Nothing is lost and nothing comes twice when a process is killed in the middle of a batch: the pusher, the backend
# that applies, a postmaster, on either side, with synchronous_commit on and off.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my $rows = 20_000;
my ($a, $b) = my @nodes = map { new_node($_, link => 1, conf => "mmrepl.frame_size = 64\nwal_writer_delay = 10s\n") } qw(aaa01 aaa02);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT 0)}, @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);
sql($a, "INSERT INTO t SELECT i, 'base' FROM generate_series(1, 1000) i");
wait_synced(@nodes);

my $at = 10_000;
my $expected = 1000;
foreach my $commit ('on', 'off')
{
	foreach ([ $a, $b ], [ $b, $a ])
	{
		my ($from, $to) = @$_;
		foreach my $victim ('pusher', 'apply', 'postmaster here', 'postmaster there')
		{
			my $case = "synchronous_commit $commit, " . $from->name . " to " . $to->name . ", $victim";
			my $link = $to->{mmrepl_link};

			# a batch of about a megabyte, frozen after a third of it
			$link->budget(300_000);
			sql($from, "SET synchronous_commit = $commit; INSERT INTO t SELECT $at + i, repeat('x', 40) FROM generate_series(1, $rows) i;
				UPDATE t SET n = n + 1 WHERE id <= 1000; DELETE FROM t WHERE id = $at + 1; UPDATE t SET id = -id WHERE id = $at + 2");
			# the other side writes meanwhile
			sql($to, "SET synchronous_commit = $commit; INSERT INTO t SELECT $at + $rows + i, 'other' FROM generate_series(1, 10) i; UPDATE t SET v = 'other' WHERE id % 100 = 0 AND id <= 1000");
			ok(poll($to, "SELECT count(*) > 0 FROM mmrepl.worker_status WHERE kind = 'apply' AND state <> 'good'"), "$case: a batch is under way");
			is(sql($to, "SELECT count(*) FROM t WHERE id = $at + 10"), 0, "$case: and not half visible");

			if ($victim eq 'pusher') { kill_worker($from, 'pusher'); }
			elsif ($victim eq 'apply') { kill_worker($to, 'apply'); }
			else
			{
				my $node = $victim eq 'postmaster here' ? $from : $to;
				kill_postmaster($node);
				start_again($node);
			}
			$link->reset;
			$link->heal;
			foreach my $node (@nodes) { $node->poll_query_until('postgres', 'SELECT true'); }
			wait_synced(@nodes);
			same_rows('t', \@nodes, name => "$case: the same rows at the end");
			# what was acknowledged durably is there; without, a crash of the writer may have taken its end
			$expected += $rows - 1 + 10;
			if ($commit eq 'on') { is(sql($to, 'SELECT count(*) FROM t'), $expected, "$case: all of them"); }
			$at += 2 * $rows;
		}
	}
}

# B3: what a peer has, the writer cannot lose, even without synchronous_commit; and what it writes after the crash,
# with numbers of transactions that were given out before it, arrives.
sql_all('CREATE TABLE later (id int PRIMARY KEY, round int)', @nodes);
sql($a, "SELECT mmrepl.add_table('later', relgroup => 'herd')");
wait_synced(@nodes);
foreach my $round (1 .. 5)
{
	sql($a, "SET synchronous_commit = off; INSERT INTO later SELECT $round * 1000 + i, $round FROM generate_series(1, 100) i");
	ok(poll($b, "SELECT count(*) = 100 FROM later WHERE round = $round"), "round $round: arrived");
	# these may well be lost: they are not flushed by anybody who waits
	sql($a, "SET synchronous_commit = off; INSERT INTO later SELECT $round * 1000 + 500 + i, $round FROM generate_series(1, 5) i");
	kill_postmaster($a);
	start_again($a);
	is(sql($a, "SELECT count(*) FROM later WHERE round = $round AND id % 1000 <= 100"), 100, "round $round: the writer still has what the peer has");
	note(sql($a, "SELECT count(*) FROM later WHERE round = $round AND id % 1000 > 500") . ' of 5 unflushed rows survived');
	sql($a, "INSERT INTO later SELECT $round * 1000 + 200 + i, $round FROM generate_series(1, 10) i");
	wait_synced(@nodes);
	same_rows('later', \@nodes, name => "round $round: the same at the end");
}

finish(\@nodes, qr/terminat|could not connect|connection|recovery mode|starting up|shutting down|crash of another/, 't', 'later');
