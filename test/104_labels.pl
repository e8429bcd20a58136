# Risk: a pusher that has nothing to send passes by what others wrote; when it then sends a row that is theirs, it takes it for its own: with
# the time of its own older write, which loses where it should win. Method: the log of who gets such a row tells whose it is taken for.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my $conf = "mmrepl.heartbeat_interval = 200\n";
my ($one, $two, $three) = my @all = map { new_node($_, link => 1, conf => $conf) } qw(aaa01 aaa02 aaa03);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text)', @all);
join_nodes(\@all);
sql($one, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 10) g");
wait_synced(@all);

# the second one's writes wait for the third, and what the first has written over them comes to the second only
$one->{mmrepl_link}->cut($two);
$three->{mmrepl_link}->cut;
my $from = sql($one, 'SELECT clock_timestamp()');
sql($two, "UPDATE t SET v = 'of two' WHERE id <= 4");
sql($one, "UPDATE t SET v = 'of one' WHERE id <= 2; INSERT INTO t SELECT g, 'many' FROM generate_series(1000, 6000) g");
poll_is($two, q{SELECT string_agg(v, ',' ORDER BY id) FROM t WHERE id <= 4}, 'of one,of one,of two,of two', 'the newer rows are there');
$one->stop;
$three->{mmrepl_link}->heal;
poll_is($three, q{SELECT string_agg(v, ',' ORDER BY id) FROM t WHERE id <= 4}, 'of one,of one,of two,of two', 'the second one hands them to the third');
my $whose = q{SELECT string_agg(DISTINCT key::text || ' ' || db || ' ' || author_db, ', ') FROM mmrepl.change_log WHERE tablename = 't' AND recorded AND at > '};
like(sql($three, "$whose$from'"), qr/^\{"id": 1\} aaa01 aaa01, \{"id": 2\} aaa01 aaa01, \{"id": 3\} aaa02 aaa02, \{"id": 4\} aaa02 aaa02$/, 'as whose they are');

# in a session that goes on: passed by, and then sent
sql($three, "UPDATE t SET v = 'of three' WHERE id = 5");
poll_is($two, 'SELECT v FROM t WHERE id = 5', 'of three', 'what the third writes is passed by');
sql($two, "UPDATE t SET v = 'of two again' WHERE id IN (5, 6)");
poll_is($three, q{SELECT string_agg(v, ',' ORDER BY id) FROM t WHERE id IN (5, 6)}, 'of two again,of two again', 'what is newer than that is sent');
$one->start;
$one->{mmrepl_link}->heal;
wait_synced(@all);
same_rows('t', \@all);
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' drains') foreach @all;
$_->stop foreach @all;
log_clean($_, qr/could not connect|connection|server closed|terminat/) foreach @all;
done_testing();
