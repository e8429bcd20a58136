# The initial copy: what each onetimecopy does, under writes on both sides, interrupted, and by hand.
use strict;
use warnings;
use IPC::Run;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rows = 50_000;
my $load = PostgreSQL::Test::Utils::tempdir_short() . '/load.sql';
append_to_file($load, <<'SQL');
\set id random(1, 50000)
\set new :base + random(1, 1000000)
\set what random(1, 10)
\if :what <= 6
UPDATE t SET n = n + 1, v = :who WHERE id = :id;
\elif :what <= 8
INSERT INTO t VALUES (:new, :who, 0) ON CONFLICT (id) DO UPDATE SET n = t.n + 1;
\else
DELETE FROM t WHERE id = :id;
\endif
SQL

sub load
{
	my ($node, $base) = @_;
	my ($out, $err) = ('', '');
	return IPC::Run::start([ 'pgbench', '-n', '-c', 2, '-t', 1500, '-f', $load, '-D', "base=$base", '-D', "who='" . $node->name . "'",
		'-h', $node->host, '-p', $node->port, 'app' ], '>', \$out, '2>', \$err);
}

sub pair
{
	my ($case) = @_;
	my @pair = map { new_node("${case}_$_", link => 1, conf => "mmrepl.frame_size = 64\n") } qw(a b);
	sql_all('CREATE TABLE t (id int PRIMARY KEY, v text, n int); CREATE TABLE small (id int PRIMARY KEY, v text); CREATE TABLE empty (id int PRIMARY KEY)', @pair);
	sql($pair[0], "INSERT INTO t SELECT i, repeat('z', 20), 0 FROM generate_series(1, $rows) i; INSERT INTO small VALUES (1, 'a'), (2, 'a')");
	return @pair;
}

sub down
{
	my (@pair) = @_;
	$_->stop foreach @pair;
	log_clean($_, qr/terminat|could not connect|connection|starting up|shutting down|crash of another/) foreach @pair;
	return;
}

# 0: nothing is copied; only what is written from then on travels.
{
	my ($a, $b) = my @pair = pair('none');
	sql($b, "INSERT INTO small VALUES (3, 'b')");
	join_nodes(\@pair, copy => 0);
	wait_synced(@pair);
	is(sql($b, 'SELECT count(*) FROM t'), 0, 'onetimecopy 0 copies nothing');
	is(sql($b, 'SELECT id, v FROM small'), '3|b', 'and takes nothing away');
	sql($a, "UPDATE t SET n = 1 WHERE id = 7; UPDATE small SET v = 'aa' WHERE id = 1");
	wait_synced(@pair);
	is(sql($b, 'SELECT id, n FROM t'), '7|1', 'a changed row travels whole');
	down(@pair);
}

# 2: into empty tables, while both sides write; nobody ever sees half of it.
{
	my ($a, $b) = my @pair = pair('empty');
	my @load = (load($a, 1_000_000));
	join_nodes(\@pair, copy => 2);
	push @load, load($b, 3_000_000);
	my %seen;
	for (1 .. 200)
	{
		# rows of the original that nobody deletes are there all together, or not at all
		my $n = sql($b, "SELECT count(*) FROM t WHERE v = repeat('z', 20)");
		$seen{ $n == 0 ? 'none' : $n > $rows / 2 ? 'all' : "half ($n)" } = 1;
		last if $seen{all};
	}
	ok(!(grep { /half/ } keys %seen), 'never half visible') or diag join ',', keys %seen;
	ok($_->finish, 'nobody was refused during the copy') foreach @load;
	wait_synced(@pair);
	same_rows($_, \@pair, name => "copied under load: $_") foreach qw(t small empty);
	is(sql($a, "SELECT bool_and(percent = 100) FROM mmrepl.copy_progress"), 't', 'copy_progress says that it is done');
	is(sql($b, "SELECT count(*) > 0 FROM t WHERE v = 'empty_b'"), 't', 'what was written at the other side meanwhile is kept');
	down(@pair);
}

# 2 where the other has rows: that table is left alone.
{
	my ($a, $b) = my @pair = pair('filled');
	sql($b, "INSERT INTO small VALUES (2, 'b'), (3, 'b')");
	join_nodes(\@pair, copy => 2);
	wait_synced(@pair);
	is(sql($b, 'SELECT id, v FROM small ORDER BY id'), "2|b\n3|b", 'onetimecopy 2 leaves a table alone that has rows');
	same_rows('t', \@pair, name => 'and fills the empty ones');
	down(@pair);
}

