# Risk: a target hears of two sources one after the other, and rows collide there that never did at the sources, or did and were settled otherwise: what it
# then takes away nobody sends again. Method: the sources are cut apart, the target hears both. Would pass wrongly if nothing had collided there: looked at.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my $conf = "mmrepl.heartbeat_interval = 200\n";
my ($one, $two, $report) = my @all = map { new_node($_, link => 1, conf => $conf) } qw(aaa01 aaa02 report);
sql_all('CREATE TABLE t (id int PRIMARY KEY, u text UNIQUE, v text)', @all);
join_nodes(\@all, roles => { report => 'target' });
sql($one, "INSERT INTO t VALUES (50, 'stable', 'before'), (51, 'moves', 'before')");
wait_synced(@all);
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' is empty') foreach @all;

# apart: the values meet at the target alone
$_->{mmrepl_link}->cut($_ == $one ? $two : $one) foreach $one, $two;
sql($two, "INSERT INTO t VALUES (7, 'x', 'older'), (9, 'y', 'older'); UPDATE t SET u = 'moved' WHERE id = 51; INSERT INTO t VALUES (52, 'moves', 'two')");
poll_is($report, 'SELECT count(*) FROM t WHERE id IN (7, 9, 52)', 3, 'the target has those of one source');
sql($one, "INSERT INTO t VALUES (1, 'x', 'newer'), (2, 'y', 'newer')");
poll_is($report, 'SELECT count(*) FROM t WHERE id IN (1, 2)', 2, 'and those of the other');
is(sql($report, 'SELECT count(*) FROM t WHERE id IN (7, 9)'), 0, 'which are newer');
sql($two, "UPDATE t SET v = 'touched' WHERE id = 9");
poll_is($report, "SELECT count(*) FROM t WHERE id = 9 AND v = 'touched'", 1, 'the newest stands');
# one goes out of the way before the sources meet, the other does not
sql($one, "UPDATE t SET u = 'z' WHERE id = 1");
poll_is($report, "SELECT u FROM t WHERE id = 1", 'z', 'it has gone');
poll_is($report, "SELECT count(*) FROM t WHERE id = 7", 1, 'and the other comes back');
$_->{mmrepl_link}->heal foreach $one, $two;
wait_synced(@all);
poll_is($_, "SELECT string_agg(id || u, ',' ORDER BY id) FROM t", '1z,7x,9y,50stable,51moved,52moves', 'so it is on ' . $_->name) foreach @all;
poll_is($report, 'SELECT count(*) FROM mmrepl.apply_error', 0, 'nothing stands aside');
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' drains') foreach @all;
cmp_ok(sql($report, "SELECT count(*) FROM mmrepl.conflict_history"), '<', 12, 'nor is it told again and again');
finish(\@all, qr/connection|terminating|server closed|could not connect/, 't');
