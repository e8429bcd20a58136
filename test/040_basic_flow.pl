# What is written on either side arrives on the other: operations, types, shapes of tables, names; and when both
# write the same key, the newest stands and the history tells of it.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

$ENV{PGCLIENTENCODING} = 'UTF8';

my $long = 'x' x 63;
my ($a, $b) = my @nodes = map { new_node($_, link => 1) } qw(aaa01 aaa02);
my @both = (<<"SQL");
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN posint AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (x int, y text);
CREATE TABLE plain (id int PRIMARY KEY, v text);
CREATE TABLE kinds (id int PRIMARY KEY, v text);
CREATE TABLE comp (a int, b text, c date, v int, PRIMARY KEY (c, a, b));
CREATE TABLE textkey (k text PRIMARY KEY, v int);
CREATE TABLE cikey (k text COLLATE "C" PRIMARY KEY, v int);
CREATE TABLE numkey (k numeric PRIMARY KEY, v int);
CREATE TABLE only_key (k int PRIMARY KEY);
CREATE TABLE uniq (nr bigserial PRIMARY KEY, k text NOT NULL CONSTRAINT uniq_k UNIQUE, v int);
CREATE TABLE gen (id int PRIMARY KEY, w int, twice int GENERATED ALWAYS AS (w * 2) STORED);
CREATE TABLE ident (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
CREATE TABLE "Quo""ted Täble" ("Ke y" int PRIMARY KEY, "sel'ect" text);
CREATE TABLE "$long" ("${\ ('k' x 63)}" int PRIMARY KEY, v text);
CREATE SCHEMA "o.ther"; CREATE TABLE "o.ther".t (id int PRIMARY KEY, v text);
CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE);
CREATE TABLE types (id int PRIMARY KEY, i2 int2, i8 int8, n numeric, f4 float4, f8 float8, t text, v varchar(20), c char(5),
	b bool, by bytea, d date, tm time, tz timetz, ts timestamp, tsz timestamptz, iv interval, u uuid, ip inet, ci cidr, mac macaddr,
	j json, jb jsonb, xa int[], ta text[], m mood, ma mood[], p posint, pr pair, pra pair[], r int4range, mr int4multirange, bt bit(3), vb varbit,
	mo money, pt point, tv tsvector, o oid, nm name, rc regclass);