# 1: replaces what the other has.
{
	my ($a, $b) = my @pair = pair('replace');
	sql($b, "INSERT INTO small VALUES (2, 'b'), (3, 'b'); INSERT INTO t SELECT i, 'b', 0 FROM generate_series(40000, 60000) i; INSERT INTO empty VALUES (1)");
	join_nodes(\@pair, copy => 1);
	wait_synced(@pair);
	same_rows($_, \@pair, name => "onetimecopy 1 replaces $_") foreach qw(t small empty);
	is(sql($b, 'SELECT id, v FROM small ORDER BY id'), "1|a\n2|a", 'by what the first source has');
	down(@pair);
}

# Interrupted in the middle, again and again: starts again by itself.
{
	my ($a, $b) = my @pair = pair('broken');
	my $link = $b->{mmrepl_link};
	my $script = sub {
		# names what takes part, then cuts what the copy needs
		sql($a, "CREATE EXTENSION mmrepl");
		sql($a, sprintf "SELECT mmrepl.add_db('%s', '%s')", $_->name, conninfo($_)) foreach @pair;
		sql($a, "SELECT mmrepl.add_all_tables(relgroup => 'herd')");
	};
	$script->();
	# what goes up before the copy is far less than this, the copy far more
	$link->budget(600_000);
	sql($a, "SELECT mmrepl.add_sync('sync', relgroup => 'herd', dbs => '{broken_a:source,broken_b:source}', onetimecopy => 2)");
	ok(poll($a, "SELECT rows_done > 0 AND percent < 100 FROM mmrepl.copy_progress"), 'copy_progress tells how far it is');
	is(sql($b, 'SELECT count(*) FROM t'), 0, 'nothing visible');
	my @load = (load($a, 1_000_000));
	$link->reset;
	$link->heal;
	$link->budget(400_000);
	ok(poll($a, "SELECT rows_done > 0 AND percent < 100 FROM mmrepl.copy_progress"), 'it starts again');
	kill_worker($a, 'pusher');
	$link->reset;
	$link->heal;
	$_->finish foreach @load;
	$a->poll_query_until('postgres', 'SELECT true');
	ok(wait_synced(@pair), 'and ends');
	same_rows($_, \@pair, name => "interrupted copy: $_") foreach qw(t small empty);
	down(@pair);
}

# By hand: the sync is there first, both sides go on writing; a dump of one snapshot goes in with the replica role.
{
	my ($a, $b) = my @pair = pair('hand');
	my $dump = $a->basedir . '/dump.sql';
	command_ok([ 'pg_dump', '-a', '-h', $a->host, '-p', $a->port, '-t', 't', '-t', 'small', '-f', $dump, 'app' ], 'dump');
	sql($b, "SET session_replication_role = replica;\n\\i $dump\n");
	join_nodes(\@pair, copy => 0);
	wait_synced(@pair);
	same_rows($_, \@pair, name => "by hand: $_") foreach qw(t small);
	my @load = (load($a, 1_000_000), load($b, 3_000_000));
	$_->finish foreach @load;
	wait_synced(@pair);
	same_rows($_, \@pair, name => "by hand, then written on both sides: $_") foreach qw(t small empty);

	# once more, asked for later: 2 for a table that is new and empty there, 1 for all
	sql_all('CREATE TABLE late (id int PRIMARY KEY, v text)', @pair);
	sql($a, "INSERT INTO late SELECT i, 'old' FROM generate_series(1, 1000) i");
	sql($a, "SELECT mmrepl.add_table('late', relgroup => 'herd')");
	wait_synced(@pair);
	is(sql($b, 'SELECT count(*) FROM late'), 0, 'rows that were there before their table was added stay where they are');
	sql($b, "INSERT INTO late VALUES (1001, 'written there')");
	sql($a, "SELECT mmrepl.update_sync('sync', onetimecopy => 2)");
	wait_synced(@pair);
	is(sql($b, 'SELECT count(*) FROM late'), 1001, 'a copy asked for again fills the new table');
	same_rows($_, \@pair, name => "copied again: $_") foreach qw(t small empty late);
	sql($b, "SET session_replication_role = replica; DELETE FROM late WHERE id <= 10; UPDATE late SET v = 'drifted' WHERE id = 11;
		INSERT INTO late VALUES (2000, 'nobody knows')");
	sql($b, "UPDATE late SET v = 'newer' WHERE id = 12");
	ok(rows_differ('late', \@pair), 'the tables have drifted apart');
	sql($a, "SELECT mmrepl.update_sync('sync', onetimecopy => 1)");
	wait_synced(@pair);
	same_rows($_, \@pair, name => "replaced: $_") foreach qw(t small empty late);
	is(sql($a, 'SELECT v FROM late WHERE id = 12'), 'newer', 'a change that was under way is kept');
	down(@pair);
}
done_testing();
