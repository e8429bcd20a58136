# Risk: a standby that had not received everything is promoted, and its sessions write before any worker of ours looks: then the numbers of what is lost
# are given out already, and nobody sees that it is. Method: its postmaster is stopped while it is promoted, so that no worker starts. Would pass
# wrongly if those sessions had not written as much as was lost: looked at.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($one, $two) = my @all = pair_with_backup();
my $late = PostgreSQL::Test::Cluster->new('late');
$late->init_from_backup($one, 'base', has_streaming => 1);
$late->start;
$one->wait_for_catchup($late, 'replay', $one->lsn('insert'));
$late->stop;
sql($one, "INSERT INTO t VALUES (24, 'lost'), (25, 'lost')");
wait_synced(@all);
my $known = sql($two, 'SELECT max(pg_snapshot_xmax(position)::text::int8) FROM mmrepl.progress');
$one->stop;

# promoted, and written to by who was connected
$late->start;
my $client = session($late);
my $startup = $client->query_safe(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'});
my $postmaster = (split /\n/, slurp_file($late->data_dir . '/postmaster.pid'))[0];
kill('STOP', $postmaster);
append_to_file($late->data_dir . '/promote', '');
kill('USR2', $startup);
# no new session comes in
poll_session($client, 'SELECT NOT pg_is_in_recovery()');
is($client->query_safe('SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE $$mmrepl%$$'), 0, 'no worker is there yet');
my $last = 0;
foreach my $id (1001 .. 1200)
{
	$client->query_safe("INSERT INTO t VALUES ($id, 'at once')");
	last if ($last = $client->query_safe('SELECT pg_snapshot_xmax(pg_current_snapshot())')) > $known + 5;
}
cmp_ok($last, '>', $known, 'as many transactions have passed as were lost');
$client->quit;
kill('CONT', $postmaster);
# (it waits until the launcher is there)
like(sql_error($late, 'SELECT mmrepl.confirm_identity()'), qr/has applied changes of this database that are not here/, 'that something is lost is seen');
is(sql($late, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'mmrepl launcher'}), 't', 'then workers start');
sql($two, sprintf "SELECT mmrepl.update_db('aaa01', '%s')", conninfo($late));
sql($late, 'SELECT mmrepl.rejoin()');
poll_is($late, q{SELECT bool_and(state = 'good') FROM mmrepl.status}, 't', 'it comes back by rejoin');
poll_is($late, 'SELECT count(*) FROM mmrepl.kept', 0, 'with what only it had');
wait_synced($late, $two);
is(sql($_, "SELECT count(*) FILTER (WHERE v = 'lost') FROM t"), 2, 'what it had lost is there, ' . $_->name) foreach $late, $two;
cmp_ok(sql($two, "SELECT count(*) FROM t WHERE v = 'at once'"), '>', 0, 'and what it had written');
same_rows('t', [ $late, $two ]);
$_->stop foreach $late, $two;
log_clean($two, qr/could not connect|server closed|connection|terminating|has been put back|does not take part|another server|joins the sync|not joined|claims to be it|is not in the|wrong database/);
done_testing();
