# Transactions of all shapes: open for long, prepared, with savepoints, with loops of exceptions, of a million rows.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, conf => "mmrepl.segment_size = 256\n") } qw(aaa01 aaa02);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE big (id int PRIMARY KEY, n int NOT NULL, w int)}, @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);

# A transaction left open while many others come and go, the log rotating under it.
my @open = (session($a), session($b));
$open[0]->query_safe("BEGIN; INSERT INTO t VALUES (1, 'long a')");
$open[1]->query_safe("BEGIN; INSERT INTO t VALUES (2, 'long b'); SAVEPOINT s; INSERT INTO t VALUES (3, 'rolled back')");
foreach my $round (1 .. 30)
{
	sql($a, "INSERT INTO t SELECT 1000 * $round + i, repeat('a', 100) FROM generate_series(1, 100) i; UPDATE t SET v = 'a' WHERE id = 1000 * $round + 1");
	sql($b, "INSERT INTO t SELECT 1000 * $round + 500 + i, repeat('b', 100) FROM generate_series(1, 100) i");
	ok(wait_synced(@nodes), "others do not wait for an open transaction, round $round") if $round % 10 == 0;
}
same_rows('t', \@nodes);
$open[0]->query_safe("UPDATE t SET v = 'long a, twice' WHERE id = 1; INSERT INTO t VALUES (4, 'late'); COMMIT");
$open[1]->query_safe("ROLLBACK TO s; UPDATE t SET v = 'from the long one' WHERE id = 30001; COMMIT");
wait_synced(@nodes);
same_rows('t', \@nodes);
is(sql($b, 'SELECT v FROM t WHERE id IN (1, 4) ORDER BY id'), "long a, twice\nlate", 'a late commit arrives');
is(sql($a, 'SELECT v FROM t WHERE id IN (2, 3, 30001) ORDER BY id'), "long b\nfrom the long one", 'without what was rolled back');

# Part of it is in the log already, and small ones that commit lie behind it on the same page, sent one by one.
$open[0]->query_safe("BEGIN; INSERT INTO t SELECT 60000 + i, 'flushed' FROM generate_series(1, 2000) i");
foreach my $i (1 .. 5)
{
	sql($a, "INSERT INTO t VALUES (70000 + $i, 'behind')");
	wait_synced(@nodes);
}
$open[0]->query_safe('COMMIT');
sql($a, "INSERT INTO t VALUES (70006, 'behind')");
wait_synced(@nodes);
is(sql($b, 'SELECT count(*) FILTER (WHERE id <= 62000), count(*) FILTER (WHERE id > 70000) FROM t WHERE id > 60000'), '2000|6',
	'what lay undecided between others on a page of the log arrives');
same_rows('t', \@nodes);

# An old write that commits late is still older than what others wrote and committed since.
$open[0]->query_safe("BEGIN; INSERT INTO t VALUES (5, 'older')");
sql($b, "INSERT INTO t VALUES (5, 'newer')");
ok(poll($b, "SELECT true"), 'the other waits for the key where it is open') ;
$open[0]->query_safe('COMMIT');
wait_synced(@nodes);
same_rows('t', \@nodes);
is(sql($a, 'SELECT v FROM t WHERE id = 5'), 'newer', 'the version is of the write, not of the commit');

# Prepared transactions: committed late, after rotation, after a restart; rolled back.
sql($a, "BEGIN; INSERT INTO t VALUES (10, 'prepared'); UPDATE t SET v = 'prepared too' WHERE id = 1; PREPARE TRANSACTION 'one'");
sql($a, "BEGIN; INSERT INTO t VALUES (11, 'never'); PREPARE TRANSACTION 'two'");
sql($b, "BEGIN; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (12, 'prepared b'); PREPARE TRANSACTION 'three'");
foreach my $round (31 .. 40)
{
	sql($_->[0], "INSERT INTO t SELECT 1000 * $round + $_->[1] + i, repeat('c', 100) FROM generate_series(1, 300) i") foreach ([ $a, 0 ], [ $b, 500 ]);
}
wait_synced(@nodes);
same_rows('t', \@nodes);
$a->restart;
$b->stop('immediate');
$b->start;
wait_synced(@nodes);
sql($a, "INSERT INTO t VALUES (13, 'between')");
wait_synced(@nodes);
sql($a, "COMMIT PREPARED 'one'");
sql($a, "ROLLBACK PREPARED 'two'");
sql($b, "COMMIT PREPARED 'three'");
wait_synced(@nodes);
same_rows('t', \@nodes);
is(sql($b, 'SELECT v FROM t WHERE id IN (1, 10, 11) ORDER BY id'), "prepared too\nprepared", 'prepared transactions arrive when they commit');
is(sql($a, 'SELECT count(*) FROM t WHERE id IN (2, 12)'), 1, 'from the other side too');

