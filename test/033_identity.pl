# Risk: a copy of a database, or one brought back from the past, replicates as if it were the original. Method: copies by
# CREATE DATABASE, by base backup and promotion; each must refuse, and say what to do. Would pass wrongly if the
# original refused too: looked at.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $one = new_node('aaa01', conf => "wal_level = replica\nmax_wal_senders = 4\n");
$one->append_conf('pg_hba.conf', "local replication all trust\n");
$one->reload;
sql($one, 'CREATE TABLE t (id int PRIMARY KEY)');
sql($one, 'CREATE EXTENSION mmrepl');
sql($one, sprintf("SELECT mmrepl.add_db('aaa01', '%s')", conninfo($one)));
my $change = "SELECT mmrepl.add_table('public.t', relgroup => 'herd')";
is(sql_error($one, $change), undef, 'the original can be configured');

# a copy beside it
sql($one, 'SELECT mmrepl.stop()');
$one->stop;
$one->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$one->start;
$one->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE app');
$one->stop;
$one->append_conf('postgresql.conf', "shared_preload_libraries = 'mmrepl'\n");
$one->start;
my ($rc, $out, $err) = $one->psql('copy', "SELECT mmrepl.add_relgroup('x')");
like($err, qr/is a copy of the one/, 'a copy by CREATE DATABASE refuses');
like($err, qr/DROP EXTENSION mmrepl/, 'and says what to do');
($rc, $out, $err) = $one->psql('copy', 'SELECT mmrepl.confirm_identity()');
like($err, qr/is a copy of the one/, 'it cannot be confirmed');
is(sql_error($one, "SELECT mmrepl.add_relgroup('x')"), undef, 'the original still can be configured');
($rc, $out, $err) = $one->psql('copy', 'DROP EXTENSION mmrepl; CREATE EXTENSION mmrepl');
is($rc, 0, 'the extension can be dropped and made anew in the copy');

# crash recovery keeps the timeline
$one->stop('immediate');
$one->start;
is(sql_error($one, "SELECT mmrepl.add_relgroup('y')"), undef, 'nothing to confirm after a crash');

# a promoted standby
$one->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($one, 'base', has_streaming => 1);
$standby->start;
$one->wait_for_catchup($standby, 'replay');
like(sql_error($standby, "SELECT mmrepl.add_relgroup('z')"), qr/recovery|read-only/, 'nothing is configured on a standby');
$one->stop;
$standby->promote;
poll($standby, 'SELECT NOT pg_is_in_recovery()');
like(sql_error($standby, "SELECT mmrepl.add_relgroup('z')"), qr/is on timeline 2.*mmrepl\.confirm_identity/s, 'a promoted standby refuses, and says what to do');
is(sql_error($standby, 'SELECT mmrepl.confirm_identity()'), undef, 'it can be confirmed');
is(sql_error($standby, "SELECT mmrepl.add_relgroup('z')"), undef, 'and then be configured');
$standby->stop;
done_testing();
