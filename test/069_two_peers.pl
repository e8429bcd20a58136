# Two peers' batches are applied at once, and speak of the same keys. A key that neither finds here is the point: what is
# not there cannot be locked, so the one that deletes it and the one that inserts it do not meet in the table. A trigger that
# is fired for replicas holds either of them at a chosen point (an advisory lock); nothing here depends on time.
use strict;
use warnings;
use MmreplCluster;
use MmreplGates;
use PostgreSQL::Test::Utils;
use Test::More;

my ($a, $b, $c) = my @nodes = map { new_node($_, conf => "mmrepl.lock_timeout = '120s'\n") } qw(aaa01 aaa02 aaa03);
sql_all(q{CREATE TABLE mark (id text PRIMARY KEY, n int);
	INSERT INTO mark SELECT unnest('{aaa01,aaa02,aaa03}'::text[]), 0;
	CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, v text);
	CREATE TABLE z (id int PRIMARY KEY, gate int)}, @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);
my $gates = MmreplGates->new(@nodes);
$gates->traps($c);

# b's write is the older one, a's delete the newer; c has neither, and hears of both at once. $first: whose batch ends first.
my $id = 0;
my $careful = 0;
sub race
{
	my ($name, $older, $newer, $first) = @_;
	$id++;
	s/\bK\b/$id/g foreach $older, $newer;
	$gates->shut;
	sql($b, "BEGIN; $older; INSERT INTO z VALUES ($id, 8); COMMIT");
	sql($a, "BEGIN; $newer; INSERT INTO z VALUES (-$id, 7); COMMIT");
	$gates->hold(7, 8);
	$gates->go($a, $c);
	$gates->caught(7, "$name: the newer batch has been through the table");
	$gates->go($b, $c);
	$gates->caught(8, "$name: and so has the older one");
	$gates->release($first eq 'newer' ? 7 : 8);
	$first = $first eq 'newer' ? -$id : $id;
	poll_is($c, "SELECT count(*) > 0 FROM z WHERE id = $first", undef, "$name: one of them is committed");
	$gates->release($first < 0 ? 8 : 7);
	$gates->open;
	wait_synced(@nodes);
	same_rows('t', \@nodes, name => "$name: the same everywhere") if !$careful;
	is(sql($c, "SELECT count(*) FROM t WHERE id = $id"), 0, "$name: the delete stands");
	return;
}

my $brief = "INSERT INTO t VALUES (K, K, 'a'); DELETE FROM t WHERE id = K";
race("a delete of nothing, committed $_", "INSERT INTO t VALUES (K, K, 'b')", $brief, $_) foreach qw(older newer);
is(sql($c, 'SELECT count(*) FROM t'), 0, 'the deletes stand');

# the same where the newer batch has to be applied with care, and where two batches cross that do not matter to each other
sql($c, "ALTER TABLE t ADD CONSTRAINT good CHECK (v <> 'bad')");
$careful = 1;
race("with care, $_ first", "INSERT INTO t VALUES (K, K, 'b')", "$brief; INSERT INTO t VALUES (1000 + K, 1000 + K, 'bad')", $_) foreach qw(older newer);
$careful = 0;
sql($c, 'ALTER TABLE t DROP CONSTRAINT good');
poll_is($c, 'SELECT count(*) = 2 FROM t', undef, 'what could not be applied is, and nothing else is there');
my $log = -s $c->logfile;
race("other keys, $_ first", "INSERT INTO t VALUES (K, K, 'b'); DELETE FROM t WHERE id = K", "INSERT INTO t VALUES (500 + K, 500 + K, 'a'); DELETE FROM t WHERE id = 500 + K; INSERT INTO t VALUES (600 + K, 600 + K, 'a')", $_) foreach qw(older newer);
unlike(slurp_file($c->logfile, $log), qr/have been applied meanwhile/, 'nothing is done twice without need');

finish(\@nodes, qr/have been applied meanwhile|violates check constraint|connection to client lost|terminating connection|deadlock/, qw(t z));
