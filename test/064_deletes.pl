# Deletes against everything else, on three nodes: every way in which three nodes can insert, update, delete, or delete and insert
# again one key while none hears of another, in every order of time, delivered in many orders. The last of them stands. Then with
# the third late: what it wrote long ago comes when all others have long agreed on the delete, and nothing rises from the dead; a
# delete that wins leaves its version behind also where there is no row; and it is forgotten when nothing can need it any
# more, and not before.
use strict;
use warnings;
use MmreplCluster;
use MmreplGates;
use List::Util qw(shuffle);
use Test::More;

my $seed = $ENV{SEED} // 64;
note("SEED=$seed");
srand($seed);
my ($a, $b, $c) = my @nodes = map { new_node($_, conf => "mmrepl.lock_timeout = '60s'\nmmrepl.segment_size = 64\nmmrepl.heartbeat_interval = 100\n") } qw(aaa01 aaa02 aaa03);
sql_all(q{CREATE TABLE mark (id text PRIMARY KEY, n int);
	INSERT INTO mark SELECT unnest('{aaa01,aaa02,aaa03}'::text[]), 0;
	CREATE TABLE t (k int PRIMARY KEY, v text);
	CREATE TABLE late (k int PRIMARY KEY, v text);
	CREATE TABLE filler (k int PRIMARY KEY, v text)}, @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);
my $gates = MmreplGates->new(@nodes);

# What a node does with a key that has, or has not, a row, and what is there then: undef, nothing; else that node's v.
my %with = (
	update => [ "UPDATE t SET v = 'V' WHERE k = K", 1 ],
	delete => [ 'DELETE FROM t WHERE k = K', 0 ],
	again => [ "BEGIN; DELETE FROM t WHERE k = K; INSERT INTO t VALUES (K, 'V'); COMMIT", 1 ],
	twice => [ "DELETE FROM t WHERE k = K; INSERT INTO t VALUES (K, 'x'); DELETE FROM t WHERE k = K", 0 ],
	nothing => undef);
my %without = (
	insert => [ "INSERT INTO t VALUES (K, 'V')", 1 ],
	brief => [ "INSERT INTO t VALUES (K, 'V'); DELETE FROM t WHERE k = K", 0 ],
	undone => [ "BEGIN; INSERT INTO t VALUES (K, 'V'); ROLLBACK", undef ],
	nothing => undef);
my @turns = ([ 0, 1, 2 ], [ 0, 2, 1 ], [ 1, 0, 2 ], [ 1, 2, 0 ], [ 2, 0, 1 ], [ 2, 1, 0 ]);

# All combinations, each with a key of its own.
my @all;
foreach my $there (1, 0)
{
	my $ops = $there ? \%with : \%without;
	my @names = sort keys %$ops;
	foreach my $turn (@turns)
	{
		foreach my $x (@names) { foreach my $y (@names) { foreach my $z (@names) {
			push @all, { there => $there, turn => $turn, ops => [ $x, $y, $z ], do => [ @$ops{ $x, $y, $z } ] };
		} } }
	}
}
note(scalar(@all) . ' combinations');

