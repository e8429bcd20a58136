# Many keys at once, of all kinds, near each other and far apart: what is found along the leaves of an index is what is found by
# each key alone, on the way out and on the way in (B4, A3); rows that are written together collide as if they came alone (A5).
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, start => 1) } qw(aaa01 aaa02);
my %key = (
	ints => ['k int', '$1'],
	bigs => ['k bigint', '$1::bigint * 1000003 % 7919000'],
	texts => ['k text', q{CASE $1 % 3 WHEN 0 THEN md5($1::text) WHEN 1 THEN 'k' || $1 ELSE repeat('x', $1 % 500) || $1 END}],
	numbers => ['k numeric', q{CASE $1 % 2 WHEN 0 THEN $1::numeric ELSE ($1 || '.00')::numeric END}],
	names => ['k name', q{('n' || $1)::name}],
	uuids => ['k uuid', 'md5($1::text)::uuid']);
foreach my $t (sort keys %key)
{
	sql_all("CREATE TABLE $t ($key{$t}[0] PRIMARY KEY, n int, pad text);
		CREATE FUNCTION key_$t(int) RETURNS " . ($key{$t}[0] =~ s/^k //r) . " IMMUTABLE LANGUAGE sql AS \$f\$SELECT $key{$t}[1]\$f\$", @nodes);
}
# a key of two columns, and one that goes down
sql_all(q{
	CREATE TABLE pairs (a int, b text, n int, pad text, PRIMARY KEY (a, b));
	CREATE TABLE downs (k int NOT NULL, n int, pad text); CREATE UNIQUE INDEX downs_key ON downs (k DESC);
	CREATE TABLE uniques (k int PRIMARY KEY, u int UNIQUE, n int)}, @nodes);
join_nodes(\@nodes, keys => { downs => 'downs_key' });
my @all = ((sort keys %key), 'pairs', 'downs');

# What is done in one transaction: $_[0] gives the statement for a table, its key column, and what makes a key of the number i.
sub everywhere
{
	my ($node, $what, $name) = @_;
	my $sql = "BEGIN;\n";
	foreach my $t (@all)
	{
		my ($columns, $values, $cond) = $t eq 'pairs' ? ('a, b', q{i / 50, 'b' || i}, q{(a, b) = (i / 50, 'b' || i)})
		  : $t eq 'downs' ? ('k', 'i', 'k = i') : ('k', "key_$t(i)", "k = key_$t(i)");
		$sql .= $what->($t, $columns, $values, $cond) . ";\n";
	}
	sql($node, "$sql COMMIT");
	wait_synced(@nodes);
	same_rows($_, \@nodes) foreach @all;
	note($name);
	return;
}
sub insert
{
	my ($from) = @_;
	return sub { "INSERT INTO $_[0] ($_[1], n, pad) SELECT $_[2], i, repeat('p', i % 97) FROM $from ON CONFLICT DO NOTHING" };
}
sub update { my ($from) = @_; return sub { "UPDATE $_[0] SET n = n + 1 FROM $from WHERE $_[3]" } }
sub delete_ { my ($from) = @_; return sub { "DELETE FROM $_[0] USING $from WHERE $_[3]" } }

everywhere($a, insert('generate_series(1, 3000) i'), 'many new rows');
everywhere($a, insert('generate_series(9000, 5000, -1) i'), 'backwards');
everywhere($a, update('generate_series(1, 9000) i'), 'all of them');
everywhere($a, update('generate_series(1, 9000) i'), 'and again, over dead versions');
everywhere($b, update('generate_series(1, 9000, 3) i'), 'every third');
everywhere($b, update('generate_series(1, 9000, 100) i'), 'few');
everywhere($a, delete_('generate_series(1000, 2000, 2) i'), 'every second of some goes');
everywhere($a, delete_('generate_series(900, 2100) i'), 'others between what is not there any more');
everywhere($b, insert('(SELECT i FROM generate_series(1, 12000) i ORDER BY hashint4(i)) s'), 'gaps and the end are filled, in no order');
everywhere($b, delete_('generate_series(1, 12000, 5) i'), 'some go');
sql($a, "VACUUM $_") foreach @all;
# rows that are there for each other only: inserted and deleted, deleted and inserted
everywhere($a, sub {
	my @args = @_;
	join ';', delete_('generate_series(1, 4000) i')->(@args), insert('generate_series(2, 4000, 2) i')->(@args),
	  insert('generate_series(20001, 21000) i')->(@args), delete_('generate_series(20001, 21000) i')->(@args) }, 'both');
foreach my $round (1 .. 3)
{
	# both at once, on the same and on other rows; no frame is long
	my @s = map { session($_) } @nodes;
	foreach my $t (@all)
	{
		my ($columns, $values, $cond) = $t eq 'pairs' ? ('a, b', q{i / 50, 'b' || i}, q{(a, b) = (i / 50, 'b' || i)})
		  : $t eq 'downs' ? ('k', 'i', 'k = i') : ('k', "key_$t(i)", "k = key_$t(i)");
		$s[$_]->query_safe(update("generate_series(" . (100 * $round + 7 * $_) . ", 9000, " . (1 + $_ + $round) . ') i')->($t, $columns, $values, $cond))
		  foreach 0, 1;
		$s[$_]->query_safe(insert("generate_series(30000 + 2000 * $round + $_, 32000 + 2000 * $round, 2) i")->($t, $columns, $values, $cond))
		  foreach 0, 1;
	}
	$_->quit foreach @s;
	wait_synced(@nodes);
	same_rows($_, \@nodes) foreach @all;
}

# New rows that come together, some of which collide: with a row there, with each other's old values, with what is under way.
sql($a, 'INSERT INTO uniques SELECT i, i, 0 FROM generate_series(1, 1000) i');
wait_synced(@nodes);
sql($a, q{SELECT mmrepl.pause('sync')});
sql($b, 'INSERT INTO uniques SELECT i, i, 1 FROM generate_series(5001, 5600, 3) i');
sql($a, 'INSERT INTO uniques SELECT i, i + 3000, 2 FROM generate_series(2001, 3000) i');
sql($a, 'UPDATE uniques SET u = 1001 - u + 100000 WHERE k <= 1000; UPDATE uniques SET u = u - 100000 WHERE k <= 1000');
sql($a, q{SELECT mmrepl.resume('sync')});
wait_synced(@nodes);
same_rows('uniques', \@nodes);
is(sql($b, 'SELECT count(*), count(*) FILTER (WHERE n = 2), count(*) FILTER (WHERE n = 1) FROM uniques'), '2000|1000|0',
	'newer rows stand, older ones with the same value are gone');
is(sql($b, 'SELECT count(*) FROM uniques WHERE k <= 1000 AND u <> 1001 - k'), 0, 'swaps are swaps');
# on the side that settled them: which one that is depends on who sends first
my $told = 0;
$told += sql($_, q{SELECT count(*) FROM mmrepl.conflict_history WHERE tablename = 'uniques'}) foreach @nodes;
cmp_ok($told, '>', 0, 'conflicts are told of');

# A row on its way in is not seen as missing by one who waits for it, and the other way round.
my $writer = session($b);
$writer->query_safe('BEGIN; INSERT INTO uniques VALUES (9000, 9000, 1), (9500, 9500, 1)');
sql($a, 'INSERT INTO uniques SELECT i, i, 2 FROM generate_series(8900, 9600) i');
poll($b, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name ~ 'mmrepl'});
$writer->query_safe('COMMIT');
$writer->quit;
wait_synced(@nodes);
same_rows('uniques', \@nodes);
is(sql($b, 'SELECT count(*), count(*) FILTER (WHERE n = 2) FROM uniques WHERE k >= 8900'), '701|701', 'the later of two inserts stands');
is(sql($_, 'SELECT count(*) FROM uniques WHERE u = 9000'), 1, 'and the index has it') foreach @nodes;

finish(\@nodes, qr/duplicate key/, @all, 'uniques');
