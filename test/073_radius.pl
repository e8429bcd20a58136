# A session that changes servers, with real FreeRADIUS packets: its Start on one, its Interim and its Stop on the other, replication cut or
# late. There is one row, closed, with the right times and totals, on both; by the newest alone there is not.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

$ENV{PATH} .= ':/usr/sbin:/sbin';
my ($given) = grep { -r "$_/mods-config/sql/main/postgresql/schema.sql" } map { "$_/3.0" } "$ENV{MMR_WORK}/given", '/etc/freeradius';
foreach my $program (qw(freeradius radclient python3))
{
	plan skip_all => "$program is not here" unless grep { -x "$_/$program" } split /:/, $ENV{PATH};
}
plan skip_all => 'FreeRADIUS has no configuration that can be read here' unless $given;

my ($a, $b) = my @nodes = map { new_node($_, link => 1) } qw(aaa01 aaa02);
foreach my $node (@nodes)
{
	sql($node, slurp_file("$given/mods-config/sql/main/postgresql/$_")) foreach qw(schema.sql setup.sql);
}
join_nodes(\@nodes, keys => { radacct => 'radacct_acctuniqueid_key' });
sql($a, q{SELECT mmrepl.update_table('radacct', conflict_strategy => 'function: mmrepl.radacct_merge')});
wait_synced(@nodes);

# One FreeRADIUS on each.
my @ports = split ' ', `python3 demo/ports.py 4`;
my %radius;
foreach my $node (@nodes)
{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my ($auth, $acct) = splice @ports, 0, 2;
	system_or_bail('cp', '-r', $given, "$dir/raddb");
	system_or_bail('chmod', '-R', 'u+w', "$dir/raddb");
	system_or_bail('python3', 'demo/radius_conf.py', "$dir/raddb", $node->host, $node->port, $auth, $acct);
	system_or_bail('sed', '-i', 's/radius_db = "radius"/radius_db = "app"/', "$dir/raddb/mods-available/sql");
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>', "$dir/out");
		open(STDERR, '>&', \*STDOUT);
		exec('freeradius', '-f', '-d', "$dir/raddb", '-l', "$dir/log") or exit 127;
	}
	$radius{ $node->name } = { pid => $pid, acct => $acct, raddb => "$dir/raddb" };
	my $ready = 0;
	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		last if ($ready = -e "$dir/log" && slurp_file("$dir/log") =~ /Ready to process requests/) || waitpid($pid, 1) == $pid;
		select undef, undef, undef, 0.1;
	}
	ok($ready, 'FreeRADIUS of ' . $node->name . ' is ready') or diag(-e "$dir/log" ? slurp_file("$dir/log") : 'no log');
}
END
{
	my $status = $?;
	kill 'TERM', map { $_->{pid} } values %radius if %radius;
	waitpid($_->{pid}, 0) foreach values %radius;
	$? = $status;
}

# A record of a session, so many seconds after its beginning.
my $begin = 1_790_000_000;
my $session = 0;
my $record = sub {
	my ($node, $status, $seconds) = @_;
	my $r = $radius{ $node->name };
	my %attributes = ('User-Name' => 'alice', 'Acct-Session-Id' => "S$session", 'Acct-Status-Type' => $status, 'NAS-IP-Address' => '10.0.0.1',
		'NAS-Port' => $session, 'Framed-IP-Address' => '172.16.0.1', 'Event-Timestamp' => $begin + $seconds);
	@attributes{ 'Acct-Session-Time', 'Acct-Input-Octets', 'Acct-Output-Octets' } = ($seconds, 100 * $seconds, 1000 * $seconds) if $status ne 'Start';
	$attributes{'Acct-Terminate-Cause'} = 'User-Request' if $status eq 'Stop';
	my $packet = join ',', map { "$_=$attributes{$_}" } sort keys %attributes;
	my ($out, $err);
	my $answered = IPC::Run::run([ 'radclient', '-d', $r->{raddb}, '-t', 5, '-r', 4, "127.0.0.1:$r->{acct}", 'acct', 'testing123' ], '<', \"$packet\n", '>', \$out, '2>', \$err);
	ok($answered, "S$session: $status after $seconds s is answered by " . $node->name) or diag("$out$err");
};
my $cut = sub { $_->{mmrepl_link}->cut foreach @nodes; };
my $conflicts = sub { my ($node) = @_; return sql($node, q{SELECT count(*) FROM mmrepl.conflict_history WHERE tablename = 'radacct'}); };
# one of them hears of the other first, and decides
my $heal = sub {
	my ($first) = @_;
	my $before = $conflicts->($first);
	$first->{mmrepl_link}->heal;
	poll_is($first, "SELECT count(*) > $before FROM mmrepl.conflict_history WHERE tablename = 'radacct'", 't', "S$session: " . $first->name . ' decides');
};
my $both = sub { $_->{mmrepl_link}->heal foreach @nodes; wait_synced(@nodes); };
my $show = q{SELECT extract(epoch FROM acctstarttime)::int8 - 1790000000, coalesce((extract(epoch FROM acctstoptime)::int8 - 1790000000)::text, 'open'),
	acctsessiontime, acctinputoctets, acctoutputoctets, acctterminatecause FROM radacct WHERE acctsessionid = };
