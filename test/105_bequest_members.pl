# Risk: a departed source is waited for for ever, and no log drains any more: because of a target that never heard of it as a source of its
# own: one that came later, the departed one itself when it goes on as a target, a leaf beside a hub. Method: each of them, with a target that
# cannot be asked meanwhile. Would pass wrongly if the departure were over before they came: looked at.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my $conf = "mmrepl.heartbeat_interval = 200\nmmrepl.segment_size = 64\n";
my ($one, $two, $three, $target, $late) = my @all = map { new_node($_, link => 1, conf => $conf) } qw(aaa01 aaa02 aaa03 report late);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE s (id int PRIMARY KEY, v text)', @all);
join_nodes([ $one, $two, $three, $target ], roles => { report => 'target' }, exclude => ['s']);
my $log = 'SELECT count(*) FROM mmrepl.change_log';
my $left = 'SELECT count(*) FROM mmrepl.departed';
sql($one, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 10) g");
wait_synced($one, $two, $three);
poll_is($_, $log, 0, 'log of ' . $_->name . ' drains') foreach $one, $two, $three, $target;

# ---- a source goes on as a target
sql($two, "SELECT mmrepl.update_dbgroup('sync', '{aaa01:source,aaa02:source,aaa03:target,report:target}')");
poll_is($_, $left, 0, 'it is done with, for ' . $_->name) foreach $one, $two, $target;
sql($one, "INSERT INTO t VALUES (11, 'as a target')");
poll_is($three, 'SELECT count(*) FROM t', 11, 'it hears the others');
poll_is($_, $log, 0, 'log of ' . $_->name . ' drains') foreach $one, $two, $target;
sql($two, "SELECT mmrepl.update_dbgroup('sync', '{aaa01:source,aaa02:source,aaa03:source,report:target}')");
poll_is($three, 'SELECT bool_and(opened) FROM mmrepl.sync_state', 't', 'and comes back as a source');
sql($three, "INSERT INTO t VALUES (12, 'as a source')");
poll_is($_, 'SELECT count(*) FROM t', 12, 'a source again: ' . $_->name) foreach $one, $two, $target;

# ---- lost, with its last words at a target; another target comes meanwhile
$_->{mmrepl_link}->cut($one) foreach $two, $three;
sql($one, "INSERT INTO t VALUES (13, 'last words')");
poll_is($target, 'SELECT count(*) FROM t', 13, 'the target has the last words');
$target->{mmrepl_link}->cut($three);
kill_postmaster($one);
remove_node($two, $one, force => 1);
poll_is($three, "$left WHERE taken", 1, 'who does not reach the target waits for it');
add_node($two, $late, role => 'target');
poll_is($_, 'SELECT count(*) FROM t', 13, 'the last words reach ' . $_->name) foreach $two, $three, $late;
poll_is($three, "$left WHERE cardinality(asked) = 1", 1, 'another target has come, and is asked');
$target->{mmrepl_link}->heal;
poll_is($_, $left, 0, $_->name . ' is done with it') foreach $two, $three, $target, $late;
sql($two, "INSERT INTO t VALUES (14, 'afterwards')");
poll_is($_, 'SELECT count(*) FROM t', 14, 'all goes on: ' . $_->name) foreach $three, $target, $late;
poll_is($_, $log, 0, 'log of ' . $_->name . ' drains') foreach $two, $three, $target, $late;

# ---- a leaf of a star leaves, in which a target is
sql($two, "SELECT mmrepl.add_table('s', relgroup => 'other');
	SELECT mmrepl.add_sync('star', relgroup => 'other', dbs => '{aaa02:hub,aaa03:source,report:target,late:source}', onetimecopy => 0)");
sql($three, "INSERT INTO s VALUES (1, 'of a leaf')");
poll_is($_, 'SELECT count(*) FROM s', 1, 'by way of the hub: ' . $_->name) foreach $two, $target, $late;
remove_node($two, $three);
poll_is($_, $left, 0, $_->name . ' is done with the leaf') foreach $two, $target, $late;
sql($two, "INSERT INTO s VALUES (2, 'of the hub'); INSERT INTO t VALUES (15, 'at the end')");
poll_is($_, 'SELECT (SELECT count(*) FROM s) + (SELECT count(*) FROM t)', 17, 'all goes on: ' . $_->name) foreach $target, $late;
poll_is($_, $log, 0, 'log of ' . $_->name . ' is empty at the end') foreach $two, $target, $late;
same_rows($_, [ $two, $target, $late ]) foreach qw(t s);

foreach my $node ($two, $three, $target, $late)
{
	$node->stop;
	log_clean($node, qr/could not connect|connection|server closed|terminat|has departed|configuration has changed|is not in the configuration|does not replicate|joins the sync|not joined yet|WARNING|claims to be it|cannot be reached|does not exist|wrong database|another configuration/);
}
done_testing();
