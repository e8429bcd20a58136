# Risk: what departed sources have left with targets is fetched by a process that does other things, too: a change of the configuration, a lock, a
# conflict that nobody may decide, or a role without rights, end it for good, or it goes on as if nothing had been. Method: two sources are lost at
# once, each having reached one target only; the third fetches, held up by each of these. Would pass wrongly if it had heard of them: looked at.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my $conf = "mmrepl.heartbeat_interval = 200\nmmrepl.segment_size = 64\nmmrepl.lock_timeout = 60s\n";
my ($one, $two, $three, $left, $right) = my @all = map { new_node($_, link => 1, conf => $conf) } qw(aaa01 aaa02 aaa03 left right);
my @stay = ($two, $left, $right);
sql_all(q{CREATE EXTENSION mmrepl; CREATE ROLE courier LOGIN; GRANT USAGE ON SCHEMA mmrepl TO courier; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA mmrepl TO courier;
	CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, v text); CREATE TABLE a (id int PRIMARY KEY, v text)}, @all);
sql($two, join ';', (map { sprintf "SELECT mmrepl.add_db('%s', '%s user=courier')", $_->name, conninfo($_) } $two, $one, $three, $left, $right),
	"SELECT mmrepl.add_table('t', relgroup => 'herd'); SELECT mmrepl.add_table('a', relgroup => 'herd', conflict_strategy => 'abort');
	SELECT mmrepl.add_sync('sync', relgroup => 'herd', dbs => '{aaa01:source,aaa02:source,aaa03:source,left:target,right:target}', onetimecopy => 0)");
my $log = 'SELECT count(*) FROM mmrepl.change_log';
my $departed = 'SELECT count(*) FROM mmrepl.departed';
sql($one, "INSERT INTO t SELECT g, g, 'before' FROM generate_series(1, 10) g; INSERT INTO a VALUES (1, 'before')");
wait_synced($one, $two, $three);

# ---- the last words of two come to one target each
$two->{mmrepl_link}->cut($_) foreach $one, $three;
$one->{mmrepl_link}->cut($three);
$three->{mmrepl_link}->cut($one);
$left->{mmrepl_link}->cut($_) foreach $two, $three;
$right->{mmrepl_link}->cut($_) foreach $two, $one;
sql($one, "UPDATE a SET v = 'one' WHERE id = 1; INSERT INTO t VALUES (11, 11, 'one'), (13, 13, 'one'); DELETE FROM t WHERE id = 1");
sql($three, "UPDATE t SET v = 'three' WHERE id IN (5, 6); INSERT INTO t VALUES (12, 11, 'three, with a value that is taken'), (13, 14, 'three, later')");
poll_is($left, 'SELECT count(*) FROM t', 11, 'one target has them of one');
poll_is($right, 'SELECT count(*) FROM t', 12, 'another of the other');
is(sql($two, "SELECT count(*) FROM t WHERE v <> 'before'"), 0, 'the third source has none of them');
kill_postmaster($_) foreach $one, $three;
sql($two, "UPDATE a SET v = 'two' WHERE id = 1");
remove_node($two, $_, force => 1) foreach $one, $three;
is(sql($two, $departed), 2, 'both have departed');

# ---- held up by a lock, while the configuration is looked at anew
my $writer = session($two);
$writer->query_safe("BEGIN; UPDATE t SET v = 'held' WHERE id = 5");
my $from = -s $two->logfile;
$right->{mmrepl_link}->heal;
poll_is($two, q{SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity s USING (pid) WHERE NOT l.granted AND s.backend_type = 'mmrepl pusher')}, 't',
	'what comes from a target waits for a writer');
sql($two, 'SELECT mmrepl._wake()');
$writer->query_safe('ROLLBACK');
$writer->quit;
poll_is($two, "SELECT count(*) FROM t WHERE v ~ 'three'", 4, 'then it is there');
unlike(substr(PostgreSQL::Test::Utils::slurp_file($two->logfile), $from), qr/configuration has changed while a batch was applied/, 'at the first try');
poll_is($two, "$departed WHERE cardinality(asked) = 1", 2, 'that target has been asked for both');

# ---- a conflict that is not to be decided
sql($two, 'ALTER SYSTEM SET mmrepl.lock_timeout = 300');
$two->reload;
$writer = session($two);
$writer->query_safe('BEGIN; SELECT FROM t WHERE id = 1 FOR UPDATE');
$from = -s $two->logfile;
$left->{mmrepl_link}->heal;
ok(log_like($two, qr/pushing failed: canceling statement due to lock timeout/, $from), 'a lock is not waited for for long');
$writer->query_safe('ROLLBACK');
$writer->quit;
poll_is($two, "SELECT halted FROM mmrepl.sync", 'on db "aaa02": conflict update_origin_differs in table "public.a", and its strategy is abort', 'the sync halts, and says where')
  or diag(sql($two, 'SELECT halted FROM mmrepl.sync'));
is(sql($two, "SELECT local_row->>'v', remote_row->>'v' FROM mmrepl.conflict_history WHERE resolution = 'abort'"), 'two|one', 'both rows are in the history');
is(sql($two, 'SELECT count(*) FROM t WHERE id = 1'), 1, 'nothing of the rest is in');
sql($two, "UPDATE a SET v = 'one' WHERE id = 1; SELECT mmrepl.resume('sync')");
poll_is($_, $departed, 0, $_->name . ' is done with both') foreach @stay;
poll_is($two, 'SELECT count(*) FROM t WHERE id = 1', 0, 'the rest is in');
sql($two, "INSERT INTO t VALUES (20, 20, 'afterwards')");
poll_is($_, 'SELECT count(*) FROM t WHERE id = 20', 1, 'all goes on: ' . $_->name) foreach $left, $right;
is(sql($two, 'SELECT string_agg(id || v, \',\' ORDER BY id) FROM t WHERE id > 10 AND id < 20'), '12three, with a value that is taken,13three, later', 'of two rows the later one stands');
poll_is($_, $log, 0, 'log of ' . $_->name . ' drains') foreach @stay;
same_rows($_, \@stay) foreach qw(t a);

foreach my $node (@stay)
{
	$node->stop;
	log_clean($node, qr/could not connect|connection|server closed|terminat|has departed|configuration has changed|is not in the configuration|does not replicate|strategy is abort|is paused|is halted/);
}
done_testing();