SQL
sql_all($both[0], @nodes);
# the same table to the eye, not in its bytes: order of columns, dropped columns
sql($a, 'CREATE TABLE shape (id int PRIMARY KEY, a text, b int, c numeric)');
sql($b, 'CREATE TABLE shape (gone text, c numeric, b int, id int PRIMARY KEY, gone2 int, a text);
	ALTER TABLE shape DROP gone, DROP gone2');

join_nodes(\@nodes, keys => { uniq => 'uniq_k' }, sequences => 0);
ok(wait_synced(@nodes), 'two servers are joined');
is(sql($b, 'SELECT count(*) FROM mmrepl.syncs'), 1, 'the other server knows the sync');

poll_is($_, "SELECT count(*) = 2 AND bool_and(state = 'good') FROM mmrepl.peer_lag", 't', 'both ways are good, says ' . $_->name) foreach @nodes;

# Operations, in both directions.
foreach ([ $a, $b, 0 ], [ $b, $a, 100 ])
{
	my ($from, $to, $o) = @$_;
	my $way = $from->name . ' to ' . $to->name;
	sql($from, "INSERT INTO plain SELECT $o + i, 'one' FROM generate_series(1, 20) i");
	wait_synced(@nodes);
	is(sql($to, "SELECT count(*) FROM plain WHERE id BETWEEN $o + 1 AND $o + 99"), 20, "$way: insert");
	sql($to, "UPDATE plain SET v = 'back' WHERE id = $o + 1");
	sql($from, "UPDATE plain SET v = 'two' WHERE id BETWEEN $o + 2 AND $o + 10; DELETE FROM plain WHERE id = $o + 20");
	wait_synced(@nodes);
	is(sql($to, "SELECT count(*) FROM plain WHERE v = 'two' AND id > $o"), 9, "$way: update");
	is(sql($to, "SELECT count(*) FROM plain WHERE id = $o + 20"), 0, "$way: delete");
	sql($from, "UPDATE plain SET id = id + 50 WHERE id BETWEEN $o + 11 AND $o + 15");
	wait_synced(@nodes);
	is(sql($to, "SELECT min(id) - $o, max(id) - $o, count(*) FROM plain WHERE id BETWEEN $o + 40 AND $o + 90"), '61|65|5', "$way: key change");
	same_rows('plain', \@nodes);

	# the same key, over and over in one transaction, and the last state only
	sql($from, "BEGIN; INSERT INTO plain VALUES ($o + 30, 'a'); UPDATE plain SET v = 'b' WHERE id = $o + 30; DELETE FROM plain WHERE id = $o + 30;
		INSERT INTO plain VALUES ($o + 30, 'c'); INSERT INTO plain VALUES ($o + 31, 'x'); DELETE FROM plain WHERE id = $o + 31; COMMIT");
	sql($from, "BEGIN; INSERT INTO plain VALUES ($o + 32, 'never'); ROLLBACK");
	sql($from, "INSERT INTO plain VALUES ($o + 33, 'up'), ($o + 30, 'd') ON CONFLICT (id) DO UPDATE SET v = 'merged'");
	sql($from, "MERGE INTO plain p USING (VALUES ($o + 33), ($o + 34)) s(id) ON p.id = s.id
		WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'merge')");
	sql($from, "COPY plain FROM PROGRAM 'echo 7777$o,copied' (FORMAT csv)");
	sql($from, "INSERT INTO parent SELECT $o + i FROM generate_series(1, 3) i; INSERT INTO child SELECT $o + i, $o + 1 + i % 2 FROM generate_series(1, 9) i;
		DELETE FROM parent WHERE id = $o + 1");
	wait_synced(@nodes);
	is(sql($to, "SELECT string_agg(id - $o || v, ',' ORDER BY id) FROM plain WHERE id BETWEEN $o + 30 AND $o + 40"), '30merged,34merge', "$way: ON CONFLICT, MERGE, rolled back");
	is(sql($to, "SELECT v FROM plain WHERE id = 7777$o"), 'copied', "$way: COPY");
	same_rows($_, \@nodes) foreach qw(plain parent child);
}
sql($a, 'INSERT INTO kinds SELECT i FROM generate_series(1, 1000) i');
wait_synced(@nodes);
is(sql($b, 'SELECT count(*) FROM kinds'), 1000, 'before TRUNCATE');
sql($b, 'TRUNCATE kinds');
wait_synced(@nodes);
is(sql($a, 'SELECT count(*) FROM kinds'), 0, 'TRUNCATE');
sql($a, "BEGIN; INSERT INTO kinds VALUES (1, 'before'); TRUNCATE kinds; INSERT INTO kinds VALUES (2, 'after'); COMMIT");
wait_synced(@nodes);
is(sql($b, 'SELECT id, v FROM kinds'), '2|after', 'TRUNCATE between writes of one transaction');
same_rows('kinds', \@nodes);

# Negative control: the comparison sees a single changed byte, and what apply writes is what capture does not.
sql($b, "SET session_replication_role = replica; UPDATE kinds SET v = 'aftEr'");
wait_synced(@nodes);
ok(rows_differ('kinds', \@nodes), 'comparison sees a difference; replica role is not captured');
sql($b, "SET session_replication_role = replica; UPDATE kinds SET v = 'after'");

# Types: extremes and oddities of each, sent both ways.
my $values = <<'SQL';
INSERT INTO types VALUES
($1+1, -32768, 9223372036854775807, 'NaN', 'NaN', 'Infinity', '', '', '', true, '', '-infinity', '24:00', '23:59:59.999999+14', 'infinity', '-infinity',
	'-178000000 years', '00000000-0000-0000-0000-000000000000', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '{"a" :  1, "a": 2}', '{"b": [1.00, null]}',
	'{}', '{}', 'sad', '{}', 1, row(null, null), '{}', 'empty', '{}', B'101', '', '-1.23', '(0,-0)', '', 4294967295, '', 'pg_class'),
($1+2, 0, 0, 123456789012345678901234567890.123456789000, '-0', '4.9e-324', repeat('toast ', 200000), E'\t\n\\', 'ab', false, decode(repeat('00ff', 400000), 'hex'),
	'4713-01-01 BC', '00:00', '00:00+00', '294276-12-31', '2000-01-01 00:00:00.000001+00', '1 mon -1 day 00:00:00.000001', 'ffffffff-ffff-ffff-ffff-ffffffffffff',
	'255.255.255.255', '::/0', 'ff:ff:ff:ff:ff:ff', 'null', 'null', '{{1,2},{3,NULL}}', '[5:6]={"a,b","c\"d"}', 'happy', '{happy,NULL,sad}', 2147483647,
	row(1, 'x"y'), array[row(1,'a'), null, row(2, null)]::pair[], '[1,10)', '{[1,3),[5,)}', B'000', B'1', '92233720368547758.07', '(1e300,1e-300)', 'a:1A fat:2', 0, 'näme', null),
($1+3, null, null, 'Infinity', null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
	null, null, null, null, null, null, null, null, null, null, null, null),
($1+4, 1, 1, '-Infinity', 3.4028235e38, 1.7976931348623157e308, 'ünïcödé 漢字 🙂', null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
	(SELECT jsonb_object_agg(i::text, repeat(md5(i::text), 20)) FROM generate_series(1, 3000) i), (SELECT array_agg(i) FROM generate_series(1, 100000) i),
	null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)
SQL
sql($a, $values =~ s/\$1/0/gr);
sql($b, $values =~ s/\$1/10/gr);
wait_synced(@nodes);
same_rows('types', \@nodes);
# a change beside a big value leaves it whole
sql($b, "UPDATE types SET i2 = 7 WHERE id IN (2, 4); UPDATE types SET t = t || 'end', xa = xa || xa WHERE id IN (12, 14)");
wait_synced(@nodes);
same_rows('types', \@nodes);
is(sql($a, 'SELECT length(t), md5(by) FROM types WHERE id = 2'), sql($b, 'SELECT length(t), md5(by) FROM types WHERE id = 12') =~ s/^1200003/1200000/r,
	'big values arrived whole');

# Shapes and keys.
foreach ([ $a, 0 ], [ $b, 100 ])
{
	my ($n, $o) = @$_;
	sql($n, "INSERT INTO shape (id, a, b, c) SELECT $o + i, 'a' || i, i * 2, i / 3.0 FROM generate_series(1, 10) i; UPDATE shape SET a = NULL, c = 1.50 WHERE id = $o + 3");
	sql($n, "INSERT INTO comp SELECT $o + i, 'k' || i, date '2024-02-29' + i, i FROM generate_series(1, 10) i; UPDATE comp SET v = -v, c = c + 1 WHERE a = $o + 5;
		DELETE FROM comp WHERE a = $o + 6");
	sql($n, "INSERT INTO gen (id, w) VALUES ($o + 1, 4), ($o + 2, 5); UPDATE gen SET w = 6 WHERE id = $o + 1");
	sql($n, "INSERT INTO only_key SELECT $o + i FROM generate_series(1, 9) i; DELETE FROM only_key WHERE k = $o + 4; UPDATE only_key SET k = -k WHERE k = $o + 5");
	sql($n, "INSERT INTO ident OVERRIDING SYSTEM VALUE SELECT $o + i, 'v' FROM generate_series(1, 5) i; UPDATE ident SET v = 'w' WHERE id = $o + 2");
	sql($n, "INSERT INTO textkey VALUES ('', $o), ('A', 1), ('a', 2), ('ä', 3), (repeat('long', 100) || $o, 4), (' pad ', 5) ON CONFLICT (k) DO UPDATE SET v = -1");
	sql($n, "INSERT INTO cikey VALUES ('Zebra$o', 1), ('zebra$o', 2)");
	sql($n, qq{INSERT INTO "Quo""ted Täble" VALUES ($o + 1, 'ö'), ($o + 2, ''''); UPDATE "Quo""ted Täble" SET "sel'ect" = '"' WHERE "Ke y" = $o + 1});
	sql($n, qq{INSERT INTO "$long" VALUES ($o + 1, 'long'); INSERT INTO "o.ther".t VALUES ($o + 1, 'dot')});
	wait_synced(@nodes);
}
same_rows($_, \@nodes)
  foreach qw(shape comp gen only_key ident textkey cikey), qq{"Quo""ted Täble"}, qq{"$long"}, '"o.ther".t';
is(sql($b, 'SELECT a, b, c FROM shape WHERE id = 3'), '|6|1.50', 'columns are matched by name');
is(sql($b, 'SELECT twice FROM gen WHERE id = 1'), '12', 'generated columns are made where the row arrives');

# 1.0 and 1.00 are one key.
sql($a, 'INSERT INTO numkey VALUES (1.0, 1)');
wait_synced(@nodes);
sql($b, 'UPDATE numkey SET v = 2, k = 1.00');
wait_synced(@nodes);
sql($a, 'DELETE FROM numkey WHERE k = 1; INSERT INTO numkey VALUES (1.000, 3)');
wait_synced(@nodes);
is(sql($b, 'SELECT k, v FROM numkey'), '1.000|3', 'keys are equal as their type says');
same_rows('numkey', \@nodes);

# A member known by another unique index: both number their rows on their own.
sql($a, "INSERT INTO uniq (k, v) SELECT 'a' || i, i FROM generate_series(1, 5) i");
sql($b, "INSERT INTO uniq (nr, k, v) SELECT 1000 + i, 'b' || i, i FROM generate_series(1, 5) i");
wait_synced(@nodes);
sql($b, "UPDATE uniq SET v = 50 WHERE k = 'a5'; DELETE FROM uniq WHERE k = 'a1'; UPDATE uniq SET k = 'a22' WHERE k = 'a2'");
wait_synced(@nodes);
is(sql($a, "SELECT string_agg(k || v, ',' ORDER BY k) FROM uniq"), 'a222,a33,a44,a550,b11,b22,b33,b44,b55', 'rows are known by the index that was named');
same_rows('uniq', \@nodes);

is(conflicts($_), '', 'no conflict so far on ' . $_->name) foreach @nodes;

# Conflicts: both write one key while they cannot hear each other; the second is the newest. Who hears first
# records it: with the first to be told given, it is one row of history, there.
my @cases = (
	[ 'insert_exists', '', "INSERT INTO kinds VALUES (K, 'old')", "INSERT INTO kinds VALUES (K, 'new')", 'new' ],
	[ 'update_origin_differs', "INSERT INTO kinds VALUES (K, 'base')", "UPDATE kinds SET v = 'old' WHERE id = K", "UPDATE kinds SET v = 'new' WHERE id = K", 'new' ],
	[ 'update_deleted|delete_origin_differs', "INSERT INTO kinds VALUES (K, 'base')", "UPDATE kinds SET v = 'old' WHERE id = K", 'DELETE FROM kinds WHERE id = K', '' ],
	[ 'delete_origin_differs|update_deleted', "INSERT INTO kinds VALUES (K, 'base')", 'DELETE FROM kinds WHERE id = K', "UPDATE kinds SET v = 'new' WHERE id = K", 'new' ],
	[ 'delete_origin_differs|update_deleted|insert_exists|update_origin_differs', "INSERT INTO kinds VALUES (K, 'base')", 'DELETE FROM kinds WHERE id = K',
		"DELETE FROM kinds WHERE id = K; INSERT INTO kinds VALUES (K, 'new')", 'new' ]);
my $key = 1000;
foreach my $first_told ($b, $a)
{
	foreach my $case (@cases)
	{
		my ($types, $before, $old, $new, $end) = map { s/\bK\b/$key/gr } @$case;
		my ($told, $other) = $first_told == $b ? ($b, $a) : ($a, $b);
		my $resolution = $told == $b ? 'keep_local' : 'apply_remote';
		sql($a, $before) if $before;
		wait_synced(@nodes);
		$_->{mmrepl_link}->cut foreach @nodes;
		sql($a, $old);
		sql($b, $new);
		$told->{mmrepl_link}->heal;
		ok(poll($told, "SELECT count(*) = 1 FROM mmrepl.conflict_history WHERE key::text LIKE '%$key%'"), "key $key: " . $told->name . ' records the conflict');
		$other->{mmrepl_link}->heal;
		wait_synced(@nodes);
		is(sql($_, "SELECT v FROM kinds WHERE id = $key"), $end, "key $key: the newest stands on " . $_->name) foreach @nodes;
		like(sql($told, "SELECT conflict_type FROM mmrepl.conflict_history WHERE key::text LIKE '%$key%'"), qr/^(?:$types)$/, "key $key: type");
		is(sql($told, "SELECT resolution FROM mmrepl.conflict_history WHERE key::text LIKE '%$key%'"), $resolution, "key $key: resolution");
		is(sql($other, "SELECT count(*) FROM mmrepl.conflict_history WHERE key::text LIKE '%$key%'"), 0, "key $key: one record");
		$key++;
	}
}
# both rows are kept with the history
is(sql($b, "SELECT local_row ->> 'v', remote_row ->> 'v' FROM mmrepl.conflict_history WHERE key::text LIKE '%1000%'"), 'new|old', 'history keeps both rows');

finish(\@nodes, qr/terminat|could not connect|connection|server closed/, q{plain}, q{kinds});
