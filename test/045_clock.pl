# Clocks that are wrong: newest is what was written after having seen the other, not what a clock says; a batch from too far
# ahead is held and reported, neither applied nor dropped.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

foreach my $offset ('-10', '+10')
{
	my ($a, $b) = my @nodes = map { new_node($_ . ($offset < 0 ? '_behind' : '_ahead'), conf => "mmrepl.max_clock_skew = 60s\n") } qw(aaa01 aaa02);
	sql_all('CREATE TABLE t (id int PRIMARY KEY, v text)', @nodes);
	$b->stop;
	start_with_clock($b, "${offset}s");
	my $seen = sql($b, 'SELECT round(extract(epoch FROM clock_timestamp()))') - time;
	ok(abs($seen - $offset) <= 3, "the clock of one server is $offset seconds off");
	join_nodes(\@nodes);
	sql($a, "INSERT INTO t SELECT i, 'base' FROM generate_series(1, 50) i");
	wait_synced(@nodes);

	# back and forth: each writes over what it has seen of the other
	foreach my $round (1 .. 5)
	{
		sql($b, "UPDATE t SET v = 'b$round' WHERE id <= 10");
		wait_synced(@nodes);
		is(sql($a, 'SELECT DISTINCT v FROM t WHERE id <= 10'), "b$round", "$offset s, round $round: the later write stands (b)");
		sql($a, "UPDATE t SET v = 'a$round' WHERE id <= 10; DELETE FROM t WHERE id = 20 + $round");
		wait_synced(@nodes);
		is(sql($b, 'SELECT DISTINCT v FROM t WHERE id <= 10'), "a$round", "$offset s, round $round: the later write stands (a)");
	}
	same_rows('t', \@nodes);

	# after a restart too: the clock does not fall behind what was applied
	foreach my $restarted ($b, $a)
	{
		sql($a, "UPDATE t SET v = 'before' WHERE id <= 5");
		wait_synced(@nodes);
		if ($restarted == $b)
		{
			$b->stop('immediate');
			start_with_clock($b, "${offset}s");
		}
		else
		{
			$a->stop('immediate');
			$a->start;
		}
		# what a crash undid at the receiver, being applied but not flushed yet, comes again
		ok(poll($b, "SELECT count(*) = 5 FROM t WHERE v = 'before'"), "$offset s: nothing is lost by a crash");
		sql($b, "UPDATE t SET v = 'after' WHERE id <= 5");
		wait_synced(@nodes);
		is(sql($_, 'SELECT DISTINCT v FROM t WHERE id <= 5'), 'after', "$offset s: a write after a restart stands on " . $_->name) foreach @nodes;
		sql($a, "UPDATE t SET v = 'then' WHERE id <= 5");
		wait_synced(@nodes);
		is(sql($b, 'SELECT DISTINCT v FROM t WHERE id <= 5'), 'then', "$offset s: and what comes after it");
	}
	same_rows('t', \@nodes);

	if ($offset > 0)
	{
		# further ahead than allowed: held, told, and it flows when that is over
		$a->append_conf('postgresql.conf', 'mmrepl.max_clock_skew = 2s');
		$a->reload;
		set_clock($b, '+3600s');
		sql($b, "INSERT INTO t VALUES (1000, 'from the future')");
		ok(poll($b, "SELECT bool_or(last_error ~* 'clock') FROM mmrepl.peer_lag"), 'the sender says that its clock is ahead');
		# (it tries again and again)
		poll_is($b, "SELECT count(*) FROM mmrepl.peer_lag WHERE direction = 'to' AND state IN ('waiting', 'bad')", 1, 'and that it waits');
		is(sql($a, 'SELECT count(*) FROM t WHERE id = 1000'), 0, 'held: not applied');
		# the other direction goes on
		sql($a, "INSERT INTO t VALUES (1001, 'from the present')");
		ok(poll($b, 'SELECT count(*) = 1 FROM t WHERE id = 1001'), 'the other way goes on');
		set_clock($b, '+0');
		# on both: from now on both live in that future
		foreach my $node (@nodes)
		{
			$node->append_conf('postgresql.conf', 'mmrepl.max_clock_skew = 2h');
			$node->reload;
		}
		ok(poll($a, 'SELECT count(*) = 1 FROM t WHERE id = 1000'), 'not dropped: it flows when it may');
		# the present now comes after that future
		sql($a, "UPDATE t SET v = 'present' WHERE id = 1000");
		wait_synced(@nodes);
		is(sql($b, 'SELECT v FROM t WHERE id = 1000'), 'present', 'a write that has seen the future is newer than it');
	}
	wait_synced(@nodes);
	same_rows('t', \@nodes);
	is(conflicts($_), '', 'none of that is a conflict on ' . $_->name) foreach @nodes;
	$_->stop foreach @nodes;
	log_clean($_, qr/clock|terminat|could not connect|connection|starting up|shutting down/) foreach @nodes;
}
done_testing();
