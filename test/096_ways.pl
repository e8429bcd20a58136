# Risk: tables of one sync that are in different other ones: what is told of all is taken for what holds for each, or what comes by another sync is
# not asked for, and a log is kept for ever, or a db never joins. Method: three such cases, each with a table of its own, each drained. Would pass
# wrongly if changes had not come by the other way: looked at.
use strict;
use warnings;
use MmreplCluster;
use MmreplDb;
use Test::More;

my $server = new_node('one', conf => "mmrepl.max_workers = 64\nmax_worker_processes = 64\nmmrepl.heartbeat_interval = 100\n");
my ($a, $b, $c, $d) = my @all = map { MmreplDb->new($server, $_) } qw(a b c d);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (LIKE t INCLUDING ALL); CREATE TABLE x (LIKE t INCLUDING ALL);
	CREATE TABLE y (LIKE t INCLUDING ALL)', @all);
sql($a, 'CREATE EXTENSION mmrepl');
sql($a, "SELECT mmrepl.add_db('" . $_->name . "', '" . conninfo($_) . "')") foreach @all;
sql($a, q{SELECT mmrepl.add_table(r[1], relgroup => r[2]) FROM (VALUES ('{t,t}'::text[]), ('{t,tu}'), ('{u,tu}'), ('{x,x}'), ('{y,y}')) AS r(r)});

# two syncs to one target
sql($a, q{SELECT mmrepl.add_sync('bc', relgroup => 'y', dbs => '{b:source,c:source}');
	SELECT mmrepl.add_sync('bd', relgroup => 'y', dbs => '{b:source,d:target}');
	SELECT mmrepl.add_sync('cd', relgroup => 'y', dbs => '{c:source,d:target}')});
sql($c, "INSERT INTO y VALUES (1, 'c')");
sql($b, "INSERT INTO y VALUES (2, 'b')");
poll_is($_, 'SELECT count(*) FROM y', 2, $_->name . ' has all') foreach $b, $c, $d;

# what a writes to t comes to c by way of b; u is in one of the syncs only
sql($a, q{SELECT mmrepl.add_sync('tab', relgroup => 't', dbs => '{a:source,b:target}', makedelta => true);
	SELECT mmrepl.add_sync('tbc', relgroup => 'tu', dbs => '{b:source,c:source}')});
sql($a, "INSERT INTO t VALUES (1, 'a')");
poll_is($c, 'SELECT count(*) FROM t', 1, 'it goes on to c');
sql($a, "INSERT INTO t VALUES (2, 'a')");
poll_is($c, 'SELECT count(*) FROM t', 2, 'all the time');
sql($c, "INSERT INTO t VALUES (3, 'c'); INSERT INTO u VALUES (3, 'c')");
poll_is($b, 'SELECT count(*) FROM u', 1, 'and c writes back');
sql($b, "INSERT INTO u VALUES (4, 'b'); UPDATE u SET v = 'b' WHERE id = 3");
poll_is($c, "SELECT count(*) FROM u WHERE v = 'b'", 2, 'as does b');

# what a writes comes to c by way of d and b; then it exchanges with b and c itself
sql($a, q{SELECT mmrepl.add_sync('xad', relgroup => 'x', dbs => '{a:source,d:target}', makedelta => true);
	SELECT mmrepl.add_sync('xdb', relgroup => 'x', dbs => '{d:source,b:target}', makedelta => true);
	SELECT mmrepl.add_sync('xbc', relgroup => 'x', dbs => '{b:source,c:source}')});
sql($a, "INSERT INTO x VALUES (1, 'a')");
sql($c, "INSERT INTO x VALUES (2, 'c')");
poll_is($_, 'SELECT count(*) FROM x', 2, 'x is complete on ' . $_->name) foreach $b, $c;
sql($a, "SELECT mmrepl.update_dbgroup('xbc', '{b:source,c:source,a:source}', onetimecopy => 1)");
poll_is($a, 'SELECT bool_and(opened AND NOT mmrepl._closed_to_clients(sync_id)) FROM mmrepl.sync_state', 't', 'who was heard by another sync joins');
sql($a, "INSERT INTO x VALUES (3, 'a')");
sql($c, "INSERT INTO x VALUES (4, 'c')");
poll_is($_, 'SELECT count(*) FROM x', 4, 'x is complete on ' . $_->name) foreach $a, $b, $c;

foreach my $table (qw(y t u x))
{
	poll_is($_, "SELECT count(*) FROM mmrepl.change_log WHERE tablename = '$table'", 0, "nothing of $table is kept on " . $_->name) foreach @all;
}

# a hub that is lost: nobody is told that all is well
my $e = MmreplDb->new($server, 'e');
sql_all('CREATE TABLE w (id int PRIMARY KEY, v text)', $a, $b, $e);
sql($a, "SELECT mmrepl.add_db('e', '" . conninfo($e) . q{'); SELECT mmrepl.add_table('w', relgroup => 'w');
	SELECT mmrepl.add_sync('star', relgroup => 'w', dbs => '{e:hub,a:source,b:source}')});
sql($b, "INSERT INTO w VALUES (1, 'b')");
poll_is($a, 'SELECT count(*) FROM w', 1, 'by way of the hub');
like(($a->psql('a', q{SELECT mmrepl.remove_db('e', force => true)}))[2], qr/WARNING:  db "e" was the hub of sync "star".*compare_sync/s, 'that it was the hub is told');
sql($b, "INSERT INTO w VALUES (2, 'b')");
poll_is($a, 'SELECT count(*) FROM w', 2, 'those who are left exchange with each other');

$server->stop;
log_clean($server, qr/has departed|joins the sync|not joined yet|configuration has changed|is not in the configuration|terminating|WARNING|does not replicate/);
done_testing();
