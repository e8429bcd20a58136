# Risk: a db that was away for too long holds up the log of all others for ever, or comes back by itself and beats with old writes what was
# purged as newer. Method: one is away until the log is larger than it may be; then it comes back. Also two who give up each other. Would
# pass wrongly if nothing had been given up: the marks are looked at.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = "mmrepl.max_log_size = 1\nmmrepl.segment_size = 64\nmmrepl.heartbeat_interval = 200\n";
my ($one, $two, $three) = my @all = map { new_node($_, link => 1, conf => $conf) } qw(aaa01 aaa02 aaa03);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text)', @all);
join_nodes(\@all);
sql($one, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 1000) AS g");
wait_synced(@all);
my $marked = q{SELECT count(*) FROM mmrepl.dbgroup_db WHERE needs_resync};

# slow is not away: a transaction larger than the log may be
sql($one, "INSERT INTO t SELECT g, 'large' FROM generate_series(10001, 160000) AS g");
wait_synced(@all);
is(sql($_, $marked), 0, 'nobody is given up who is there: ' . $_->name) foreach @all;

# away, with writes that nobody has heard
$_->{mmrepl_link}->cut foreach @all;
sql($three, "UPDATE t SET v = 'old, unheard' WHERE id <= 100; INSERT INTO t VALUES (-1, 'only here')");
$three->stop;
$_->{mmrepl_link}->heal foreach @all;
sql($one, "UPDATE t SET v = 'newer' WHERE id <= 150000");
poll_is($one, $marked, 1, 'the one who is away is given up');
poll_is($two, $marked, 1, 'all who are there learn it');
ok((grep { slurp_file($_->logfile) =~ /WARNING:  db "aaa03" is given up and needs a resync/ } $one, $two), 'loudly');
is(sql($one, q{SELECT state FROM mmrepl.status WHERE peer = 'aaa03'}), 'needs resync', 'status says so');
sql($_, "UPDATE t SET v = 'goes on " . $_->name . "' WHERE id = 5") foreach $one, $two;
is(sql($one, "SELECT mmrepl.wait_for_sync('sync', 60)"), 't', 'the others go on, and nobody waits for it');
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' drains') foreach $one, $two;

# back: it does not come in by just being there
$three->start;
poll_is($three, $marked, 1, 'it learns that it was given up');
poll_is($three, q{SELECT bool_and(state = 'needs resync' AND last_error ~ 'needs a resync') FROM mmrepl.status}, 't', 'and says so');
sql($three, "INSERT INTO t VALUES (-2, 'written there since')");
is(sql($three, "SELECT count(*) FROM mmrepl.change_log WHERE key @> '{\"id\": -2}'"), 1, 'what is written there is captured');
sql($one, "INSERT INTO t VALUES (-3, 'not for it')");
is(sql($one, "SELECT mmrepl.wait_for_sync('sync', 60)"), 't', 'as if it was not there');
is(sql($_, "SELECT count(*) FROM t WHERE v = 'old, unheard' OR id IN (-1, -2)"), 0, 'nothing flows from it to ' . $_->name) foreach $one, $two;
is(sql($three, 'SELECT count(*) FROM t WHERE id = -3'), 0, 'nor to it');
like(slurp_file($three->logfile), qr/needs a resync.*HINT:  Call mmrepl\.rejoin/s, 'the log says what to do');

# who is alone gives up nobody: the others go on without him
sql($three, 'SELECT mmrepl.rejoin()');
poll_is($three, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied > 0', 1, 'it is back');
poll_is($three, 'SELECT count(*) FROM mmrepl.kept', 0, 'with what only it had');
wait_synced(@all);
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' drains') foreach @all;
$one->{mmrepl_link}->cut;
$_->{mmrepl_link}->cut($one) foreach $two, $three;
sql($one, "UPDATE t SET v = '$_ alone' WHERE id <= 150000") foreach 1, 2;
sql($one, "INSERT INTO t VALUES (-4, 'alone')");
poll_is($one, q{SELECT bool_and(state = 'bad' AND lag_seconds > 7) FROM mmrepl.status}, 't', 'one is alone, for long');
sql($two, "UPDATE t SET v = 'the others' WHERE id <= 110000");
poll_is($two, $marked, 1, 'the others give it up');
poll_is($three, $marked, 1, 'both of them');
is(sql($one, $marked), 0, 'it gives up nobody');
$_->{mmrepl_link}->heal foreach @all;
poll_is($one, $marked, 1, 'it learns who is right');
poll_is($two, q{SELECT string_agg(state, ',' ORDER BY peer) FROM mmrepl.status}, 'needs resync,good', 'the others go on');
is(sql($two, "SELECT mmrepl.wait_for_sync('sync', 60)"), 't', 'and need not wait for it');
same_rows('t', [ $two, $three ]);

$_->stop foreach @all;
log_clean($_, qr/joins the sync|not joined yet|is not in the configuration|has departed|WARNING|claims to be it|needs a resync|could not connect|terminating|connection|server closed|configuration has changed/) foreach @all;
done_testing();
