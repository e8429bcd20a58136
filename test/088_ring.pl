# A ring of syncs with makedelta: everything comes by two ways, and ends; one link is no more needed than another. And a db that
# hears by two ways of what a third hears by one.
use strict;
use warnings;
use MmreplCluster;
use MmreplDb;
use Test::More;

my $server = new_node('one', conf => "mmrepl.max_workers = 64\nmmrepl.heartbeat_interval = 100\n");
my ($a, $b, $c, $d, $e) = my @all = map { MmreplDb->new($server, $_, link => 1) } qw(a b c d e);

sql_all('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE multi (a int, b text, v text, PRIMARY KEY (a, b));
	CREATE TABLE local (id int PRIMARY KEY, v text); CREATE TABLE s (id serial PRIMARY KEY, v text)', @all);
sql($a, 'CREATE EXTENSION mmrepl');
sql($a, "SELECT mmrepl.add_db('" . $_->name . "', '" . conninfo($_) . "')") foreach @all;
sql($a, "SELECT mmrepl.add_table(x, relgroup => 'herd') FROM unnest('{t,multi}'::text[]) x; SELECT mmrepl.add_table('local', relgroup => 'here');
	SELECT mmrepl.add_all_sequences(relgroup => 'numbers'); SELECT mmrepl.add_table('s', relgroup => 'numbers')");

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

sql($a, "SELECT mmrepl.add_sync('$_->[0]$_->[1]', relgroup => 'herd', dbs => '{$_->[0]:source,$_->[1]:source}', makedelta => true)")
  foreach ([qw(a b)], [qw(b c)], [qw(c d)], [qw(d a)]);
sql($a, "INSERT INTO t VALUES (9001, 'before')");
settled();
my $n = 0;
foreach my $node ($a, $b, $c, $d)
{
	$n++;
	sql($node, "INSERT INTO t SELECT 1000000 * $n + g, 'ring' FROM generate_series(1, 100) g; UPDATE t SET v = 'ring by $n' WHERE id = 9001");
}
settled();
same_rows('t', [ $a, $b, $c, $d ]);
# no way is needed for itself
$d->{mmrepl_link}->cut;
sql($a, "UPDATE t SET v = 'the other way' WHERE id = 9001; INSERT INTO t VALUES (77, 'other')");
$c->{mmrepl_link}->cut;
poll($b, 'SELECT count(*) = 1 FROM t WHERE id = 77');
$c->{mmrepl_link}->heal;
poll($c, 'SELECT count(*) = 1 FROM t WHERE id = 77');
$d->{mmrepl_link}->heal;
settled();
same_rows('t', [ $a, $b, $c, $d ]);
drained('logs drain in a ring');
comes_to_rest([ $a, $b, $c, $d ], 'nothing goes round for ever');

# One who gets it by two ways, of which one knows tables that the other does not.
sql($a, "SELECT mmrepl.add_sync('ae', relgroup => 'herd', dbs => '{a:source,e:target}'); SELECT mmrepl.add_sync('be', relgroup => 'herd', dbs => '{b:source,e:target}');
	SELECT mmrepl.add_sync('here', relgroup => 'here', dbs => '{a:source,b:source,e:source}')");
sql($a, "INSERT INTO t SELECT 40000 + g, 'two ways' FROM generate_series(1, 100) g; INSERT INTO local VALUES (1, 'a')");
sql($c, "INSERT INTO t SELECT 41000 + g, 'two ways' FROM generate_series(1, 100) g");
sql($e, "INSERT INTO local VALUES (2, 'e')");
poll($e, "SELECT count(*) = 200 FROM t WHERE v = 'two ways'");
settled();
is(sql($e, "SELECT count(*) FROM t WHERE v = 'two ways'"), 200, 'all is there once');
same_rows('local', [ $a, $b, $e ]);
drained('logs drain everywhere');

# Sequences of several syncs: the numbers of dbs keep values apart.
sql($a, "SELECT mmrepl.add_sync('n1', relgroup => 'numbers', dbs => '{b:source,a:source}', makedelta => true);
	SELECT mmrepl.add_sync('n2', relgroup => 'numbers', dbs => '{c:source,b:source}', makedelta => true)");
sql($_, "INSERT INTO s (v) SELECT 'x' FROM generate_series(1, 10)") foreach ($a, $b, $c);
poll($_, 'SELECT count(*) = 30 FROM s') foreach ($a, $b, $c);
is(sql($_, 'SELECT count(*) FROM s'), 30, 'no value twice, says ' . $_->name) foreach ($a, $b, $c);

$server->stop;
log_clean($server, qr/could not connect|connection|terminat/);
done_testing();
