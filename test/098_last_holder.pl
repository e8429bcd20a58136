# Risk: a db that comes back by rejoin forgets what it is the last to have of a db that is gone for good. Method: the second writes when only the third can
# hear it, is lost and removed; the third learns of that by its rejoin only. Would pass wrongly if the first had heard it: looked at before.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($one, $two, $three) = my @all = map { new_node($_, link => 1) } qw(aaa01 aaa02 aaa03);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text)', @all);
join_nodes(\@all);
sql($one, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 10) AS g");
sql($two, "INSERT INTO t VALUES (11, 'heard by all')");
wait_synced(@all);

$one->{mmrepl_link}->cut;
sql($two, "INSERT INTO t VALUES (5000, 'only the third has it'); UPDATE t SET v = 'likewise' WHERE id = 1");
poll_is($three, 'SELECT count(*) FROM t WHERE id = 5000', 1, 'the third has it');
sql($three, 'SELECT mmrepl.stop()');
poll_is($three, "SELECT count(*) FROM mmrepl.worker_status WHERE kind = 'pusher'", 0, 'and tells nobody');
$three->{mmrepl_link}->cut;
$two->stop('immediate');
$one->{mmrepl_link}->heal;
sql($one, "DELETE FROM t WHERE id = 11");
sql($one, "SELECT mmrepl.remove_db('aaa02', force => true)");
is(sql($one, 'SELECT count(*) FROM t WHERE id = 5000'), 0, 'the first has not');
is(sql($three, 'SELECT count(*) FROM mmrepl.db'), 3, 'the third has not heard that the second is gone');
$three->{mmrepl_link}->heal;
sql($three, 'SELECT mmrepl.rejoin(); SELECT mmrepl.start()');
poll_is($three, 'SELECT bool_or(closed) FROM mmrepl.syncs', 'f', 'it has come back');
poll_is($_, 'SELECT v FROM t WHERE id = 5000', 'only the third has it', 'what only it had is on ' . $_->name) foreach $one, $three;
wait_synced($one, $three);
is(sql($_, 'SELECT v FROM t WHERE id = 1'), 'before', 'of a row that is there the others\' stands, ' . $_->name) foreach $one, $three;
is(sql($three, q{SELECT local_row->>'v' FROM mmrepl.conflict_history WHERE key @> '{"id": 1}'}), 'likewise', 'and the history has the other');
is(sql($_, 'SELECT count(*) FROM t WHERE id = 11'), 0, 'what the first had heard and deleted stays away, ' . $_->name) foreach $one, $three;
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' drains') foreach $one, $three;
finish([ $one, $three ], qr/cannot be reached|could not connect|could not send|joins the sync|not joined yet|configuration has changed|is not in the configuration|terminating|connection|server closed|is stopped|another node by now|does not exist|WARNING|has departed/, 't');
