# An initial copy that is asked for again brings a row that another peer deletes at the same moment. At the db that gets both the
# row is not there, so the delete has nothing to hold, and the copy's row has no version that the delete's session would find
# in the log. A trigger that is fired for replicas holds either of them (an advisory lock); nothing here depends on time.
use strict;
use warnings;
use MmreplCluster;
use MmreplGates;
use Test::More;

my ($a, $b, $c) = my @nodes = map { new_node($_, conf => "mmrepl.lock_timeout = '120s'\n") } qw(aaa01 aaa02 aaa03);
sql_all(q{CREATE TABLE mark (id text PRIMARY KEY, n int);
	INSERT INTO mark SELECT unnest('{aaa01,aaa02,aaa03}'::text[]), 0;
	CREATE TABLE t (id int PRIMARY KEY, v text);
	CREATE TABLE z (id int PRIMARY KEY, gate int)}, @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);
sql($a, q{INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 100) AS i; INSERT INTO z VALUES (0, 7)});
wait_synced(@nodes);
my $gates = MmreplGates->new(@nodes);
$gates->traps($c);

my $id = 0;
foreach my $first ('the delete', 'the copy')
{
	$id++;
	# c has lost everything; what is there elsewhere is known to all, and in no log
	poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'nothing is unstable at ' . $_->name) foreach @nodes;
	sql($c, 'SET session_replication_role = replica; DELETE FROM t; DELETE FROM z');
	$gates->shut;
	$gates->hold(7, 8);
	sql($b, "BEGIN; DELETE FROM t WHERE id = $id; INSERT INTO z VALUES ($id, 8); COMMIT");
	$gates->go($b, $c);
	$gates->caught(8, "$first first: b's delete has found nothing");
	sql($a, q{SELECT mmrepl.update_sync('sync', onetimecopy => 2)});
	$gates->go($a, $c);
	$gates->caught(7, 'and the copy has brought the row');
	my ($one, $other) = $first eq 'the delete' ? (8, 7) : (7, 8);
	$gates->release($one);
	poll_is($c, $one == 8 ? "SELECT count(*) = 1 FROM z WHERE id = $id" : 'SELECT count(*) > 90 FROM t', undef, "$first is committed");
	$gates->release($other);
	$gates->open;
	wait_synced(@nodes);
	poll_is($c, "SELECT count(*) = 100 - $id FROM t", undef, 'the copy is there');
	is(sql($c, "SELECT count(*) FROM t WHERE id = $id"), 0, 'the delete stands');
	same_rows($_, \@nodes, name => "$_ is the same everywhere") foreach qw(t z);
	sql($a, "UPDATE z SET gate = 7");
	wait_synced(@nodes);
}
$gates->end;

finish(\@nodes, qr/have been applied meanwhile|configuration has changed|connection to client lost|terminating connection|joins the sync|stopped at the receiver/, qw(t z));
