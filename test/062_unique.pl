# Two rows of different keys that claim the same value of a unique index, an expression, a part of the rows, an
# exclusion constraint: thousands of small random histories on three nodes (NODES), each of a group of rows of its own, delivered in
# random orders and in parts. Then all nodes are equal, every index holds, whatever is not there any more was overwritten by a
# newer write, or is whole in the conflict history; and the logs drain. SEED and ROUNDS may be given.
use strict;
use warnings;
use List::Util qw(shuffle);
use MmreplCluster;
use MmreplGates;
use Test::More;

my $seed = $ENV{SEED} // 62;
my $rounds = $ENV{ROUNDS} // 4;
my $groups = $ENV{GROUPS_OF_ROWS} // 60;
my @names = map { "aaa0$_" } 1 .. $ENV{NODES} // 3;
note("SEED=$seed, @names");
srand($seed);

my @nodes = map { new_node($_, conf => "mmrepl.lock_timeout = '60s'\nmmrepl.heartbeat_interval = 100\nmmrepl.frame_size = 64\n") } @names;

# What each table is to be checked for: the columns that statements may set, and with what.
my $value = sub { return (int(rand(3)) < 1 ? 'NULL' : 1 + int(rand(3))); };
my $number = sub { return 1 + int(rand(3)); };
my $word = sub { return (qw('x' 'X' 'y' NULL))[ rand 4 ]; };
my $range = sub { my $from = int(rand(4)); return sprintf 'int4range(%d, %d)', $from, $from + 1 + int(rand(3)); };
my %table = (
	one => { a => $value },
	two => { a => $value, b => $value, s => $word },
	part => { a => $number, b => $number },
	later => { a => $number, b => $value },
	nulls => { a => $value },
	excl => { r => $range },
	keyed => { id => $number, a => $value });
my @tables = sort keys %table;

