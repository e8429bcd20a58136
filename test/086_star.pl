# A star: one hub and six others, which exchange with it alone. What any of them writes comes to all, nothing goes round,
# conflicts and TRUNCATEs end the same everywhere, and the logs drain.
use strict;
use warnings;
use MmreplCluster;
use MmreplDb;
use Test::More;

my @servers = map { new_node($_, conf => "mmrepl.max_workers = 64\nmmrepl.heartbeat_interval = 100\n") } qw(east west);
my $hub = MmreplDb->new($servers[0], 'hub');
my @leaves = map { MmreplDb->new($servers[ $_ % 2 ], "leaf$_", link => 1) } 1 .. 6;
my @all = ($hub, @leaves);
my $target = $leaves[5];
my @writers = ($hub, @leaves[ 0 .. 4 ]);

sql_all('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY, mail text UNIQUE, v text);
	CREATE TABLE s (id serial PRIMARY KEY, v text)', @all);
sql($hub, "INSERT INTO t SELECT i, 'before' FROM generate_series(1, 100) i");

# refused: two hubs; nothing is changed by it
like(sql_error($hub, q{CREATE EXTENSION mmrepl; SELECT mmrepl.add_db('hub', '} . conninfo($hub) . q{');
	SELECT mmrepl.add_db('leaf1', '} . conninfo($leaves[0]) . q{'); SELECT mmrepl.add_dbgroup('g', '{hub:hub,leaf1:hub}')}),
	qr/cannot be a hub beside "hub"/, 'one hub');
sql($hub, 'DROP EXTENSION mmrepl');
sql($leaves[0], 'DROP EXTENSION IF EXISTS mmrepl');
join_nodes(\@all, roles => { hub => 'hub', leaf6 => 'target' }, copy => 2);

# All of everybody's has been to the hub, and from there to all.
sub star_synced
{
	foreach my $round (1, 2)
	{
		wait_synced(@writers[ 1 .. 4 ], $leaves[4]);
		wait_synced($hub);
	}
	return;
}

# Every log is empty.
sub drained
{
	my ($name) = @_;
	my $size = q{SELECT coalesce(sum(pg_relation_size(inhrelid)), 0) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass};
	return ok(!grep({ !poll($_, $size, 0) } @all), $name);
}

star_synced();
same_rows('t', \@all, name => 'the hub gives the copy');
poll_is($hub, "SELECT count(*) FROM mmrepl.status WHERE state = 'good'", 6, 'the hub exchanges with all');
is(sql($leaves[2], 'SELECT string_agg(peer, \',\') FROM mmrepl.status'), 'hub', 'a leaf with the hub alone');
is(sql($target, "SELECT peer, direction FROM mmrepl.peer_lag"), 'hub|from', 'a target receives from the hub');
is(sql($leaves[0], "SELECT dbs FROM mmrepl.syncs"), '{hub:hub,leaf1:source,leaf2:source,leaf3:source,leaf4:source,leaf5:source,leaf6:target}', 'roles are shown');
like(sql_error($hub, q{SELECT mmrepl.update_dbgroup('sync', '{hub:source,leaf1:hub,leaf2,leaf3,leaf4,leaf5,leaf6}')}),
	qr/hub of dbgroup "sync" cannot change while a sync uses it/, 'the hub stays');

# Everybody writes; sequences are apart.
foreach my $i (0 .. $#writers)
{
	sql($writers[$i], "INSERT INTO t SELECT 1000 * ($i + 1) + g, 'of $i' FROM generate_series(1, 50) g;
		INSERT INTO s (v) SELECT 'of $i' FROM generate_series(1, 20); UPDATE t SET v = 'by $i' WHERE id BETWEEN 10 * $i AND 10 * $i + 4; DELETE FROM t WHERE id = 10 * $i + 5");
}
star_synced();
same_rows($_, \@all) foreach qw(t s);
is(sql($target, 'SELECT count(*) FROM s'), 120, 'sequences gave no value twice');
is(sql($_, 'SELECT count(*) FROM mmrepl.conflict_history'), 0, 'no conflict on ' . $_->name) foreach @all;

# A row that went from hand to hand: each had seen what it changed, so none is a conflict, though none exchanges with another.
foreach my $i (1 .. 4)
{
	sql($leaves[$i], "UPDATE t SET v = v || '.$i' WHERE id = 1");
	poll($leaves[ $i % 4 + 1 ], "SELECT v LIKE '%.$i' FROM t WHERE id = 1");
}
star_synced();
same_rows('t', \@all);
is(sql($_, 'SELECT count(*) FROM mmrepl.conflict_history'), 0, 'what was seen is no conflict on ' . $_->name) foreach @all;
drained('all logs drain');

# Nothing goes round: batches stop when writes do.
comes_to_rest(\@all, 'no batch without writes');
# one write: one batch of changes for every other db, none comes back to who wrote it
my %before = map { $_->name => sql($_, "SELECT sum(inserted) FROM mmrepl.progress") } @all;
my $sent = 'SELECT coalesce(sum(inserted + updated + deleted), 0) FROM mmrepl.peer_lag WHERE direction = \'to\'';
my $hub_sent = sql($hub, $sent);
sql($leaves[0], "INSERT INTO t VALUES (7777, 'once')");
star_synced();
same_rows('t', \@all);
is(join(',', map { sql($_, "SELECT sum(inserted) FROM mmrepl.progress") - $before{ $_->name } } @all), '1,0,1,1,1,1,1', 'each applies it once');
is(sql($hub, $sent) - $hub_sent, 5, 'the hub sends it five times');

# Cut apart, all write the same rows, unique values and TRUNCATEs: equal in the end.
foreach my $round (1 .. 3)
{
	$_->{mmrepl_link}->cut foreach @leaves[ 0 .. 2 ];
	my $n = 0;
	foreach my $node (@writers)
	{
		$n++;
		sql($node, "UPDATE t SET v = 'r$round by $n' WHERE id BETWEEN 20 AND 40; DELETE FROM t WHERE id BETWEEN 40 + $n AND 44 + $n;
			INSERT INTO t SELECT 100000 * $round + g, 'r$round of $n' FROM generate_series($n, $n + 5) g ON CONFLICT (id) DO UPDATE SET v = excluded.v;
			INSERT INTO u SELECT 100 * $round + 10 * $n + g, 'm' || g || '\@$round', '$n' FROM generate_series(1, 5) g ON CONFLICT DO NOTHING;
			UPDATE u SET mail = 'x$round' WHERE id = (SELECT min(id) FROM u WHERE id > 100 * $round) AND NOT EXISTS (SELECT FROM u WHERE mail = 'x$round')");
		sql($node, "TRUNCATE t; INSERT INTO t SELECT 200000 * $round + $n * 100 + g, 'after' FROM generate_series(1, 10) g") if $n % 3 == $round - 1;
	}
	$_->{mmrepl_link}->heal foreach @leaves[ 0 .. 2 ];
	star_synced();
	same_rows($_, \@all) foreach qw(t u);
}
cmp_ok(sql($hub, 'SELECT count(*) FROM mmrepl.conflict_history'), '>', 0, 'there were conflicts');
drained('all logs drain again');

# M4: a TRUNCATE on one leaf that had not seen a row; the one who wrote it, and all others, hold it as known to the hub.
sql($leaves[0], "INSERT INTO t VALUES (9000, 'old')");
star_synced();
$leaves[1]->{mmrepl_link}->cut;
# commits are later than the TRUNCATE of the one who is away
sql($leaves[1], 'TRUNCATE t');
sql($leaves[0], "INSERT INTO t VALUES (9001, 'newer than the TRUNCATE')");
foreach my $node (@leaves[ 0, 2, 3 ], $target)
{
	poll($node, 'SELECT count(*) = 1 FROM t WHERE id = 9001');
	poll($node, q{SELECT coalesce(sum(pg_relation_size(inhrelid)), 0) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass}, 0)
	  or fail($node->name . ' does not forget what the hub has');
}
cmp_ok(sql($hub, 'SELECT count(*) FROM mmrepl.change_log'), '>', 0, 'the hub still compares');
$leaves[1]->{mmrepl_link}->heal;
star_synced();
is(sql($_, "SELECT string_agg(id::text, ',') FROM t"), '9001', 'the newer row survives on ' . $_->name) foreach @all;
drained('and the logs drain');

$_->stop foreach @servers;
log_clean($_, qr/could not connect|connection|cannot be a hub|cannot change while|terminat/) foreach @servers;
done_testing();
