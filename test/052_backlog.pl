# A long backlog: a peer is away while the others go on. Closed segments of the log get indexes, and what is only found there
# decides as if it were in memory: updates, deletes, TRUNCATEs, keys that are equal and look different.
# BACKLOG=5000000 makes it long.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rows = $ENV{BACKLOG} // 200000;
my $kb = $rows > 1000000 ? 16384 : 256;
my $conf = "mmrepl.segment_size = $kb\nmmrepl.heartbeat_interval = 200\nmax_wal_size = 4GB\nlog_checkpoints = off\n"
  . "shared_preload_libraries = 'mmrepl'\n";
my ($a, $b, $c) = my @nodes = map { new_node($_, link => 1, conf => $conf) } qw(aaa01 aaa02 aaa03);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE n (id numeric, name text, v text, PRIMARY KEY (id, name));
	CREATE TABLE u (id int PRIMARY KEY, v text); CREATE TABLE w (id int PRIMARY KEY, v text)}, @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);

my $log = q{SELECT coalesce(sum(pg_relation_size(inhrelid)), 0) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass};
my $index = q{FROM pg_class WHERE relnamespace = 'mmrepl'::regnamespace AND relname ~ '^log_\d+_index$'};
my $indexes = "SELECT count(*) $index AND pg_relation_size(oid) > 0";

# Memory of mmrepl in a process, by name of the context: what the server's log says of it.
sub memory
{
	my ($node, $kind, $context) = @_;
	my $pid = worker_pid($node, $kind);
	my $from = -s $node->logfile;
	sql($node, "SELECT pg_log_backend_memory_contexts($pid)");
	log_like($node, qr/Grand total/, $from);
	my $sum = 0;
	$sum += $_ foreach substr(slurp_file($node->logfile), $from) =~ /\b$context: (\d+) total/g;
	return $sum;
}

# Everybody is there: however much goes by, no index is built.
sql($a, "INSERT INTO t SELECT i, 'first' FROM generate_series(1, 50000) i; INSERT INTO n SELECT i, 'x', 'first' FROM generate_series(1, 1000) i;
	INSERT INTO w SELECT i, 'first' FROM generate_series(1, 1000) i");
wait_synced(@nodes);
poll_is($a, $log, 0, 'the log drains');
is(sql($_, $indexes), 0, 'a healthy cluster builds no index: ' . $_->name) foreach @nodes;

# What is old and comes late: written at c before all that follows, and committed after it.
sql($c, q{BEGIN; UPDATE t SET v = 'old' WHERE id <= 2000; DELETE FROM t WHERE id BETWEEN 2001 AND 2500; UPDATE t SET id = -id WHERE id BETWEEN 2501 AND 3000;
	UPDATE n SET v = 'old' WHERE id <= 500; INSERT INTO n SELECT i + 0.50, 'y', 'old' FROM generate_series(1, 500) i;
	INSERT INTO u SELECT i, 'old' FROM generate_series(1, 500) i; UPDATE w SET v = 'old' WHERE id <= 500;
	PREPARE TRANSACTION 'late'});
# and what is decided at b by what a has told
$c->{mmrepl_link}->cut;
sql($a, q{UPDATE t SET v = 'new' WHERE id <= 1500; DELETE FROM t WHERE id BETWEEN 1501 AND 2000; UPDATE t SET v = 'new' WHERE id BETWEEN 2001 AND 3000;
	DELETE FROM n WHERE id BETWEEN 101 AND 200; INSERT INTO n SELECT i + 0.5, 'y', 'new' FROM generate_series(1, 500) i;
	UPDATE n SET v = 'new', id = id * 1.000 WHERE id <= 100; TRUNCATE u});
# one hot row, in many runs, is among it
my $used = q{SELECT count(*) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass AND pg_relation_size(inhrelid) > 0};
my $part = 0;
while ($part < 400 && ($part < 40 || sql($a, $used) < 8))
{
	sql($a, "INSERT INTO t SELECT 1000000 + $rows / 40 * $part + i, 'backlog' FROM generate_series(1, $rows / 40) i");
	sql($a, join ';', map { "UPDATE t SET v = 'hot $part $_' WHERE id = 1" } 1 .. 10);
	$part++;
}
poll_is($a, "SELECT count(*) >= 4 $index AND pg_relation_size(oid) > 0", 't', 'closed segments have indexes');
poll_is($b, "SELECT count(*) >= 1 $index AND pg_relation_size(oid) > 0", 't', 'also where they hold what was recorded');
note('log: ' . sql($_, $log) . ' bytes, indexes: ' . sql($_, "SELECT sum(pg_relation_size(oid)) $index") . ' bytes on ' . $_->name) foreach $a, $b;

# Sessions that begin now have nothing of it in memory, and answer as before.
my $open = 3 * $kb * 1024 / 12 * 64 * 2;
$b->{mmrepl_link}->cut;
sql($_, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'mmrepl push%'}) foreach $a, $b;
sql($b, q{UPDATE t SET v = 'newer' WHERE id <= 100; UPDATE w SET v = 'newest' WHERE id <= 100; INSERT INTO u VALUES (1, 'newest')});
sql($a, q{UPDATE t SET v = 'lost' WHERE id <= 100 AND id > 50});
sql($b, q{UPDATE t SET v = 'newest' WHERE id <= 100});
$b->{mmrepl_link}->heal;
poll_is($a, q{SELECT count(*) = 100 FROM t WHERE v = 'newest'}, 't', 'a conflict on a key whose entry is in an index');
poll_is($b, q{SELECT count(*) = 100 FROM t WHERE v = 'newest'}, 't', 'the same on the other side');
foreach my $node ($a, $b)
{
	my $bytes = memory($node, 'apply', 'mmrepl versions');
	note('versions of ' . $node->name . ": $bytes bytes");
	cmp_ok($bytes, '<', $open, 'an apply session keeps only young segments in memory: ' . $node->name);
}