# Savepoints and loops of exceptions.
sql($a, <<'SQL');
BEGIN;
INSERT INTO t VALUES (20, 'kept');
SAVEPOINT s1; INSERT INTO t VALUES (21, 'lost'); UPDATE t SET v = 'lost' WHERE id = 20;
SAVEPOINT s2; DELETE FROM t WHERE id = 20; ROLLBACK TO s2; INSERT INTO t VALUES (22, 'lost');
ROLLBACK TO s1; INSERT INTO t VALUES (21, 'kept'); RELEASE s1;
SAVEPOINT s3; UPDATE t SET v = 'kept in the end' WHERE id = 20; SAVEPOINT s4; INSERT INTO t VALUES (23, 'deep'); RELEASE s4; RELEASE s3;
SAVEPOINT s5; TRUNCATE t; ROLLBACK TO s5;
COMMIT;
DO $$
BEGIN
	FOR i IN 1..3000 LOOP
		BEGIN
			INSERT INTO t VALUES (100000 + i, 'loop');
			UPDATE t SET v = 'loop ' || i WHERE id = 20;
			IF i % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF;
			BEGIN
				INSERT INTO t VALUES (200000 + i, 'inner');
				IF i % 2 = 0 THEN RAISE EXCEPTION 'inner no'; END IF;
			EXCEPTION WHEN raise_exception THEN
				INSERT INTO t VALUES (300000 + i, 'handler');
			END;
		EXCEPTION WHEN raise_exception THEN NULL;
		END;
	END LOOP;
END $$;
SQL
wait_synced(@nodes);
is(sql($b, 'SELECT string_agg(v, \',\' ORDER BY id) FROM t WHERE id BETWEEN 20 AND 23'), 'loop 2999,kept,deep', 'savepoints');
is(sql($b, 'SELECT count(*) FILTER (WHERE id BETWEEN 100000 AND 199999), count(*) FILTER (WHERE id BETWEEN 200000 AND 299999), count(*) FILTER (WHERE id >= 300000) FROM t'),
	'2000|1000|1000', 'loops of exceptions');
same_rows('t', \@nodes);

# A million rows in one transaction, each way.
sql($a, 'INSERT INTO big SELECT i, i % 1000, NULL FROM generate_series(1, 1000000) i');
wait_synced(@nodes);
same_rows('big', \@nodes, name => 'a million rows inserted');
sql($b, 'UPDATE big SET w = n');
wait_synced(@nodes);
same_rows('big', \@nodes, name => 'a million rows updated');
sql($a, 'BEGIN; DELETE FROM big WHERE n < 500; UPDATE big SET id = -id WHERE n = 999; INSERT INTO big SELECT 2000000 + i, 1 FROM generate_series(1, 1000) i; COMMIT');
wait_synced(@nodes);
same_rows('big', \@nodes, name => 'half of them deleted, keys changed');
is(sql($b, 'SELECT count(*), count(*) FILTER (WHERE id < 0) FROM big'), '501000|1000', 'as many as must be');

# Keys change: shifted, swapped, through a third, there and back again.
sql($b, 'UPDATE t SET id = id + 5000000 WHERE id BETWEEN 1000 AND 5000');
sql($b, "BEGIN; UPDATE t SET id = -1 WHERE id = 20; UPDATE t SET id = 20 WHERE id = 21; UPDATE t SET id = 21 WHERE id = -1; COMMIT");
sql($b, "BEGIN; UPDATE t SET id = -2 WHERE id = 23; UPDATE t SET id = 23 WHERE id = -2; COMMIT");
wait_synced(@nodes);
is(sql($a, 'SELECT string_agg(v, \',\' ORDER BY id) FROM t WHERE id BETWEEN 20 AND 23'), 'kept,loop 2999,deep', 'keys swapped');

$_->quit foreach @open;
is(conflicts($_, q{key <> '{"id": 5}'}), '', 'no conflict but one, on ' . $_->name) foreach @nodes;
finish(\@nodes, qr/terminat|could not connect|connection|starting up|shutting down/, 't', 'big');
