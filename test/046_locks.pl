# Locks at the peer: apply waits a bounded time, says for whom, tries again; in a deadlock it gives way, never the user.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, conf => "mmrepl.lock_timeout = 300\n") } qw(aaa01 aaa02);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, v text, n int DEFAULT 0); CREATE TABLE other (id int PRIMARY KEY, v text)}, @nodes);
join_nodes(\@nodes);
sql($a, "INSERT INTO t SELECT i, 'base' FROM generate_series(1, 100) i");
wait_synced(@nodes);

# The whole table is locked.
my $user = session($b);
my $pid = $user->query_safe('SELECT pg_backend_pid()');
$user->query_safe('BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE');
sql($a, "UPDATE t SET v = 'locked' WHERE id <= 10; INSERT INTO other VALUES (1, 'behind it')");
poll_is($b, "SELECT bool_or(waits_for ~ '\\m$pid\\M') FROM mmrepl.status", 't', 'status names the session that applying waits for');
poll_is($a, "SELECT bool_or(last_error ~ 'lock timeout') FROM mmrepl.status", 't', 'the sender says what for it waits');
sql($b, "INSERT INTO other VALUES (100, 'the other way')");
ok(poll($a, 'SELECT count(*) = 1 FROM other WHERE id = 100'), 'the other direction goes on');
$user->query_safe('COMMIT');
wait_synced(@nodes);
is(sql($b, "SELECT count(*) FROM t WHERE v = 'locked'"), 10, 'when the lock is gone, all arrives');
same_rows($_, \@nodes) foreach qw(t other);

# One row is locked, for longer than the timeout, by a session that forgets it.
$user->query_safe("BEGIN; UPDATE t SET n = 1 WHERE id = 50");
sql($a, "UPDATE t SET v = 'row' WHERE id BETWEEN 41 AND 60");
poll_is($b, "SELECT bool_or(waits_for ~ '\\m$pid\\M') FROM mmrepl.status", 't', 'a forgotten transaction is named');
is(sql($b, "SELECT count(*) FROM t WHERE v = 'row'"), 0, 'a batch is whole or not there');
$user->query_safe('COMMIT');
wait_synced(@nodes);
same_rows('t', \@nodes);

# Deadlocks: the user holds one row; apply holds others and waits for that one; the user wants them all. No matter in
# which order apply goes, somebody must give way.
$b->append_conf('postgresql.conf', "mmrepl.lock_timeout = 60s");
$b->reload;
foreach my $held (5, 15, 30)
{
	$user->query_safe("BEGIN; UPDATE t SET n = 100 + $held WHERE id = $held");
	sql($a, "UPDATE t SET v = 'deadlock $held' WHERE id <= 30");
	ok(poll($b, q{SELECT count(*) = 1 FROM pg_locks l JOIN mmrepl.worker_status w USING (pid) WHERE w.kind = 'apply' AND NOT l.granted}), "apply waits for the user ($held)");
	my ($out, $error) = $user->query("UPDATE t SET n = 200 + $held WHERE id <= 30");
	is($error, 0, "the user does not lose the deadlock ($held)");
	$user->query_safe('COMMIT');
	wait_synced(@nodes);
	same_rows('t', \@nodes, name => "after the deadlock ($held): the same rows");
	is(sql($a, "SELECT count(*) FROM t WHERE n = 200 + $held"), 30, 'what the user wrote stands, being newer');
}
cmp_ok(sql($b, "SELECT coalesce(sum(deadlocks), 0) FROM pg_stat_database"), '>', 0, 'there were deadlocks, so that it means something');

# A lock on the sender's side: taking a batch waits for it, the users of the peer do not notice.
my $owner = session($a);
$owner->query_safe('BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE');
sql($b, "UPDATE t SET v = 'while locked' WHERE id = 70");
$owner->query_safe("UPDATE t SET v = 'by the owner' WHERE id = 71; TRUNCATE other; COMMIT");
wait_synced(@nodes);
$_->quit foreach ($user, $owner);
finish(\@nodes, qr/deadlock detected|lock timeout|connection to client lost/, qw(t other));