sql_all(q{
	CREATE TABLE mark (id text PRIMARY KEY, n int);
	CREATE TABLE one (grp int, k int, a int, v text, PRIMARY KEY (grp, k), UNIQUE (grp, a));
	CREATE TABLE two (grp int, k int, a int, b int, s text, v text, PRIMARY KEY (grp, k), UNIQUE (grp, a), UNIQUE (b, grp));
	CREATE UNIQUE INDEX two_lower ON two (grp, lower(s));
	CREATE TABLE part (grp int, k int, a int, b int, v text, PRIMARY KEY (grp, k));
	CREATE UNIQUE INDEX part_some ON part (grp, a) WHERE b > 1;
	CREATE UNIQUE INDEX part_sum ON part (grp, (a + b)) WHERE b < 3;
	CREATE TABLE later (grp int, k int, a int, b int, v text, PRIMARY KEY (grp, k), UNIQUE (grp, a) DEFERRABLE INITIALLY DEFERRED, UNIQUE (grp, b) DEFERRABLE);
	CREATE TABLE nulls (grp int, k int, a int, v text, PRIMARY KEY (grp, k), UNIQUE NULLS NOT DISTINCT (grp, a));
	CREATE TABLE excl (grp int, k int, r int4range, v text, PRIMARY KEY (grp, k));
	CREATE FUNCTION apart(int, int4range) RETURNS int4range IMMUTABLE LANGUAGE sql AS
		'SELECT pg_catalog.int4range(pg_catalog.lower($2) + 100 * $1, pg_catalog.upper($2) + 100 * $1)';
	ALTER TABLE excl ADD CONSTRAINT excl_apart EXCLUDE USING gist (apart(grp, r) WITH &&);
	CREATE TABLE keyed (grp int, id int, k int NOT NULL, a int, v text, PRIMARY KEY (grp, id), UNIQUE (grp, a));
	CREATE UNIQUE INDEX keyed_key ON keyed (k, grp);
	ALTER TABLE keyed ALTER grp SET NOT NULL;
	-- of no sync: what clients have written, and what came of it
	CREATE TABLE wrote (seq int8 GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT clock_timestamp(), rel text, grp int, k int, v text, row jsonb);
	CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF TG_OP <> 'INSERT' AND (TG_OP = 'DELETE' OR OLD.k <> NEW.k) THEN
			INSERT INTO wrote (rel, grp, k) VALUES (TG_TABLE_NAME, OLD.grp, OLD.k);
		END IF;
		IF TG_OP <> 'DELETE' THEN
			INSERT INTO wrote (rel, grp, k, v, row) VALUES (TG_TABLE_NAME, NEW.grp, NEW.k, NEW.v, to_jsonb(NEW));
		END IF;
		RETURN NULL;
	END $$;
	-- does it, unless a constraint is against it
	CREATE FUNCTION try(what text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
		EXECUTE what || '; SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED';
		RETURN 1;
	EXCEPTION WHEN integrity_constraint_violation THEN
		RETURN 0;
	END $$}, @nodes);
sql_all("CREATE TRIGGER note_write AFTER INSERT OR UPDATE OR DELETE ON $_ FOR EACH ROW EXECUTE FUNCTION note_write()", @nodes) foreach @tables;
sql_all("INSERT INTO mark SELECT unnest('{@{[ join ',', @names ]}}'::text[]), 0", @nodes);
join_nodes(\@nodes, exclude => ['wrote'], keys => { keyed => 'keyed_key' });
wait_synced(@nodes);
my $gates = MmreplGates->new(@nodes);

# A statement, or several, of one client on rows of a group.
my $tag = 0;
sub statement
{
	my ($table, $group) = @_;
	my %set = map { $_ => $table{$table}{$_}->() } keys %{ $table{$table} };
	my ($k, $k2) = (1 + int(rand(4)), 1 + int(rand(4)));
	my $v = "'v" . ++$tag . "'";
	my @columns = sort keys %set;
	my $insert = sub {
		my ($key, %more) = @_;
		return "INSERT INTO $table (grp, k, v, " . join(', ', @columns) . ") VALUES ($group, $key, $v, " . join(', ', map { $more{$_} // $set{$_} } @columns) . ')';
	};
	my $where = "WHERE grp = $group AND k";
	my $column = $columns[ rand @columns ];
	my $what = int(rand(20));
	return $insert->($k) if $what < 5;
	return $insert->($k) . " ON CONFLICT (k, grp) DO UPDATE SET v = excluded.v, $column = excluded.$column" if $what < 7;
	return "UPDATE $table SET v = $v, " . join(', ', map { "$_ = $set{$_}" } @columns) . " $where = $k" if $what < 10;
	return "UPDATE $table SET v = $v $where = $k" if $what < 12;
	return "DELETE FROM $table $where = $k" if $what < 14;
	return "DELETE FROM $table $where = $k; " . $insert->($k) if $what < 15;
	return "UPDATE $table SET k = $k2, v = $v $where = $k" if $what < 16;
	# the value moves on to another row
	return "DELETE FROM $table $where = $k; " . $insert->($k2) if $what < 17;
	return "UPDATE $table SET v = $v, $column = NULL $where = $k; UPDATE $table SET v = $v || 'b', $column = $set{$column} $where = $k2" if $what < 18;
	# two rows swap theirs
	return "WITH old AS (DELETE FROM $table WHERE grp = $group AND k IN ($k, $k2) RETURNING *) SELECT 1" if $what < 19 && $k == $k2;
	my ($lo, $hi) = $k < $k2 ? ($k, $k2) : ($k2, $k + 1);
	my $swap = "CREATE TEMP TABLE s AS SELECT * FROM $table WHERE grp = $group AND k IN ($lo, $hi); DELETE FROM $table WHERE grp = $group AND k IN ($lo, $hi);";
	return "$swap UPDATE s SET v = $v || k, k = $lo + $hi - k; INSERT INTO $table SELECT * FROM s; DROP TABLE s";
}

# A few statements on each of some groups, on each of some nodes: they take turns, so that which one is newer is known.
sub write_some
{
	my ($n) = @_;
	foreach my $turn (1 .. $n)
	{
		foreach my $node (shuffle @nodes)
		{
			my @do;
			foreach my $table (@tables)
			{
				push @do, map { 'SELECT try($x$' . statement($table, $_) . '$x$)' } grep { rand() < 0.4 } 1 .. $groups;
			}
			sql($node, "SET client_min_messages = error; DO \$d\$ BEGIN\n" . join('', map { "PERFORM" . substr($_, 6) . ";\n" } shuffle @do) . 'END $d$');
		}
	}
	return;
}

# Is what was written last of each key, over all nodes, there, or gone, or whole in the history of a node?
sub check_writes
{
	my ($name) = @_;
	my $first = $nodes[0];
	sql($first, 'CREATE TABLE IF NOT EXISTS all_wrote (LIKE wrote); CREATE TABLE IF NOT EXISTS all_lost (relname text, v text, row jsonb); TRUNCATE all_lost, all_wrote');
	foreach my $node (@nodes)
	{
		my $wrote = sql($node, 'COPY wrote (at, rel, grp, k, v, row, seq) TO STDOUT');
		my $lost = sql($node, q{COPY (SELECT relname, l ->> 'v', l FROM mmrepl.conflict_log, LATERAL (VALUES
			(CASE WHEN resolution = 'keep_local' THEN remote_row ELSE local_row END)) x (l) WHERE l IS NOT NULL) TO STDOUT});
		sql($first, "COPY all_wrote (at, rel, grp, k, v, row, seq) FROM STDIN;\n$wrote\n\\.\n");
		sql($first, "COPY all_lost FROM STDIN;\n$lost\n\\.\n") if $lost ne '';
	}
	my $live = join ' UNION ALL ', map { "SELECT '$_' AS rel, grp, k, v FROM $_" } @tables;
	my $last = 'SELECT DISTINCT ON (rel, grp, k) rel, grp, k, v, row FROM all_wrote ORDER BY rel, grp, k, at DESC, seq DESC';
	is(sql($first, "SELECT count(*), min(l::text) FROM ($live) l LEFT JOIN ($last) w USING (rel, grp, k) WHERE w.v IS DISTINCT FROM l.v"), '0|',
		"$name: of each key only the newest write is there");
	is(sql($first, "SELECT count(*), min(w::text) FROM ($last) w LEFT JOIN ($live) l USING (rel, grp, k)
			WHERE w.v IS NOT NULL AND l.v IS NULL AND NOT EXISTS (SELECT FROM all_lost x WHERE x.relname = w.rel AND x.row = w.row)"), '0|',
		"$name: what is not there is whole in the history");
	note("$name: " . sql($first, "SELECT count(*) FILTER (WHERE l.v IS NOT NULL) || ' live, ' || count(*) FILTER (WHERE w.v IS NULL) || ' deleted, '
		|| count(*) FILTER (WHERE w.v IS NOT NULL AND l.v IS NULL) || ' lost, of ' || (SELECT count(*) FROM all_wrote) || ' writes'
		FROM ($last) w LEFT JOIN ($live) l USING (rel, grp, k)"));
	return;
}

foreach my $round (1 .. $rounds)
{
	$gates->shut;
	write_some(1);
	# in parts: some hear of some before they write on
	foreach my $part (1 .. int(rand(4)))
	{
		my @all = $gates->orders;
		my @some = @all[ 0 .. int(rand(@all / 2)) ];
		$gates->deliver(@$_) foreach @some;
		$gates->shut;
		write_some(1);
	}
	my @order = $gates->orders;
	note('delivered: ' . join(' ', map { $_->[0]->name . '>' . $_->[1]->name } @order));
	if ($round % 2)
	{
		$gates->deliver(@$_) foreach @order;
	}
	# all at once
	$gates->open;
	wait_synced(@nodes);
	my @differ = grep { rows_differ($_, \@nodes) } @tables;
	ok(!@differ, "round $round: all equal") or diag("@differ");
	check_writes("round $round");
	last if @differ;
}

# every index still holds what the rows say
foreach my $node (@nodes)
{
	is(sql($node, q{SELECT sum(n) FROM (
		SELECT count(*) AS n FROM one WHERE a IS NOT NULL GROUP BY grp, a HAVING count(*) > 1 UNION ALL
		SELECT count(*) FROM two WHERE a IS NOT NULL GROUP BY grp, a HAVING count(*) > 1 UNION ALL
		SELECT count(*) FROM two WHERE b IS NOT NULL GROUP BY grp, b HAVING count(*) > 1 UNION ALL
		SELECT count(*) FROM two WHERE s IS NOT NULL GROUP BY grp, lower(s) HAVING count(*) > 1 UNION ALL
		SELECT count(*) FROM part WHERE b > 1 GROUP BY grp, a HAVING count(*) > 1 UNION ALL
		SELECT count(*) FROM part WHERE b < 3 GROUP BY grp, a + b HAVING count(*) > 1 UNION ALL
		SELECT count(*) FROM later WHERE a IS NOT NULL GROUP BY grp, a HAVING count(*) > 1 UNION ALL
		SELECT count(*) FROM later WHERE b IS NOT NULL GROUP BY grp, b HAVING count(*) > 1 UNION ALL
		SELECT count(*) FROM nulls GROUP BY grp, a HAVING count(*) > 1 UNION ALL
		SELECT count(*) FROM keyed WHERE a IS NOT NULL GROUP BY grp, a HAVING count(*) > 1 UNION ALL
		SELECT count(*) FROM keyed GROUP BY grp, id HAVING count(*) > 1 UNION ALL
		SELECT count(*) FROM excl x JOIN excl y ON x.grp = y.grp AND x.k < y.k AND x.r && y.r HAVING count(*) > 0) x}), '',
		'no value twice on ' . $node->name);
	# the one that stood was the newer one, wherever it was decided
	is(sql($node, q{SELECT count(*), min(l::text) FROM mmrepl.conflict_log l WHERE (resolution = 'apply_remote')
		<> ((remote_ts, remote_node) > (coalesce(local_ts, 0), coalesce(local_node, 0)))
		AND (remote_ts, remote_node) IS DISTINCT FROM (local_ts, local_node)}), '0|', 'the newer one stood, always, on ' . $node->name);
	note($node->name . ":\n" . conflicts($node));
}
$gates->end;
poll_is($_, 'SELECT count(*) = 0 FROM mmrepl.change_log', undef, 'the log drains on ' . $_->name) foreach @nodes;
finish(\@nodes, undef, @tables);
