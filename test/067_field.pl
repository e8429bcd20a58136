# The ways in which replication of this kind is known to diverge, and where each is tested. What is not tested elsewhere is here.
#
#	two writes of the very same time				here, `equal times`: the writer's number decides, whoever sends or applies
#	equal times applied on both sides (a swap)			the same
#	versions kept in xmin are lost by FREEZE or a restore		here, `frozen`; versions are in the log; restored servers: 033, 034
#	a delete leaves no version behind				064
#	a delete that is not compared removes a newer row		064
#	an update overtakes its insert by way of a third node		064, and here, `overtaken`: rows travel whole
#	values out of line that did not change are not sent		here, `out of line`
#	another unique value: each side keeps another row		062, 063
#	a row collides in several unique indexes at once		062, 063
#	deferrable constraints are not looked at			062, 063, 055
#	TRUNCATE against inserts					065
#	cascades run again where a delete is applied			here, `cascades`; orphans are the operator's affair, and equal everywhere
#	the key changes, the old key is updated				066
#	an error discards a transaction					074: one row is set aside, and tried again
#	the same delete twice, its version not raised			064
#	a delete is forgotten too early					064, 050, chaos
#	a clock that is fast wins for ever				045
#	the time of the transaction's start is the version		isolation/capture_order, isolation/apply_races
#	what is new is known by a time or a number			isolation/capture_order, 043
#	compared with who sent it, not with who wrote it		here, `equal times`, and wherever rows are forwarded: 08x, chaos
#	two nodes of one identity					033, 034
#	values as text depend on settings				here, `settings`
#	keys looked up by another collation				here, `collations`
#	a node dies, and its last writes have reached some		080
#	counters applied as differences					cannot happen: rows travel as they are, not as differences
#	columns of two writers in one row				cannot happen by itself: rows stand whole; who merges them by a function: 070
#	columns that one side does not have				074, 055
use strict;
use warnings;
use MmreplCluster;
use MmreplGates;
use Test::More;

my @styles = (
	"DateStyle = 'SQL, DMY'\nIntervalStyle = iso_8601\nextra_float_digits = -15\nbytea_output = escape\ntimezone = 'Asia/Kolkata'\n",
	"DateStyle = 'German'\nIntervalStyle = sql_standard\nextra_float_digits = 0\nbytea_output = hex\ntimezone = 'America/St_Johns'\n",
	"DateStyle = 'Postgres, MDY'\nIntervalStyle = postgres_verbose\nxmlbinary = hex\ntimezone = 'UTC'\n");
my @nodes = map {
	my $node = new_node("aaa0$_", start => 0, conf => "mmrepl.lock_timeout = '60s'\nmmrepl.heartbeat_interval = 100\n" . $styles[ $_ - 1 ]);
	start_with_clock($node, '+0');
	$node->safe_psql('postgres', "CREATE DATABASE app TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'");
	$node
} 1 .. 3;
my ($a, $b, $c) = @nodes;
sql_all(q{CREATE TABLE mark (id text PRIMARY KEY, n int); INSERT INTO mark SELECT unnest('{aaa01,aaa02,aaa03}'::text[]), 0;
	CREATE TABLE t (k int PRIMARY KEY, v text);
	CREATE TABLE wide (k int PRIMARY KEY, v text, big text, plain text);
	ALTER TABLE wide ALTER big SET STORAGE EXTERNAL;
	CREATE TABLE parent (k int PRIMARY KEY, v text);
	CREATE TABLE child (k int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, v text);
	CREATE TABLE styled (k int PRIMARY KEY, d date, ts timestamp, tz timestamptz, i interval, f real, g double precision, b bytea, t timetz, m money,
		r tstzrange, a double precision[], j jsonb, x xml);
	CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	CREATE TABLE blind_keys (k text COLLATE blind PRIMARY KEY, v text);
	CREATE TABLE german_keys (k text COLLATE "de-x-icu" PRIMARY KEY, v text);
	CREATE TABLE char_keys (k char(8), n numeric, v text, PRIMARY KEY (k, n))}, @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);
my $gates = MmreplGates->new(@nodes);

