# Strategies on two servers: what stands in each conflict, on both, whoever hears of it first; per sync and per table; functions that fail.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, link => 1) } qw(aaa01 aaa02);
sql_all(q{
	CREATE TABLE latest (id int PRIMARY KEY, v text, n int);
	CREATE TABLE first_b (id int PRIMARY KEY, v text, n int);
	CREATE TABLE summed (id int PRIMARY KEY, v text, n int);
	CREATE TABLE merged (id int PRIMARY KEY, v text, n int CHECK (n < 1000), twice int GENERATED ALWAYS AS (n * 2) STORED);
	CREATE TABLE by_time (id int PRIMARY KEY, v text, n int);
	CREATE TABLE mail (id int PRIMARY KEY, v text UNIQUE, n int);
	ALTER TABLE merged DROP COLUMN v; ALTER TABLE merged ADD COLUMN v text;
	CREATE ROLE app; GRANT CREATE ON SCHEMA public TO app; ALTER TABLE merged OWNER TO app;
	CREATE TABLE who (name name PRIMARY KEY); GRANT ALL ON who TO PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC;
	-- the words of both, the greater number; refuses what says so
	CREATE FUNCTION join_rows(a merged, b merged) RETURNS merged LANGUAGE plpgsql AS $$
	DECLARE r public.merged := a;
	BEGIN
		INSERT INTO public.who VALUES (current_user) ON CONFLICT DO NOTHING;
		IF a.v ~ 'refuse' AND b.v ~ 'refuse' THEN RAISE EXCEPTION 'cannot decide: %', 'no'; END IF;
		IF a.v ~ 'null' AND b.v ~ 'null' THEN RETURN NULL; END IF;
		r.v := (SELECT string_agg(DISTINCT w, ' ' ORDER BY w) FROM unnest(string_to_array(a.v || ' ' || b.v, ' ')) w);
		r.n := greatest(a.n, b.n);
		IF r.v ~ 'key' THEN r.id := r.id + 500; END IF;
		IF r.v ~ 'check' THEN r.n := 1000; END IF;
		RETURN r;
	END $$;
	ALTER FUNCTION join_rows OWNER TO app;
	-- not what a strategy should do: the sum of sums grows
	CREATE FUNCTION add_up(a anyelement, b anyelement) RETURNS anyelement LANGUAGE sql AS $$
		SELECT jsonb_populate_record(a, jsonb_build_object('n', (to_jsonb(a)->>'n')::int + (to_jsonb(b)->>'n')::int,
			'v', least(to_jsonb(a)->>'v', to_jsonb(b)->>'v'))) $$;
	CREATE FUNCTION keep(a by_time, b by_time, a_at timestamptz, b_at timestamptz, a_db text, b_db text) RETURNS by_time LANGUAGE sql IMMUTABLE AS $$
		SELECT a.id, CASE WHEN a_at < b_at THEN a.v ELSE b.v END, least(a.n, b.n) $$;
}, @nodes);
join_nodes(\@nodes, exclude => ['who']);
sql($a, q{SELECT mmrepl.update_table('first_b', conflict_strategy => 'aaa02 aaa01');
	SELECT mmrepl.update_table('merged', conflict_strategy => 'function: public.join_rows');
	SELECT mmrepl.update_table('by_time', conflict_strategy => 'FUNCTION: keep');
	SELECT mmrepl.update_table('summed', conflict_strategy => 'function add_up')});
is(sql($b, q{SELECT string_agg(tablename || ' ' || conflict_strategy, ', ' ORDER BY tablename) FROM mmrepl.tables}),
	'by_time function: public.keep, first_b priority: aaa02, aaa01, merged function: public.join_rows, summed function: public.add_up', 'the other db has it');
is(sql($b, 'SELECT conflict_strategy FROM mmrepl.syncs'), 'latest', 'the sync says latest');
is(sql($a, q{SELECT * FROM mmrepl.validate_sync('sync')}), '', 'all is sound');
# no db by another name is another db
sql($a, q{SELECT mmrepl.update_db('aaa02', new_name => 'bbb')});
is(sql($b, q{SELECT conflict_strategy FROM mmrepl.tables WHERE tablename = 'first_b'}), 'priority: bbb, aaa01', 'a db may get another name');
sql($a, q{SELECT mmrepl.update_db('bbb', new_name => 'aaa02')});
wait_synced(@nodes);

