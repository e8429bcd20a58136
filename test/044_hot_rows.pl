# Thirty clients write the same few rows on both servers at once: none is refused because of replication, and the end
# is the same on both.
use strict;
use warnings;
use IPC::Run;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_) } qw(aaa01 aaa02);
sql_all(q{CREATE TABLE hot (id int PRIMARY KEY, v int NOT NULL, who text); CREATE TABLE trail (id text PRIMARY KEY, hot int)}, @nodes);
join_nodes(\@nodes);
sql($a, "INSERT INTO hot SELECT i, 0, 'base' FROM generate_series(1, 8) i");
wait_synced(@nodes);

my $script = PostgreSQL::Test::Utils::tempdir_short() . '/hot.sql';
append_to_file($script, <<'SQL');
\set id random(1, 8)
\set what random(1, 10)
\set nr random(1, 1000000000)
\if :what <= 6
UPDATE hot SET v = v + 1, who = :node || :client_id WHERE id = :id;
\elif :what <= 8
INSERT INTO hot VALUES (:id, 1, :node || :client_id) ON CONFLICT (id) DO UPDATE SET v = hot.v + 100, who = excluded.who;
\else
BEGIN;
DELETE FROM hot WHERE id = :id;
INSERT INTO trail VALUES (:node || '-' || :client_id || '-' || :nr, :id) ON CONFLICT DO NOTHING;
COMMIT;
\endif
SQL

my @run;
foreach my $node (@nodes)
{
	my ($out, $err) = ('', '');
	my $timer = IPC::Run::timeout(5 * $PostgreSQL::Test::Utils::timeout_default);
	push @run, { node => $node, out => \$out, err => \$err,
		h => IPC::Run::start([ 'pgbench', '-n', '-c', 15, '-j', 2, '-t', 300, '-f', $script, '-D', "node='" . $node->name . "'",
			'-h', $node->host, '-p', $node->port, 'app' ], '>', \$out, '2>', \$err, $timer) };
}
foreach my $run (@run)
{
	ok($run->{h}->finish, 'no client of ' . $run->{node}->name . ' is refused') or diag ${ $run->{err} };
	like(${ $run->{out} }, qr{actually processed: 4500/4500}, 'all transactions went through');
}
ok(wait_synced(@nodes), 'and then all has arrived');
same_rows($_, \@nodes) foreach qw(hot trail);
note($_->name . ":\n" . conflicts($_)) foreach @nodes;
# rows that only one side writes are never lost in the crowd
is(sql($a, q{SELECT count(*) FROM trail WHERE id LIKE 'aaa02%'}), sql($b, q{SELECT count(*) FROM trail WHERE id LIKE 'aaa02%'}), 'every trail is kept');

# A quiet end: one more write of each row wins everywhere.
sql($b, "INSERT INTO hot SELECT i, -1, 'end' FROM generate_series(1, 8) i ON CONFLICT (id) DO UPDATE SET v = -1, who = 'end'");
wait_synced(@nodes);
is(sql($a, "SELECT count(*) FROM hot WHERE v = -1 AND who = 'end'"), 8, 'a later write stands');

finish(\@nodes, qr/deadlock detected|lock timeout|could not serialize/, qw(hot trail));