# One round over all of them; returns what is to be there, and leaves it to the caller when that is to be looked at.
sub write_all
{
	my ($base) = @_;
	my %want;
	my @rounds = map { [ map { [] } @nodes ] } @turns[ 0 .. 2 ];
	foreach my $i (0 .. $#all)
	{
		my ($case, $k) = ($all[$i], $base + $i);
		$want{$k} = 'old' if $case->{there};
		foreach my $round (0 .. 2)
		{
			my $node = $case->{turn}[$round];
			my $do = $case->{do}[$node] or next;
			my $v = "$node-$k";
			push @{ $rounds[$round][$node] }, ($do->[0] =~ s/\bK\b/$k/gr =~ s/\bV\b/$v/gr) . ';';
			next if !defined $do->[1];
			delete $want{$k};
			$want{$k} = $v if $do->[1];
		}
	}
	foreach my $round (@rounds)
	{
		sql($nodes[$_], join "\n", @{ $round->[$_] }) foreach 0 .. 2;
	}
	return \%want;
}

sub check_all
{
	my ($base, $want, $name) = @_;
	foreach my $node (@nodes)
	{
		my %have = map { split /\|/, $_, 2 } split /\n/, sql($node, "SELECT k, v FROM t WHERE k BETWEEN $base AND $base + $#all");
		my @wrong = grep { ($have{$_} // '-') ne ($want->{$_} // '-') } $base .. $base + $#all;
		is(scalar @wrong, 0, "$name: the last write of each key stands on " . $node->name)
		  or diag(join "\n", map { my $case = $all[ $_ - $base ]; "key $_: @{ $case->{ops} } in turn @{ $case->{turn} }: " . ($have{$_} // '-') . ', not ' . ($want->{$_} // '-') }
			  grep { defined } @wrong[ 0 .. 9 ]);
	}
	return;
}

my $base = 0;
foreach my $round (1 .. $ENV{ROUNDS} // 5)
{
	$base += 10000;
	$gates->open;
	sql($a, "INSERT INTO t SELECT k, 'old' FROM generate_series($base, $base + " . (grep { $_->{there} } @all) . " - 1) k");
	wait_synced(@nodes);
	$gates->shut;
	my $want = write_all($base);
	my @order = $round == 1 ? () : $gates->orders;
	$gates->deliver(@$_) foreach @order;
	$gates->open;
	wait_synced(@nodes);
	check_all($base, $want, 'order ' . (join(' ', map { substr($_->[0]->name, -1) . '>' . substr($_->[1]->name, -1) } @order) || 'all at once'));
}

# The third is late, and what it wrote is on its way: read there before it heard of anything, and delivered after all had agreed.
my $size = q{SELECT coalesce(sum(pg_relation_size(inhrelid)), 0) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass};
$gates->open;
sql($a, "INSERT INTO late SELECT k, 'old' FROM generate_series(1, 500) k");
wait_synced(@nodes);
poll_is($_, $size, 0, 'everything is known, and forgotten, on ' . $_->name) foreach @nodes;
$gates->shut;
# it must not ask the peer whether it is there: that would wait, and nothing be read
sql($c, "ALTER SYSTEM SET mmrepl.heartbeat_interval = '1h'");
sql($c, 'SELECT pg_reload_conf()');
$gates->deliver($c, $a);
$gates->flight($c, $a);
sql($c, "UPDATE late SET v = 'c' WHERE k <= 100; DELETE FROM late WHERE k BETWEEN 101 AND 200; INSERT INTO late SELECT k, 'c' FROM generate_series(1001, 1100) k");
# read by c's pusher, and gone out
ok(poll($c, "SELECT state = 'pushing' FROM mmrepl.worker_status WHERE kind = 'pusher' AND db = 'aaa01'"), 'what c wrote is on its way to a');
# newer: deletes with and without a row at a, and rows again; b hears of all, and c too
sql($a, "DELETE FROM late WHERE k <= 50 OR k BETWEEN 101 AND 150; UPDATE late SET v = 'a' WHERE k BETWEEN 151 AND 175");
sql($a, "INSERT INTO late SELECT k, 'a' FROM generate_series(1001, 1100) k; DELETE FROM late WHERE k BETWEEN 1001 AND 1050");
$gates->deliver($a, $b);
$gates->deliver($a, $c);
$gates->deliver($c, $b);
$gates->deliver($b, $c);
# b and c have acknowledged it, and a knows; what they sent before may still be on its way
my $xid = sql($a, 'SELECT pg_current_xact_id()');
$gates->deliver($a, $_) foreach $b, $c;
ok(poll($a, "SELECT bool_and(pg_visible_in_snapshot('$xid'::xid8, acked)) FROM mmrepl.peer_state"), 'all have acknowledged the deletes');
# a lot goes through the log, round after round: segments are closed, and must stay
foreach my $i (1 .. 12)
{
	sql($a, "INSERT INTO filler SELECT k, 'filler' FROM generate_series($i * 10000, $i * 10000 + 5000) k; DELETE FROM filler");
	$gates->deliver($a, $b);
	$gates->deliver($a, $c);
}
is(sql($a, q{SELECT count(DISTINCT key) FROM mmrepl.change_log WHERE tablename = 'late' AND op = 'delete'}), 150, 'a keeps its deletes while c may have sent something older');
my $latest = q{SELECT v, count(*), min(k), max(k) FROM late GROUP BY v ORDER BY v};
my $end = "a|75|151|1100\nc|50|51|100\nold|300|201|500";
is(sql($b, $latest), $end, 'b has what is the newest');
is(sql($c, $latest), $end, 'c too');
$gates->deliver($c, $a);
sql($c, 'ALTER SYSTEM RESET mmrepl.heartbeat_interval');
sql($c, 'SELECT pg_reload_conf()');
$gates->open;
wait_synced(@nodes);
is(sql($_, $latest), $end, 'and nothing has risen from the dead on ' . $_->name) foreach @nodes;
poll_is($_, $size, 0, 'now all is known to all, and forgotten, on ' . $_->name) foreach @nodes;

# Forgotten, and written again: it is an ordinary insert everywhere, older deletes do not come back.
my $conflicts = join '', map { sql($_, 'SELECT count(*) FROM mmrepl.conflict_log') } @nodes;
sql($b, "INSERT INTO late SELECT k, 'again' FROM generate_series(1, 50) k");
wait_synced(@nodes);
is(sql($_, q{SELECT count(*) FROM late WHERE v = 'again'}), 50, 'keys that were deleted can be used again, on ' . $_->name) foreach @nodes;
is(join('', map { sql($_, 'SELECT count(*) FROM mmrepl.conflict_log') } @nodes), $conflicts, 'which is no conflict');

# A delete that wins where there is no row: its version is above that of the write which is still on its way.
$gates->shut;
sql($b, "INSERT INTO late VALUES (2000, 'b')");
$gates->deliver($b, $a);
sql($a, 'DELETE FROM late WHERE k = 2000');
$gates->deliver($a, $c);
is(sql($c, q{SELECT op, key ->> 'k' FROM mmrepl.change_log WHERE tablename = 'late' AND key ->> 'k' = '2000'}), 'delete|2000', 'c, which never had the row, knows of its delete');
$gates->deliver($b, $c);
is(sql($c, 'SELECT count(*) FROM late WHERE k = 2000'), 0, 'and the insert, which comes later, is older');
# two deletes of one key: the newer is the one that counts
sql($b, "INSERT INTO late VALUES (2001, 'old')");
$gates->open;
wait_synced(@nodes);
$gates->shut;
sql($a, 'DELETE FROM late WHERE k = 2001');
sql($b, "UPDATE late SET v = 'between' WHERE k = 2001");
sql($c, 'DELETE FROM late WHERE k = 2001');
$gates->deliver(@$_) foreach ([ $a, $b ], [ $c, $a ]);
is(sql($b, 'SELECT v FROM late WHERE k = 2001'), 'between', 'an older delete does not win');
$gates->deliver($b, $a);
is(sql($a, 'SELECT count(*) FROM late WHERE k = 2001'), 0, 'a had deleted it already, and took the later delete over: what lies between has lost');
$gates->open;
wait_synced(@nodes);
is(sql($_, 'SELECT count(*) FROM late WHERE k > 1999'), 0, 'gone on ' . $_->name) foreach @nodes;

$gates->end;
poll_is($_, 'SELECT count(*) = 0 FROM mmrepl.change_log', undef, 'the log drains on ' . $_->name) foreach @nodes;
finish(\@nodes, undef, qw(t late filler));
