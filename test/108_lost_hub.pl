# Risk: the hub of a star is lost for good with what it had not handed on: what the operator is told, and is to do then, does not lead to equal dbs.
# Method: the ways from the hub to two of three leaves are cut. Would pass wrongly if those leaves had heard: looked at.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my $conf = "mmrepl.heartbeat_interval = 200\n";
my ($hub, $one, $two, $three) = my @all = map { new_node($_, link => 1, conf => $conf) } qw(centre north south west);
my @leaves = ($one, $two, $three);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text)', @all);
join_nodes(\@all, roles => { centre => 'hub' });
sql($hub, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 20) g");
wait_synced($hub);

$_->{mmrepl_link}->cut($hub) foreach $two, $three;
sql($hub, "UPDATE t SET v = 'of the hub' WHERE id <= 3; INSERT INTO t VALUES (100, 'of the hub')");
sql($one, "UPDATE t SET v = 'of a leaf' WHERE id = 4; INSERT INTO t VALUES (101, 'of a leaf'); DELETE FROM t WHERE id = 5");
poll_is($one, 'SELECT v FROM t WHERE id = 100', 'of the hub', 'one leaf has what the hub wrote');
poll_is($hub, 'SELECT v FROM t WHERE id = 101', 'of a leaf', 'the hub has what that leaf wrote');
is(sql($_, q{SELECT count(*) FROM t WHERE v <> 'before'}), 0, $_->name . ' has nothing of it') foreach $two, $three;
kill_postmaster($hub);
my ($result, $out, $err) = $one->psql('app', "SELECT mmrepl.remove_db('centre', force => true)");
is($result, 0, 'the hub is removed');
like($err, qr/WARNING:  db "centre" was the hub of sync "sync": what it had not handed on is where it was written/, 'and what that means is said');

# the leaves exchange with each other from now on
my $n = 200;
sql($_, "INSERT INTO t VALUES (@{[ ++$n ]}, 'afterwards')") foreach @leaves;
poll_is($_, q{SELECT count(*) FROM t WHERE v = 'afterwards'}, 3, $_->name . ' has what all write') foreach @leaves;
wait_synced(@leaves);
cmp_ok(sql($one, q{SELECT count(*) FROM mmrepl.compare_sync('sync')}), '>', 0, 'compare_sync tells of what differs');
cmp_ok(sql($one, q{SELECT mmrepl.repair_sync('sync')}), '>', 0, 'repair_sync writes it anew');
wait_synced(@leaves);
is(sql($_, q{SELECT string_agg(id || v, ',' ORDER BY id) FROM t WHERE v ~ '^of'}),
	'1of the hub,2of the hub,3of the hub,4of a leaf,100of the hub,101of a leaf', 'all of it is on ' . $_->name) foreach @leaves;
is(sql($_, 'SELECT count(*) FROM t WHERE id = 5'), 0, 'and the delete: ' . $_->name) foreach @leaves;
same_rows('t', \@leaves);
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' drains') foreach @leaves;
$_->stop foreach @leaves;
log_clean($_, qr/could not connect|connection|server closed|terminat|has departed|cannot be reached|configuration has changed|is not in the configuration|does not replicate/) foreach @leaves;
done_testing();
