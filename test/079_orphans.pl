# Foreign keys are not checked when changes are applied: orphans are found. And rows of one db repaired on two others,
# one of them a target.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b, $c) = my @nodes = map { new_node($_, conf => 'mmrepl.heartbeat_interval = 100') } qw(aaa01 aaa02 report);
sql_all(q{
	CREATE TABLE customer (id int PRIMARY KEY, name text, UNIQUE (id, name));
	CREATE TABLE "Orders" (id int PRIMARY KEY, "Customer" int REFERENCES customer, note text);
	CREATE TABLE item (o int, n int, c_id bigint, c_name text, up int, PRIMARY KEY (o, n), UNIQUE (n),
		CONSTRAINT full_key FOREIGN KEY (c_id, c_name) REFERENCES customer (id, name) MATCH FULL,
		CONSTRAINT own FOREIGN KEY (up) REFERENCES item (n))}, @nodes);
join_nodes(\@nodes, roles => { report => 'target' });
sql($a, q{
	INSERT INTO customer VALUES (1, 'one'), (2, 'two'), (3, 'three');
	INSERT INTO "Orders" VALUES (10, 1), (11, NULL), (12, 3);
	INSERT INTO item VALUES (10, 1, 1, 'one', NULL), (10, 2, NULL, NULL, 1)});
wait_synced(@nodes);
my $orphans = q{SELECT tablename, constraint_name, key, parent, missing FROM mmrepl.orphans('sync') ORDER BY tablename, constraint_name, key::text};
is(sql($_, $orphans), '', 'no orphans on ' . $_->name) foreach @nodes;

# each right by itself
sql($a, q{SELECT mmrepl.pause('sync')});
sql($a, 'DELETE FROM customer WHERE id = 2');
sql($b, q{INSERT INTO "Orders" VALUES (20, 2, 'orphan'); INSERT INTO item VALUES (20, 7, 2, 'two', NULL), (20, 8, NULL, NULL, 7)});
sql($a, q{SELECT mmrepl.resume('sync')});
wait_synced(@nodes);
my $two = 'Orders|Orders_Customer_fkey|{"id": 20}|customer|{"id": 2}' . "\n" . 'item|full_key|{"n": 7, "o": 20}|customer|{"id": 2, "name": "two"}';
is(sql($_, $orphans), $two, 'the same orphans on ' . $_->name) foreach @nodes;
like(sql_error($a, q{SELECT mmrepl.orphans('nope')}), qr/sync "nope" does not exist/, 'no such sync');
sql($a, q{INSERT INTO customer VALUES (2, 'two')});
wait_synced(@nodes);
is(sql($_, $orphans), '', 'none when the parent is back on ' . $_->name) foreach @nodes;
same_rows($_, \@nodes) foreach ('customer', '"Orders"', 'item');

# one row differs on two dbs; what is right is on the first
sql($_, q{SET session_replication_role = replica; UPDATE customer SET name = 'wrong' WHERE id = 3; INSERT INTO item VALUES (99, 99)}) foreach $b, $c;
poll_is($a, q{SELECT count(*) = 4 FROM mmrepl.compare_sync('sync') WHERE NOT in_flight}, undef, 'two rows differ on each of two dbs');
is(sql($c, q{SELECT db || ' ' || difference FROM mmrepl.compare_sync('sync', dbs => '{aaa02}')}), '', 'the wrong ones agree');
is(sql($a, q{SELECT mmrepl.repair_sync('sync', dbs => '{report}')}), 2, 'what differs on one is repaired');
wait_synced(@nodes);
is(sql($_, q{SELECT (SELECT name FROM customer WHERE id = 3), (SELECT count(*) FROM item WHERE n = 99)}), 'three|0', 'on ' . $_->name) foreach @nodes;
like(sql_error($a, q{SELECT mmrepl.repair_sync('sync', 'report')}), qr/"report" is not a source/, 'rows of a target do not travel');
sql($c, q{SET session_replication_role = replica; DELETE FROM "Orders" WHERE id = 12});
is(sql($c, q{SELECT mmrepl.repair_sync('sync', 'aaa02')}), 1, 'a target asks for what is right');
wait_synced(@nodes);
same_rows($_, \@nodes) foreach ('customer', '"Orders"', 'item');
$_->stop foreach @nodes;
log_clean($_, qr/nope|is not a source/) foreach @nodes;
done_testing();
