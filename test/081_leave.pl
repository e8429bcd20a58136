# Risk: a source is lost, or taken out, and what it had sent to one only never reaches the others: they differ for ever, or what it truncated kills what
# is newer. Method: it writes while only one can hear it, dies, is removed; also alive, under load, and in the middle of a batch. Would pass wrongly if all had
# heard: looked at before.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $schema = q{
	CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, v text);
	CREATE TABLE s (id serial PRIMARY KEY, v text);
	CREATE TABLE z (id int PRIMARY KEY, v text)};
my ($one, $two, $three) = my @all = map { new_node($_, link => 1) } qw(aaa01 aaa02 aaa03);
sql_all($schema, @all);
join_nodes(\@all);
sql($one, "INSERT INTO t SELECT g, g, 'before' FROM generate_series(1, 100) AS g; INSERT INTO z SELECT g, 'before' FROM generate_series(1, 20) AS g");
wait_synced(@all);
my $quiet = 'SELECT count(*) FROM mmrepl.change_log';
poll_is($_, $quiet, 0, 'log of ' . $_->name . ' is empty at first') foreach @all;

# dead: its last writes reach the first only; one decides a unique conflict, one truncates
$two->{mmrepl_link}->cut;
sql($two, "INSERT INTO t VALUES (300, 500, 'loses its value to aaa03'), (301, 501, 'stays')");
sql($three, "UPDATE t SET v = 'last words' WHERE id <= 10; DELETE FROM t WHERE id = 11; INSERT INTO t VALUES (200, 200, 'new'); TRUNCATE z;
	INSERT INTO z VALUES (1, 'after')");
poll_is($one, "SELECT v FROM t WHERE id = 200", 'new', 'the first has the last words');
poll_is($one, "SELECT count(*) FROM z", 1, 'and the last TRUNCATE');
is(sql($two, "SELECT count(*) FROM t WHERE v = 'last words' OR id IN (200)"), 0, 'the second has not heard them');
sql($one, "INSERT INTO z VALUES (5, 'newer than the last TRUNCATE'); UPDATE t SET v = 'newer than the last words' WHERE id = 9");
poll_is($three, "SELECT count(*) FROM t WHERE id IN (300, 301)", 2, 'the second is heard by the third');
$three->stop('immediate');
like(sql_error($one, "SELECT mmrepl.remove_db('aaa03', timeout => 1)"), qr/could not connect.*HINT:.*force => true/s, 'a dead db is not removed without a word');
$two->{mmrepl_link}->heal;
remove_node($one, $three, force => 1);
poll_is($two, "SELECT v FROM t WHERE id = 200", 'new', 'the last words have reached the second');
wait_synced($one, $two);
is(sql($two, "SELECT count(*) FROM t WHERE v = 'last words'"), 9, 'all of them');
is(sql($_, "SELECT string_agg(id || v, ',' ORDER BY id) FROM z"), '1after,5newer than the last TRUNCATE', 'the TRUNCATE spares what is newer on ' . $_->name) foreach $one, $two;
is(sql($_, 'SELECT count(*) FROM t WHERE id = 11'), 0, 'a delete too') foreach $one, $two;
same_rows($_, [ $one, $two ]) foreach qw(t s z);
poll_is($_, $quiet, 0, 'log of ' . $_->name . ' drains') foreach $one, $two;
poll_is($_, 'SELECT count(*) FROM mmrepl.departed', 0, 'nothing is left to do on ' . $_->name) foreach $one, $two;
like(slurp_file($one->logfile), qr/node 3 has departed from sync "sync"/, 'the log tells of it');

# it comes back alive: nobody listens, and it learns that it is out
$three->start;
poll_is($three, 'SELECT node_id IS NULL FROM mmrepl.local_node', 't', 'it learns that it was removed');
cmp_ok(sql($three, "SELECT count(*) FROM t WHERE v = 'last words'"), '>=', 9, 'and keeps its rows');
sql($three, "INSERT INTO t VALUES (999, 999, 'for itself')");

# in again, under a new id, with the copy; and out again, alive, under load
add_node($two, $three, onetimecopy => 1, copy_from => 'aaa02');
poll_is($three, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied = 1', 1, 'it has joined again');
is(sql($three, 'SELECT node_id FROM mmrepl.local_node'), 4, 'under an id that nobody had');
my @load = map { start_load($_, "INSERT INTO s (v) VALUES ('" . $_->name . "'); UPDATE t SET v = '" . $_->name . "' WHERE id = 1 + floor(random() * 90)") } @all;
poll_is($_, "SELECT count(*) > 30 FROM s WHERE v = 'aaa03'", 't', 'the third writes, as ' . $_->name . ' sees') foreach @all;
sql($one, q{SELECT mmrepl.update_table('t', conflict_strategy => 'priority: aaa03, aaa01'); SELECT mmrepl.update_sync('sync', conflict_strategy => 'priority: aaa03')});
remove_node($one, $three);
is(sql($two, q{SELECT conflict_strategy FROM mmrepl.tables WHERE tablename = 't'}), 'priority: aaa01', 'and is named in no list of priorities');
is(sql($two, q{SELECT conflict_strategy FROM mmrepl.syncs}), 'latest', 'where it was the only one the newest stands');
is(sql($one, q{SELECT string_agg(v::text, ' ') FROM mmrepl.validate_sync('sync') v}), '', 'nothing is amiss');
ok(stop_load($_), 'no writer was refused') foreach @load;
is(sql($three, 'SELECT node_id IS NULL FROM mmrepl.local_node'), 't', 'it is out');
is(sql($three, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'mmrepl%'"), 0, 'without triggers');
is(sql($three, q{SELECT increment_by FROM pg_sequences WHERE sequencename = 's_id_seq'}), 1, 'and with its sequence as it was');
wait_synced($one, $two);
same_rows($_, [ $one, $two ]) foreach qw(t s z);
# rows of s that the third wrote while it took part carry values of its slot
my $mine = "SELECT string_agg(id::text, ',' ORDER BY id) FROM s WHERE v = 'aaa03' AND id % 10 = 3 AND id <= ";
my $last = sql($one, "SELECT max(id) FROM s WHERE v = 'aaa03'");
is(sql($one, $mine . $last), sql($three, $mine . $last), 'all that it wrote was delivered');
poll_is($_, $quiet, 0, 'log of ' . $_->name . ' drains') foreach $one, $two;

# in the middle of a batch; a table whose strategy names dbs that the joiner does not know yet is no obstacle
sql($three, 'TRUNCATE s, t, z');
add_node($one, $three);
poll_is($three, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied = 1', 1, 'it has joined once more');
wait_synced(@all);
$two->{mmrepl_link}->cut;
$one->{mmrepl_link}->budget(20000);
sql($three, "INSERT INTO t SELECT g, g, repeat('x', 100) FROM generate_series(1000, 9000) AS g");
poll_is($one, "SELECT state FROM mmrepl.worker_status WHERE kind = 'apply' AND db = 'aaa03'", 'applying', 'half a batch is there');
$three->stop('immediate');
$_->{mmrepl_link}->heal foreach $one, $two;
remove_node($two, $three, force => 1);
wait_synced($one, $two);
like(sql($one, 'SELECT count(*) FROM t WHERE id >= 1000'), qr/^(?:0|8001)$/, 'a batch is there as a whole or not at all');
finish([ $one, $two ], qr/could not connect|cannot be reached|terminating|connection|server closed|is not in the configuration|configuration has changed|joins the sync|not joined yet|WARNING|unknown format|does not exist|cannot be used|another configuration|wrong database|has departed|claims to be it/,
	qw(t s z));
