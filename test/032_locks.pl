# Risk: adding a sync makes clients queue behind a lock, or hangs for ever behind a transaction left open. Method: a
# transaction holds a table while others write it, each with a bounded wait for locks; add_sync gives up, says who
# is in the way, and has changed nothing. Would pass wrongly if nobody wrote meanwhile: counted.
use strict;
use warnings;
use IPC::Run qw(start);
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $one = new_node('aaa01');
my $two = new_node('aaa02');
my @nodes = ($one, $two);
sql_all('CREATE TABLE t (id serial PRIMARY KEY, v text); CREATE TABLE other (id serial PRIMARY KEY)', @nodes);
sql($one, "CREATE EXTENSION mmrepl");
sql($one, sprintf("SELECT mmrepl.add_db('%s', '%s')", $_->name, conninfo($_))) foreach @nodes;
sql($one, "SELECT mmrepl.add_all_tables(schemas => '{public}', relgroup => 'herd')");
sql($one, "SELECT mmrepl.add_all_sequences(schemas => '{public}', relgroup => 'herd')");
my $add = "SELECT mmrepl.add_sync('sync', relgroup => 'herd', dbs => '{aaa01:source,aaa02:source}')";
my $triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'mmrepl%'";

# writes on both servers; a wait for a lock as long as add_sync tries would be an error in their log
my @writers;
foreach my $node (@nodes)
{
	local $ENV{PGOPTIONS} = '-c lock_timeout=5s';
	push @writers, start_load($node, "INSERT INTO t (v) VALUES ('w');\nINSERT INTO other DEFAULT VALUES", clients => 2, rate => 0);
	poll($node, "SELECT count(*) > 10 FROM t");
}

foreach my $node (@nodes)
{
	my $name = $node->name;
	my $open = session($node);
	$open->query_safe("BEGIN; INSERT INTO t (v) VALUES ('open'); SELECT 1");
	my $pid = $open->query_safe('SELECT pg_backend_pid()');
	my %before = map { $_->name => sql($_, 'SELECT count(*) FROM other') } @nodes;
	my $error = sql_error($one, $add) // '';
	like($error, qr/could not lock/, "$name: add_sync gives up behind an open transaction");
	like($error, qr/Session $pid .*has it locked/, "$name: and says whose");
	cmp_ok(sql($_, 'SELECT count(*) FROM other'), '>', $before{ $_->name }, "$name: clients went on writing on " . $_->name) foreach @nodes;
	is(sql($_, $triggers), 0, "$name: no triggers on " . $_->name) foreach @nodes;
	is(sql($_, "SELECT count(*) FROM mmrepl.sync"), 0, "$name: no sync on " . $_->name) foreach @nodes;
	is(sql($_, "SELECT seqincrement FROM pg_sequence WHERE seqrelid = 't_id_seq'::regclass"), 1, "$name: no interleaving on " . $_->name) foreach @nodes;
	$open->query_safe('ROLLBACK');
	$open->quit;
}

# one that ends in time is waited for
my $open = session($two);
$open->query_safe("BEGIN; INSERT INTO t (v) VALUES ('short'); SELECT 1");
my ($out, $err) = ('', '');
my $adding = start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $one->connstr('app'), '-c', $add ], '>', \$out, '2>', \$err);
poll($two, "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'mmrepl config%'");
$open->query_safe('COMMIT');
$open->quit;
$adding->finish;
is($err, '', 'add_sync waits for a transaction that ends');
is(sql($_, $triggers), 4, 'triggers are there on ' . $_->name) foreach @nodes;

# a prepared transaction is named
sql($one, "SELECT mmrepl.remove_sync('sync')");
sql($one, "BEGIN; INSERT INTO t (v) VALUES ('p'); PREPARE TRANSACTION 'held'");
like(sql_error($one, $add), qr/Prepared transaction "held" has it locked/, 'a prepared transaction is named');
sql($one, "COMMIT PREPARED 'held'");
is(sql_error($one, $add), undef, 'and not in the way any more once it is committed');

stop_load($_) foreach @writers;
$_->stop foreach @nodes;
log_clean($_, qr/could not lock|terminating|shutting down|starting up|client lost|does not replicate from|canceling statement due to user request/) foreach @nodes;
is((grep { /lock timeout/ } split /\n/, slurp_file($_->logfile))[0], undef, 'no client waited long for a lock on ' . $_->name) foreach @nodes;
done_testing();
