# Risk: who has not got yet what a lost source has left with a target alone is lost, too, and with it all who would have asked for it. Method: the
# only source is held up when it fetches; a new one comes, with a copy of it; then the first is lost. Would pass wrongly if it had fetched it: looked at.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my $conf = "mmrepl.heartbeat_interval = 200\nmmrepl.segment_size = 64\nmmrepl.lock_timeout = 0\n";
my ($one, $two, $three, $target) = my @all = map { new_node($_, link => 1, conf => $conf) } qw(aaa01 aaa02 aaa03 report);
my @stay = ($three, $target);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text)', @all);
join_nodes([ $one, $two, $target ], roles => { report => 'target' });
my $log = 'SELECT count(*) FROM mmrepl.change_log';
my $left = 'SELECT count(*) FROM mmrepl.departed';
sql($one, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 10) g");
wait_synced($one, $two);

$two->{mmrepl_link}->cut($one);
sql($one, "UPDATE t SET v = 'last words' WHERE id = 1; DELETE FROM t WHERE id = 2");
poll_is($target, 'SELECT v FROM t WHERE id = 1', 'last words', 'a target has the last words');
my $writer = session($two);
$writer->query_safe('BEGIN; SELECT FROM t WHERE id = 1 FOR UPDATE');
kill_postmaster($one);
remove_node($two, $one, force => 1);
poll_is($two, q{SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity s USING (pid) WHERE NOT l.granted AND s.backend_type = 'mmrepl pusher')}, 't',
	'the other source fetches them, and is held up');

# ---- one that comes now asks, too
$three->{mmrepl_link}->cut($two);
add_node($target, $three);
poll_is($three, q{SELECT count(*) FROM mmrepl.worker_status WHERE kind = 'pusher' AND db = 'report' AND state = 'good'}, 1, 'a new source reaches the target before it has its copy');
is(sql($three, 'SELECT count(*) FROM t'), 0, 'which it has not yet');
$three->{mmrepl_link}->heal;
poll_is($three, 'SELECT v FROM t WHERE id = 1', 'last words', 'who comes now fetches them');
is(sql($two, 'SELECT v FROM t WHERE id = 1'), 'before', 'from the target, not from the other source');
kill_postmaster($two);
$writer->{run}->kill_kill;
remove_node($three, $two, force => 1);
poll_is($_, $left, 0, $_->name . ' is done with both') foreach @stay;
sql($three, "INSERT INTO t VALUES (11, 'afterwards')");
poll_is($target, 'SELECT count(*) FROM t', 10, 'all goes on');
poll_is($_, $log, 0, 'log of ' . $_->name . ' drains') foreach @stay;
same_rows('t', \@stay);

foreach my $node (@stay)
{
	$node->stop;
	log_clean($node, qr/could not connect|connection|server closed|terminat|has departed|configuration has changed|is not in the configuration|does not replicate|joins the sync|not joined yet|WARNING/);
}
done_testing();