# The late transaction meets what is in indexes only: on a, which wrote it, and on b, which recorded it.
sql($c, q{COMMIT PREPARED 'late'});
sql($c, q{INSERT INTO t VALUES (-1, 'after')});
poll_is($_, q{SELECT count(*) = 1 FROM t WHERE id = -1}, 't', 'what came late has come: ' . $_->name) foreach $a, $b;
foreach my $node ($a, $b)
{
	is(sql($node, q{SELECT count(*) FROM t WHERE v = 'old'}), 0, 'no older update wins: ' . $node->name);
	is(sql($node, q{SELECT count(*) FROM t WHERE id BETWEEN 1501 AND 2000}), 0, 'nothing deleted comes back: ' . $node->name);
	is(sql($node, q{SELECT count(*) FROM t WHERE id BETWEEN 2001 AND 3000 AND v = 'new'}), 1000, 'no older delete wins: ' . $node->name);
	is(sql($node, q{SELECT count(*) FROM n WHERE id <= 200 AND v = 'old' AND name = 'x'}), 0, 'equal keys that look different are one: ' . $node->name);
	is(sql($node, q{SELECT count(*) FROM n WHERE name = 'y' AND v = 'new'}), 500, 'also when they are new: ' . $node->name);
	is(sql($node, q{SELECT string_agg(v, ',') FROM u}), 'newest', 'what is older than a TRUNCATE stays away: ' . $node->name);
}

# A crash, and maintenance by hand: moved about, frozen, emptied.
$a->stop('immediate');
$a->start;
sql($a, "VACUUM (FREEZE, SKIP_LOCKED) mmrepl.log_$_") foreach 0 .. 7;
sql($a, "VACUUM (FREEZE, SKIP_LOCKED) mmrepl.log_${_}_index") foreach 0 .. 7;
sql($a, "VACUUM (FULL, SKIP_LOCKED) mmrepl.log_$_") foreach 2, 3;
sql($a, "VACUUM (FULL, SKIP_LOCKED) mmrepl.log_${_}_index") foreach 3, 4;
sql($a, "SET lock_timeout = '30s'; TRUNCATE mmrepl.log_5_index");
sql($c, q{UPDATE t SET v = 'by c' WHERE id BETWEEN 3001 AND 4000});
sql($b, q{UPDATE t SET v = 'by b' WHERE id BETWEEN 1001000 AND 1002000});
poll_is($a, q{SELECT count(*) = 1000 FROM t WHERE v = 'by c'}, 't', 'changes of a peer that is only half away arrive');
poll_is($a, q{SELECT count(*) = 1001 FROM t WHERE v = 'by b'}, 't', 'and those of the other');
poll_is($a, "SELECT count(*) >= 4 $index AND pg_relation_size(oid) > 0", 't', 'what was lost of the indexes is built again');
unlike(sql($a, q{SELECT string_agg(extconfig::text, '') FROM pg_extension WHERE extname = 'mmrepl'}) // '',
	qr/\b@{[ sql($a, q{SELECT 'mmrepl.log_0_index'::regclass::oid}) ]}\b/, 'a dump has nothing of them');

# It comes back, and everything drains.
$c->{mmrepl_link}->heal;
wait_synced(@nodes);
foreach my $node (@nodes)
{
	poll_is($node, $log, 0, 'the log drains to nothing: ' . $node->name);
	poll_is($node, $indexes, 0, 'and so do its indexes: ' . $node->name);
}
is(sql($c, q{SELECT count(*) FROM t WHERE v = 'new'}), 2400, 'c has what it missed');
finish(\@nodes, qr/could not connect|connection|terminating/, qw(t n u w));
