# What stands after two or three nodes have claimed the same unique value, in words: a table of cases, run in many orders of
# delivery. Each says what every node must hold then, and by which names the conflict is known. The loser has to be in
# the history as a whole row, those that are no conflict must not be.
use strict;
use warnings;
use MmreplCases;
use MmreplCluster;
use MmreplGates;
use Test::More;

my @nodes = map { new_node($_, conf => "mmrepl.lock_timeout = '60s'\nmmrepl.heartbeat_interval = 100\n") } qw(aaa01 aaa02 aaa03);
my $marks = q{INSERT INTO mark SELECT unnest('{aaa01,aaa02,aaa03}'::text[]), 0};
sql_all(qq{
	CREATE TABLE mark (id text PRIMARY KEY, n int);
	$marks;
	CREATE TABLE u (c int, k int, a int, b int, s text, v text, PRIMARY KEY (c, k), UNIQUE (c, a), UNIQUE (c, b));
	CREATE UNIQUE INDEX u_s ON u (c, lower(s));
	CREATE TABLE p (c int, k int, a int, live bool, v text, PRIMARY KEY (c, k));
	CREATE UNIQUE INDEX p_live ON p (c, a) WHERE live;
	CREATE TABLE d (c int, k int, a int, v text, PRIMARY KEY (c, k), UNIQUE (c, a) DEFERRABLE INITIALLY DEFERRED);
	CREATE TABLE n (c int, k int, a int, v text, PRIMARY KEY (c, k), UNIQUE NULLS NOT DISTINCT (c, a));
	CREATE TABLE x (c int, k int, r int4range, v text, PRIMARY KEY (c, k),
		EXCLUDE USING gist (int4range(100000 * c + lower(r), 100000 * c + upper(r)) WITH &&))}, @nodes);
sql_all(q{
	CREATE TABLE twin (c int NOT NULL, id int, k text NOT NULL, v text, PRIMARY KEY (c, id));
	CREATE UNIQUE INDEX twin_key ON twin (c, k)}, @nodes);
join_nodes(\@nodes, keys => { twin => 'twin_key' });
wait_synced(@nodes);
my $gates = MmreplGates->new(@nodes);

my ($A, $B, $C) = (0, 1, 2);
my $u = q{SELECT string_agg(k || ':' || v, ' ' ORDER BY k) FROM u WHERE c = C};
my %see = map { $_ => $u =~ s/FROM u/FROM $_/r } qw(u p d n x twin);
my $none = '';
# also seen: the loser's delete meets the loser on its way
my $exists = qr/^insert_exists( update_deleted)?$/;

