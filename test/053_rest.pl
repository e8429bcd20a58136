# A pair that has nothing to do rests: no WAL, no batches to and fro. What wakes it wakes it at once; what waits is told of,
# also while nothing can be sent; nobody holds dead rows alive while he waits for his peer; a server that crashes is not pressed.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "autovacuum = off\ncheckpoint_timeout = 1h\nmmrepl.lock_timeout = 0\n";
my ($a, $b) = my @nodes = map { new_node($_, link => 1, conf => $conf . "mmrepl.heartbeat_interval = 100\n") } qw(aaa01 aaa02);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, v text)}, @nodes);
join_nodes(\@nodes);
sql($_, "INSERT INTO t VALUES (@{[ $_ == $a ? 1 : 2 ]}, 'first')") foreach @nodes;
wait_synced(@nodes);

# Thirty heartbeats in which nothing is written on both sides.
my $lsn = 'SELECT pg_current_wal_insert_lsn()';
my $quiet = 0;
foreach my $try (1 .. 20)
{
	my ($from, @before) = (sql($a, 'SELECT now()'), map { sql($_, $lsn) } @nodes);
	poll($a, "SELECT clock_timestamp() > '$from'::timestamptz + interval '3 s'");
	$quiet = "@before" eq join ' ', map { sql($_, $lsn) } @nodes;
	last if $quiet;
}
ok($quiet, 'an idle pair writes no WAL');
my $batches = q{SELECT sum(batches) FROM mmrepl.peer_lag};
my @sent = map { sql($_, $batches) } @nodes;
sql($a, "INSERT INTO t VALUES (3, 'again')");
poll_is($b, 'SELECT count(*) = 1 FROM t WHERE id = 3', 't', 'it wakes up');
poll_is($a, 'SELECT count(*) = 0 FROM mmrepl.change_log', 't', 'and hears that its log can go');
note('batches for one change: ' . join ', ', map { sql($nodes[$_], $batches) - $sent[$_] } 0, 1);

# From here on only what wakes a worker moves it.
foreach my $node (@nodes)
{
	$node->append_conf('postgresql.conf', "mmrepl.heartbeat_interval = 3600000\n");
	$node->reload;
}
sql($a, "INSERT INTO t VALUES (4, 'x')");
poll_is($b, 'SELECT count(*) = 1 FROM t WHERE id = 4', 't', 'a commit is sent without a heartbeat');
sql($a, "BEGIN; INSERT INTO t VALUES (5, 'prepared'); PREPARE TRANSACTION 'p'");
sql($a, "INSERT INTO t VALUES (6, 'x')");
poll_is($b, 'SELECT count(*) = 1 FROM t WHERE id = 6', 't', 'a prepared transaction holds up nobody');
sql($a, "COMMIT PREPARED 'p'");
poll_is($b, 'SELECT count(*) = 1 FROM t WHERE id = 5', 't', 'COMMIT PREPARED is sent at once');
sql($a, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'mmrepl push%'});
poll_is($b, q{SELECT last_bad IS NOT NULL AND pid > 0 AND state = 'good' FROM mmrepl.worker_status WHERE kind = 'pusher'}, 't',
	'a connection that ends is noticed at once, and made again');

# What waits, while it cannot be sent.
my $pending = q{SELECT pending FROM mmrepl.peer_lag WHERE direction = 'to'};
sql($a, q{SELECT mmrepl.pause('sync')});
sql($a, "INSERT INTO t SELECT i, 'paused' FROM generate_series(1001, 1500) i");
poll_is($a, $pending, 500, 'paused: what waits is counted');
sql($a, "INSERT INTO t SELECT i, 'paused' FROM generate_series(1501, 1700) i");
poll_is($a, $pending, 700, 'and what comes on top');
sql($a, q{SELECT mmrepl.resume('sync')});
poll_is($b, "SELECT count(*) = 700 FROM t WHERE v = 'paused'", 't', 'it is sent when the sync is resumed');
poll_is($a, $pending, 0, 'then nothing waits');
$b->{mmrepl_link}->cut;
sql($a, "INSERT INTO t SELECT i, 'away' FROM generate_series(2001, 2300) i");
poll_is($a, $pending, 300, 'the peer is away: what waits is counted');
sql($a, "INSERT INTO t SELECT i, 'away' FROM generate_series(2301, 2400) i");
poll_is($a, $pending, 400, 'and what comes on top');
$b->{mmrepl_link}->heal;
poll_is($b, "SELECT count(*) = 400 FROM t WHERE v = 'away'", 't', 'it comes back and gets it');

# The peer is slow: nothing is held here meanwhile.
my $blocker = session($b);
$blocker->query_safe('BEGIN; SELECT * FROM t WHERE id = 4 FOR UPDATE');
sql($a, "UPDATE t SET v = 'waits' WHERE id = 4");
poll($b, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name LIKE 'mmrepl push%' AND wait_event_type = 'Lock'});
poll_is($a, q{SELECT w.state = 'pushing' AND a.backend_xmin IS NULL AND a.backend_xid IS NULL AND a.xact_start IS NULL
	FROM mmrepl.worker_status w JOIN pg_stat_activity a USING (pid) WHERE w.kind = 'pusher'}, 't',
	'no snapshot is held while the peer applies');
$blocker->query_safe('COMMIT');
$blocker->quit;
poll_is($b, "SELECT v = 'waits' FROM t WHERE id = 4", 't', 'it gets through');
same_rows('t', \@nodes);

# Many small transactions, one after the other: batches follow each other at batch_delay, and who asks does not wait for it.
my %sent;
foreach my $delay (0, 1000)
{
	$a->append_conf('postgresql.conf', "mmrepl.batch_delay = $delay\n");
	$a->reload;
	poll($a, "SELECT setting = '$delay' FROM pg_settings WHERE name = 'mmrepl.batch_delay'");
	my $before = sql($b, $batches);
	my $script = join '', map { "INSERT INTO t VALUES ($_, 'small $delay');\n" } map { 10000 + 3000 * !$delay + $_ } 1 .. 3000;
	is(sql($a, "SET synchronous_commit = off;\n$script SELECT mmrepl.wait_for_sync('sync')"), 't', "batch_delay $delay: all of it gets through");
	is(sql($b, "SELECT count(*) FROM t WHERE v = 'small $delay'"), 3000, 'by the time it says so');
	$sent{$delay} = sql($b, $batches) - $before;
}
note("batches: $sent{0} without a delay, $sent{1000} with one");
cmp_ok($sent{1000} * 3, '<', $sent{0}, 'few batches with a long delay');

# A crash: workers wait before they start again. A start by hand waits for nothing.
$a->append_conf('postgresql.conf', "mmrepl.restart_delay = 3000000\n");
$a->reload;
poll($a, q{SELECT setting = '3000000' FROM pg_settings WHERE name = 'mmrepl.restart_delay'});
my $from = -s $a->logfile;
kill_worker($a, 'pusher');
ok(log_like($a, qr/replication starts again in \d+ ms/, $from), 'after a crash replication takes its time');
sql($a, "INSERT INTO t VALUES (7, 'after the crash')");
is(sql($a, q{SELECT count(*) FROM mmrepl.worker_status WHERE kind = 'pusher' AND pid > 0}), 0, 'users can work meanwhile');
$a->append_conf('postgresql.conf', "mmrepl.restart_delay = 100\nmmrepl.heartbeat_interval = 200\n");
$a->restart;
poll_is($b, 'SELECT count(*) = 1 FROM t WHERE id = 7', 't', 'a restart by hand starts it at once');
finish(\@nodes, qr/could not connect|connection|terminating|crash of another/, 't');
