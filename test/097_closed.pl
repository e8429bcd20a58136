# Risk: what clients write to a db that is about to join, or to come back, is overwritten by its copy without a trace; or puts an old row over what the
# others have made of it; or, worse, a db stays closed to its clients when that is over. Method: a db comes back while another one is away, then
# while its copy is held up; all ways of writing are tried, and all ways out. Would pass wrongly if such writes did no harm: one is let through.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($one, $two, $three) = my @all = map { new_node($_, link => 1) } qw(aaa01 aaa02 aaa03);
sql_all(<<'SQL', @all);
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
CREATE TABLE own (id int PRIMARY KEY);
SQL
join_nodes(\@all, exclude => [ 'public.own', 'public.parent' ]);
sql($one, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 20) AS g; INSERT INTO p VALUES (1, 'before')");
sql($_, 'INSERT INTO parent VALUES (1)') foreach @all;
sql($one, 'INSERT INTO child VALUES (1, 1)');
wait_synced(@all);
my $closed = q{SELECT bool_or(closed) FROM mmrepl.syncs};
my $left = q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'mmrepl_closed%'};

# The error of a write, with its SQLSTATE.
sub refused
{
	my ($node, $sql, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like(sql_error($node, "\\set VERBOSITY verbose\n$sql"), qr/ERROR:  25006: cannot write to table "\w+" yet: this database joins sync "sync"/, $name);
}

# What is under way when it is called is waited for, or it is not done; and no old view of things.
sql($three, "BEGIN; INSERT INTO t VALUES (100, 'prepared'); PREPARE TRANSACTION 'open'");
like(sql_error($three, 'SELECT mmrepl.rejoin()'), qr/could not lock.*Prepared transaction "open"/s, 'an open transaction is waited for');
is(sql($three, "SELECT node_id, ($left) FROM mmrepl.local_node"), '3|0', 'and nothing was changed');
sql($three, "COMMIT PREPARED 'open'");
like(sql_error($three, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT mmrepl.rejoin()'), qr/must be called in a READ COMMITTED transaction/, 'what commits meanwhile must be seen');
wait_synced(@all);

# It comes back while the second is away: some sessions are there already.
$two->stop;
my ($old, $planned, $waiting, $caller) = map { session($three) } 1 .. 4;
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM own');
$planned->query_safe("PREPARE w AS INSERT INTO t VALUES (200, 'planned') ON CONFLICT (id) DO UPDATE SET v = 'planned'; EXECUTE w; DELETE FROM t WHERE id = 200");
$caller->query("BEGIN; SELECT mmrepl.rejoin('aaa01', 'aaa01')");
$waiting->query_until(qr/sent/, "\\echo sent\nINSERT INTO t VALUES (201, 'waits');\n\\echo state :SQLSTATE\n");
poll_is($three, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT%201%'}, 't', 'who writes meanwhile waits');
$caller->query('COMMIT');
my $state = "\n\\echo state :SQLSTATE";
like($waiting->query_until(qr/state \w+/, ''), qr/state 25006/, 'and is refused when it is done');
like(scalar $old->query("INSERT INTO t VALUES (202, 'old view');$state"), qr/state 25006/, 'so is a transaction that began before');
like(scalar $planned->query("EXECUTE w;$state"), qr/state 25006/, 'and a statement that was planned before');
$_->quit foreach $old, $planned, $waiting, $caller;

poll_is($three, "SELECT bool_or(last_error ~ 'waits for db \"aaa02\" to hear of it') FROM mmrepl.status", 't', 'it waits for the second');
is(sql($_, $closed), $_ == $three ? 't' : 'f', 'the view syncs says so: ' . $_->name) foreach $one, $three;
foreach my $again (0, 1)
{
	refused($three, "INSERT INTO t VALUES (203, 'insert')", 'INSERT');
	refused($three, "UPDATE t SET v = 'update'", 'UPDATE');
	refused($three, 'UPDATE t SET v = v WHERE false', 'an UPDATE that finds nothing');
	refused($three, 'DELETE FROM t', 'DELETE');
	refused($three, 'TRUNCATE t', 'TRUNCATE');
	refused($three, "MERGE INTO t USING (VALUES (1)) AS s(id) ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = 'merge'", 'MERGE');
	refused($three, "COPY t FROM PROGRAM 'echo 204,copy' (FORMAT csv)", 'COPY');
	refused($three, "INSERT INTO p VALUES (2, 'by the parent')", 'INSERT by way of the partitioned table');
	refused($three, "UPDATE p SET v = 'by the parent'", 'UPDATE likewise');
	refused($three, 'DELETE FROM p', 'DELETE');
	refused($three, 'TRUNCATE p', 'TRUNCATE');
	refused($three, 'DELETE FROM parent', 'a cascade');
	last if $again;
	$three->restart('immediate');
}
my $error = sql_error($three, "INSERT INTO t VALUES (203, 'insert')");
like($error, qr/DETAIL:  It waits for db "aaa02" to hear of it\.\nHINT:  Write to another db/, 'the error says whom it waits for, and what to do');
is(sql($three, 'INSERT INTO own VALUES (1); SELECT count(*) FROM t WHERE id <= 100'), 21, 'other tables can be written, all can be read');
is(sql($three, q{SELECT DISTINCT problem FROM mmrepl.tables}), 'capture triggers: clients are kept out until this db has joined', 'the view tables says it');
sql($three, 'ALTER TABLE t DISABLE TRIGGER mmrepl_closed');
like(sql($three, q{SELECT problem FROM mmrepl.tables WHERE tablename = 't'}), qr/not as they should be/, 'and when somebody has meddled with that');
sql($three, 'SELECT mmrepl._attach_reconcile()');
refused($three, 'DELETE FROM t', 'which is put right');

# a dump of it can be written to
my $dump = $three->basedir . '/app.dump';
$three->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $three->connstr('app') ], 'dump');
$three->safe_psql('postgres', 'CREATE DATABASE restored');
$three->command_ok([ 'pg_restore', '-d', $three->connstr('restored'), $dump ], 'restore');
is($three->safe_psql('restored', "INSERT INTO t VALUES (300, 'restored'); INSERT INTO p VALUES (300, 'restored'); TRUNCATE child; SELECT count(*) FROM t WHERE id = 300"), 1, 'they let everybody pass where it is restored');

# the others go on; and this is what would become of writes here
sql($one, "UPDATE t SET v = 'newer' WHERE id = 1; DELETE FROM t WHERE id = 2");
sql($three, "SET session_replication_role = replica; INSERT INTO t VALUES (666, 'vanishes')");

# The second is back, but the copy is held up; and a reader is in the way of DROP TRIGGER.
my ($giver, $reader) = (session($one), session($three));
$giver->query_safe('BEGIN; LOCK TABLE t');
$two->start;
poll_is($three, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied = 0', 1, 'all have heard of it');
is(sql($three, q{SELECT count(*) FROM pg_trigger WHERE tgname = 'mmrepl_capture'}), 3, 'it captures');
$error = sql_error($three, "UPDATE t SET v = 'old' WHERE id = 1");
like($error, qr/cannot write to table "t" yet.*DETAIL:  It waits for its initial copy from db "aaa01"/s, 'but its rows are old: they cannot be written');
refused($three, "INSERT INTO t VALUES (205, 'too early')", 'nor can others');
$reader->query_safe('BEGIN; SELECT count(*) FROM t');
$giver->query_safe('COMMIT');
poll_is($three, $closed, 'f', 'with the copy it is open');
sql($three, "INSERT INTO t VALUES (206, 'in time'); UPDATE t SET v = 'and seen' WHERE id = 3; INSERT INTO p VALUES (3, 'in time'); DELETE FROM parent");
cmp_ok(sql($three, $left), '>', 0, 'also while the triggers cannot be dropped');
$reader->query_safe('COMMIT');
poll_is($three, $left, 0, 'which they are then');
poll_is($_, 'SELECT string_agg(v, $$, $$ ORDER BY id) FROM t WHERE id IN (1, 2, 3) OR id > 100', 'newer, and seen, in time', 'all of it is on ' . $_->name) foreach @all;
is(sql($_, q{SELECT count(*) FROM mmrepl.conflict_history WHERE key @> '{"id": 666}'}), 0, 'what got past is gone without a trace, ' . $_->name) foreach @all;
is(sql($_, 'SELECT count(*) FROM child'), 0, 'the cascade has gone through, ' . $_->name) foreach $one, $two;

# Ways out: it is removed while it is closed...
$two->stop;
sql($three, "SELECT mmrepl.rejoin('aaa01')");
refused($three, 'DELETE FROM t', 'closed again');
sql($one, "SELECT mmrepl.remove_db('aaa03', force => true)");
sql($three, "INSERT INTO t VALUES (400, 'alone')");
poll_is($three, $left, 0, 'a db that is removed is open, and clean');
$two->start;
poll_is($two, 'SELECT count(*) FROM mmrepl.db', 2, 'the second hears of it');

# ...or the extension is dropped. Before that: a db that is to be empty, and is not quite
my $add = sprintf "SELECT mmrepl.add_db('aaa03', '%s', dbgroup => 'sync'", conninfo($three);
sql($three, 'TRUNCATE t, p, child');
my $writer = session($three);
$writer->query_safe("BEGIN; INSERT INTO t VALUES (500, 'at the last moment')");
my $adding = session($one);
$adding->query_until(qr/sent/, "\\echo sent\n$add);\n\\echo said :LAST_ERROR_MESSAGE\n");
poll_is($three, q{SELECT count(*) > 0 FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND relation = 't'::regclass}, 't', 'it waits for who writes there');
$writer->query_safe('COMMIT');
like($adding->query_until(qr/said .*\n/, ''), qr/tables of db "aaa03" have rows/, 'and then sees that it is not empty');
is(sql($three, 'SELECT count(*) FROM t'), 1, 'so nothing was lost');
is(sql($three, $left), 0, 'nor closed');
sql($two, 'SELECT mmrepl.stop()');
sql($one, "$add, onetimecopy => 2)");
refused($three, "UPDATE t SET v = 'nobody would hear of it'", 'closed also where only empty tables are copied');
sql($three, 'DROP EXTENSION mmrepl');
is(sql($three, $left), 0, 'DROP EXTENSION takes them along');
sql($three, "UPDATE t SET v = 'alone'; TRUNCATE p");
sql($two, 'SELECT mmrepl.start()');
sql($one, "SELECT mmrepl.remove_db('aaa03', force => true)");

# a target that becomes a source has nothing to lose, and is closed for as long as nothing would be captured
add_node($one, $three, role => 'target', onetimecopy => 1);
poll_is($three, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied > 0', 1, 'a target');
is(sql($three, $left), 0, 'of which mmrepl keeps nobody out');
sql($one, q{SELECT mmrepl.update_dbgroup('sync', '{aaa01:source,aaa02:source,aaa03:source}')});
poll_is($three, $closed, 'f', 'a source');
sql($three, "INSERT INTO t VALUES (600, 'a source')");
poll_is($_, 'SELECT count(*) FROM t WHERE id = 600', 1, 'heard by ' . $_->name) foreach $one, $two;
poll_is($three, $left, 0, 'no trigger is left');
$_->quit foreach $giver, $reader, $writer, $adding;

# who was to give the copy is lost: another one does
wait_synced(@all);
same_rows($_, \@all) foreach qw(t p child);
sql($two, 'SELECT mmrepl.stop()');
sql($three, "SELECT mmrepl.rejoin('aaa02', 'aaa01')");
refused($three, 'DELETE FROM t', 'closed once more');
$one->stop('immediate');
sql($two, "SELECT mmrepl.remove_db('aaa01', force => true); SELECT mmrepl.start()");
poll_is($three, $closed, 'f', 'open with a copy from another one');
sql($three, "INSERT INTO t VALUES (700, 'after all')");
poll_is($two, 'SELECT count(*) FROM t WHERE id = 700', 1, 'and heard');
log_clean($one, my $expected = qr/cannot write to table|is stopped|could not lock|must be called in|joins the sync|not joined yet|configuration has changed|could not connect|terminating|connection|server closed|does not take part|is not in the configuration|does not exist|cannot be reached|tables of db|another node by now|starting up|shutting down|claims to be it|WARNING|canceling statement|wrong database/);
finish([ $two, $three ], $expected, qw(t p child));
