# A db is removed while another one is away, which comes back and reaches the removed one first: it still has the configuration
# in which that takes part. Who is out stays out; and comes in again when somebody asks for it, here or elsewhere.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($one, $two, $three) = my @all = map { new_node($_, link => 1) } qw(aaa01 aaa02 aaa03);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text)', @all);
join_nodes(\@all);
wait_synced(@all);
sql($one, "INSERT INTO t VALUES (1, 'all')");
wait_synced(@all);

my $out = 'SELECT node_id IS NULL AND NOT EXISTS (SELECT FROM mmrepl.db) FROM mmrepl.local_node';
$two->stop;
sql($one, "SELECT mmrepl.remove_db('aaa03', force => true)");
is(sql($three, $out), 't', 'it is out');
$_->{mmrepl_link}->cut foreach $one, $two;
$two->start;
poll_is($two, q{SELECT count(*) FROM mmrepl.status WHERE peer = 'aaa03' AND last_error LIKE '%is not in the configuration%'}, 1, 'who was away asks it, and is told');
is(sql($three, $out), 't', 'it is still out');
sql($three, "INSERT INTO t VALUES (3, 'for itself')");
$_->{mmrepl_link}->heal foreach $one, $two;
poll_is($two, 'SELECT count(*) FROM mmrepl.db', 2, 'the other one hears of it');
wait_synced($one, $two);
is(sql($three, $out), 't', 'and it is out for good');
same_rows('t', [ $one, $two ]);

# asked for
sql($three, 'TRUNCATE t');
add_node($one, $three);
poll_is($three, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied = 1', 1, 'it comes in when it is added');
wait_synced(@all);
sql($three, "INSERT INTO t VALUES (4, 'again')");
wait_synced(@all);
same_rows('t', \@all);

# out by its own word, and into another configuration, whose version is a lower one
sql($three, "SELECT mmrepl.remove_db('aaa03')");
is(sql($three, $out), 't', 'it is out again');
my $four = new_node('bbb01');
sql($four, 'CREATE TABLE t (id int PRIMARY KEY, v text); CREATE EXTENSION mmrepl');
sql($three, 'TRUNCATE t');
sql($four, sprintf q{SELECT mmrepl.add_db('bbb01', '%s'); SELECT mmrepl.add_table('t', relgroup => 'other'); SELECT mmrepl.add_db('bbb02', '%s');
	SELECT mmrepl.add_sync('other', relgroup => 'other', dbs => '{bbb01:source,bbb02:source}')}, conninfo($four), conninfo($three));
wait_synced($four, $three);
sql($three, "INSERT INTO t VALUES (5, 'elsewhere')");
wait_synced($four, $three);
same_rows('t', [ $four, $three ]);
finish([ @all, $four ], qr/could not connect|cannot be reached|terminating|connection|server closed|is not in the configuration|configuration has changed|joins the sync|not joined yet|does not exist|cannot be used|another configuration|wrong database|has departed|claims to be it|shutting down|starting up/);
