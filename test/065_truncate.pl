# TRUNCATE against everything: a table of cases, each with tables of its own, run on three nodes that do not hear of each other while they
# write, in many orders of delivery: what is newer than the TRUNCATE stands, what is older is gone, on all nodes, and whole in
# the history if who truncated had not seen it. Then TRUNCATEs that cross, again and again, on tables that are also read: nobody
# waits for a peer that waits for him.
use strict;
use warnings;
use MmreplCases;
use MmreplCluster;
use MmreplGates;
use Test::More;

my @nodes = map { new_node($_, conf => "mmrepl.lock_timeout = '60s'\nmmrepl.heartbeat_interval = 100\n") } qw(aaa01 aaa02 aaa03);
my ($A, $B, $C) = (0, 1, 2);
my $rows = q{SELECT string_agg(k || ':' || v, ' ' ORDER BY k) FROM tC};
my $old = "TRUNCATE tC; INSERT INTO tC VALUES (1, 'old'), (2, 'old');";
my $lost = qr/truncate_conflict|update_deleted/;

my @cases = (
	{ name => 'an older insert', rows => [ $rows, '' ], types => $lost,
		steps => [ [ $B, "INSERT INTO tC VALUES (3, 'b')" ], [ $A, 'TRUNCATE tC' ] ] },
	{ name => 'a newer insert', rows => [ $rows, '3:b' ],
		steps => [ [ $A, 'TRUNCATE tC' ], [ $B, "INSERT INTO tC VALUES (3, 'b')" ] ] },
	{ name => 'an older and a newer update', rows => [ $rows, '2:c' ],
		steps => [ [ $B, "UPDATE tC SET v = 'b' WHERE k = 1" ], [ $A, 'TRUNCATE tC' ], [ $C, "UPDATE tC SET v = 'c' WHERE k = 2" ] ] },
	{ name => 'an older update on each of the others', rows => [ $rows, '' ], types => $lost,
		steps => [ [ $B, "UPDATE tC SET v = 'b' WHERE k = 1" ], [ $C, "UPDATE tC SET v = 'c' WHERE k = 1" ], [ $A, 'TRUNCATE tC' ] ] },
	{ name => 'deletes, older and newer', rows => [ $rows, '' ],
		steps => [ [ $B, 'DELETE FROM tC WHERE k = 1' ], [ $A, 'TRUNCATE tC' ], [ $C, 'DELETE FROM tC WHERE k = 2' ] ] },
	{ name => 'a change of the key, newer', rows => [ $rows, '9:c' ],
		steps => [ [ $A, 'TRUNCATE tC' ], [ $C, "UPDATE tC SET k = 9, v = 'c' WHERE k = 2" ] ] },
	{ name => 'a change of the key, older', rows => [ $rows, '' ], types => $lost,
		steps => [ [ $C, "UPDATE tC SET k = 9, v = 'c' WHERE k = 2" ], [ $A, 'TRUNCATE tC' ] ] },
	{ name => 'two TRUNCATEs, and an insert between', rows => [ $rows, '' ],
		steps => [ [ $A, 'TRUNCATE tC' ], [ $C, "INSERT INTO tC VALUES (3, 'c')" ], [ $B, 'TRUNCATE tC' ] ] },
	{ name => 'three TRUNCATEs, and an insert after', rows => [ $rows, '4:a' ],
		steps => [ [ $A, 'TRUNCATE tC' ], [ $B, 'TRUNCATE tC' ], [ $C, 'TRUNCATE tC' ], [ $A, "INSERT INTO tC VALUES (4, 'a')" ] ] },
	{ name => 'one transaction with inserts before and after', rows => [ $rows, '2:again 4:after' ],
		steps => [ [ $A, "BEGIN; INSERT INTO tC VALUES (3, 'before'); TRUNCATE tC; INSERT INTO tC VALUES (4, 'after'), (2, 'again'); COMMIT" ],
			[ $A, 'DELETE FROM tC WHERE k = 3' ] ] },
	{ name => 'twice in a transaction', rows => [ $rows, '5:c' ],
		steps => [ [ $A, "BEGIN; TRUNCATE tC; INSERT INTO tC VALUES (3, 'a'), (4, 'b'); TRUNCATE tC; INSERT INTO tC VALUES (5, 'c'); COMMIT" ] ] },
	{ name => 'rolled back', rows => [ $rows, '1:old 2:old 3:b' ], types => '',
		steps => [ [ $A, 'BEGIN; TRUNCATE tC; ROLLBACK' ], [ $B, "INSERT INTO tC VALUES (3, 'b')" ] ] },
	{ name => 'rolled back in a savepoint', rows => [ $rows, '1:old 2:old 3:a 4:b' ], types => '',
		steps => [ [ $A, "BEGIN; INSERT INTO tC VALUES (3, 'a'); SAVEPOINT s; TRUNCATE tC; INSERT INTO tC VALUES (7, 'no'); ROLLBACK TO s; INSERT INTO tC VALUES (4, 'b'); COMMIT" ] ] },
	{ name => 'in a savepoint that stays, one in it that does not', rows => [ $rows, '3:a' ], types => '',
		steps => [ [ $A, "BEGIN; SAVEPOINT s; TRUNCATE tC; SAVEPOINT r; INSERT INTO tC VALUES (8, 'no'); ROLLBACK TO r; RELEASE s; INSERT INTO tC VALUES (3, 'a'); COMMIT" ] ] },
	{ name => 'prepared before and committed after an insert elsewhere', rows => [ $rows, '3:b' ],
		steps => [ [ $A, "BEGIN; TRUNCATE tC; PREPARE TRANSACTION 'tC'" ], [ $B, "INSERT INTO tC VALUES (3, 'b')" ], [ $A, "COMMIT PREPARED 'tC'" ] ] },
	{ name => 'prepared and rolled back', rows => [ $rows, '1:old 2:old' ], types => '',
		steps => [ [ $A, "BEGIN; TRUNCATE tC; INSERT INTO tC VALUES (3, 'a'); PREPARE TRANSACTION 'tC'" ], [ $A, "ROLLBACK PREPARED 'tC'" ] ] },
	{ name => 'an insert that is prepared before, and committed after', rows => [ $rows, '' ], types => $lost,
		steps => [ [ $B, "BEGIN; INSERT INTO tC VALUES (3, 'b'); PREPARE TRANSACTION 'tC'" ], [ $A, 'TRUNCATE tC' ], [ $B, "COMMIT PREPARED 'tC'" ] ] },
	{ name => 'CASCADE, and a newer child', rows => [ q{SELECT (SELECT count(*) FROM fC) || '|' || coalesce(string_agg(id || ':' || v, ' ' ORDER BY id), '') FROM pC}, '0|3:c' ],
		setup => "TRUNCATE fC, pC CASCADE; INSERT INTO fC VALUES (1, 'old'), (2, 'old'); INSERT INTO pC VALUES (1, 1, 'old'), (2, 2, 'old');",
		steps => [ [ $B, "INSERT INTO pC VALUES (4, 1, 'b')" ], [ $A, 'TRUNCATE fC CASCADE' ], [ $C, "INSERT INTO pC VALUES (3, 2, 'c')" ] ] },
	{ name => 'several in a command, one of them elsewhere too',
	rows => [ q{SELECT (SELECT string_agg(k || ':' || v, ' ' ORDER BY k) FROM fC) || '|' || coalesce(string_agg(id || ':' || v, ' ' ORDER BY id), '') FROM pC}, '3:a|6:a' ],
	setup => "TRUNCATE fC, pC CASCADE; INSERT INTO fC VALUES (1, 'old'), (2, 'old'); INSERT INTO pC VALUES (1, 1, 'old'), (2, 2, 'old');",
	steps => [ [ $A, 'TRUNCATE pC, fC' ], [ $C, "INSERT INTO pC VALUES (5, 1, 'c')" ], [ $B, 'TRUNCATE pC' ], [ $A, "INSERT INTO fC VALUES (3, 'a'); INSERT INTO pC VALUES (6, 3, 'a')" ] ] });
