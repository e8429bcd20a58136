# Risk: a source that is taken out of a group, or made a target, takes with it what it had not sent; a target that becomes a source, a leaf that comes
# to a hub, or a source that returns miss something; a connection string can be read by who may only monitor. Method: all of it under load,
# a link cut at the wrong moment, every relation read as pg_monitor. Would pass wrongly if nothing was under way: rates are looked at.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($one, $two, $three) = my @all = map { new_node($_, link => 1) } qw(aaa01 aaa02 aaa03);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE s (id serial PRIMARY KEY, v text); CREATE TABLE h (id serial PRIMARY KEY, v text)', @all);
join_nodes(\@all, roles => { aaa03 => 'target' }, exclude => ['h'], sequences => 0);
sql($one, q{SELECT mmrepl.add_sequence('public.s_id_seq', relgroup => 'herd')});
sql($one, "INSERT INTO t SELECT g, 'before' FROM generate_series(1, 50) AS g");
wait_synced(@all);

# passwords
sql($one, sprintf "SELECT mmrepl.update_db('%s', '%s password=sesame42')", $_->name, conninfo($_)) foreach @all;
foreach my $node (@all)
{
	sql($node, 'CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE nobody LOGIN; GRANT USAGE ON SCHEMA mmrepl TO watcher, nobody');
	is(sql($node, "SELECT count(*) FROM mmrepl.db WHERE conninfo LIKE '%sesame42%'"), 3, 'the password is stored on ' . $node->name);
}
my $readable = q{SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'mmrepl'::regnamespace AND c.relkind IN ('r', 'v')
	AND has_table_privilege('%s', c.oid, 'SELECT') ORDER BY 1};
my @seen = split /\n/, sql($one, sprintf $readable, 'watcher');
cmp_ok(scalar @seen, '>', 20, 'pg_monitor reads many relations');
is(join(' ', grep { sql($one, "SET ROLE watcher; SELECT count(*) FROM $_ AS x WHERE x::text LIKE '%sesame42%'") } @seen), '', 'and none of them tells it');
is(sql($one, sprintf $readable, 'nobody'), '', 'others read nothing');
foreach my $role (qw(watcher nobody))
{
	like(sql_error($one, "SET ROLE $role; SELECT $_"), qr/permission denied/, "$role: $_")
	  foreach 'mmrepl._config_document()', 'conninfo FROM mmrepl.db', '* FROM mmrepl.db', '* FROM mmrepl._life_known(1)';
	is(sql($one, "SELECT string_agg(oid::regprocedure::text, ' ') FROM pg_proc WHERE pronamespace = 'mmrepl'::regnamespace AND prosecdef AND has_function_privilege('$role', oid, 'EXECUTE')"),
		'', "$role executes nothing with the owner's rights");
}

# a target becomes a source, under load
my @load = map { start_load($_, "INSERT INTO s (v) VALUES ('" . $_->name . "'); UPDATE t SET v = '" . $_->name . "' WHERE id = 1 + floor(random() * 50)") } $one, $two;
sql($one, q{SELECT mmrepl.update_dbgroup('sync', '{aaa01:source,aaa02:source,aaa03:source}')});
poll_is($three, 'SELECT bool_or(closed) FROM mmrepl.syncs', 'f', 'the target is a source now');
push @load, start_load($three, "INSERT INTO s (v) VALUES ('aaa03')");
poll_is($_, "SELECT count(*) > 30 FROM s WHERE v = 'aaa03'", 't', 'it is heard by ' . $_->name) foreach $one, $two;

# and is taken out: not while one cannot hear what it has written
$two->{mmrepl_link}->cut;
like(sql_error($one, q{SELECT mmrepl.update_dbgroup('sync', '{aaa01:source,aaa02:source}', timeout => 1)}),
	qr/db "aaa03" has not delivered all its changes within 1 seconds/, 'who has not delivered is not taken out');
