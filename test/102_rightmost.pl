# New rows come in and their entries go behind all others of an index, many at once: what is in the indexes afterwards, in whatever
# order rows come and whatever the indexes are of; that values which are there, or are just being put in, are noticed where
# they are the last ones; that recovery makes of it the same.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, conf => "mmrepl.lock_timeout = '120s'\nautovacuum = off\n") } qw(aaa01 aaa02);
my @orders = qw(rising falling mixed nearly);
my @tables = ((map { "t_$_" } @orders), qw(odd uniq tail));
sql_all(join(";\n", map { qq{
	CREATE TABLE t_$_ (id bigint PRIMARY KEY, k text COLLATE "C" NOT NULL UNIQUE, few int, stamp timestamptz, label name, maybe int UNIQUE, one_null int UNIQUE NULLS NOT DISTINCT, wide text, amount numeric);
	CREATE INDEX ON t_$_ (few);
	CREATE INDEX ON t_$_ (few DESC NULLS LAST, id);
	CREATE INDEX ON t_$_ (stamp DESC) INCLUDE (id);
	CREATE INDEX ON t_$_ (label, amount);
	CREATE INDEX ON t_$_ (wide) WITH (fillfactor = 50);
	CREATE INDEX ON t_$_ USING hash (k)} } @orders)
	. '; CREATE TABLE odd (id int PRIMARY KEY, few int, k text UNIQUE);
	CREATE INDEX ON odd (lower(k)); CREATE INDEX ON odd (few) WHERE few > 3;
	CREATE TABLE uniq (id int PRIMARY KEY, u int UNIQUE, d int UNIQUE DEFERRABLE INITIALLY DEFERRED, v text);
	CREATE TABLE tail (id int PRIMARY KEY, v text)', @nodes);

my %by = (rising => 'i', falling => '-i', mixed => "md5(i::text)", nearly => 'i + 7 * (i % 13)');
sub fill
{
	my ($order, $from, $to) = @_;
	return "INSERT INTO t_$order SELECT i, 'k' || i, i / 50, '2026-01-01'::timestamptz + i * interval '1 second', 'n' || i / 100, CASE WHEN i % 3 > 0 THEN i END,
		CASE WHEN i > 1 THEN i END, repeat(chr(97 + i % 26), i % 700), i / 7.0 FROM generate_series($from, $to) AS i ORDER BY $by{$order}";
}

# Every index holds what its table holds, each entry in its place.
my $amcheck = sql($b, "SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'");
sql($b, 'CREATE EXTENSION amcheck') if $amcheck;
sub indexes_ok
{
	my ($name) = @_;
	my $of = join ',', map { "'$_'" } @tables;
	is(sql($b, "SELECT count(bt_index_parent_check(indexrelid, true, true)::text) FROM pg_index i JOIN pg_class c ON c.oid = indexrelid
		JOIN pg_am m ON m.oid = relam WHERE amname = 'btree' AND indrelid::regclass::text IN ($of)"), 4 * 9 + 4 + 3 + 1, "$name: indexes are in order") if $amcheck;
	foreach my $t (@tables)
	{
		my $sum = "count(*), sum(hashtext(id::text))";
		my $key = $t =~ /^t_/ ? 'k' : 'id';
		is(sql($b, "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT $sum FROM (SELECT id FROM $t ORDER BY $key OFFSET 0) x"),
			sql($b, "SET enable_indexscan = off; SET enable_indexonlyscan = off; SELECT $sum FROM $t"), "$name: $t by its index");
	}
	return;
}

# ---- order: the initial copy, then batches

sql($a, fill($_, 1, 3000)) foreach @orders;
sql($a, "INSERT INTO odd SELECT i, i / 100, 'K' || i FROM generate_series(1, 1000) AS i");
my $began = sql($b, 'SELECT pg_current_wal_insert_lsn()');
join_nodes(\@nodes, copy => 2);
wait_synced(@nodes);
indexes_ok('copied');
# no page of anything else here is written by generic WAL
my $ended = sql($b, 'SELECT pg_current_wal_flush_lsn()');
my ($records) = run_command([ 'pg_waldump', '-p', $b->data_dir . '/pg_wal', '-r', 'Generic', '-s', $began, '-e', $ended ]);
cmp_ok(scalar(() = $records =~ /^rmgr: Generic/mg), '>', 20, 'entries went in together');
sql($a, fill($_, 3001, 4500)) foreach @orders;
wait_synced(@nodes);
indexes_ok('applied');

# ---- values that are there: the last one of the index, one in the middle, one of the batch itself

sub blocked
{
	return poll_is($b, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'mmrepl%' AND wait_event_type = 'Lock'}, undef, shift);
}

# What is not captured is not sent either: nobody else would settle what collides.
my $aside = 'SET session_replication_role = replica;';
sub unseen
{
	my ($ours, $theirs) = @_;
	sql($a, "SELECT mmrepl.pause('sync')");
	sql($b, $theirs);
	sql($a, $ours);
	sql($a, "SELECT mmrepl.resume('sync')");
	wait_synced(@nodes);
	return;
}

sql($a, "INSERT INTO uniq SELECT i, i, i, 'old' FROM generate_series(1, 1000) AS i");
wait_synced(@nodes);
unseen("INSERT INTO uniq SELECT i, i, i, 'a' FROM generate_series(1001, 1100) AS i", "$aside INSERT INTO uniq VALUES (-5000, 1001, 5000, 'b')");
is(sql($b, "SELECT count(*), count(DISTINCT u), count(DISTINCT d) FROM uniq"), '1100|1100|1100', 'the first of a batch is the last that was there');
unseen("INSERT INTO uniq SELECT i, i, i, 'a' FROM generate_series(1101, 1200) AS i", "$aside INSERT INTO uniq VALUES (-5001, 1150, 1160, 'b')");
is(sql($b, "SELECT count(*), count(DISTINCT u), count(DISTINCT d) FROM uniq"), '1200|1200|1200', 'one in the middle, by two unique columns');
unseen("INSERT INTO uniq SELECT i, i, i, 'a' FROM generate_series(2001, 2100) AS i", "$aside INSERT INTO uniq VALUES (2001, -1, -1, 'b')");
is(sql($b, "SELECT count(*), min(v), max(v) FROM uniq WHERE id > 2000"), '100|a|a', 'the key itself');
unseen("INSERT INTO uniq SELECT i, i, i, 'a' FROM generate_series(2201, 2300) AS i; UPDATE uniq SET u = -u WHERE id > 2200",
	"INSERT INTO uniq SELECT i, i, i, 'b' FROM generate_series(2101, 2200) AS i");
# new rows by the hundreds, then some that are there
unseen("INSERT INTO uniq SELECT i, i, i, 'a' FROM generate_series(3001, 4500) AS i", "$aside INSERT INTO uniq SELECT i, 0 - i, 0 - i, 'b' FROM generate_series(4001, 4300) AS i");
is(sql($b, "SELECT count(*), min(v), max(v), min(u) FROM uniq WHERE id > 3000"), '1500|a|a|3001', 'the keys themselves, behind new ones');
same_rows('uniq', \@nodes, name => 'and the same at both');

# ---- somebody is putting in the same, and has not committed

my $other = session($b);
foreach my $end ('COMMIT', 'ROLLBACK')
{
	my $id = $end eq 'COMMIT' ? 7000 : 8000;
	$other->query_safe("BEGIN; INSERT INTO uniq VALUES ($id, $id, $id, 'uncommitted')");
	sql($a, "INSERT INTO uniq SELECT i, i, i, 'a' FROM generate_series($id - 300, $id + 200) AS i");
	blocked("waits for who has put in the last key ($end)");
	$other->query_safe($end);
	wait_synced(@nodes);
	is(sql($b, "SELECT count(*), count(DISTINCT u) FROM uniq WHERE id BETWEEN $id AND $id + 200"), '201|201', "$end: each key once");
}
$other->quit;
same_rows('uniq', \@nodes, name => 'and the same at both');

# ---- dead entries at the end, and a crash

# what is replayed is compared with what was there, page by page
$b->append_conf('postgresql.conf', "wal_consistency_checking = 'generic,btree'\n");
$b->reload;
sql($a, "INSERT INTO tail SELECT i, 'first' FROM generate_series(1, 500) AS i");
wait_synced(@nodes);
sql($b, 'CHECKPOINT');
sql($a, "INSERT INTO tail SELECT i, 'second' FROM generate_series(501, 600) AS i");
wait_synced(@nodes);
sql($a, 'DELETE FROM tail WHERE id > 520');
wait_synced(@nodes);
# who finds them dead marks them; those that have just been put in are rows that collide with nobody
sql($b, "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM tail WHERE id BETWEEN 510 AND 590") for 1 .. 2;
sql($a, "INSERT INTO tail SELECT i, 'third' FROM generate_series(550, 900) AS i");
sql($a, fill($_, 4501, 5000)) foreach @orders;
wait_synced(@nodes);
kill_postmaster($b);
start_again($b);
wait_synced(@nodes);
indexes_ok('after a crash');
sql($a, fill($_, 5001, 5500)) foreach @orders;
sql($b, fill($_, 6001, 6100)) foreach @orders;
wait_synced(@nodes);
indexes_ok('and on');

finish(\@nodes, qr/connection to server|terminat|the database system|could not connect|server closed/, @tables);
