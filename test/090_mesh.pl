# Five nodes, each with each, on three servers: all write the same rows and unique values at once while links break and servers crash.
# All end equal, the logs drain (so every node has heard of every other what it has), and what was seen before it was changed is no
# conflict. Would pass wrongly without conflicts, or if the crashes met nobody at work: both are looked at.
use strict;
use warnings;
use MmreplCluster;
use MmreplDb;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "mmrepl.max_workers = 64\nmmrepl.heartbeat_interval = 200\nmax_worker_processes = 64\n";
my @servers = map { new_node($_, conf => $conf) } qw(east west north);
my @all = map { MmreplDb->new($servers[ ($_ - 1) % 3 ], "mesh$_", link => 1) } 1 .. 5;
sql_all(q{CREATE TABLE hot (id int PRIMARY KEY, by text, n int NOT NULL DEFAULT 0); CREATE TABLE uniq (id int PRIMARY KEY, mail text UNIQUE);
	CREATE TABLE trail (id bigserial PRIMARY KEY, by text)}, @all);
join_nodes(\@all);
sql($all[0], "INSERT INTO hot SELECT g, 'before' FROM generate_series(1, 60) g");
wait_synced(@all);
is(sql($_, 'SELECT count(*) FROM mmrepl.progress WHERE position IS NOT NULL'), 4, $_->name . ' hears all others') foreach @all;

# One writer a node; a crash of its server ends it.
my $writer = sub {
	my ($node) = @_;
	my $name = $node->name;
	return start_load($node, <<"SQL", rate => 60);
\\set id random(1, 60)
\\set u random(1, 12)
\\set what random(1, 100)
INSERT INTO trail (by) VALUES ('$name');
\\if :what < 60
UPDATE hot SET by = '$name', n = n + 1 WHERE id = :id;
\\elif :what < 70
DELETE FROM hot WHERE id = :id;
\\elif :what < 85
INSERT INTO hot VALUES (:id, '$name') ON CONFLICT (id) DO UPDATE SET by = excluded.by;
\\elif :what < 99
INSERT INTO uniq VALUES (:id, 'mail' || :u) ON CONFLICT DO NOTHING;
\\else
TRUNCATE uniq;
\\endif
SQL
};
my %load = map { $_->name => $writer->($_) } @all;
my $count = 'SELECT count(*) FROM trail';

# The links of one after the other break; each server crashes once.
foreach my $i (0 .. 4)
{
	my $node = $all[$i];
	my $server = $servers[ $i % 3 ];
	$node->{mmrepl_link}->cut;
	my $other = $all[ ($i + 1) % 5 ];
	my $n = sql($other, $count);
	poll($other, "SELECT count(*) > $n + 40 FROM trail");
	next if $i > 2 && ($node->{mmrepl_link}->heal || 1);
	cmp_ok(sql($node, $count), '>', 0, $node->name . ' writes alone');
	kill_postmaster($server);
	my @down = grep { $_->server == $server } @all;
	end_load($load{ $_->name }) foreach @down;
	my ($up) = grep { $_->server != $server } @all;
	$n = sql($up, $count);
	ok(poll($up, "SELECT count(*) > $n + 40 FROM trail"), 'who is down holds up nobody');
	start_again($server);
	$node->{mmrepl_link}->heal;
	$load{ $_->name } = $writer->($_) foreach @down;
}
my $marks = sql($all[0], $count);
poll($_, "SELECT count(*) > $marks FROM trail") foreach @all;
stop_load($_) foreach values %load;
$_->{mmrepl_link}->heal foreach @all;
wait_synced(@all);
same_rows($_, \@all) foreach qw(hot uniq trail);
is(sql($all[4], 'SELECT count(DISTINCT by) FROM trail'), 5, 'all have written');
cmp_ok(sql($all[0], 'SELECT count(*) FROM mmrepl.conflict_log'), '>', 0, 'there were conflicts');
is(sql($_, 'SELECT count(*) FROM (SELECT mail FROM uniq GROUP BY mail HAVING count(*) > 1) d'), 0, 'unique values are unique on ' . $_->name) foreach @all;
my $size = q{SELECT coalesce(sum(pg_relation_size(inhrelid)), 0) FROM pg_inherits WHERE inhparent = 'mmrepl.log'::regclass};
poll_is($_, $size, 0, 'log of ' . $_->name . ' drains') foreach @all;

# A row that goes from hand to hand: everybody has seen what he changes, whatever came by which way.
my @before = map { sql($_, 'SELECT count(*) FROM mmrepl.conflict_log') } @all;
sql($all[0], "INSERT INTO hot VALUES (1000, 'x')");
foreach my $round (1 .. 2)
{
	foreach my $i (0 .. 4)
	{
		my $n = 10 * $round + $i;
		sql($all[$i], "UPDATE hot SET n = $n WHERE id = 1000") if poll($all[$i], 'SELECT count(*) = 1 FROM hot WHERE id = 1000');
		poll($all[ ($i + 1) % 5 ], "SELECT n = $n FROM hot WHERE id = 1000");
	}
}
wait_synced(@all);
is(sql($_, 'SELECT n FROM hot WHERE id = 1000'), 24, 'the last stands on ' . $_->name) foreach @all;
is(join(',', map { sql($_, 'SELECT count(*) FROM mmrepl.conflict_log') } @all), join(',', @before), 'what was seen is no conflict');

$_->stop foreach @servers;
log_clean($_, qr/could not connect|connection|server closed|terminat|deadlock detected|lock timeout|cannot be reached|could not receive|applied meanwhile/) foreach @servers;
done_testing();