is(sql($three, q{SELECT count(*) FROM mmrepl.status}), 2, 'it goes on taking part');
$two->{mmrepl_link}->heal;
sql($one, "SELECT mmrepl.update_dbgroup('sync', '{aaa01:source,aaa02:source}', timeout => $PostgreSQL::Test::Utils::timeout_default)");
ok(stop_load($_), 'no writer was refused') foreach @load;
wait_synced($one, $two);
my $last = sql($one, "SELECT max(id) FROM s WHERE v = 'aaa03'");
my $mine = "SELECT count(*) FROM s WHERE v = 'aaa03' AND id % 10 = 3 AND id <= $last";
is(sql($_, $mine), sql($three, $mine), 'all that it wrote before is there, ' . $_->name) foreach $one, $two;
same_rows($_, [ $one, $two ]) foreach qw(t s);

# it returns
sql($three, "INSERT INTO t VALUES (1000, 'while it was out')");
sql($one, q{SELECT mmrepl.update_dbgroup('sync', '{aaa01:source,aaa02:source,aaa03:source}', onetimecopy => 1)});
poll_is($three, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied > 0', 1, 'it has returned');
sql($three, "UPDATE t SET v = 'back' WHERE id = 1");
wait_synced(@all);
is(sql($_, 'SELECT v FROM t WHERE id = 1'), 'back', 'and is heard, ' . $_->name) foreach @all;
same_rows($_, \@all) foreach qw(t s);

# made a target: what it has not sent goes first
$two->{mmrepl_link}->cut;
sql($three, "INSERT INTO t VALUES (2000, 'its last words')");
like(sql_error($one, q{SELECT mmrepl.update_dbgroup('sync', '{aaa01:source,aaa02:source,aaa03:target}', timeout => 1)}),
	qr/has not delivered all its changes/, 'nor made a target');
$two->{mmrepl_link}->heal;
sql($one, q{SELECT mmrepl.update_dbgroup('sync', '{aaa01:source,aaa02:source,aaa03:target}')});
is(sql($_, 'SELECT count(*) FROM t WHERE id = 2000'), 1, 'what it had written is there, ' . $_->name) foreach $one, $two;

# a leaf comes to a hub, under load
sql($one, q{SELECT mmrepl.add_table('public.h', relgroup => 'round'); SELECT mmrepl.add_sequence('public.h_id_seq', relgroup => 'round');
	SELECT mmrepl.add_sync('star', relgroup => 'round', dbs => '{aaa01:hub,aaa02:source}')});
@load = map { start_load($_, "INSERT INTO h (v) VALUES ('" . $_->name . "')") } $one, $two;
poll_is($one, "SELECT count(*) > 10 FROM h WHERE v = 'aaa02'", 't', 'the first leaf writes');
sql($one, q{SELECT mmrepl.update_dbgroup('star', '{aaa01:hub,aaa02:source,aaa03:source}', onetimecopy => 1)});
poll_is($three, q{SELECT count(*) FROM mmrepl.sync_state JOIN mmrepl.sync USING (sync_id) WHERE name = 'star' AND opened AND copied > 0}, 1, 'the second has come');
sql($three, "INSERT INTO h (v) VALUES ('aaa03')");
ok(stop_load($_), 'no writer was refused') foreach @load;
wait_synced($two, $three);
wait_synced($one);
wait_synced($two, $three);
is(sql($two, "SELECT count(*) FROM h WHERE v = 'aaa03'"), 1, 'one leaf hears of the other');
same_rows('h', \@all);
wait_synced(@all);
same_rows($_, \@all) foreach qw(t s);
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' drains') foreach @all;
$_->stop foreach @all;
foreach my $node (@all)
{
	log_clean($node, qr/permission denied|could not connect|has not delivered|terminating|connection|server closed|joins the sync|not joined yet|configuration has changed|is not in the configuration|WARNING|has departed|timeout/);
	unlike(join("\n", grep { !/watcher|nobody/ } split /\n/, slurp_file($node->logfile)), qr/sesame42/, 'the log of ' . $node->name . ' does not tell the password');
}
done_testing();
