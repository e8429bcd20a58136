# Changes that leave nothing to do at the peer are known there all the same: the log drains.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_) } qw(aaa01 aaa02);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, v text)}, @nodes);
join_nodes(\@nodes);
sql($a, "INSERT INTO t VALUES (1, 'one')");
wait_synced(@nodes);
my $left = 'SELECT count(*) FROM mmrepl.log';
poll_is($_, $left, 0, 'the log of ' . $_->name . ' is empty before') foreach @nodes;

foreach my $case (
	[ 'a row that comes and goes', "BEGIN; INSERT INTO t VALUES (2, 'two'); DELETE FROM t WHERE id = 2; COMMIT" ],
	[ 'a row that becomes what it was', "BEGIN; UPDATE t SET v = 'uno' WHERE id = 1; UPDATE t SET v = 'one' WHERE id = 1; COMMIT" ],
	[ 'a TRUNCATE of nothing', 'TRUNCATE t', 'TRUNCATE t' ])
{
	my ($name, $change, $before) = @$case;
	if ($before)
	{
		sql($a, $before);
		wait_synced(@nodes);
		poll_is($_, $left, 0, 'and is empty again') foreach @nodes;
	}
	sql($a, $change);
	wait_synced(@nodes);
	poll_is($_, $left, 0, 'the log of ' . $_->name . " drains of $name") foreach @nodes;
}
finish(\@nodes, undef, 't');