my @cases = (
	{ name => 'two rows with the same value', setup => '', rows => [ $see{u}, '2:b' ], types => $exists,
		steps => [ [ $A, "INSERT INTO u VALUES (C, 1, 10, 1, NULL, 'a')" ], [ $B, "INSERT INTO u VALUES (C, 2, 10, 2, NULL, 'b')" ] ] },
	{ name => 'the older one has the higher key', rows => [ $see{u}, '1:a' ], types => $exists,
		steps => [ [ $B, "INSERT INTO u VALUES (C, 2, 10, 2, NULL, 'b')" ], [ $A, "INSERT INTO u VALUES (C, 1, 10, 1, NULL, 'a')" ] ] },
	{ name => 'three rows with the same value', rows => [ $see{u}, '1:c' ], types => $exists,
		steps => [ [ $A, "INSERT INTO u VALUES (C, 3, 10, 3, NULL, 'a')" ], [ $B, "INSERT INTO u VALUES (C, 2, 10, 2, NULL, 'b')" ], [ $C, "INSERT INTO u VALUES (C, 1, 10, 1, NULL, 'c')" ] ] },
	{ name => 'two rows get the same value', rows => [ $see{u}, '2:b 3:old' ], types => qr/^(update_deleted )?update_exists$/,
		setup => "INSERT INTO u VALUES (C, 1, 1, 1, NULL, 'old'), (C, 2, 2, 2, NULL, 'old'), (C, 3, 3, 3, NULL, 'old');",
		steps => [ [ $A, "UPDATE u SET a = 10, v = 'a' WHERE c = C AND k = 1" ], [ $B, "UPDATE u SET a = 10, v = 'b' WHERE c = C AND k = 2" ] ] },
	{ name => 'a new row collides with two others', rows => [ $see{u}, '3:c' ], types => qr/insert_exists|multiple_unique_conflicts/,
		steps => [ [ $A, "INSERT INTO u VALUES (C, 1, 10, 1, NULL, 'a')" ], [ $A, "INSERT INTO u VALUES (C, 2, 2, 20, NULL, 'a')" ], [ $B, "INSERT INTO u VALUES (C, 3, 10, 20, NULL, 'c')" ] ] },
	{ name => 'one row collides with one other in two indexes', rows => [ $see{u}, '2:b' ], types => qr/multiple_unique_conflicts/,
		steps => [ [ $A, "INSERT INTO u VALUES (C, 1, 10, 20, NULL, 'a')" ], [ $B, "INSERT INTO u VALUES (C, 2, 10, 20, NULL, 'b')" ] ] },
	{ name => 'a value that only an expression makes equal', rows => [ $see{u}, '2:b' ], types => $exists,
		steps => [ [ $A, "INSERT INTO u VALUES (C, 1, NULL, NULL, 'Same', 'a')" ], [ $B, "INSERT INTO u VALUES (C, 2, NULL, NULL, 'sAME', 'b')" ] ] },
	{ name => 'NULLs are no values', rows => [ $see{u}, '1:a 2:b' ], types => $none,
		steps => [ [ $A, "INSERT INTO u VALUES (C, 1, NULL, NULL, NULL, 'a')" ], [ $B, "INSERT INTO u VALUES (C, 2, NULL, NULL, NULL, 'b')" ] ] },
	{ name => 'NULLs that are values', rows => [ $see{n}, '2:b' ], types => $exists,
		steps => [ [ $A, "INSERT INTO n VALUES (C, 1, NULL, 'a')" ], [ $B, "INSERT INTO n VALUES (C, 2, NULL, 'b')" ] ] },
	{ name => 'outside the part that is unique', rows => [ $see{p}, '1:a 2:b' ], types => $none,
		steps => [ [ $A, "INSERT INTO p VALUES (C, 1, 10, true, 'a')" ], [ $B, "INSERT INTO p VALUES (C, 2, 10, false, 'b')" ] ] },
	{ name => 'one enters the part that is unique', rows => [ $see{p}, '2:b' ], types => qr/^(insert_exists|update_exists|update_deleted| )+$/,
		setup => "INSERT INTO p VALUES (C, 2, 10, false, 'old');",
		steps => [ [ $A, "INSERT INTO p VALUES (C, 1, 10, true, 'a')" ], [ $B, "UPDATE p SET live = true, v = 'b' WHERE c = C AND k = 2" ] ] },
	{ name => 'one leaves it before the other comes', rows => [ $see{p}, '1:a 2:b' ], types => $none,
		setup => "INSERT INTO p VALUES (C, 1, 10, true, 'old');",
		steps => [ [ $A, "UPDATE p SET live = false, v = 'a' WHERE c = C AND k = 1; INSERT INTO p VALUES (C, 2, 10, true, 'b')" ] ] },
	{ name => 'a constraint that is checked at commit', rows => [ $see{d}, '2:b' ], types => $exists,
		steps => [ [ $A, "INSERT INTO d VALUES (C, 1, 10, 'a')" ], [ $B, "INSERT INTO d VALUES (C, 2, 10, 'b')" ] ] },
	{ name => 'a chain inside one command', rows => [ q{SELECT string_agg(k || ':' || a, ' ' ORDER BY k) FROM d WHERE c = C}, '1:2 2:3 3:4 4:5' ], types => $none,
		setup => "INSERT INTO d SELECT C, i, i, 'old' FROM generate_series(1, 4) i;",
		steps => [ [ $A, "UPDATE d SET a = a + 1, v = 'new' WHERE c = C" ] ] },
	{ name => 'a ring of three', rows => [ q{SELECT string_agg(k || ':' || a, ' ' ORDER BY k) FROM u WHERE c = C}, '1:2 2:3 3:1' ], types => $none,
		setup => "INSERT INTO u SELECT C, i, i, i, NULL, 'old' FROM generate_series(1, 3) i;",
		steps => [ [ $B, "BEGIN; UPDATE u SET a = -k WHERE c = C; UPDATE u SET a = 1 + k % 3 WHERE c = C; COMMIT" ] ] },
	{ name => 'swaps on two nodes', rows => [ q{SELECT string_agg(k || ':' || a, ' ' ORDER BY k) FROM u WHERE c = C}, '1:2 2:1' ], types => qr/^update_origin_differs$/,
		setup => "INSERT INTO u SELECT C, i, i, i, NULL, 'old' FROM generate_series(1, 2) i;",
		steps => [ [ $A, "BEGIN; UPDATE u SET a = -k WHERE c = C; UPDATE u SET a = 3 - k, v = 'a' WHERE c = C; COMMIT" ],
			[ $B, "BEGIN; UPDATE u SET a = -k WHERE c = C; UPDATE u SET a = 3 - k, v = 'b' WHERE c = C; COMMIT" ] ] },
	{ name => 'the value goes to another row', rows => [ $see{u}, '2:b' ], types => $none,
		setup => "INSERT INTO u VALUES (C, 1, 10, 1, NULL, 'old');",
		steps => [ [ $A, "DELETE FROM u WHERE c = C; INSERT INTO u VALUES (C, 2, 10, 2, NULL, 'b')" ] ] },
	{ name => 'the value goes to another row, whose old one is written before', rows => [ $see{u}, '2:b' ], types => qr/^(delete_origin_differs|insert_exists|update_deleted| )+$/,
		setup => "INSERT INTO u VALUES (C, 1, 10, 1, NULL, 'old');",
		steps => [ [ $B, "UPDATE u SET v = 'late' WHERE c = C" ], [ $A, "DELETE FROM u WHERE c = C; INSERT INTO u VALUES (C, 2, 10, 2, NULL, 'b')" ] ] },
	{ name => 'the value goes to another row, whose old one is written after', rows => [ $see{u}, '1:late' ], types => qr/exists/,
		setup => "INSERT INTO u VALUES (C, 1, 10, 1, NULL, 'old');",
		steps => [ [ $A, "DELETE FROM u WHERE c = C; INSERT INTO u VALUES (C, 2, 10, 2, NULL, 'b')" ], [ $B, "UPDATE u SET v = 'late' WHERE c = C" ] ] },
	{ name => 'the winner gives its value up at once', rows => [ $see{u}, '2:b' ],
		steps => [ [ $A, "INSERT INTO u VALUES (C, 1, 10, 1, NULL, 'a')" ], [ $B, "INSERT INTO u VALUES (C, 2, 10, 2, NULL, 'b')" ],
			[ $A, "DELETE FROM u WHERE c = C AND k = 1" ] ] },
	{ name => 'ranges that overlap', rows => [ $see{x}, '2:b' ], types => $exists,
		steps => [ [ $A, "INSERT INTO x VALUES (C, 1, '[1,5)', 'a')" ], [ $B, "INSERT INTO x VALUES (C, 2, '[4,9)', 'b')" ] ] },
	{ name => 'a range over two others and beside a third', rows => [ $see{x}, '3:c 9:z' ], types => $exists,
		steps => [ [ $A, "INSERT INTO x VALUES (C, 1, '[1,5)', 'a'), (C, 2, '[5,9)', 'b'), (C, 9, '[20,30)', 'z')" ], [ $C, "INSERT INTO x VALUES (C, 3, '[4,6)', 'c')" ] ] },
	{ name => 'a range that is moved on', rows => [ $see{x}, '1:a 2:b' ], types => $none,
		setup => "INSERT INTO x VALUES (C, 1, '[1,5)', 'old');",
		steps => [ [ $A, "UPDATE x SET r = '[10,15)', v = 'a' WHERE c = C; INSERT INTO x VALUES (C, 2, '[1,5)', 'b')" ] ] },
	{ name => 'the same session, numbered differently', rows => [ $see{twin} =~ s/k \|\|/id || '-' || k ||/r, '2-s:b' ], types => qr/^insert_exists$/,
		steps => [ [ $A, "INSERT INTO twin VALUES (C, 1, 's', 'a')" ], [ $B, "INSERT INTO twin VALUES (C, 2, 's', 'b')" ] ] },
	{ name => 'two sessions, numbered the same', rows => [ $see{twin}, 't:b' ], types => $exists,
		steps => [ [ $A, "INSERT INTO twin VALUES (C, 1, 's', 'a')" ], [ $B, "INSERT INTO twin VALUES (C, 1, 't', 'b')" ] ] },
	{ name => 'the same session, with the number of another one', rows => [ $see{twin}, 's:b' ], types => qr/insert_exists/,
		steps => [ [ $A, "INSERT INTO twin VALUES (C, 1, 's', 'a'), (C, 2, 't', 'a')" ], [ $B, "INSERT INTO twin VALUES (C, 2, 's', 'b')" ] ] },
);

