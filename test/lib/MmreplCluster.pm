# MmreplCluster.pm: servers that replicate to each other, for the TAP tests. A node is a PostgreSQL::Test::Cluster
# with a database "app"; everything polls, nothing waits for a time.
package MmreplCluster;
use strict;
use warnings;
use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use MmreplLink;

our @EXPORT = qw(new_node join_nodes pair_with_backup conninfo sql sql_error sql_all poll poll_is poll_session session wait_synced same_rows rows_differ
  log_clean log_like worker_pid kill_worker kill_postmaster start_again start_with_clock set_clock
  conflicts finish add_node remove_node start_load stop_load end_load comes_to_rest write_until_purged);

# A server that does not start fails its test, not all tests.
{
	no warnings 'redefine';
	*PostgreSQL::Test::Cluster::BAIL_OUT = sub { die "@_\n" };
}

my $db = 'app';

# Errors that only mean a bug. The rest of what log_clean refuses is any ERROR that a test did not announce.
my $bug = qr/PANIC|TRAP:|was not closed|\bleak|still referenced|unexpected snapshot|snapshot reference|
	invalid\ memory\ alloc|could\ not\ find\ block|corrupt|cache\ lookup\ failed|terminated\ by\ signal\ (?:6|8|11)/x;

# What sessions say when a server goes down, and those that come too early.
my $going_down = qr/received\ (?:smart|fast|immediate)\ shutdown\ request|terminating\ any\ other\ active\ server\ processes/x;
my $comes_up = qr/database\ system\ is\ ready\ to\ accept/x;
# (the second is what SIGTERM makes of a client that has only just connected)
my $while_down = qr/terminating\ connection\ due\ to\ administrator\ command|canceling\ authentication\ due\ to\ timeout/x;
my $shutdown = qr/terminating\ connection\ due\ to\ unexpected\ postmaster\ exit|
	the\ database\ system\ is\ (?:starting\ up|shutting\ down|in\ recovery\ mode|not\ yet\ accepting)/x;

# Apply gives way to users, by design (A10); a pusher that connects anew ends what its last connection left behind; workers
# leave, and let go of connections, when the configuration changes; who starts asks all dbs, also one where the extension is being dropped; a load is ended anywhere.
my $gives_way = qr/mmrepl\ push\ \d+\]\ (?:ERROR:\ \ (?:deadlock\ detected|canceling\ statement\ due\ to\ (?:lock\ timeout|user\ request)|another\ peer's\ changes\ of\ the\ same\ keys)|
	FATAL:\ \ (?:connection\ to\ client\ lost|terminating\ connection\ due\ to\ administrator\ command))|
	mmrepl\ config\]\ ERROR:\ \ (?:relation\ "mmrepl\.\w+"|function\ mmrepl\._life_known\(integer\))\ does\ not\ exist|
	terminating\ background\ worker\ "mmrepl\ \w+"\ due\ to\ administrator\ command|
	\ load\ \w+\ \d+\]\ FATAL:\ \ connection\ to\ client\ lost/x;

# Who has not heard yet what has just been configured comes once too often, and so does one whose last connection was broken
# in the middle of a commit. (A configuration that is offered while it is being changed is refused.)
my $comes_late = qr/mmrepl\ push\ \d+\]\ ERROR:\ \ (?:sync\ "[^"]+"\ is\ (?:paused|not\ joined\ yet|stopped\ at\ the\ receiver)|
	mmrepl\ is\ stopped\ at\ the\ receiver\ of\ sync\ "[^"]+"|sync\ \d+\ from\ node\ \d+\ is\ not\ in\ the\ configuration\ here|
	sync\ \d+\ does\ not\ replicate\ from\ node\ \d+\ to\ here|the\ configuration\ has\ changed\ while\ a\ batch\ was\ applied|
	table\ "[^"]+"\ comes\ from\ a\ peer\ but\ is\ not\ a\ member\ of\ the\ sync\ here|
	batch\ does\ not\ start\ where\ the\ last\ one\ ended|replication\ progress\ has\ changed\ meanwhile|
	extension\ "mmrepl"\ is\ not\ installed\ in\ this\ database)$|
	mmrepl\ (?:push\ \d+|config)\]\ ERROR:\ \ the\ configuration\ is\ being\ changed\ by\ another\ session$/x;

# Now and then, that is: a test in which they do so all the time announces it.
my $waits = qr/ERROR:  (?:deadlock detected|canceling statement due to lock timeout)/;
my $at_most = 20;

