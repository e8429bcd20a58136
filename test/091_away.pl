# Three nodes of which one is away, or two cannot reach each other. One that is down holds up nobody: the others go on and end equal, and their
# logs keep what it needs and nothing else. Where only the way between two is cut, the third, which both reach, hands on nothing of a source that
# is there: they get it when the way is open again. Would pass wrongly if nothing was cut, or nothing purged: looked at.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my $conf = "mmrepl.heartbeat_interval = 100\nmmrepl.segment_size = 64\n";
my ($one, $two, $three) = my @all = map { new_node($_, link => 1, conf => $conf) } qw(aaa01 aaa02 aaa03);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE z (id int PRIMARY KEY, v text); CREATE TABLE pair (id int PRIMARY KEY)}, @all);
join_nodes(\@all, exclude => ['pair']);
sql($one, q{SELECT mmrepl.add_table('pair', relgroup => 'two'); SELECT mmrepl.add_sync('two', relgroup => 'two', dbs => '{aaa01:source,aaa02:source}')});
sql($one, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 100) g; INSERT INTO z SELECT g, 'before' FROM generate_series(1, 20) g");
wait_synced(@all);
my $log = 'SELECT count(*) FROM mmrepl.change_log';
poll_is($_, $log, 0, 'log of ' . $_->name . ' is empty at first') foreach @all;

# One is down.
kill_postmaster($three);
sql($one, "UPDATE t SET v = 'one' WHERE id <= 10; DELETE FROM t WHERE id = 20; TRUNCATE z");
sql($two, "UPDATE t SET v = 'two' WHERE id BETWEEN 6 AND 15; DELETE FROM t WHERE id = 21");
poll_is($two, "SELECT count(*) FROM z", 0, 'the second hears the first');
poll_is($one, "SELECT count(*) FROM t WHERE id = 21", 0, 'and the first the second');
sql($two, "INSERT INTO z VALUES (1, 'after')");
poll_is($one, "SELECT count(*) FROM z", 1, 'while the third is down');
same_rows($_, [ $one, $two ]) foreach qw(t z);
# what does not concern the third goes, what does stays
write_until_purged($one, 'pair');
pass('what the one that is down does not need goes');
cmp_ok(sql($_, "$log WHERE tablename IN ('t', 'z')"), '>=', 20, 'what it needs is kept by ' . $_->name) foreach $one, $two;
poll_is($one, "SELECT bool_or(pending > 0) FROM mmrepl.peer_lag WHERE peer = 'aaa03' AND direction = 'to'", 't', 'peer_lag tells');
start_again($three);
wait_synced(@all);
same_rows($_, \@all) foreach qw(t z);
is(sql($three, "SELECT string_agg(id || v, ',') FROM z"), '1after', 'the third took the TRUNCATE and what came after it');
same_rows('pair', [ $one, $two ]);
poll_is($_, $log, 0, 'log of ' . $_->name . ' drains when it is back') foreach @all;

# The way between two is cut, both reach the third.
my $cut = sub { $one->{mmrepl_link}->cut($two); $two->{mmrepl_link}->cut($one) };
my $heal = sub { $_->{mmrepl_link}->heal foreach @all };
$cut->();
sql($one, "UPDATE t SET v = 'older' WHERE id IN (30, 31, 32); INSERT INTO t VALUES (200, 'of one'); INSERT INTO z VALUES (50, 'older than the TRUNCATE')");
poll_is($three, "SELECT v FROM t WHERE id = 200", 'of one', 'the third has what the first wrote');
sql($two, "UPDATE t SET v = 'newer' WHERE id = 30; DELETE FROM t WHERE id = 31; DELETE FROM t WHERE id = 32; INSERT INTO t VALUES (32, 'again'); INSERT INTO t VALUES (201, 'of two'); TRUNCATE z");
poll_is($three, "SELECT count(*) FROM t WHERE id = 201", 1, 'and what the second wrote');
poll_is($three, "SELECT count(*) FROM z", 0, 'and its TRUNCATE');
sql($three, "INSERT INTO z VALUES (60, 'newer than the TRUNCATE'); DELETE FROM t WHERE id = 40; INSERT INTO t VALUES (202, 'of three')");
poll_is($_, 'SELECT count(*) FROM t WHERE id = 202', 1, $_->name . ' hears the third') foreach $one, $two;
is(sql($one, 'SELECT count(*) FROM t WHERE id = 201'), 0, 'the third hands on nothing of the second, which is there');
is(sql($two, 'SELECT count(*) FROM t WHERE id = 200'), 0, 'nor of the first');
is(sql($one, "SELECT count(*) FROM z WHERE id = 60"), 1, 'a row newer than a TRUNCATE that has not come is there');
# a crash of each meanwhile changes nothing
foreach my $node (@all)
{
	kill_postmaster($node);
	start_again($node);
}
cmp_ok(sql($three, $log), '>', 0, 'the third keeps it: one of them may be lost');
is(sql($two, 'SELECT count(*) FROM t WHERE id = 200'), 0, 'after a crash of each, too');
$heal->();
wait_synced(@all);
is(sql($_, "SELECT string_agg(id || v, ',' ORDER BY id) FROM t WHERE id IN (30, 31, 32, 40, 200, 201, 202)"),
	'30newer,32again,200of one,201of two,202of three', 'nothing rises from the dead on ' . $_->name) foreach @all;
is(sql($_, "SELECT string_agg(id || v, ',') FROM z"), '60newer than the TRUNCATE', 'the TRUNCATE came late, and took what was older on ' . $_->name) foreach @all;
same_rows($_, \@all) foreach qw(t z);
poll_is($_, $log, 0, 'log of ' . $_->name . ' drains when they meet again') foreach @all;

# One after the other is away and late: each deletes what another changes.
foreach my $i (0 .. 2)
{
	my ($late, $x, $y) = @all[ $i, ($i + 1) % 3, ($i + 2) % 3 ];
	$_->{mmrepl_link}->cut($late) foreach $x, $y;
	my $k = 1000 + 10 * $i;
	sql($late, "UPDATE t SET v = 'late' WHERE id BETWEEN 50 AND 52; INSERT INTO t VALUES ($k, 'late'), ($k + 1, 'late')");
	sql($x, "DELETE FROM t WHERE id = 50; DELETE FROM t WHERE id = 51");
	poll($y, 'SELECT count(*) = 0 FROM t WHERE id IN (50, 51)');
	sql($y, "INSERT INTO t VALUES (51, 'by ' || $i); INSERT INTO t VALUES ($k, 'newer')");
	poll($x, "SELECT count(*) = 2 FROM t WHERE id = 51 OR id = $k");
	is(sql($x, "SELECT count(*) FROM t WHERE id = $k + 1"), 0, $late->name . ' is not heard');
	$heal->();
	wait_synced(@all);
	is(sql($_, "SELECT string_agg(id || v, ',' ORDER BY id) FROM t WHERE id BETWEEN 50 AND 52 OR id BETWEEN $k AND $k + 1"),
		"51by $i,52late,${k}newer,@{[ $k + 1 ]}late", $late->name . ' late: the same on ' . $_->name) foreach @all;
	sql($one, "INSERT INTO t VALUES (50, 'back')");
	wait_synced(@all);
}
poll_is($_, $log, 0, 'and the log of ' . $_->name . ' drains') foreach @all;
finish(\@all, qr/could not connect|connection|server closed|terminat|cannot be reached|could not receive|not joined yet|applied meanwhile/, qw(t z));
