# A star under load: the hub crashes and comes back, a leaf leaves, a new one comes, while all write. What was written meanwhile reaches all, nothing goes
# round, and the logs drain. Would pass wrongly if nobody wrote while it happened: looked at.
use strict;
use warnings;
use MmreplCluster;
use MmreplDb;
use Test::More;

my $conf = "mmrepl.max_workers = 64\nmax_worker_processes = 64\nmmrepl.heartbeat_interval = 200\n";
my ($centre, @servers) = map { new_node($_, conf => $conf) } qw(centre east west);
my $hub = MmreplDb->new($centre, 'hub', link => 1);
my @leaves = map { MmreplDb->new($servers[ $_ % 2 ], "leaf$_", link => 1) } 1 .. 4;
my $late = MmreplDb->new($servers[1], 'leaf5', link => 1);
my @first = ($hub, @leaves);
sql_all(q{CREATE TABLE t (id int PRIMARY KEY, by text, n int NOT NULL DEFAULT 0); CREATE TABLE trail (id bigserial PRIMARY KEY, by text)}, @first, $late);
join_nodes(\@first, roles => { hub => 'hub' });
sql($hub, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 50) g");
# two ways: to the hub, and from it
my $synced = sub { my @who = @_; foreach (1, 2) { wait_synced($_) foreach @who[ 1 .. $#who ]; wait_synced($who[0]); } };
$synced->(@first);
same_rows('t', \@first);

my $writer = sub {
	my ($node) = @_;
	my $name = $node->name;
	return start_load($node, "\\set id random(1, 50)\nINSERT INTO trail (by) VALUES ('$name');\nUPDATE t SET by = '$name', n = n + 1 WHERE id = :id", rate => 60);
};
my %load = map { $_->name => $writer->($_) } @leaves;
my $of = sub { my ($name) = @_; return "SELECT count(*) FROM trail WHERE by = '$name'" };
my $more = sub {
	my ($node, $name, $n) = @_;
	my $now = sql($node, $of->($name));
	return ok(poll($node, "SELECT count(*) >= $now + $n FROM trail WHERE by = '$name'"), $node->name . " sees what $name writes");
};
$more->($leaves[3], 'leaf1', 10);

# the hub dies and comes back
kill_postmaster($centre);
my $there = sql($leaves[1], $of->('leaf1'));
$more->($leaves[0], 'leaf1', 40);
is(sql($leaves[1], $of->('leaf1')), $there, 'without the hub nothing comes');
start_again($centre);
$more->($leaves[1], 'leaf1', 40);

# one comes, one leaves, under load
add_node($hub, $late, onetimecopy => 1, copy_from => 'hub');
poll_is($late, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied > 0', 1, 'a new leaf has its copy');
$load{leaf5} = $writer->($late);
$more->($leaves[0], 'leaf5', 10);
$more->($late, 'leaf3', 10);
$more->($hub, 'leaf4', 10);
remove_node($hub, $leaves[3]);
my $mine = sql($leaves[3], $of->('leaf4'));
is(sql($leaves[3], 'SELECT node_id IS NULL FROM mmrepl.local_node'), 't', 'one has left');
$more->($leaves[3], 'leaf4', 5);
stop_load($_) foreach values %load;
my @now = ($hub, @leaves[ 0 .. 2 ], $late);
$synced->(@now);
same_rows($_, \@now) foreach qw(t trail);
cmp_ok(sql($late, $of->('leaf4')), '<=', $mine, 'what it wrote later stays with it');
cmp_ok(sql($late, $of->('leaf4')), '>=', 20, 'what it wrote before is everywhere');

# dead for good: what it had told the hub reaches all
sql($leaves[2], "INSERT INTO t VALUES (500, 'last words')");
poll_is($hub, 'SELECT count(*) FROM t WHERE id = 500', 1, 'the hub has the last words of a leaf');
$leaves[2]->{mmrepl_link}->cut;
sql($leaves[2], 'DROP EXTENSION mmrepl CASCADE');
remove_node($hub, $leaves[2], force => 1);
@now = ($hub, @leaves[ 0, 1 ], $late);
$synced->(@now);
is(sql($_, "SELECT by FROM t WHERE id = 500"), 'last words', $_->name . ' has them') foreach @now;
same_rows($_, \@now) foreach qw(t trail);
my $size = q{SELECT coalesce(sum(pg_relation_size(inhrelid)), 0) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass};
poll_is($_, $size, 0, 'log of ' . $_->name . ' drains') foreach @now;
# nothing goes round
comes_to_rest(\@now, 'no batch without writes');

$_->stop foreach $centre, @servers;
log_clean($_, qr/could not connect|connection|server closed|terminat|deadlock detected|lock timeout|configuration has changed|is not in the configuration|joins the sync|not joined yet|does not exist|has departed|claims to be it|wrong database|another configuration|could not receive|cannot be reached|applied meanwhile/)
  foreach $centre, @servers;
done_testing();
