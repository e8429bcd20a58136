# The change log through what happens to a server: restarts, prepared transactions, maintenance, its clock set right,
# a peer that is away for long, a table that leaves its sync.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my $conf = "mmrepl.segment_size = 64\nmmrepl.heartbeat_interval = 100\nmmrepl.max_log_size = 0\n";
my ($a, $b) = my @nodes = map { new_node($_, link => 1, conf => $conf) } qw(aaa01 aaa02);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, v text)}, @nodes);
sql_all(q{CREATE TABLE n (realm numeric, name text, v text, PRIMARY KEY (realm, name))}, @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);

my $size = q{SELECT coalesce(sum(pg_relation_size(inhrelid)), 0) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass};
my $used = q{SELECT count(*) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass AND pg_relation_size(inhrelid) > 0};

# The log lies in several segments when the server stops, one way and the other, with a prepared transaction in it.
sql($a, "BEGIN; INSERT INTO t SELECT -i, 'prepared' FROM generate_series(1, 3000) i; PREPARE TRANSACTION 'p'");
$b->{mmrepl_link}->cut;
my $rounds = 0;
while ($rounds < 100 && sql($a, $used) < 3)
{
	sql($a, 'INSERT INTO t SELECT ' . $rounds++ . " * 10000 + i, 'a' FROM generate_series(1, 5000) i");
}
cmp_ok(sql($a, $used), '>=', 3, 'the log goes on in other segments');
my $entries = sql($a, 'SELECT count(*) FROM mmrepl.change_log');
$a->stop('immediate');
$a->start;
is(sql($a, 'SELECT count(*) FROM mmrepl.change_log'), $entries, 'a crash takes nothing from the log');
$a->restart;
is(sql($a, 'SELECT count(*) FROM mmrepl.change_log'), $entries, 'a restart neither');

# Maintenance by hand does not harm it.
sql($a, "VACUUM (FULL, SKIP_LOCKED) mmrepl.log_$_") foreach 0 .. 15;
sql($a, "VACUUM (FREEZE, SKIP_LOCKED) mmrepl.log_$_") foreach 0 .. 15;
is(sql($a, 'SELECT count(*) FROM mmrepl.change_log'), $entries, 'nor does VACUUM, FULL or not');

sql($b, "INSERT INTO t SELECT -10000 - i, 'b' FROM generate_series(1, 2000) i");
$b->{mmrepl_link}->heal;
wait_synced(@nodes);
sql($a, "COMMIT PREPARED 'p'");
wait_synced(@nodes);
is(sql($b, "SELECT count(*) FROM t WHERE v = 'prepared'"), 3000, 'what was prepared before the restarts arrives');
same_rows('t', \@nodes);
poll_is($_, $size, 0, 'the log drains on ' . $_->name) foreach @nodes;

# Keys of several columns of which some are equal and look different, written on both sides at once.
$b->{mmrepl_link}->cut;
sql($a, "INSERT INTO n SELECT 1.0, 'u' || i, 'a' FROM generate_series(1, 20000) i");
sql($b, "INSERT INTO n SELECT 1.00, 'u' || i, 'b' FROM generate_series(10001, 30000) i");
$b->{mmrepl_link}->heal;
wait_synced(@nodes);
same_rows('n', \@nodes);
is(sql($a, 'SELECT count(*) FROM n'), 30000, 'equal keys met');

# A clock that was ahead, and is set right: what is written then is newer than what was, although the log is empty.
poll_is($_, $size, 0, 'the log drains on ' . $_->name) foreach @nodes;
my $latest = sql($a, 'SELECT max_ts FROM mmrepl.clock');
cmp_ok($latest, '>', 0, 'the time of what has left the log is kept');
sql($a, 'UPDATE mmrepl.clock SET max_ts = max_ts + 30000000');
$a->restart;
$b->{mmrepl_link}->cut;
sql($a, "UPDATE t SET v = 'after' WHERE id = 1");
is(sql($a, "SELECT bool_and(extract(epoch FROM at - '2000-01-01 00:00+00'::timestamptz) * 1000000 > $latest + 30000000) FROM mmrepl.change_log"), 't',
	'after a restart versions are above it');
$b->{mmrepl_link}->heal;
wait_synced(@nodes);
same_rows('t', \@nodes);

# A table that leaves its sync holds nothing.
$b->{mmrepl_link}->cut;
sql($a, "UPDATE n SET v = 'left'");
cmp_ok(sql($a, $size), '>', 0, 'the log holds what a peer has not got');
$b->{mmrepl_link}->heal;
sql($a, "SELECT mmrepl.remove_sync('sync')");
poll_is($_, $size, 0, 'without a sync it drains on ' . $_->name) foreach @nodes;
$_->stop foreach @nodes;
# a pusher may come once more when the sync is gone there
log_clean($_, qr/could not connect|connection|does not replicate/) foreach @nodes;
done_testing();