my $closed = '0|120|120|12000|120000|User-Request';
my $is = sub {
	my ($want, $name) = @_;
	is(sql($_, "$show 'S$session'"), $want, "S$session: $name, on " . $_->name) foreach @nodes;
};

foreach my $first ($a, $b)
{
	my $then = ' (heard first by ' . $first->name . ')';

	$session++;
	$record->($a, 'Start', 0);
	wait_synced(@nodes);
	$cut->();
	$record->($b, 'Interim-Update', 60);
	$record->($b, 'Stop', 120);
	$record->($a, 'Interim-Update', 90);
	$heal->($first);
	$both->();
	$is->($closed, "an Interim that comes after the Stop$then");

	$session++;
	$cut->();
	$record->($a, 'Start', 0);
	$record->($b, 'Interim-Update', 60);
	$record->($b, 'Stop', 120);
	$heal->($first);
	$both->();
	$is->($closed, "a Start that the other server has not heard of$then");

	$session++;
	$cut->();
	$record->($a, 'Stop', 120);
	$record->($b, 'Start', 0);
	$record->($b, 'Interim-Update', 90);
	$heal->($first);
	$both->();
	$is->($closed, "a Stop before its Start$then");

	$session++;
	$cut->();
	$record->($_, 'Start', 0) foreach @nodes;
	$heal->($first);
	$both->();
	$record->($b, 'Stop', 120);
	wait_synced(@nodes);
	$is->($closed, "a Start that both servers got$then");

	# what is decided here is late there, where the session goes on meanwhile
	$session++;
	$record->($a, 'Start', 0);
	wait_synced(@nodes);
	my $other = $first == $a ? $b : $a;
	$cut->();
	$record->($first, 'Stop', 120);
	$record->($other, 'Interim-Update', 60);
	$heal->($first);
	my $known = $conflicts->($first);
	$record->($other, 'Interim-Update', 90);
	poll_is($first, "SELECT count(*) > $known FROM mmrepl.conflict_history WHERE tablename = 'radacct'", 't', "S$session: " . $first->name . ' decides again');
	$both->();
	$is->($closed, "an Interim after the decision$then");
}

# The control: by the newest alone, the session is open again.
sql($a, q{SELECT mmrepl.update_table('radacct', conflict_strategy => 'latest')});
wait_synced(@nodes);
$session++;
$record->($a, 'Start', 0);
wait_synced(@nodes);
$cut->();
$record->($b, 'Stop', 120);
$record->($a, 'Interim-Update', 90);
$both->();
$is->('0|open|90|9000|90000|', 'by the newest alone it is open again');

is(sql($_, 'SELECT count(*), count(DISTINCT acctuniqueid) FROM radacct'), "$session|$session", 'one row a session on ' . $_->name) foreach @nodes;
ok(sql($a, q{SELECT count(*) > 0 FROM mmrepl.conflict_history WHERE resolution = 'merge'}) eq 't' || sql($b, q{SELECT count(*) > 0 FROM mmrepl.conflict_history WHERE resolution = 'merge'}) eq 't', 'rows were merged');
is(sql($_, 'SELECT count(*) FROM mmrepl.conflict_history WHERE error IS NOT NULL'), 0, 'and that never failed, on ' . $_->name) foreach @nodes;
finish(\@nodes, qr/terminat|could not connect|connection|server closed/, qw(radacct radpostauth));