# Both write while they cannot hear each other, the second is the newest; then one hears of it first. The end is the same on both.
# Many conflicts at once, each of a key of its own: [table, before on a, then on a, then on b]; gives the keys.
my $key = 0;
my $conflicts = sub {
	my ($first_told, @cases) = @_;
	my $other = $first_told == $a ? $b : $a;
	my @keys = map { ++$key } @cases;
	my @script = map { my $part = $_; join ";\n", map { my $i = $_; $cases[$i][ $part + 1 ] =~ s/\bT\b/$cases[$i][0]/gr =~ s/\bK\b/$keys[$i]/gr } 0 .. $#cases } 0 .. 2;
	sql($a, $script[0]);
	wait_synced(@nodes);
	$_->{mmrepl_link}->cut foreach @nodes;
	sql($a, $script[1]);
	sql($b, $script[2]);
	$first_told->{mmrepl_link}->heal;
	poll($first_told, "SELECT count(*) > 0 FROM mmrepl.conflict_history WHERE key = '{\"id\": $keys[0]}'");
	$other->{mmrepl_link}->heal;
	wait_synced(@nodes);
	return @keys;
};
my $conflict = sub { my ($table, $first, @parts) = @_; $conflicts->($first, [ $table, @parts ]); return; };
my $row = sub {
	my ($table, $which) = @_;
	$which //= $key;
	my @all = map { sql($_, "SELECT v, n FROM $table WHERE id = $which") } @nodes;
	return $all[0] eq $all[1] ? $all[0] : "differs: @all";
};
my $history = sub {
	my ($node, $what, $which) = @_;
	$which //= $key;
	return sql($node, 'SELECT ' . ($what // 'resolution') . " FROM mmrepl.conflict_history WHERE key = '{\"id\": $which}' ORDER BY id");
};

my %case = (
	insert => [ '', "INSERT INTO T (id, v, n) VALUES (K, 'old', 5)", "INSERT INTO T (id, v, n) VALUES (K, 'new', 2)" ],
	update => [ "INSERT INTO T (id, v, n) VALUES (K, 'base', 1)", "UPDATE T SET v = 'old', n = 5 WHERE id = K", "UPDATE T SET v = 'new', n = 2 WHERE id = K" ],
	delete_newer => [ "INSERT INTO T (id, v, n) VALUES (K, 'base', 1)", "UPDATE T SET v = 'old', n = 5 WHERE id = K", 'DELETE FROM T WHERE id = K' ],
	update_newer => [ "INSERT INTO T (id, v, n) VALUES (K, 'base', 1)", 'DELETE FROM T WHERE id = K', "UPDATE T SET v = 'new', n = 2 WHERE id = K" ],
	deletes => [ "INSERT INTO T (id, v, n) VALUES (K, 'base', 1)", 'DELETE FROM T WHERE id = K', 'DELETE FROM T WHERE id = K' ],
	same => [ '', "INSERT INTO T (id, v, n) VALUES (K, 'same', 5)", "INSERT INTO T (id, v, n) VALUES (K, 'same', 5)" ]);
# table => case => what stands
my %newest = (insert => 'new|2', update => 'new|2', delete_newer => '', update_newer => 'new|2', deletes => '', same => 'same|5');
my %end = (
	latest => {%newest},
	first_b => {%newest},
	merged => { %newest, insert => 'new old|5', update => 'new old|5' },
	by_time => { %newest, insert => 'old|2', update => 'old|2' },
	summed => { %newest, insert => 'new|7', update => 'new|7' });
my $all_cases = sub {
	my ($first, @tables) = @_;
	my @which = map { my $table = $_; map { [ $table, $_ ] } sort keys %case } @tables;
	my @keys = $conflicts->($first, map { [ $_->[0], @{ $case{ $_->[1] } } ] } @which);
	foreach my $i (0 .. $#which)
	{
		my ($table, $case) = @{ $which[$i] };
		is($row->($table, $keys[$i]), $end{$table}{$case}, "$table: $case, heard first by " . $first->name);
	}
	return map { $which[$_][1] => $keys[$_] } 0 .. $#which;
};
$all_cases->($_, sort keys %end) foreach $a, $b;
is(sql($a, 'SELECT bool_and(twice = n * 2) FROM merged'), 't', 'generated columns are made of the merged row');
is(sql($_, 'SELECT string_agg(name, $$ $$) FROM who'), 'app', 'the function runs as the owner of the table on ' . $_->name) foreach @nodes;
ok(sql($_, "SELECT count(DISTINCT tablename) = 2 FROM mmrepl.conflict_history WHERE tablename IN ('merged', 'summed') AND resolution = 'merge'") eq 't', 'merged on ' . $_->name) foreach @nodes;

# Priority of the one who is older: both ways round, deletes too.
sql($a, q{SELECT mmrepl.update_table('first_b', conflict_strategy => 'priority: aaa01, aaa02')});
$end{first_b} = { insert => 'old|5', update => 'old|5', delete_newer => 'old|5', update_newer => '', deletes => '', same => 'same|5' };
foreach my $first ($a, $b)
{
	my %keys = $all_cases->($first, 'first_b');
	is($history->($first, 'resolution', $keys{$_}), $first == $a ? 'keep_local' : 'apply_remote', "$_: the history says whose row stands")
	  foreach qw(insert update delete_newer update_newer);
}

# What comes after the decision and before it is known: it has not lost what the decision kept.
foreach my $case ([ 'merged', 'a1 b1 b2|2' ], [ 'first_b', 'a1|1' ])
{
	my ($table, $want) = @$case;
	$key++;
	$_->{mmrepl_link}->cut foreach @nodes;
	sql($a, "INSERT INTO $table (id, v, n) VALUES ($key, 'a1', 1)");
	sql($b, "INSERT INTO $table (id, v, n) VALUES ($key, 'b1', 1)");
	$a->{mmrepl_link}->heal;
	poll($a, "SELECT count(*) > 0 FROM mmrepl.conflict_history WHERE key = '{\"id\": $key}'");
	sql($b, "UPDATE $table SET v = v || ' b2', n = 2 WHERE id = $key");
	poll($a, "SELECT count(*) > 1 FROM mmrepl.conflict_history WHERE key = '{\"id\": $key}'");
	$b->{mmrepl_link}->heal;
	wait_synced(@nodes);
	is($row->($table), $want, "$table: a write that had not seen the decision");
}
# the same with latest: the negative control
$key++;
$_->{mmrepl_link}->cut foreach @nodes;
sql($a, "INSERT INTO latest VALUES ($key, 'a1', 1)");
sql($b, "INSERT INTO latest VALUES ($key, 'b1', 1)");
$_->{mmrepl_link}->heal foreach @nodes;
wait_synced(@nodes);
is($row->('latest'), 'b1|1', 'latest merges nothing');

# Somebody writes the row while it is decided: what he writes is decided upon, too; what he takes back is not.
foreach my $end ([ 'COMMIT', 'old third|7' ], [ 'ROLLBACK', 'new old|5' ])
{
	$key++;
	$_->{mmrepl_link}->cut foreach @nodes;
	sql($a, "INSERT INTO merged (id, v, n) VALUES ($key, 'old', 5)");
	sql($b, "INSERT INTO merged (id, v, n) VALUES ($key, 'new', 2)");
	my $user = session($b);
	$user->query_safe("BEGIN; UPDATE merged SET v = 'third', n = 7 WHERE id = $key");
	$b->{mmrepl_link}->heal;
	poll($b, q{SELECT count(*) > 0 FROM mmrepl.status WHERE waits_for IS NOT NULL});
	$user->query_safe($end->[0]);
	$user->quit;
	$a->{mmrepl_link}->heal;
	wait_synced(@nodes);
	is($row->('merged'), $end->[1], "a write under way: $end->[0]");
}

# Functions that fail: the newest stands, the history says why, nothing stops.
my @failures = ([ 'refuse', qr/^cannot decide: no/ ], [ 'key', qr/another key/ ], [ 'check', qr/violates check constraint/ ], [ 'null', qr/^$/ ]);
foreach my $first ($a, $b)
{
	my @keys = $conflicts->($first, map { [ 'merged', '', "INSERT INTO T (id, v, n) VALUES (K, 'old $_->[0]', 5)", "INSERT INTO T (id, v, n) VALUES (K, 'new $_->[0]', 2)" ] } @failures);
	foreach my $i (0 .. $#failures)
	{
		my ($word, $error) = @{ $failures[$i] };
		is($row->('merged', $keys[$i]), "new $word|2", "$word: the newest stands");
		like($history->($first, 'error', $keys[$i]), $error, "$word: the history says why");
	}
}
is(sql($a, "SELECT count(*) FROM mmrepl.conflict_history WHERE error IS NOT NULL AND resolution = 'merge'"), 0, 'no merge with an error');
# it is gone on one side: that side falls back, the other goes on
sql($b, 'DROP FUNCTION join_rows');
like(sql($a, q{SELECT * FROM mmrepl.validate_sync('sync')}), qr/public\.merged: .*there is no function public\.join_rows\(public\.merged, public\.merged\).*on "aaa02"/, 'validate_sync misses it');
$conflict->('merged', $b, '', "INSERT INTO T (id, v, n) VALUES (K, 'old', 5)", "INSERT INTO T (id, v, n) VALUES (K, 'new', 2)");
is($row->('merged'), 'new|2', 'the one who hears first decides, and cannot merge');
like($history->($b, 'error'), qr/there is no function/, 'and says so');
$conflict->('merged', $a, '', "INSERT INTO T (id, v, n) VALUES (K, 'old', 5)", "INSERT INTO T (id, v, n) VALUES (K, 'new', 2)");
is($row->('merged'), 'new old|5', 'the other one can');

# A row that collides with another one by a unique value: the newest, as ever; what is no conflict costs nothing.
sql($a, q{SELECT mmrepl.update_table('mail', conflict_strategy => 'priority: aaa01')});
sql($a, "INSERT INTO mail VALUES (1, 'x', 1), (2, 'y', 1)");
wait_synced(@nodes);
$_->{mmrepl_link}->cut foreach @nodes;
sql($a, "UPDATE mail SET v = 'mine' WHERE id = 1; UPDATE mail SET v = 'twice' WHERE id = 2");
sql($b, "UPDATE mail SET v = 'yours' WHERE id = 1; INSERT INTO mail VALUES (3, 'twice', 1)");
$_->{mmrepl_link}->heal foreach @nodes;
wait_synced(@nodes);
same_rows('mail', \@nodes);
is(sql($b, 'SELECT string_agg(id || v, $$ $$ ORDER BY id) FROM mail'), '1mine 3twice', 'priority for a row, the newest for a unique value');
# what the strategy wants would collide: then it does not
sql($a, "DELETE FROM mail; INSERT INTO mail VALUES (1, 'x', 1)");
wait_synced(@nodes);
$_->{mmrepl_link}->cut foreach @nodes;
sql($a, "UPDATE mail SET v = 'y' WHERE id = 1");
sql($b, "UPDATE mail SET n = 2 WHERE id = 1; INSERT INTO mail VALUES (2, 'y', 2)");
$_->{mmrepl_link}->heal foreach @nodes;
wait_synced(@nodes);
same_rows('mail', \@nodes);
is(sql($a, "SELECT count(*) FROM mail WHERE v = 'y'"), 1, 'a unique value is on one row');

# A table's own strategy ends; a sync's begins.
sql($a, q{SELECT mmrepl.update_table('first_b', conflict_strategy => 'sync')});
is(sql($b, q{SELECT coalesce(conflict_strategy, 'none') FROM mmrepl.tables WHERE tablename = 'first_b'}), 'none', 'no strategy of its own any more');
$conflict->('first_b', $b, @{ $case{insert} });
is($row->('first_b'), 'new|2', 'as the sync says: latest');
sql($b, q{SELECT mmrepl.update_sync('sync', conflict_strategy => 'priority aaa01')});
is(sql($a, 'SELECT conflict_strategy FROM mmrepl.syncs'), 'priority: aaa01', 'the sync says priority');
$conflict->('first_b', $b, @{ $case{insert} });
is($row->('first_b'), 'old|5', 'as the sync says: priority');

finish(\@nodes, qr/terminat|could not connect|connection|server closed/, qw(latest first_b summed merged by_time mail));