# [ from, to ] in order: what is not named comes at the end, all at once
my %orders = (
	'all at once' => [],
	'A first' => [ [ 0, 1 ], [ 0, 2 ], [ 1, 0 ], [ 2, 0 ], [ 1, 2 ], [ 2, 1 ] ],
	'C first' => [ [ 2, 1 ], [ 2, 0 ], [ 1, 0 ], [ 1, 2 ], [ 0, 2 ], [ 0, 1 ] ],
	'to C first' => [ [ 0, 2 ], [ 1, 2 ], [ 2, 0 ], [ 2, 1 ], [ 1, 0 ], [ 0, 1 ] ],
	'from C last' => [ [ 1, 0 ], [ 0, 1 ], [ 1, 2 ], [ 0, 2 ], [ 2, 0 ], [ 2, 1 ] ],
	'round' => [ [ 0, 1 ], [ 1, 2 ], [ 2, 0 ], [ 0, 2 ], [ 2, 1 ], [ 1, 0 ] ],
	'each meets it by itself' => [ [ 0, 1 ], [ 0, 2 ], [ 1, 0 ], [ 1, 2 ], [ 2, 0 ], [ 2, 1 ] ]);
my $first = 1;
foreach my $name (sort keys %orders)
{
	run_cases($gates, \@nodes, \@cases, $first, $name, @{ $orders{$name} });
	$first += 100;
}

