# Rows set aside on one of three nodes: older writes of a third lose against them, deletes do not come undone, the log may
# have forgotten them everywhere, who sent them may be gone; what this node has instead never travels as if it were them.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b, $c) = my @nodes = map { new_node($_, conf => 'mmrepl.heartbeat_interval = 100') } qw(aaa01 aaa02 aaa03);
sql_all(q{
	CREATE TABLE t (id int PRIMARY KEY, v int, s text);
	CREATE TABLE u (id int PRIMARY KEY, name text UNIQUE, v int)}, @nodes);
join_nodes(\@nodes);
sql($a, q{INSERT INTO t SELECT i, i, 'first' FROM generate_series(1, 30) i; INSERT INTO u VALUES (1, 'one', 1), (2, 'two', 2)});
wait_synced(@nodes);
sql($c, q{ALTER TABLE t ADD CONSTRAINT positive CHECK (v >= 0) NOT VALID; ALTER TABLE u ADD CONSTRAINT positive CHECK (v >= 0) NOT VALID;
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no delete'; END $$;
	CREATE TRIGGER refuse BEFORE DELETE ON t FOR EACH ROW WHEN (OLD.id BETWEEN 20 AND 22) EXECUTE FUNCTION refuse();
	ALTER TABLE t ENABLE ALWAYS TRIGGER refuse});

# Stops the pusher of one node to another, and lets it go on.
sub pusher
{
	my ($from, $to) = @_;
	my $query = "SELECT pid FROM mmrepl.worker_status WHERE kind = 'pusher' AND db = '" . $to->name . "' AND pid > 0";
	poll($from, "SELECT EXISTS ($query)");
	return sql($from, $query);
}
sub standing
{
	return sql($c, q{SELECT coalesce(string_agg(tablename || ' ' || (key->>'id'), ', ' ORDER BY tablename, (key->>'id')::int), '') FROM mmrepl.apply_error});
}
my $drained = q{SELECT sum(pg_relation_size(inhrelid)) = 0 FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass};

# ---- an older write of a third node, and an older insert against a delete that stands aside
my @stopped = (pusher($a, $b), pusher($b, $c));
kill 'STOP', @stopped;
sql($b, q{UPDATE t SET v = 100, s = 'older' WHERE id = 1; UPDATE t SET s = 'older' WHERE id = 20});
poll_is($a, q{SELECT count(*) = 2 FROM t WHERE s = 'older'}, undef, 'a write of the second node is on the first');
sql($a, q{UPDATE t SET v = -1, s = 'newer' WHERE id = 1; DELETE FROM t WHERE id = 20});
poll_is($c, 'SELECT count(*) = 2 FROM mmrepl.apply_error', undef, 'newer ones of the first stand aside on the third');
kill 'CONT', $stopped[1];
ok(sql($b, q{SELECT mmrepl.kick('sync')}), 'the older ones are sent on');
sql($b, q{INSERT INTO t VALUES (31, 31, 'after')});
poll_is($c, q{SELECT count(*) = 1 FROM t WHERE id = 31}, undef, 'and have arrived');
is(sql($c, q{SELECT string_agg(s, ' ') FROM t WHERE id IN (1, 20)}), 'first first', 'they lose against what stands aside');
kill 'CONT', $stopped[0];
wait_synced(@nodes);
is(sql($b, q{SELECT v || s FROM t WHERE id = 1}), '-1newer', 'the second node has the newest');
is(standing(), 't 1, t 20', 'they still stand on the third');

# ---- long after: nobody's log knows of them
sql($a, q{UPDATE t SET v = -2 WHERE id = 2; UPDATE t SET v = -3 WHERE id = 3; UPDATE t SET v = -4 WHERE id = 4; DELETE FROM t WHERE id = 21});
wait_synced(@nodes);
is(standing(), 't 1, t 2, t 3, t 4, t 20, t 21', 'more of them');
poll_is($_, $drained, undef, 'the log of ' . $_->name . ' is empty, what stands aside holds nothing up') foreach @nodes;
is(sql($_, 'SELECT v FROM t WHERE id = 2'), -2, $_->name . ' has it') foreach $a, $b;
is(sql($c, 'SELECT v FROM t WHERE id = 2'), 2, 'the third has not');

# what the third writes next to it does not take back what the others have
sql($c, q{UPDATE t SET s = 'third' WHERE id BETWEEN 5 AND 10});
wait_synced(@nodes);
is(sql($_, 'SELECT v FROM t WHERE id = 2'), -2, $_->name . ' still has it') foreach $a, $b;

# a delete of a newer time, at the source: the key is gone when it is asked for
sql($a, 'DELETE FROM t WHERE id = 4');
wait_synced(@nodes);
is(standing(), 't 1, t 2, t 3, t 20, t 21', 'a newer delete settles one');

# labels are gone, the reason too: they come all the same
sql($c, q{ALTER TABLE t DROP CONSTRAINT positive; ALTER TABLE t DISABLE TRIGGER refuse; SELECT mmrepl.retry_apply_error(sync => 'sync')});
poll_is($c, 'SELECT count(*) = 0 FROM mmrepl.apply_error', undef, 'all are applied, though no log knows them any more');
wait_synced(@nodes);
same_rows('t', \@nodes);

# ---- a unique value of the row that is here instead: it gives way here, and the others keep theirs
sql($a, q{UPDATE u SET name = 'uno', v = -1 WHERE id = 1});
wait_synced(@nodes);
is(standing(), 'u 1', 'it stands aside with its new name');
poll_is($_, $drained, undef, 'the log of ' . $_->name . ' is empty') foreach @nodes;
sql($b, q{INSERT INTO u VALUES (3, 'one', 3)});
wait_synced(@nodes);
is(sql($c, q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM u}), '2 3', 'the old row was in the way of another on the third');
is(sql($_, q{SELECT string_agg(id || name, ' ' ORDER BY id) FROM u}), '1uno 2two 3one', $_->name . ' loses nothing by that') foreach $a, $b;
sql($c, q{ALTER TABLE u DROP CONSTRAINT positive; SELECT mmrepl.retry_apply_error(sync => 'sync')});
poll_is($c, 'SELECT count(*) = 0 FROM mmrepl.apply_error', undef, 'and it comes when it can');
wait_synced(@nodes);
same_rows('u', \@nodes);

# ---- who sent it has left: another source is asked
sql($c, 'ALTER TABLE t ADD CONSTRAINT positive CHECK (v >= 0) NOT VALID');
sql($a, q{UPDATE t SET v = -11, s = 'last' WHERE id = 11; UPDATE t SET v = -12 WHERE id = 12});
wait_synced(@nodes);
is(standing(), 't 11, t 12', 'two of the first node stand aside');
poll_is($_, $drained, undef, 'the log of ' . $_->name . ' is empty') foreach @nodes;
sql($b, q{SELECT mmrepl.update_dbgroup('sync', '{aaa02:source,aaa03:source}')});
sql($b, q{UPDATE t SET s = 'after' WHERE id = 13});
wait_synced($b, $c);
is(standing(), 't 11, t 12', 'they stand when it has left');
sql($b, 'DELETE FROM t WHERE id = 12');
wait_synced($b, $c);
sql($c, q{ALTER TABLE t DROP CONSTRAINT positive; SELECT mmrepl.retry_apply_error(sync => 'sync')});
poll_is($c, 'SELECT count(*) = 0 FROM mmrepl.apply_error', undef, 'another source answers for them');
is(sql($c, 'SELECT v || s FROM t WHERE id = 11'), '-11last', 'with what the first had written');
finish([ $b, $c ], qr/violates|no delete|configuration has changed while/, qw(t u));