# equal times: the clocks stand while all three write the same rows; every order of delivery on the way to each
foreach my $round (0 .. 2)
{
	wait_synced(@nodes);
	$gates->shut;
	my $ahead = 20 * ($round + 1);
	my @time = gmtime(time + $ahead);
	set_clock($_, sprintf('%04d-%02d-%02d %02d:%02d:%02d', $time[5] + 1900, $time[4] + 1, @time[ 3, 2, 1, 0 ])) foreach @nodes;
	# one write each, so that none is ahead of the standing clock
	sql($_, "INSERT INTO t VALUES (1, '" . $_->name . " in $round') ON CONFLICT (k) DO UPDATE SET v = excluded.v") foreach @nodes;
	set_clock($_, '+' . ($ahead + 2) . 's') foreach @nodes;
	foreach my $d ($round == 0 ? ([ 0, 1 ], [ 0, 2 ], [ 1, 0 ], [ 1, 2 ], [ 2, 0 ], [ 2, 1 ]) : $round == 1 ? ([ 2, 1 ], [ 2, 0 ], [ 1, 0 ], [ 1, 2 ], [ 0, 2 ], [ 0, 1 ]) : ([ 1, 2 ], [ 0, 2 ], [ 2, 0 ], [ 1, 0 ], [ 0, 1 ], [ 2, 1 ]))
	{
		$gates->deliver(map { $nodes[$_] } @$d);
	}
	$gates->open;
	wait_synced(@nodes);
	is(join(' ', map { sql($_, 'SELECT v FROM t WHERE k = 1') } @nodes), join(' ', ("aaa03 in $round") x 3), "equal times: the writer's number decides, round $round");
}
cmp_ok(sql($c, 'SELECT count(*) FROM mmrepl.conflict_log WHERE local_ts = remote_ts AND local_node <> remote_node'), '>', 0, 'and the times were equal');

# frozen
sql($a, "INSERT INTO t SELECT k, 'old' FROM generate_series(10, 12) k");
wait_synced(@nodes);
$gates->shut;
sql($a, "UPDATE t SET v = 'a' WHERE k BETWEEN 10 AND 12");
sql($b, "UPDATE t SET v = 'b' WHERE k = 10; DELETE FROM t WHERE k = 11");
sql($c, "UPDATE t SET v = 'c' WHERE k = 12");
sql_all('VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) t', @nodes);
sql_all('VACUUM FULL t', @nodes);
$gates->open;
wait_synced(@nodes);
is(sql($_, 'SELECT string_agg(k || v, $$ $$ ORDER BY k) FROM t WHERE k BETWEEN 10 AND 12'), '10b 12c', 'frozen and rewritten rows keep their versions, on ' . $_->name) foreach @nodes;

# overtaken: c hears of the update before the insert
$gates->shut;
sql($a, "INSERT INTO t VALUES (20, 'inserted')");
$gates->deliver($a, $b);
sql($b, "UPDATE t SET v = 'updated' WHERE k = 20");
$gates->deliver($b, $c);
is(sql($c, 'SELECT v FROM t WHERE k = 20'), 'updated', 'an update that comes before its insert makes the row');
$gates->deliver($a, $c);
is(sql($c, 'SELECT v FROM t WHERE k = 20'), 'updated', 'and the insert that follows does not undo it');
$gates->open;

# out of line
sql($a, "INSERT INTO wide VALUES (1, 'old', repeat('old', 100000), repeat('plain', 20000)), (2, 'old', repeat('old', 100000), NULL)");
wait_synced(@nodes);
$gates->shut;
sql($a, "UPDATE wide SET big = repeat('new', 100000) WHERE k = 1; UPDATE wide SET v = 'a' WHERE k = 2");
sql($b, "UPDATE wide SET v = 'b' WHERE k = 1; UPDATE wide SET big = repeat('neu', 100000) WHERE k = 2");
$gates->deliver($b, $c);
$gates->deliver($a, $c);
$gates->open;
wait_synced(@nodes);
same_rows('wide', \@nodes, name => 'out of line: rows are the same to the last byte');
is(sql($c, q{SELECT string_agg(v || left(big, 3) || length(big), ' ' ORDER BY k) FROM wide}), 'bold300000 oldneu300000', 'and each is what its last writer had');