# Who has not lost to the newest one stays: where B's row comes, which collides with two, the newer of them is already.
my @two = ({ name => 'a row that the loser would have removed', rows => [ $u, '1:a 3:c' ], types => qr/multiple_unique_conflicts/,
	steps => [ [ $A, "INSERT INTO u VALUES (C, 1, 10, 1, NULL, 'a')" ], [ $B, "INSERT INTO u VALUES (C, 2, 10, 20, NULL, 'b')" ], [ $C, "INSERT INTO u VALUES (C, 3, 3, 20, NULL, 'c')" ] ] },
	{ name => 'the newest collides with both', rows => [ $u, '2:b' ], types => qr/multiple_unique_conflicts/,
	steps => [ [ $A, "INSERT INTO u VALUES (C, 1, 10, 1, NULL, 'a')" ], [ $C, "INSERT INTO u VALUES (C, 3, 3, 20, NULL, 'c')" ], [ $B, "INSERT INTO u VALUES (C, 2, 10, 20, NULL, 'b')" ] ] });
run_cases($gates, \@nodes, \@two, $first, 'where two are already', [ 2, 0 ], [ 1, 0 ], [ 2, 1 ], [ 0, 1 ]);

# The history has the loser whole, and the winner beside it.
my $whole = q{SELECT count(*) FROM mmrepl.conflict_history WHERE conflict_type = 'insert_exists' AND key ->> 'c' = '1'
	AND '{"c": 1, "k": 1, "a": 10, "b": 1, "s": null, "v": "a"}' IN (local_row, remote_row) AND '{"c": 1, "k": 2, "a": 10, "b": 2, "s": null, "v": "b"}' IN (local_row, remote_row)};
my $found = 0;
$found += sql($_, $whole) foreach @nodes;
cmp_ok($found, '>', 0, 'the loser is whole in the history, the winner beside it');

$gates->end;
poll_is($_, 'SELECT count(*) = 0 FROM mmrepl.change_log', undef, 'the log drains on ' . $_->name) foreach @nodes;
finish(\@nodes, undef, qw(u p d n x twin));
