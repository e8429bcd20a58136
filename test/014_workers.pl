# Workers come, come back and go as they should, and are in nobody's way. Configuration is written by hand, so that one
# peer can be a socket that accepts connections and never says a word. It would pass wrongly if no pusher
# ever connected to that peer: the socket is asked for it.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use MmreplCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $workers = q{SELECT coalesce(string_agg(replace(backend_type, 'mmrepl ', ''), ' ' ORDER BY backend_type), '')
	FROM pg_stat_activity WHERE backend_type LIKE 'mmrepl %'};

# SQL in another database than the test library's
sub in_db { my ($node, $db, $sql) = @_; return $node->safe_psql($db, $sql); }

sub poll_db
{
	my ($node, $db, $query, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->poll_query_until($db, $query, $expected), $name)
	  || diag(in_db($node, $db, "SELECT pid, datname, backend_type, state, query FROM pg_stat_activity"));
}

my $silent = IO::Socket::INET->new(Listen => 100, LocalAddr => '127.0.0.1') or die "no socket: $!";
my $configure = sprintf q{
	CREATE EXTENSION mmrepl;
	UPDATE mmrepl.local_node SET node_id = 1;
	INSERT INTO mmrepl.db SELECT 1, 'here', 'dbname=app', system_identifier, database_oid FROM mmrepl.local_node;
	INSERT INTO mmrepl.db VALUES (2, 'silent', 'host=127.0.0.1 port=%d dbname=app', 1, 1);
	INSERT INTO mmrepl.dbgroup VALUES ('g');
	INSERT INTO mmrepl.dbgroup_db VALUES ('g', 1, 'source', 1), ('g', 2, 'source', 2);
	INSERT INTO mmrepl.relgroup VALUES ('r');
	INSERT INTO mmrepl.sync (sync_id, name, relgroup, dbgroup) VALUES (1, 's', 'r', 'g');
	SELECT mmrepl._wake();
}, $silent->sockport;

# Waits until something has connected to the silent peer (since the last time).
my @connections;
sub connected
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ready = IO::Select->new($silent)->can_read($PostgreSQL::Test::Utils::timeout_default);
	push @connections, $silent->accept if $ready;
	return ok($ready, $name);
}
my $everyone = 'janitor launcher pusher';

# so long that only a worker that serves SIGTERM ends before the test gives up
my $a = new_node('a', conf => "mmrepl.connect_timeout = 3600\nmmrepl.restart_delay = 50\nwal_level = replica\nmax_wal_senders = 5\n");

poll_db($a, 'app', $workers, 'launcher', 'without the extension only the launcher stays');
in_db($a, 'app', 'CREATE EXTENSION mmrepl');
poll_db($a, 'app', $workers, 'janitor launcher', 'CREATE EXTENSION brings a janitor');
in_db($a, 'app', 'DROP EXTENSION mmrepl');
poll_db($a, 'app', $workers, 'launcher', 'DROP EXTENSION sends it away');
in_db($a, 'app', $configure);
connected('the pusher hangs on its peer');
poll_db($a, 'app', $workers, $everyone, 'a sync brings a pusher');
is(in_db($a, 'app', 'SELECT state, lag_seconds >= 0 FROM mmrepl.status'), 'connecting|t', 'status says what it is at');

foreach my $kind (qw(launcher janitor pusher))
{
	my $pid = in_db($a, 'app', "SELECT pid FROM mmrepl.worker_status WHERE kind = '$kind'");
	in_db($a, 'app', "SELECT pg_terminate_backend($pid)");
	poll_db($a, 'app', "SELECT count(*) FROM mmrepl.worker_status WHERE kind = '$kind' AND pid > 0 AND pid <> $pid", '1',
		"$kind comes back after pg_terminate_backend");
}
poll_db($a, 'app', $workers, $everyone, 'each is there once');

my $started = in_db($a, 'app', 'SELECT pg_postmaster_start_time()');
my $victim = in_db($a, 'app', "SELECT pid FROM mmrepl.worker_status WHERE kind = 'janitor'");
ok(kill(9, $victim), 'janitor killed');
poll_db($a, 'app', "SELECT count(*) FROM pg_stat_activity WHERE pid = $victim", '0', 'the server restarts after the crash');
poll_db($a, 'app', $workers, $everyone, 'all workers come back');
is(in_db($a, 'app', 'SELECT pg_postmaster_start_time()'), $started, 'of the same postmaster');