# new_node(name, conf => text, link => 1 (what connects comes over an MmreplLink), preload => 0, start => 0)
sub new_node
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = '@{[ $opt{preload} // 1 ? 'mmrepl' : '' ]}'
max_worker_processes = 32
max_prepared_transactions = 10
restart_after_crash = on
log_statement = none
log_replication_commands = off
log_line_prefix = '%m [%p] %q[%b %a] '
shared_buffers = 32MB
deadlock_timeout = 1s
timezone = 'UTC'
CONF
	# small, so that nothing waits long for the next try
	$node->append_conf('postgresql.conf', <<"CONF") if $opt{preload} // 1;
mmrepl.restart_delay = 100
mmrepl.heartbeat_interval = 500
CONF
	$node->append_conf('postgresql.conf', $opt{conf}) if defined $opt{conf};
	return $node if !($opt{start} // 1);
	$node->start;
	$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'");
	$node->{mmrepl_link} = MmreplLink->new($node) if $opt{link};
	return $node;
}

# Where the others reach this node's database.
sub conninfo
{
	my ($node) = @_;
	my $at = $node->{mmrepl_link} // $node;
	return sprintf 'host=%s port=%s dbname=%s', $at->host, $at->port, $node->{mmrepl_dbname} // $db;
}

# The result of SQL on a node; dies if it fails.
sub sql
{
	my ($node, $sql) = @_;
	return $node->safe_psql($db, $sql);
}

# The error text of SQL that must fail.
sub sql_error
{
	my ($node, $sql) = @_;
	my ($rc, $out, $err) = $node->psql($db, $sql, on_error_stop => 1);
	return $rc ? $err : undef;
}

sub sql_all
{
	my ($sql, @nodes) = @_;
	sql($_, $sql) foreach @nodes;
	return;
}

