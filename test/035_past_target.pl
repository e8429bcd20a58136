# Risk: a target that was put back to its past lacks what its source keeps no more, and nobody sees it: it has no transactions that others know by
# number. Method: a base backup of it is put back within the same run of its server, after more has come. Would pass wrongly if it refused before: looked at.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

my ($one, $two) = my @nodes = map { new_node($_, conf => "wal_level = replica\nmax_wal_senders = 4\n") } qw(aaa01 aaa02);
$two->append_conf('pg_hba.conf', "local replication all trust\n");
$two->reload;
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text)', @nodes);
join_nodes(\@nodes, roles => { aaa02 => 'target' });
sql($one, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 5) AS g");
wait_synced($one);
$two->backup('base');
sql($one, "INSERT INTO t SELECT g, 'lost there' FROM generate_series(6, 10) AS g");
wait_synced($one);
my $position = sql($two, 'SELECT position FROM mmrepl.progress');
poll_is($one, 'SELECT acked::text FROM mmrepl.peer_state', $position, 'what it has confirmed is written down');
poll_is($one, 'SELECT state FROM mmrepl.status', 'good', 'all is well');
poll_is($one, 'SELECT count(*) FROM mmrepl.change_log', 0, 'and nothing is kept any more');

$two->stop('immediate');
$one->restart;
my $dir = $two->data_dir;
my $keep = slurp_file("$dir/postgresql.conf");
File::Path::rmtree($dir);
PostgreSQL::Test::RecursiveCopy::copypath($two->backup_dir . '/base', $dir);
unlink "$dir/postgresql.conf";
append_to_file("$dir/postgresql.conf", $keep);
chmod 0700, $dir;
$two->start;
is(sql($two, 'SELECT count(*) FROM t'), 5, 'it is in its past');
poll_is($one, q{SELECT state, last_error ~ 'has not any more what it had confirmed' FROM mmrepl.status}, 'bad|t', 'its source sees that');
sql($one, "INSERT INTO t VALUES (11, 'after')");
is(sql($one, "SELECT mmrepl.wait_for_sync('sync', 1)"), 'f', 'and sends nothing');
is(sql($two, 'SELECT count(*) FROM t'), 5, 'nothing arrives');
sql($two, 'SELECT mmrepl.rejoin()');
poll_is($one, 'SELECT state FROM mmrepl.status', 'good', 'by rejoin it comes back');
wait_synced($one);
same_rows('t', \@nodes);
is(sql($two, 'SELECT count(*) FROM t'), 11, 'with all');
$_->stop foreach @nodes;
log_clean($_, qr/could not connect|what it had confirmed|connection|server closed|joins the sync|not joined yet|is not in the configuration|configuration has changed|WARNING|has not confirmed|terminating|claims to be it/) foreach @nodes;
done_testing();