# in nobody's way
in_db($a, 'app', 'SELECT mmrepl.stop()');
poll_db($a, 'postgres', $workers, 'launcher', 'stop() sends all of a database away, also one that hangs on its peer');
in_db($a, 'postgres', 'CREATE DATABASE copy TEMPLATE app');
in_db($a, 'postgres', 'ALTER DATABASE app RENAME TO other');
in_db($a, 'postgres', 'ALTER DATABASE other RENAME TO app');
pass('the database can be copied and renamed');
$a->restart;
poll_db($a, 'app', "SELECT state FROM mmrepl.worker_status WHERE kind = 'launcher'", 'good', 'after a restart');
is(in_db($a, 'app', 'SELECT state FROM mmrepl.status'), 'stopped', 'it is still stopped');
like(sql_error_in($a, 'copy', 'SELECT mmrepl.start()'), qr/is a copy of the one/, 'the copy does not start');
in_db($a, 'postgres', 'DROP DATABASE copy');
in_db($a, 'app', 'SELECT mmrepl.start()');
poll_db($a, 'app', $workers, $everyone, 'start() brings them back');

# the standby of a server has no workers of its own
$a->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($a, 'base', has_streaming => 1);
$standby->start;
$a->wait_for_catchup($standby);
is($standby->safe_psql('app', $workers), '', 'no worker on a standby');
is($standby->safe_psql('app', 'SELECT state FROM mmrepl.status'), 'no worker', 'and its status says so');
$standby->promote;
poll_db($standby, 'app', "SELECT state FROM mmrepl.worker_status WHERE kind = 'launcher'", 'good', 'promotion brings the launcher');
poll_db($standby, 'app', "SELECT state FROM mmrepl.worker_status WHERE kind = 'janitor'", 'bad',
	'its janitor refuses to be the one it was');
is($standby->safe_psql('app', 'SELECT sqlstate FROM mmrepl.worker_status WHERE kind = \'janitor\''), 'MR004', 'and says why');
$standby->safe_psql('app', 'SELECT mmrepl.confirm_identity()');
poll_db($standby, 'app', $workers, $everyone, 'confirm_identity() lets them go on at once');
$standby->stop;

# hanging workers do not hold up what ends them
in_db($a, 'app', 'DROP EXTENSION mmrepl');
poll_db($a, 'app', $workers, 'launcher', 'DROP EXTENSION sends all away, also one that hangs on its peer');
push @connections, $silent->accept while IO::Select->new($silent)->can_read(0);
in_db($a, 'app', $configure);
connected('the pusher hangs again');
in_db($a, 'postgres', 'CREATE DATABASE gone TEMPLATE template0');
in_db($a, 'gone', $configure);
connected('so does one in another database');
in_db($a, 'postgres', 'DROP DATABASE gone WITH (FORCE)');
pass('DROP DATABASE ... WITH (FORCE)');
poll_db($a, 'postgres', $workers, $everyone, 'its workers stay away, the others stay');
$a->stop('fast');
pass('fast shutdown while a pusher hangs on its peer');
my $ends = 'terminating|in recovery mode|starting up|shutting down';
log_clean($a, qr/is a copy of the one|database .* does not exist|$ends/);
log_clean($standby, qr/timeline|streaming|could not (?:connect|receive)|$ends/);

# too few slots for workers: told once, tried again, shown
my $b = new_node('b', conf => "max_worker_processes = 2\nmmrepl.restart_delay = 20\n");
in_db($b, 'app', 'CREATE EXTENSION mmrepl');
poll_db($b, 'app', "SELECT state, sqlstate FROM mmrepl.worker_status WHERE kind = 'janitor'", 'bad|53400', 'no slot for a janitor: shown');
poll_db($b, 'app', "SELECT now() - last_bad < interval '1 min' FROM mmrepl.worker_status WHERE kind = 'janitor'", 't', 'and tried again');
my @warnings = slurp_file($b->logfile) =~ /WARNING:  could not start worker.*/g;
is(scalar @warnings, 1, 'warned once');
like(slurp_file($b->logfile), qr/HINT:  Raise max_worker_processes/, 'with a hint');
$b->append_conf('postgresql.conf', 'max_worker_processes = 8');
$b->restart;
poll_db($b, 'app', $workers, 'janitor launcher', 'with more slots it comes');
$b->stop;
log_clean($b);

# not preloaded
my $c = new_node('c', preload => 0);
in_db($c, 'app', 'CREATE EXTENSION mmrepl');
is(in_db($c, 'app', 'SELECT count(*) FROM mmrepl.worker_status'), 0, 'not preloaded: no workers');
foreach my $call ('start()', 'stop()', 'kick()', 'wait_for_sync()')
{
	like(sql_error_in($c, 'app', "SELECT mmrepl.$call"), qr/must be loaded when the server starts.*shared_preload_libraries/s,
		"$call says what to do");
}
in_db($c, 'app', 'DROP EXTENSION mmrepl');
$c->stop;

sub sql_error_in
{
	my ($node, $db, $sql) = @_;
	my ($rc, $out, $err) = $node->psql($db, $sql, on_error_stop => 1);
	return $rc ? $err : 'no error';
}

done_testing();
