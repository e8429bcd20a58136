# Risk: a source is lost for good, and its last writes, which another source has, never reach a mere target: it tells nobody what it has, and
# its acknowledgements are of what that other source wrote. Method: only the way from the one to the target is cut. Would pass wrongly if the
# target had heard before, or the other source still had it all for somebody else: looked at; a log that drains afterwards is the other half.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my $conf = "mmrepl.heartbeat_interval = 200\nmmrepl.segment_size = 64\n";
my ($one, $two, $target) = my @all = map { new_node($_, link => 1, conf => $conf) } qw(aaa01 aaa02 report);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, v text); CREATE TABLE z (id int PRIMARY KEY, v text); CREATE TABLE s (id int PRIMARY KEY, v text)}, @all);
join_nodes(\@all, roles => { report => 'target' });
my $log = 'SELECT count(*) FROM mmrepl.change_log';
sql($one, "INSERT INTO t SELECT g, g, 'before' FROM generate_series(1, 100) g; INSERT INTO z SELECT g, 'before' FROM generate_series(1, 20) g");
wait_synced(@all);
poll_is($_, $log, 0, 'log of ' . $_->name . ' drains with a target and two sources') foreach @all;

# down for long, or cut off: the other source keeps what the target may never hear, also over a restart; the rest flows
$target->{mmrepl_link}->cut($one);
sql($one, "INSERT INTO t VALUES (200, 200, 'waits')");
poll_is($two, "SELECT v FROM t WHERE id = 200", 'waits', 'the other source has it');
sql($two, "INSERT INTO s VALUES (1, 'of the other')");
poll_is($target, 'SELECT count(*) FROM s', 1, 'the target hears the other source');
poll_is($one, 'SELECT count(*) FROM s', 1, 'and so does the first');
$two->restart;
sql($two, "INSERT INTO s SELECT g, 'more' FROM generate_series(2, 100) g");
poll_is($target, 'SELECT count(*) FROM s', 100, 'the target hears the other source after a restart');
write_until_purged($two, 's');
is(sql($target, 'SELECT count(*) FROM t WHERE id = 200'), 0, 'the target lacks it');
cmp_ok(sql($two, $log), '>', 0, 'the other source keeps what the target lacks');
$target->{mmrepl_link}->heal;
poll_is($target, "SELECT v FROM t WHERE id = 200", 'waits', 'it comes when the way is open again');
poll_is($_, $log, 0, 'and then the log of ' . $_->name . ' drains') foreach @all;

# lost for good: rows, deletes, a key that changes, unique values, TRUNCATE
$target->{mmrepl_link}->cut($one);
sql($one, "UPDATE t SET v = 'last words' WHERE id <= 10; DELETE FROM t WHERE id = 11; UPDATE t SET id = 300 WHERE id = 12; UPDATE t SET u = 400 WHERE id = 13;
	INSERT INTO t VALUES (201, 13, 'new'); TRUNCATE z; INSERT INTO z VALUES (1, 'after')");
poll_is($two, "SELECT v FROM t WHERE id = 201", 'new', 'the other source has the last words');
poll_is($two, "SELECT count(*) FROM z", 1, 'and the TRUNCATE');
sql($two, "INSERT INTO z VALUES (5, 'newer than the TRUNCATE'); UPDATE t SET v = 'newer than the last words' WHERE id = 9");
poll_is($target, "SELECT v FROM t WHERE id = 9", 'newer than the last words', 'the target has what is newer than the last words');
write_until_purged($two, 's');
is(sql($target, "SELECT count(*) FROM t WHERE v = 'last words' OR id IN (201, 300)"), 0, 'the target has not heard the last words');
is(sql($target, "SELECT count(*) FROM z WHERE v = 'before'"), 19, 'nor of the TRUNCATE');
kill_postmaster($one);
# what has been acknowledged between the two who are left stays until the target has it
sql($two, "INSERT INTO s VALUES (-1, 'alone')");
poll_is($target, 'SELECT count(*) FROM s WHERE id = -1', 1, 'the other source goes on');
remove_node($two, $one, force => 1);
poll_is($target, "SELECT v FROM t WHERE id = 201", 'new', 'the last words reach the target');
wait_synced($two);
is(sql($target, "SELECT count(*) FROM t WHERE v = 'last words'"), 9, 'all of them');
is(sql($target, 'SELECT count(*) FROM t WHERE id IN (11, 12)'), 0, 'deletes, and keys that changed');
is(sql($_, "SELECT string_agg(id || v, ',' ORDER BY id) FROM z"), '1after,5newer than the TRUNCATE', 'the TRUNCATE spares what is newer on ' . $_->name) foreach $two, $target;
same_rows($_, [ $two, $target ]) foreach qw(t z s);
poll_is($_, $log, 0, 'log of ' . $_->name . ' drains') foreach $two, $target;

foreach my $node ($two, $target)
{
	$node->stop;
	log_clean($node, qr/could not connect|connection|server closed|terminat|has departed|configuration has changed|is not in the configuration/);
}
done_testing();
