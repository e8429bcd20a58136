# Both servers go down at once, in every way, under load, and come back: nothing that was acknowledged is lost, both
# end the same, and what was configured still is.
use strict;
use warnings;
use IPC::Run;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_) } qw(aaa01 aaa02);
sql_all(q{CREATE TABLE t (id bigint PRIMARY KEY, v int); CREATE TABLE acked (id bigint PRIMARY KEY)}, @nodes);
join_nodes(\@nodes);
sql($a, 'INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) i');
wait_synced(@nodes);
my $before = sql($a, 'SELECT * FROM mmrepl.syncs');

my $script = PostgreSQL::Test::Utils::tempdir_short() . '/load.sql';
append_to_file($script, <<'SQL');
\set id random(1, 100)
\set new :base + random(1, 1000000000)
BEGIN;
UPDATE t SET v = v + 1 WHERE id = :id;
INSERT INTO acked VALUES (:new) ON CONFLICT DO NOTHING;
COMMIT;
SQL
my $base = 0;
foreach my $way ('fast', 'immediate', 'kill')
{
	my @load;
	foreach my $node (@nodes)
	{
		$base += 1_000_000_000;
		my ($out, $err) = ('', '');
		push @load, IPC::Run::start([ 'pgbench', '-n', '-c', 3, '-t', 1_000_000, '-f', $script, '-D', "base=$base",
			'-h', $node->host, '-p', $node->port, 'app' ], '>', \$out, '2>', \$err);
	}
	poll($_, "SELECT count(*) > 300 FROM acked WHERE id > $base - 1000000000") foreach @nodes;
	# what is committed now must be there at the end
	my @acked = map { [ split /\n/, sql($_, 'SELECT id FROM acked ORDER BY random() LIMIT 300') ] } @nodes;
	foreach my $node (@nodes)
	{
		if ($way eq 'kill') { kill_postmaster($node); }
		else { $node->stop($way); }
	}
	$_->finish foreach @load;
	foreach my $node (@nodes)
	{
		if ($way eq 'kill') { start_again($node); }
		else { $node->start; }
	}
	ok(wait_synced(@nodes), "$way: they find each other again");
	same_rows($_, \@nodes, name => "$way: $_ is the same") foreach qw(t acked);
	foreach my $i (0, 1)
	{
		is(sql($nodes[ 1 - $i ], 'SELECT count(*) FROM acked WHERE id IN (' . join(',', @{ $acked[$i] }) . ')'), scalar @{ $acked[$i] },
			"$way: what " . $nodes[$i]->name . ' had acknowledged is on the other');
	}
}
is(sql($b, 'SELECT * FROM mmrepl.syncs'), $before, 'the configuration is what it was');
finish(\@nodes, qr/terminat|could not connect|connection|starting up|shutting down|recovery/, qw(t acked));
