# A row whose key changes is one row that goes and another that comes, in one transaction, with one place in time: against whatever the
# others do to either key. A table of cases, each run twice: where the key is the primary key, and where it is another unique index and
# the primary key is a number of each node's own: the row keeps its number, and two rows of one number are a
# conflict, of which the newer one stands (numbered).
use strict;
use warnings;
use MmreplCases;
use MmreplCluster;
use MmreplGates;
use Test::More;

my @nodes = map { new_node($_, conf => "mmrepl.lock_timeout = '60s'\nmmrepl.heartbeat_interval = 100\n") } qw(aaa01 aaa02 aaa03);
sql_all(q{CREATE TABLE mark (id text PRIMARY KEY, n int); INSERT INTO mark SELECT unnest('{aaa01,aaa02,aaa03}'::text[]), 0;
	CREATE TABLE prim (c int, k int, v text, PRIMARY KEY (c, k));
	CREATE TABLE other (id bigserial PRIMARY KEY, c int NOT NULL, k int NOT NULL, v text, twice int GENERATED ALWAYS AS (k * 2) STORED);
	CREATE UNIQUE INDEX other_key ON other (c, k);
	-- keys that are equal and look different
	CREATE TABLE amount (c int, k numeric, v text, PRIMARY KEY (c, k))}, @nodes);
join_nodes(\@nodes, keys => { other => 'other_key' });
wait_synced(@nodes);
my $gates = MmreplGates->new(@nodes);