# Polls until the query gives true (or $expected); a test of its own when it never does.
sub poll
{
	my ($node, $query, $expected) = @_;
	return 1 if $node->poll_query_until($db, $query, $expected // 't');
	diag("on " . $node->name . ": $query\n" . _status($node));
	return 0;
}

sub poll_is
{
	my ($node, $query, $expected, $name) = @_;
	return ok(poll($node, $query, $expected), $name);
}

# The same in a session.
sub poll_session
{
	my ($session, $query) = @_;
	my $tries = 50 * $PostgreSQL::Test::Utils::timeout_default;
	while ($session->query_safe($query) ne 't')
	{
		return 0 if !$tries--;
		select(undef, undef, undef, 0.02);
	}
	return 1;
}

# A session that stays open: ->query, ->query_safe, ->query_until, ->quit.
sub session
{
	my ($node) = @_;
	# the timer is of the whole session
	return $node->background_psql($db, on_error_stop => 0, timeout => 20 * $PostgreSQL::Test::Utils::timeout_default);
}

# Makes the nodes dbs of one sync, asked on the first one only.  Options: sync, roles (name => role), copy
# (onetimecopy), exclude (tables), keys (table => index), sequences => 0, args (more arguments of add_sync).
sub join_nodes
{
	my ($nodes, %opt) = @_;
	my $first = $nodes->[0];
	my $sync = $opt{sync} // 'sync';
	my $exclude = $opt{exclude} ? ", exclude => '{" . join(',', @{ $opt{exclude} }) . "}'" : '';
	my $dbs = join ',', map { $_->name . ':' . ($opt{roles}{ $_->name } // 'source') } @$nodes;
	my $script = "CREATE EXTENSION mmrepl;\n";
	$script .= sprintf "SELECT mmrepl.add_db('%s', '%s');\n", $_->name, conninfo($_) foreach @$nodes;
	$script .= "SELECT mmrepl.add_table('$_', key => '$opt{keys}{$_}', relgroup => 'herd');\n"
	  foreach sort keys %{ $opt{keys} // {} };
	$script .= "SELECT mmrepl.add_all_tables(relgroup => 'herd'$exclude);\n";
	$script .= "SELECT mmrepl.add_all_sequences(relgroup => 'herd');\n" if $opt{sequences} // 1;
	$script .= sprintf "SELECT mmrepl.add_sync('%s', relgroup => 'herd', dbs => '{%s}', onetimecopy => %d%s);\n",
	  $sync, $dbs, $opt{copy} // 0, $opt{args} ? ", $opt{args}" : '';
	sql($first, $script);
	return;
}

# Two nodes that replicate t (id int PRIMARY KEY, v text), with 20 rows; of the first there is the backup "base", for copies and standbys.
sub pair_with_backup
{
	my ($one, $two) = map { new_node($_, conf => "wal_level = replica\nmax_wal_senders = 8\nwal_keep_size = 128MB\nwal_log_hints = on\n") } qw(aaa01 aaa02);
	$one->append_conf('pg_hba.conf', "local replication all trust\n");
	$one->reload;
	sql_all('CREATE TABLE t (id int PRIMARY KEY, v text)', $one, $two);
	join_nodes([ $one, $two ]);
	sql($one, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 20) AS g");
	wait_synced($one, $two);
	$one->backup('base');
	return ($one, $two);
}

# Adds a node to a sync that runs, asked on $via. Options: sync, role, onetimecopy, copy_from (a name), name.
sub add_node
{
	my ($via, $node, %opt) = @_;
	sql($via, sprintf "SELECT mmrepl.add_db('%s', '%s', dbgroup => '%s', role => '%s', onetimecopy => %s, copy_from => %s)",
		$opt{name} // $node->name, conninfo($node), $opt{sync} // 'sync', $opt{role} // 'source', $opt{onetimecopy} // 'NULL',
		defined $opt{copy_from} ? "'$opt{copy_from}'" : 'NULL');
	return;
}

# Takes a node out of everything, asked on $via; force: it does not answer and never will.
sub remove_node
{
	my ($via, $node, %opt) = @_;
	sql($via, sprintf "SELECT mmrepl.remove_db('%s', force => %s, timeout => %s)", $opt{name} // $node->name,
		$opt{force} ? 'true' : 'false', $opt{timeout} // $PostgreSQL::Test::Utils::timeout_default);
	return;
}

# Writers on a node, one statement after the other, until stop_load, which gives true if none of them failed. Options: clients,
# rate (a second; 0: what it can). The text may also be a script of pgbench's, which ends with a newline.
sub start_load
{
	my ($node, $sql, %opt) = @_;
	my $name = 'load ' . $node->name . ' ' . ++$node->{mmrepl_loads};
	my $file = ($node->{server} // $node)->basedir . '/' . ($name =~ tr/ /_/r) . '.sql';
	open(my $script, '>', $file) or die "$file: $!";
	print $script $sql =~ /\n\z/ ? $sql : "$sql;\n";
	close $script;
	my $out = '';
	my $rate = $opt{rate} // 200;
	local $ENV{PGAPPNAME} = $name;
	my $run = IPC::Run::start([ 'pgbench', '-n', '-c', $opt{clients} // 1, '-T', 600, '-f', $file, ($rate ? ('-R', $rate) : ()),
		'-h', $node->host, '-p', $node->port, $node->{mmrepl_dbname} // $db ], '<', \'', '&>', \$out);
	return { run => $run, out => \$out, node => $node, name => $name };
}

sub stop_load
{
	my ($load) = @_;
	$load->{run}->pump_nb;
	my $running = $load->{run}->pumpable;
	end_load($load);
	# what it was busy with may still be committed
	poll($load->{node}, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = '$load->{name}')");
	return 1 if $running && ${ $load->{out} } !~ /error|aborted/i;
	diag(${ $load->{out} });
	return 0;
}

# The same when the server is down, or whatever they met.
sub end_load
{
	my ($load) = @_;
	$load->{run}->kill_kill(grace => 5);
	return;
}

# One test: nothing goes round. From some moment on no batch is applied anywhere while each pusher looks three times, with a heartbeat
# or more in between.
sub comes_to_rest
{
	my ($nodes, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $batches = sub { return join ' ', map { sql($_, 'SELECT sum(batches) FROM mmrepl.progress') } @$nodes };
	my ($before, $now) = ('', $batches->());
	foreach my $try (1 .. 60)
	{
		last if $before eq $now;
		$before = $now;
		foreach my $look (1 .. 3)
		{
			# each look is a transaction
			my %last = map { $_->name => sql($_, q{SELECT json_object_agg(pid, query_start) FROM pg_stat_activity WHERE backend_type = 'mmrepl pusher' AND datname = current_database()}) } @$nodes;
			poll($_, "SELECT count(*) = 0 FROM json_each_text('" . ($last{ $_->name } || '{}') . q{') JOIN pg_stat_activity ON pid = key::int WHERE backend_type = 'mmrepl pusher' AND query_start <= value::timestamptz})
			  foreach @$nodes;
		}
		$now = $batches->();
	}
	return is($now, $before, $name);
}

# Writes to the node's table (id int PRIMARY KEY, and what may be NULL) until less than half of that is left in its log: so much that the log goes on in other
# segments, and what nobody needs of those before is gone.
sub write_until_purged
{
	my ($node, $table) = @_;
	my $last = sql($node, "SELECT coalesce(max(id), 0) FROM $table");
	sql($node, qq{CREATE OR REPLACE FUNCTION write_more() RETURNS boolean LANGUAGE plpgsql AS \$\$ BEGIN
		INSERT INTO $table (id) SELECT (SELECT coalesce(max(id), 0) FROM $table) + g FROM generate_series(1, 2000) g;
		RETURN (SELECT count(*) < ((SELECT max(id) FROM $table) - $last) / 2 FROM mmrepl.change_log WHERE tablename = '$table');
	END \$\$});
	poll($node, 'SELECT write_more()') or die "nothing is purged\n";
	return;
}

sub _status
{
	my ($node) = @_;
	my $text = '';
	foreach my $view (qw(status peer_lag worker_status))
	{
		my ($rc, $out, $err) = $node->psql($db, "SELECT * FROM mmrepl.$view", extra_params => [ '-x', '-A', '-P', 'tuples_only=off' ]);
		$text .= "-- $view of " . $node->name . "\n" . $out . $err . "\n";
	}
	return $text;
}

# Waits until all that is committed on every node is applied on every other; dies if that does not happen. Two rounds: what a node decides while
# it applies (a conflict between unique keys) travels too.
sub wait_synced
{
	my (@nodes) = @_;
	foreach my $round (1, 2)
	{
		foreach my $node (@nodes)
		{
			my ($rc, $out, $err) = $node->psql($db,
				"SELECT mmrepl.wait_for_sync(name, @{[ $PostgreSQL::Test::Utils::timeout_default ]}) FROM mmrepl.syncs");
			next if $rc == 0 && $out !~ /^f/m;
			fail("all of " . $node->name . " reached the others: $err");
			diag(_status($_)) foreach @nodes;
			die "nothing more to learn here\n";
		}
	}
	return 1;
}

# Do the nodes hold different rows of the table? Compared by column name, so that order of columns does not matter;
# options: except => [columns]. Differences are told. Lists the nodes that differ from the first.
sub rows_differ
{
	my ($table, $nodes, %opt) = @_;
	my $row = '(to_jsonb(t)' . join('', map { " - '$_'" } @{ $opt{except} // [] }) . ')::text';
	my $sum = "SELECT count(*), coalesce(sum(hashtextextended($row, 0)::numeric), 0) FROM $table t";
	my ($first, @others) = @$nodes;
	my $want = sql($first, $sum);
	note("$table: " . ($want =~ s/\|.*//r) . " rows");
	my @different = grep { sql($_, $sum) ne $want } @others;
	foreach my $node (@different)
	{
		my %a = map { $_ => 1 } split /\n/, sql($first, "SELECT $row FROM $table t");
		my %b = map { $_ => 1 } split /\n/, sql($node, "SELECT $row FROM $table t");
		my @a = grep { !$b{$_} } sort keys %a;
		my @b = grep { !$a{$_} } sort keys %b;
		note(sprintf 'only on %s: %d rows, only on %s: %d rows', $first->name, scalar @a, $node->name, scalar @b);
		note('  ' . $first->name . ': ' . substr($_, 0, 300)) foreach grep { defined } @a[ 0 .. 4 ];
		note('  ' . $node->name . ': ' . substr($_, 0, 300)) foreach grep { defined } @b[ 0 .. 4 ];
	}
	return @different;
}

# One test: they do not.
sub same_rows
{
	my ($table, $nodes, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(!rows_differ($table, $nodes, %opt), $opt{name} // "$table is the same on " . join(', ', map { $_->name } @$nodes));
}

# One test: the node's log tells of no bug, and of no ERROR or FATAL but those that match $expected.
sub log_clean
{
	my ($node, $expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my (@bad, $down);
	my ($waited, $late) = (0, 0);
	foreach (split /\n/, slurp_file($node->logfile))
	{
		$down = 1 if /$going_down/;
		$down = 0 if /$comes_up/;
		if (!/$bug/)
		{
			next if !/\b(?:ERROR|FATAL):  / || /$shutdown/ || ($down && /$while_down/) || (defined $expected && /$expected/);
			next if /$waits/ && /$gives_way/ ? ++$waited <= $at_most : /$comes_late/ ? ++$late <= $at_most : /$gives_way/;
		}
		push @bad, $_;
	}
	is(scalar @bad, 0, 'log of ' . $node->name . ' tells of nothing wrong')
	  or diag(join "\n", grep { defined } @bad[ 0 .. 9 ]);
	return !@bad;
}

# Polls until the node's log matches, from that byte of it on; returns whether it did.
sub log_like
{
	my ($node, $pattern, $from) = @_;
	return eval { $node->wait_for_log($pattern, $from // 0); 1 };
}

# Process of a pusher on the node, or of the backend that a peer's pusher opened there.
sub worker_pid
{
	my ($node, $kind) = @_;
	my $query = "SELECT pid FROM mmrepl.worker_status WHERE kind = '$kind' AND pid > 0 LIMIT 1";
	poll($node, "SELECT EXISTS ($query)") or return;
	return sql($node, $query);
}

# Kills it so that it can do nothing about it; its postmaster then starts all over, which this waits for.
sub kill_worker
{
	my ($node, $kind) = @_;
	my $from = -s $node->logfile;
	my $killed = 0;
	foreach my $try (1 .. 100)
	{
		my $pid = worker_pid($node, $kind) or last;
		# one that is stopped is there: it may have come to its end by now, and another taken its place
		kill('STOP', $pid) or next;
		my $state = '';
		foreach (1 .. 100)
		{
			$state = (eval { slurp_file("/proc/$pid/stat") } // '') =~ /\) (\w)/ ? $1 : 'Z';
			last if $state =~ /[TZ]/;
			select(undef, undef, undef, 0.01);
		}
		next if $state eq 'Z';
		$killed = kill(9, $pid) && log_like($node, qr/database system is ready to accept connections/, $from);
		last;
	}
	return ok($killed, "$kind on " . $node->name . ' killed');
}

sub kill_postmaster
{
	my ($node) = @_;
	$node->kill9;
	return pass('postmaster of ' . $node->name . ' killed');
}

# Starts a server after a crash: the last of its processes has to go first.
sub start_again
{
	my ($node) = @_;
	my $dir = $node->data_dir;
	my $gone = $PostgreSQL::Test::Utils::timeout_default * 50;
	while ($gone-- && grep { (readlink($_) // '') eq $dir } glob('/proc/[0-9]*/cwd'))
	{
		select(undef, undef, undef, 0.02);
	}
	# the dead postmaster may not have been reaped, and then looks alive to the new one
	unlink "$dir/postmaster.pid", glob($node->host . '/.s.PGSQL.' . $node->port . '*');
	return $node->start;
}

# A server whose clock is what set_clock says ("+10s", "-10s", "+0"), also while it runs.
sub set_clock
{
	my ($node, $offset) = @_;
	my $file = $node->basedir . '/clock';
	# at once as a whole: the server may read it any time
	open(my $out, '>', "$file.new") or die "$file: $!";
	print $out "$offset\n";
	close $out;
	rename("$file.new", $file) or die "$file: $!";
	return;
}

sub start_with_clock
{
	my ($node, $offset) = @_;
	my ($lib) = glob('/usr/lib/*/faketime/libfaketime.so.1');
	die "libfaketime is not here\n" unless defined $lib;
	set_clock($node, $offset);
	local %ENV = (%ENV, LD_PRELOAD => $lib, FAKETIME_TIMESTAMP_FILE => $node->basedir . '/clock',
		FAKETIME_NO_CACHE => 1, FAKETIME_DONT_FAKE_MONOTONIC => 1, DONT_FAKE_MONOTONIC => 1);
	return $node->start;
}

# Conflicts a node has recorded: "type|resolution|count" lines.
sub conflicts
{
	my ($node, $where) = @_;
	return sql($node, "SELECT conflict_type, resolution, count(*) FROM mmrepl.conflict_history"
		  . (defined $where ? " WHERE $where" : '') . ' GROUP BY 1, 2 ORDER BY 1, 2');
}

# End of a test: every table the same, logs clean, servers down.
sub finish
{
	my ($nodes, $expected, @tables) = @_;
	wait_synced(@$nodes);
	same_rows($_, $nodes) foreach @tables;
	$_->stop foreach @$nodes;
	log_clean($_, $expected) foreach @$nodes;
	done_testing();
	return;
}

1;