foreach my $case (@cases)
{
	$case->{setup} //= $old;
	$case->{rows}[0] = "SELECT coalesce(($case->{rows}[0]), '')" if $case->{rows}[0] eq $rows;
	$case->{relname} = $case->{setup} =~ /fC/ ? 'fC' : 'tC';
}
my $tables = join '', map { "CREATE TABLE t$_ (k int PRIMARY KEY, v text); CREATE TABLE f$_ (k int PRIMARY KEY, v text); CREATE TABLE p$_ (id int PRIMARY KEY, f int REFERENCES f$_, v text);\n" } 1 .. @cases;
sql_all(q{CREATE TABLE mark (id text PRIMARY KEY, n int); INSERT INTO mark SELECT unnest('{aaa01,aaa02,aaa03}'::text[]), 0;
	CREATE TABLE numbered (id serial PRIMARY KEY, v text);
	CREATE TABLE crossed (k int PRIMARY KEY, v text);} . $tables, @nodes);
join_nodes(\@nodes);
wait_synced(@nodes);
my $gates = MmreplGates->new(@nodes);

my %orders = (
	'all at once' => [],
	'A first' => [ [ 0, 1 ], [ 0, 2 ], [ 1, 0 ], [ 2, 0 ], [ 1, 2 ], [ 2, 1 ] ],
	'A last' => [ [ 1, 2 ], [ 2, 1 ], [ 1, 0 ], [ 2, 0 ], [ 0, 1 ], [ 0, 2 ] ],
	'to C last' => [ [ 0, 1 ], [ 1, 0 ], [ 2, 1 ], [ 2, 0 ], [ 0, 2 ], [ 1, 2 ] ],
	'round' => [ [ 0, 1 ], [ 1, 2 ], [ 2, 0 ], [ 0, 2 ], [ 2, 1 ], [ 1, 0 ] ]);