# cascades
sql($a, "INSERT INTO parent SELECT k, 'p' FROM generate_series(1, 4) k; INSERT INTO child SELECT k, k, 'c' FROM generate_series(1, 4) k");
wait_synced(@nodes);
$gates->shut;
sql($a, 'DELETE FROM parent WHERE k IN (1, 2)');
sql($b, "INSERT INTO child VALUES (11, 1, 'b')");
sql($b, "UPDATE child SET v = 'b' WHERE k = 2");
sql($c, 'UPDATE parent SET k = 30 WHERE k = 3');
sql($b, "INSERT INTO child VALUES (13, 3, 'b')");
$gates->deliver(@$_) foreach $gates->orders;
$gates->open;
wait_synced(@nodes);
is(sql($_, q{SELECT (SELECT string_agg(k::text, ' ' ORDER BY k) FROM parent) || '|' || string_agg(k || '>' || parent || v, ' ' ORDER BY k) FROM child}),
	'4 30|2>2b 3>30c 4>4c 11>1b 13>3b', 'cascades: what they did travels, and nothing runs again, on ' . $_->name) foreach @nodes;

# settings
sql($a, q{INSERT INTO styled VALUES (1, '2024-12-31', '2024-02-01 03:04:05.678901', '2024-02-01 03:04:05.678901+05:30', '1 year -2 mons 3 days -04:05:06.7', 1.1::real / 3, 1.1 / 3::float8,
	'\x00ff5c27', '03:04:05.6+02', 1234.56, '[2024-01-02 00:00+00,2024-02-01 00:00+00)', '{0.1,NaN,-Infinity,1e300}', '{"d": 1.10}', '<a>1</a>')});
wait_synced($a);
sql($b, q{INSERT INTO styled SELECT 2, d, ts, tz, i, f, g, b, t, m, r, a, j, x FROM styled WHERE k = 1});
wait_synced($b);
sql($c, q{INSERT INTO styled SELECT 3, d, ts, tz, i, f, g, b, t, m, r, a, j, x FROM styled WHERE k = 2});
wait_synced(@nodes);
{
	local $ENV{PGOPTIONS} = '-c DateStyle=ISO -c IntervalStyle=postgres -c extra_float_digits=3 -c timezone=UTC -c bytea_output=hex';
	my @seen = map { sql($_, q{SELECT DISTINCT (d, ts, tz, i, f, g, b, t, m, r, a, j, x::text)::text FROM styled}) } @nodes;
	is($seen[$_], $seen[0], 'settings: values are the same on ' . $nodes[$_]->name) foreach 1, 2;
	unlike($seen[0], qr/\n/, 'and the same after two journeys');
	like($seen[0], qr/^\(2024-12-31,"2024-02-01 03:04:05.678901","2024-01-31 21:34:05.678901\+00"/, 'and what was written');
}

# collations: keys that are equal and do not look it, keys whose order is another one, keys that are padded
sql($a, "INSERT INTO blind_keys VALUES ('Key', 'old'), ('other', 'old'); INSERT INTO german_keys SELECT k, 'old' FROM unnest('{a,A,\xc3\xa4,\xc3\x84,z,Z,\xc3\x9f,ss}'::text[]) k; INSERT INTO char_keys VALUES ('k', 1.0, 'old')");
wait_synced(@nodes);
$gates->shut;
sql($b, "UPDATE blind_keys SET k = 'KEY', v = 'b' WHERE k = 'key'; UPDATE german_keys SET v = 'b' WHERE k IN ('A', '\xc3\xa4', '\xc3\x9f'); UPDATE char_keys SET v = 'b' WHERE k = 'k  '");
sql($c, "UPDATE blind_keys SET v = 'c' WHERE k = 'kEy'; DELETE FROM blind_keys WHERE k = 'OTHER'; DELETE FROM german_keys WHERE k IN ('a', 'ss'); UPDATE char_keys SET n = 1.00, v = 'c'");
$gates->deliver($c, $a);
$gates->deliver($b, $a);
$gates->open;
wait_synced(@nodes);
same_rows($_, \@nodes, name => "collations: $_ are the same") foreach qw(blind_keys german_keys char_keys);
is(sql($a, q{SELECT string_agg(k || v, ' ' ORDER BY k) FROM blind_keys}), 'Keyc', 'one key, however it is written; the last writer\'s row');
is(sql($a, q{SELECT count(*) FILTER (WHERE v = 'b') || ' ' || count(*) FROM german_keys}), '3 6', 'keys that only look alike are apart');
is(sql($a, q{SELECT k || '|' || n || v FROM char_keys}), 'k|1.00c', 'padded and scaled keys are found');

$gates->end;
poll_is($_, 'SELECT count(*) = 0 FROM mmrepl.change_log', undef, 'the log drains on ' . $_->name) foreach @nodes;
finish(\@nodes, qr/deadlock detected|ahead of the clock/, qw(t wide parent child));
