# Risk: triggers that outlive the extension, get lost in a dump, capture a restore, or lose their key. Method: drop, dump,
# restore and look; a restored database must be usable by itself. Would pass wrongly if there were no triggers to
# begin with: checked first.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $one = new_node('aaa01');
my $two = new_node('aaa02');
my @nodes = ($one, $two);
sql_all(<<'SQL', @nodes);
CREATE TABLE t (id serial PRIMARY KEY, v text);
CREATE TABLE k (id bigserial PRIMARY KEY, u text NOT NULL UNIQUE);
CREATE SCHEMA "odd ""name";
CREATE TABLE "odd ""name"."a table" (id int PRIMARY KEY);
SQL
join_nodes(\@nodes, keys => { k => 'k_u_key' });

my $triggers = "SELECT tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text FROM pg_trigger WHERE tgname LIKE 'mmrepl%' ORDER BY 1";
my $all = join "\n", map { my $t = $_; map { "$t mmrepl_capture$_ O" } '', '_truncate' } '"odd ""name"."a table"', 'k', 't';
is(sql($_, $triggers), $all, 'triggers on ' . $_->name) foreach @nodes;
sql($one, "INSERT INTO t (v) SELECT 'x' FROM generate_series(1, 100); INSERT INTO k (u) VALUES ('one')");

# the key stays while it is needed
like(sql_error($one, 'ALTER TABLE k DROP CONSTRAINT k_u_key'), qr/mmrepl_capture on table k depends on index k_u_key/,
	'the key index cannot be dropped');
is(sql_error($one, 'ALTER TABLE k ALTER COLUMN id SET DEFAULT 7, ADD COLUMN more int'), undef, 'other changes of the table can be made');
sql($two, 'ALTER TABLE k ADD COLUMN more int');

# dump and restore: with the triggers, without a role in replication, capturing nothing
my $dump = $one->basedir . '/app.dump';
$one->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $one->connstr('app') ], 'dump');
$one->safe_psql('postgres', 'CREATE DATABASE restored');
my ($out, $err) = run_command([ 'pg_restore', '-d', $one->connstr('restored'), $dump ]);
is($err, '', 'restore says nothing');
is($one->safe_psql('restored', $triggers), $all, 'triggers are in the restored database');
is($one->safe_psql('restored', 'SELECT count(*) FROM mmrepl.log'), 0, 'nothing was captured by the restore');
is($one->safe_psql('restored', 'SELECT node_id IS NULL FROM mmrepl.local_node'), 't', 'it is no db of the configuration');
is($one->safe_psql('restored', 'SELECT count(*) FROM t'), 100, 'rows are there');
$one->safe_psql('restored', "INSERT INTO t (v) VALUES ('y'); UPDATE k SET u = 'two'; TRUNCATE \"odd \"\"name\".\"a table\"");
is($one->safe_psql('restored', 'SELECT count(*) FROM mmrepl.log'), 0, 'and nothing is captured afterwards');
$one->safe_psql('restored', 'DROP EXTENSION mmrepl');
is($one->safe_psql('restored', $triggers), '', 'DROP EXTENSION takes restored triggers along');
$one->safe_psql('restored', 'ALTER TABLE k DROP CONSTRAINT k_u_key');

# remove_sync, then DROP EXTENSION: tables are clean and work
sql($one, "SELECT mmrepl.remove_sync('sync')");
is(sql($_, $triggers), '', 'remove_sync took the triggers along on ' . $_->name) foreach @nodes;
is(sql_error($one, 'ALTER TABLE k DROP CONSTRAINT k_u_key'), undef, 'the key is free again');
sql($one, 'ALTER TABLE k ADD CONSTRAINT k_u_key UNIQUE (u)');
sql($one, "SELECT mmrepl.add_sync('again', relgroup => 'herd', dbs => '{aaa01:source,aaa02:source}')");
is(sql($_, $triggers), $all, 'triggers are back on ' . $_->name) foreach @nodes;
sql($_, 'DROP EXTENSION mmrepl') foreach @nodes;
foreach my $node (@nodes)
{
	is(sql($node, $triggers), '', 'DROP EXTENSION took the triggers along on ' . $node->name);
	is(sql($node, "SELECT count(*) FROM pg_depend WHERE refobjid NOT IN (SELECT oid FROM pg_extension) AND refclassid = 'pg_extension'::regclass"),
		0, 'no dependency is left on ' . $node->name);
	is(sql($node, "SELECT string_agg(DISTINCT seqincrement::text, ',') FROM pg_sequence WHERE seqrelid IN ('t_id_seq'::regclass, 'k_id_seq'::regclass)"),
		1, 'sequences are what they were on ' . $node->name);
	is(sql_error($node, "INSERT INTO t (v) VALUES ('z'); DELETE FROM k; TRUNCATE t; DROP TABLE k"), undef,
		'tables work on ' . $node->name);
}
$_->stop foreach @nodes;
log_clean($_, qr/k_u_key|terminating|shutting down|starting up|could not connect|does not exist/) foreach @nodes;
done_testing();