foreach my $name (sort keys %orders)
{
	sql_all('TRUNCATE mmrepl.conflict_log', @nodes);
	run_cases($gates, \@nodes, \@cases, 1, $name, @{ $orders{$name} });
	# case 1: the insert that A had not seen is whole in the history of somebody
	is(join('', map { sql($_, q{SELECT count(*) FROM mmrepl.conflict_log WHERE relname = 't1' AND '{"k": 3, "v": "b"}' IN (local_row, remote_row)}) } @nodes) =~ tr/0//c > 0, 1,
		"$name: a row that the TRUNCATE had not seen is in the history");
}

# RESTART IDENTITY is an affair of one node: numbers stay apart.
$gates->open;
sql($_, q{INSERT INTO numbered (v) SELECT 'before' FROM generate_series(1, 3)}) foreach @nodes;
wait_synced(@nodes);
sql($nodes[0], 'TRUNCATE numbered RESTART IDENTITY');
wait_synced(@nodes);
sql($_, q{INSERT INTO numbered (v) SELECT 'after' FROM generate_series(1, 30)}) foreach @nodes;
wait_synced(@nodes);
is(sql($_, q{SELECT count(*), count(DISTINCT id) FROM numbered}), '90|90', 'after RESTART IDENTITY no number is given twice, on ' . $_->name) foreach @nodes;
is(sql($nodes[0], q{SELECT count(*) FROM mmrepl.conflict_log WHERE relname = 'numbered'}), 0, 'and there is no conflict');

# Crossed: nodes truncate and fill at once, and one has a reader who stays (its own clients wait for him; what comes must
# not). With a lock_timeout of a minute, to wait for each other would be noticed.
my $reader = session($nodes[1]);
$reader->query_safe('BEGIN; SELECT count(*) FROM crossed');
foreach my $turn ([ 0, 2 ], [ 2, 0 ], [ 2, 0 ], [ 0, 1, 2 ], [ 2, 1, 0 ], [ 0, 2, 1 ])
{
	if (@$turn == 3 && defined $reader)
	{
		$reader->query_safe('COMMIT');
		$reader->quit;
		$reader = undef;
	}
	$gates->shut;
	sql($nodes[$_], "BEGIN; TRUNCATE crossed; INSERT INTO crossed SELECT $_ * 100000 + k, repeat('$_', 100) FROM generate_series(1, 3000) k; COMMIT") foreach @$turn;
	$gates->open;
	wait_synced(@nodes);
	is(join(' ', map { sql($_, 'SELECT count(*), min(k) / 100000, max(k) / 100000 FROM crossed') } @nodes), join(' ', ("3000|$turn->[-1]|$turn->[-1]") x 3), "crossed, by @$turn: the last one's rows stand");
}

# Who sends does not hold up a user's TRUNCATE while his peer does not answer.
$gates->shut;
my $holder = session($nodes[1]);
$holder->query_safe('BEGIN; LOCK TABLE crossed IN ACCESS EXCLUSIVE MODE');
$gates->open;
sql($nodes[0], "UPDATE crossed SET v = 'sent'");
poll_is($nodes[0], q{SELECT state = 'pushing' FROM mmrepl.worker_status WHERE kind = 'pusher' AND db = 'aaa02'}, undef, 'a batch waits at the peer');
is(sql($nodes[0], q{SET lock_timeout = '20s'; TRUNCATE crossed; SELECT count(*) FROM crossed}), 0, 'and the table can be truncated meanwhile');
$holder->query_safe('COMMIT');
$holder->quit;
wait_synced(@nodes);

$gates->end;
poll_is($_, 'SELECT count(*) = 0 FROM mmrepl.change_log', undef, 'the log drains on ' . $_->name) foreach @nodes;
finish(\@nodes, qr/deadlock detected/, qw(crossed numbered t1));
