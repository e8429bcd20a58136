# compare_sync finds each row that is not the same, and only those; repair_sync makes them the same.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, conf => 'mmrepl.heartbeat_interval = 100') } qw(aaa01 aaa02);
sql($a, q{
	CREATE TABLE t (id int PRIMARY KEY, v text, n numeric, at timestamptz DEFAULT '2020-01-01', j jsonb);
	CREATE TABLE words (word text, lang char(2), n int, "Odd ""name" text, PRIMARY KEY (word, lang));
	CREATE TABLE nums (id numeric PRIMARY KEY, v int)});
# other columns' order, a column more, a dropped one
sql($b, q{
	CREATE TABLE t (j jsonb, gone int, n numeric, id int PRIMARY KEY, at timestamptz DEFAULT '2020-01-01', v text);
	ALTER TABLE t DROP gone;
	CREATE TABLE words ("Odd ""name" text, n int, word text, lang char(2), PRIMARY KEY (word, lang));
	CREATE TABLE nums (v int, id numeric PRIMARY KEY)});
join_nodes(\@nodes);
sql($b, 'ALTER TABLE t ADD only_here int DEFAULT 7');
sql($a, q{INSERT INTO t SELECT i, 'v' || i, i / 7.0, '2021-02-03', jsonb_build_object('i', i) FROM generate_series(1, 20000) i;
	INSERT INTO words SELECT 'wört' || i, 'de', i, NULL FROM generate_series(1, 500) i; INSERT INTO nums SELECT i, i FROM generate_series(1, 100) i});
wait_synced(@nodes);

