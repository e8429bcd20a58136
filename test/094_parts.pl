# Risk: what a peer had confirmed in an earlier part of its, or ours, in a sync is taken for what it has now: a source that comes again beside a target
# never joins, or what the target lacks is purged; a target's confirmation passes for safety. Method: a source leaves a sync with a target, and comes
# again; a source writes what only the target hears, and rejoins. Would pass wrongly if nothing had been confirmed before: looked at.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($one, $two, $report) = my @all = map { new_node($_, link => 1, conf => "mmrepl.heartbeat_interval = 200\nmmrepl.segment_size = 64\n") } qw(aaa01 aaa02 report);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text)', @all);
join_nodes(\@all, roles => { report => 'target' }, args => "conflict_strategy => 'priority: aaa02, aaa01'");
my $group = "SELECT mmrepl.update_dbgroup('sync', '{aaa01:source%s,report:target}', onetimecopy => 1)";
sql($_, "INSERT INTO t VALUES (" . ($_ == $one ? 1 : 2) . ", 'before')") foreach $one, $two;
wait_synced(@all);
poll_is($two, "SELECT count(*) FROM mmrepl.peer_state p JOIN mmrepl.db d ON d.node_id = p.peer_node WHERE d.name = 'report' AND acked IS NOT NULL", 1,
	'what the target has confirmed is written down');

# what cannot be delivered is not left behind
sql($one, "SELECT mmrepl.pause('sync')");
sql($two, "INSERT INTO t VALUES (3, 'while paused')");
like(sql_error($one, "SELECT mmrepl.remove_db('aaa02')"), qr/cannot deliver what it has written: sync "sync" is paused/, 'a db that cannot deliver is not removed');
like(sql_error($one, sprintf $group, ''), qr/is paused/, 'nor taken out of the group');
sql($one, "SELECT mmrepl.resume('sync')");

# out, and in again: under the same number
sql($one, sprintf $group, '');
is(sql($one, 'SELECT count(*) FROM t WHERE id = 3'), 1, 'it has delivered before it went');
poll_is($report, 'SELECT count(*) FROM mmrepl.departed', 0, 'the target has forgotten it');
sql($one, sprintf $group, ',aaa02:source');
poll_is($two, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied > 0', 1, 'it joins again');
sql($two, "INSERT INTO t VALUES (4, 'again')");
poll_is($report, 'SELECT count(*) FROM t WHERE id = 4', 1, 'and the target hears it');
wait_synced(@all);
same_rows('t', \@all);

wait_synced(@all);
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' drains') foreach @all;

# only the target has heard it: whoever rejoins keeps it, and its place among the priorities
$_->{mmrepl_link}->cut($_ == $one ? $two : $one) foreach $one, $two;
sql($two, "INSERT INTO t VALUES (-1, 'only the target has it'), (-2, 'there too')");
poll_is($report, 'SELECT count(*) FROM t WHERE id < 0', 2, 'the target has it');
poll_is($two, "SELECT pg_visible_in_snapshot(author_xid, acked) FROM mmrepl._change_log() c, mmrepl.peer_state p JOIN mmrepl.db d ON d.node_id = p.peer_node
	WHERE d.name = 'report' LIMIT 1", 't', 'and its confirmation is written down');
sql($one, "UPDATE mmrepl.dbgroup_db SET needs_resync = true WHERE node_id = 2;
	UPDATE mmrepl.local_node SET config_version = config_version + 1; SELECT mmrepl._settle_members(); SELECT mmrepl._wake()");
is(sql($one, 'SELECT count(*) FROM t WHERE id < 0'), 0, 'the other source has not');
$_->{mmrepl_link}->heal foreach $one, $two;
poll_is($two, q{SELECT bool_and(state = 'needs resync') FROM mmrepl.status}, 't', 'it knows that it was given up');
sql($two, 'SELECT mmrepl.rejoin()');
poll_is($two, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied > 0', 1, 'it has joined');
poll_is($two, 'SELECT count(*) FROM mmrepl.kept', 0, 'what was kept is settled');
poll_is($_, 'SELECT count(*) FROM t WHERE id < 0', 2, 'nothing is lost, ' . $_->name) foreach @all;
is(sql($_, 'SELECT conflict_strategy FROM mmrepl.syncs'), 'priority: aaa02, aaa01', 'it comes first as before, as ' . $_->name . ' sees it') foreach @all;
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' drains') foreach @all;
finish(\@all, qr/is paused|has departed|joins the sync|not joined yet|configuration has changed|is not in the configuration|needs a resync|could not connect|connection|terminating|server closed|claims to be it|WARNING|does not replicate/, 't');
