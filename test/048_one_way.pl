# A target receives and does not send: what is written there stays there.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b, $c) = my @nodes = map { new_node($_) } qw(aaa01 aaa02 report);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text)', @nodes);
sql($a, "INSERT INTO t VALUES (1, 'first')");
join_nodes(\@nodes, roles => { report => 'target' }, copy => 2);
wait_synced(@nodes);
same_rows('t', \@nodes, name => 'the copy reached all');
is(sql($c, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass AND NOT tgisinternal"), 0, 'nothing is captured on a target');
is(sql($c, "SELECT count(*) FROM mmrepl.worker_status WHERE kind = 'pusher'"), 0, 'and nothing sent');

sql($a, "INSERT INTO t SELECT i, 'a' FROM generate_series(10, 19) i");
sql($b, "INSERT INTO t SELECT i, 'b' FROM generate_series(20, 29) i; UPDATE t SET v = 'second' WHERE id = 1");
wait_synced(@nodes);
same_rows('t', \@nodes, name => 'two sources reach the target');

# local writes at the target
sql($c, "INSERT INTO t VALUES (100, 'local'); UPDATE t SET v = 'local' WHERE id = 10; DELETE FROM t WHERE id = 11");
sql($a, "UPDATE t SET v = 'again' WHERE id IN (10, 11, 12)");
wait_synced(@nodes);
is(sql($a, 'SELECT count(*) FROM t WHERE id = 100'), 0, 'a write on a target does not travel');
is(sql($c, 'SELECT v FROM t WHERE id = 10'), 'again', 'and gives way to the source');
is(sql($c, 'SELECT count(*) FROM t WHERE id = 11'), 1, 'an update of a row that is gone brings it back');
sql($c, 'DELETE FROM t WHERE id = 100');
same_rows('t', \@nodes);
sql($b, 'TRUNCATE t');
wait_synced(@nodes);
is(sql($c, 'SELECT count(*) FROM t'), 0, 'TRUNCATE arrives');

# the log drains, though a target never says what it has applied of itself
sql($a, 'INSERT INTO t SELECT i FROM generate_series(1, 1000) i');
wait_synced(@nodes);
ok(poll($a, 'SELECT sum(pg_relation_size(inhrelid)) = 0 FROM pg_inherits WHERE inhparent = \'mmrepl.log\'::regclass'), 'the log drains with a target in the sync');
finish(\@nodes, undef, 't');