my $flying = q{SELECT count(*) = 0 FROM mmrepl.compare_sync('sync') WHERE in_flight};
sub found
{
	my ($node, $args) = @_;
	return sql($node, "SELECT db || ' ' || tablename || ' ' || concat_ws('/', key->>'id', key->>'word', key->>'lang') || ' ' || difference
		|| CASE WHEN in_flight THEN ' in flight' ELSE '' END || CASE WHEN set_aside THEN ' set aside' ELSE '' END
		FROM mmrepl.compare_sync('sync'$args) ORDER BY 1");
}
is(found($a, ''), '', 'all the same, whatever the order of columns');
is(found($b, ''), '', 'from the other side, too');

# what is on its way is told as such
sql($a, "SELECT mmrepl.pause('sync')");
sql($a, "UPDATE t SET v = 'x' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (30000, 'new')");
sql($b, "UPDATE words SET n = -1 WHERE word = 'wört7'");
is(found($a, ", dbs => '{aaa02}'"), join("\n", 'aaa02 t 1 differs in flight', 'aaa02 t 2 missing here in flight', 'aaa02 t 30000 missing there in flight',
	'aaa02 words wört7/de differs in flight'), 'what is on its way is told as such');
is(sql($a, "SELECT mmrepl.repair_sync('sync', dbs => '{aaa02}')"), 0, 'and not repaired');
sql($a, "SELECT mmrepl.resume('sync')");
wait_synced(@nodes);
poll_is($a, $flying, undef, 'nothing is on its way');
is(found($a, ''), '', 'all the same again');

# behind replication's back
my $silent = 'SET session_replication_role = replica;';
sql($b, "$silent UPDATE t SET v = 'silent' WHERE id = 10; DELETE FROM t WHERE id = 11; INSERT INTO t (id, v) VALUES (40000, 'silent');
	UPDATE t SET only_here = 8 WHERE id = 12; DELETE FROM words WHERE word = 'wört9'; UPDATE nums SET v = -1 WHERE id = 5");
sql($a, qq{$silent UPDATE words SET "Odd ""name" = 'odd' WHERE word = 'wört8'});
my @differences = ('t 10 differs', 't 11 missing there', 't 40000 missing here', 'words wört8/de differs', 'words wört9/de missing there');
is(found($a, ", dbs => '{aaa02}'"), join("\n", map { "aaa02 $_" } 'nums 5 differs', @differences), 'differences are found');
is(found($a, ", tables => '{words,public.nums}', dbs => '{aaa02}'"), join("\n", map { "aaa02 $_" } 'nums 5 differs', @differences[ 3, 4 ]), 'in some tables');
is(found($b, ", dbs => '{aaa01}'"), join("\n", map { "aaa01 $_" } 'nums 5 differs', 't 10 differs', 't 11 missing here', 't 40000 missing there', 'words wört8/de differs', 'words wört9/de missing here'),
	'the other side sees them the other way round');
like(sql_error($a, "SELECT mmrepl.compare_sync('nope')"), qr/sync "nope" does not exist/, 'no such sync');
like(sql_error($a, "SELECT mmrepl.compare_sync('sync', tables => '{nope}')"), qr/has no table "nope"/, 'no such table');
like(sql_error($a, "SELECT mmrepl.compare_sync('sync', dbs => '{nope}')"), qr/db "nope" is not in sync/, 'no such db');
like(sql_error($a, "SELECT mmrepl.repair_sync('sync', 'nope')"), qr/"nope" is not a source/, 'no such source');

# repair: first what the other side has of words, then what is here
is(sql($a, "SELECT mmrepl.repair_sync('sync', 'aaa02', tables => '{words}')"), 2, 'rows of another db are right');
wait_synced(@nodes);
is(sql($a, q{SELECT count(*) FILTER (WHERE word = 'wört9'), count("Odd ""name") FROM words}), '0|0', 'and are here');
is(sql($a, "SELECT mmrepl.repair_sync('sync')"), 4, 'rows of this db are right');
wait_synced(@nodes);
is(sql($b, q{SELECT string_agg(concat_ws(' ', id, v, only_here), ', ' ORDER BY id) FROM t WHERE id IN (10, 11, 12, 40000)}), '10 v10 7, 11 v11 7, 12 v12 8', 'and are there');
poll_is($a, $flying, undef, 'nothing is on its way');
is(found($a, ''), '', 'all the same');
is(sql($a, "SELECT mmrepl.repair_sync('sync')"), 0, 'nothing is left to repair');

# many
sql($b, "$silent UPDATE t SET n = n + 1 WHERE id > 5000");
is(sql($a, "SELECT count(*), count(*) FILTER (WHERE difference = 'differs') FROM mmrepl.compare_sync('sync')"), '15000|15000', 'many differences');
is(sql($a, "SELECT mmrepl.repair_sync('sync')"), 15000, 'are repaired');
wait_synced(@nodes);
same_rows('t', [ $a, $b ], except => ['only_here']);

# set aside, and given up
sql($b, 'ALTER TABLE nums ADD CONSTRAINT c CHECK (v >= 0) NOT VALID');
sql($a, 'UPDATE nums SET v = -1 WHERE id IN (1, 3)');
wait_synced(@nodes);
sql($b, "SELECT mmrepl.discard_apply_error(id) FROM mmrepl.apply_error WHERE key->>'id' = '3'");
poll_is($a, $flying, undef, 'nothing is on its way');
is(found($a, ''), "aaa02 nums 1 differs set aside\naaa02 nums 3 differs", 'a row that stands aside, and one that was given up, differ');
is(sql($a, "SELECT mmrepl.repair_sync('sync', 'aaa02')"), 2, 'the rows of who could not take them');
wait_synced(@nodes);
poll_is($b, 'SELECT count(*) = 0 FROM mmrepl.apply_error', undef, 'settle it');
same_rows('nums', \@nodes);

# a writer who stays is not waited for for ever, and loses nothing
my $writer = session($a);
$writer->query_safe("BEGIN; UPDATE t SET v = 'open' WHERE id = 100");
sql($b, "$silent UPDATE t SET v = 'silent' WHERE id = 100");
like(sql_error($a, "SELECT mmrepl.repair_sync('sync')"), qr/lock/, 'a table that stays locked');
$writer->query_safe('COMMIT');
$writer->quit;
wait_synced(@nodes);
is(sql($b, 'SELECT v FROM t WHERE id = 100'), 'open', 'what was written meanwhile stands');

# rights: who may connect for replication may do this too, and nobody else
sql($a, 'CREATE ROLE nobody LOGIN; GRANT USAGE ON SCHEMA mmrepl TO nobody; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA mmrepl TO nobody');
like(sql_error($a, "SET SESSION AUTHORIZATION nobody; SELECT mmrepl.compare_sync('sync')"), qr/permission denied to compare/, 'not for everybody');
like(sql_error($a, "SET SESSION AUTHORIZATION nobody; SELECT mmrepl.repair_sync('sync')"), qr/permission denied to compare/, 'nor the repair');
wait_synced(@nodes);
sql($b, 'ALTER TABLE nums DROP CONSTRAINT c');
same_rows($_, \@nodes) foreach qw(words nums);
$_->stop foreach @nodes;
log_clean($_, qr/nope|is not a source|violates|permission denied|lock/) foreach @nodes;
done_testing();