my ($A, $B, $C) = (0, 1, 2);
my $rows = q{SELECT string_agg(k || ':' || v, ' ' ORDER BY k) FROM T WHERE c = C};
my @cases = (
	{ name => 'alone', rows => '2:a', types => '',
		steps => [ [ $A, "UPDATE T SET k = 2, v = 'a' WHERE c = C" ] ] },
	{ name => 'the old key is updated before', rows => '2:a', types => qr/delete_origin_differs|update_deleted/,
		steps => [ [ $B, "UPDATE T SET v = 'b' WHERE c = C" ], [ $A, "UPDATE T SET k = 2, v = 'a' WHERE c = C" ] ] },
	{ name => 'the old key is updated after: two rows', rows => '1:b 2:a', numbered => '1:b', types => qr/./,
		steps => [ [ $A, "UPDATE T SET k = 2, v = 'a' WHERE c = C" ], [ $B, "UPDATE T SET v = 'b' WHERE c = C" ] ] },
	{ name => 'the old key is deleted before', rows => '2:a', types => qr/^(delete_missing|update_deleted|delete_origin_differs| )*$/,
		steps => [ [ $B, 'DELETE FROM T WHERE c = C' ], [ $A, "UPDATE T SET k = 2, v = 'a' WHERE c = C" ] ] },
	{ name => 'the old key is deleted after: the new one stays', rows => '2:a', types => qr/delete_missing/,
		steps => [ [ $A, "UPDATE T SET k = 2, v = 'a' WHERE c = C" ], [ $B, 'DELETE FROM T WHERE c = C' ] ] },
	{ name => 'the new key is inserted before', rows => '2:a', types => qr/insert_exists|update_origin_differs/,
		steps => [ [ $B, "INSERT INTO T (c, k, v) VALUES (C, 2, 'b')" ], [ $A, "UPDATE T SET k = 2, v = 'a' WHERE c = C" ] ] },
	{ name => 'the new key is inserted after', rows => '2:b', types => qr/insert_exists|update_origin_differs/,
		steps => [ [ $A, "UPDATE T SET k = 2, v = 'a' WHERE c = C" ], [ $B, "INSERT INTO T (c, k, v) VALUES (C, 2, 'b')" ] ] },
	{ name => 'the old key is used again', rows => '1:a2 2:a', types => '',
		steps => [ [ $A, "UPDATE T SET k = 2, v = 'a' WHERE c = C; INSERT INTO T (c, k, v) VALUES (C, 1, 'a2')" ] ] },
	{ name => 'and the old key is updated between', rows => '1:a2 2:a',
		steps => [ [ $A, "UPDATE T SET k = 2, v = 'a' WHERE c = C" ], [ $B, "UPDATE T SET v = 'b' WHERE c = C" ], [ $A, "INSERT INTO T (c, k, v) VALUES (C, 1, 'a2')" ] ] },
	{ name => 'there and back', rows => '1:a', types => '',
		steps => [ [ $A, "BEGIN; UPDATE T SET k = 2, v = 'x' WHERE c = C; UPDATE T SET k = 1, v = 'a' WHERE c = C; COMMIT" ] ] },
	{ name => 'there and back, an update of the old key between', rows => '1:a', types => qr/./,
		steps => [ [ $A, "UPDATE T SET k = 2, v = 'x' WHERE c = C" ], [ $B, "UPDATE T SET v = 'b' WHERE c = C" ], [ $A, "UPDATE T SET k = 1, v = 'a' WHERE c = C" ] ] },
	{ name => 'two rows swap their keys', rows => '1:two 2:one', types => '', more => "(C, 2, 'two')",
		steps => [ [ $A, "UPDATE T SET v = 'one' WHERE c = C AND k = 1" ],
			[ $A, 'BEGIN; UPDATE T SET k = -1 WHERE c = C AND k = 1; UPDATE T SET k = 1 WHERE c = C AND k = 2; UPDATE T SET k = 2 WHERE c = C AND k = -1; COMMIT' ] ] },
	{ name => 'a swap, and an older update', rows => '1:two 2:old', more => "(C, 2, 'two')",
		steps => [ [ $B, "UPDATE T SET v = 'b' WHERE c = C AND k = 1" ],
			[ $A, 'BEGIN; UPDATE T SET k = -1 WHERE c = C AND k = 1; UPDATE T SET k = 1 WHERE c = C AND k = 2; UPDATE T SET k = 2 WHERE c = C AND k = -1; COMMIT' ] ] },
	{ name => 'a swap, and a newer update', rows => '1:b 2:old', numbered => '1:b', more => "(C, 2, 'two')",
		steps => [ [ $A, 'BEGIN; UPDATE T SET k = -1 WHERE c = C AND k = 1; UPDATE T SET k = 1 WHERE c = C AND k = 2; UPDATE T SET k = 2 WHERE c = C AND k = -1; COMMIT' ],
			[ $B, "UPDATE T SET v = 'b' WHERE c = C AND k = 1" ] ] },
	{ name => 'a swap on two nodes', rows => '1:two 2:old', more => "(C, 2, 'two')",
		steps => [ map { [ $_, 'BEGIN; UPDATE T SET k = -1 WHERE c = C AND k = 1; UPDATE T SET k = 1 WHERE c = C AND k = 2; UPDATE T SET k = 2 WHERE c = C AND k = -1; COMMIT' ] } ($A, $B) ] },
	{ name => 'a chain', rows => '2:one 3:two 4:three', types => '', more => "(C, 2, 'two'), (C, 3, 'three')",
		steps => [ [ $A, "UPDATE T SET v = 'one' WHERE c = C AND k = 1" ],
			[ $A, 'BEGIN; UPDATE T SET k = 4 WHERE c = C AND k = 3; UPDATE T SET k = 3 WHERE c = C AND k = 2; UPDATE T SET k = 2 WHERE c = C AND k = 1; COMMIT' ] ] },
	{ name => 'a chain, its end inserted elsewhere after', rows => '2:old 3:two 4:c', more => "(C, 2, 'two'), (C, 3, 'three')",
		steps => [ [ $A, 'BEGIN; UPDATE T SET k = 4 WHERE c = C AND k = 3; UPDATE T SET k = 3 WHERE c = C AND k = 2; UPDATE T SET k = 2 WHERE c = C AND k = 1; COMMIT' ],
			[ $C, "INSERT INTO T (c, k, v) VALUES (C, 4, 'c')" ] ] },
	{ name => 'two nodes move the row to different keys: two rows', rows => '2:a 3:b', numbered => '3:b', types => qr/./,
		steps => [ [ $A, "UPDATE T SET k = 2, v = 'a' WHERE c = C" ], [ $B, "UPDATE T SET k = 3, v = 'b' WHERE c = C" ] ] },
	{ name => 'two nodes move different rows to one key', rows => '9:b', types => qr/insert_exists|update_origin_differs/, more => "(C, 2, 'two')",
		steps => [ [ $A, "UPDATE T SET k = 9, v = 'a' WHERE c = C AND k = 1" ], [ $B, "UPDATE T SET k = 9, v = 'b' WHERE c = C AND k = 2" ] ] },
	{ name => 'three nodes move one row on', rows => '2:a 3:b 4:c', numbered => '4:c',
		steps => [ [ $A, "UPDATE T SET k = 2, v = 'a' WHERE c = C" ], [ $B, "UPDATE T SET k = 3, v = 'b' WHERE c = C" ], [ $C, "UPDATE T SET k = 4, v = 'c' WHERE c = C" ] ] },
	{ name => 'rolled back in a savepoint', rows => '1:a', types => '',
		steps => [ [ $A, "BEGIN; SAVEPOINT s; UPDATE T SET k = 2 WHERE c = C; ROLLBACK TO s; UPDATE T SET v = 'a' WHERE c = C; COMMIT" ] ] },
);
my $amount = q{SELECT string_agg(k || ':' || v, ' ' ORDER BY k) FROM amount WHERE c = C};
my @run;
foreach my $table (qw(prim other))
{
	foreach my $case (@cases)
	{
		my $more = $case->{more} ? ", $case->{more}" : '';
		push @run, { %$case, name => "$table: $case->{name}", setup => "INSERT INTO $table (c, k, v) VALUES (C, 1, 'old')$more;",
			rows => [ $rows =~ s/\bT\b/$table/r, $table eq 'other' ? $case->{numbered} // $case->{rows} : $case->{rows} ], steps => [ map { [ $_->[0], $_->[1] =~ s/\bT\b/$table/gr ] } @{ $case->{steps} } ] };
	}
}
push @run, { name => 'equal keys that look different', setup => "INSERT INTO amount VALUES (C, 1.0, 'old');", rows => [ $amount, '1.000:b' ],
		steps => [ [ $A, "UPDATE amount SET k = 1.00, v = 'a' WHERE c = C" ], [ $B, "UPDATE amount SET k = 1.000, v = 'b' WHERE c = C" ] ] },
	{ name => 'equal keys that look different, deleted by one', setup => "INSERT INTO amount VALUES (C, 1.0, 'old');", rows => [ "SELECT coalesce(($amount), '')", '' ],
		steps => [ [ $A, "UPDATE amount SET k = 1.00, v = 'a' WHERE c = C" ], [ $B, 'DELETE FROM amount WHERE c = C AND k = 1' ] ] };

my %orders = (
	'all at once' => [],
	'A first' => [ [ 0, 1 ], [ 0, 2 ], [ 1, 0 ], [ 2, 0 ], [ 1, 2 ], [ 2, 1 ] ],
	'A last' => [ [ 1, 2 ], [ 2, 1 ], [ 1, 0 ], [ 2, 0 ], [ 0, 2 ], [ 0, 1 ] ],
	'to C first, crossed' => [ [ 1, 2 ], [ 0, 2 ], [ 2, 0 ], [ 2, 1 ], [ 0, 1 ], [ 1, 0 ] ],
	'round' => [ [ 0, 1 ], [ 1, 2 ], [ 2, 0 ], [ 0, 2 ], [ 2, 1 ], [ 1, 0 ] ]);
my $first = 1;
foreach my $name (sort keys %orders)
{
	run_cases($gates, \@nodes, \@run, $first, $name, @{ $orders{$name} });
	$first += 100;
}
is(sql($_, 'SELECT count(*) FROM other WHERE twice IS DISTINCT FROM k * 2'), 0, 'generated columns follow the key, on ' . $_->name) foreach @nodes;

$gates->end;
poll_is($_, 'SELECT count(*) = 0 FROM mmrepl.change_log', undef, 'the log drains on ' . $_->name) foreach @nodes;
finish(\@nodes, qr/deadlock detected/, qw(prim other amount));
