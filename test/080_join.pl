# Risk: a database that joins while all write misses what others purge without asking it, or brings back what they know to be older.
# Method: a third and a fourth one join under load on all, also with one away or unaware, from a chosen one; then all are compared. Would pass wrongly if
# nothing was written during the copy: counted.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $schema = q{
	CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, v text);
	CREATE TABLE s (id serial PRIMARY KEY, v text);
	CREATE TABLE z (id int PRIMARY KEY, v text);
	CREATE FUNCTION step(tag text) RETURNS void LANGUAGE plpgsql AS $f$
	DECLARE k int := 1 + floor(random() * 300);
	BEGIN
		CASE floor(random() * 10)::int
			WHEN 0 THEN DELETE FROM t WHERE id = k;
			WHEN 1 THEN UPDATE t SET u = floor(random() * 3000) WHERE id = k;
			WHEN 2 THEN UPDATE t SET id = 1 + floor(random() * 300) WHERE id = k;
			WHEN 3 THEN INSERT INTO s (v) VALUES (tag);
			WHEN 4 THEN
				IF random() < 0.1 THEN TRUNCATE z; END IF;
				INSERT INTO z VALUES (k, tag) ON CONFLICT DO NOTHING;
			ELSE INSERT INTO t VALUES (k, floor(random() * 3000), tag || random()) ON CONFLICT (id) DO UPDATE SET v = excluded.v;
		END CASE;
	EXCEPTION WHEN unique_violation THEN NULL;
	END $f$};
my ($one, $two, $three, $four) = map { new_node($_, link => 1) } qw(aaa01 aaa02 aaa03 aaa04);
sql_all($schema, $one, $two, $three, $four);
sql($one, "INSERT INTO t SELECT g, g, 'before' FROM generate_series(1, 200) AS g");
join_nodes([ $one, $two ], copy => 2);
wait_synced($one, $two);
my @load = map { start_load($_, "SELECT step('" . $_->name . "')") } $one, $two;
poll_is($_, "SELECT count(*) > 20 FROM s", 't', 'writing on ' . $_->name) foreach $one, $two;

# what is refused
sql($three, "INSERT INTO t VALUES (999, 999, 'left over')");
my $add = sprintf "SELECT mmrepl.add_db('aaa03', '%s', dbgroup => 'sync'", conninfo($three);
like(sql_error($one, "$add)"), qr/tables of db "aaa03" have rows.*public\.t.*HINT:.*onetimecopy => 1/s, 'a db with rows is not overwritten unasked');
like(sql_error($one, "$add, copy_from => 'aaa03')"), qr/cannot give the initial copy|does not exist/, 'nor copied from itself');
like(sql_error($one, "$add, onetimecopy => 1, copy_from => 'nobody')"), qr/does not exist/, 'nor from nobody');
like(sql_error($one, "$add, role => 'king')"), qr/unknown role/, 'roles are checked');
like(sql_error($one, "$add, onetimecopy => 7)"), qr/onetimecopy cannot be 7/, 'kinds of copies are checked');
is(sql($one, 'SELECT count(*) FROM mmrepl.db'), 2, 'nothing was changed by that');
$two->{mmrepl_link}->cut;
like(sql_error($one, "$add, onetimecopy => 1)"), qr/"aaa02" cannot be used/, 'nobody joins while a db cannot be reached');
$two->{mmrepl_link}->heal;

# the third, from the second
add_node($one, $three, onetimecopy => 1, copy_from => 'aaa02');
poll_is($three, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied = 1', 1, 'it has joined and has its copy');
is(sql($three, 'SELECT d.name FROM mmrepl.sync_state JOIN mmrepl.db AS d ON node_id = copied_from'), 'aaa02', 'from whom it was to get it');
push @load, start_load($three, "SELECT step('aaa03')");
poll_is($_, "SELECT count(*) > 20 FROM s WHERE v = 'aaa03'", 't', 'what the third writes comes to ' . $_->name) foreach $one, $two, $three;
my $before = sql($one, "SELECT count(*) FROM s");

# the fourth, when the second learns of it last: it cannot be reached at the moment of the commit
{
	sql($one, sprintf "SELECT mmrepl.add_db('aaa04', '%s')", conninfo($four));
	# the configuration reaches all but the second, as if the caller had died between two commits
	sql($two, 'SELECT mmrepl.stop()');
	poll_is($two, "SELECT count(*) FROM mmrepl.worker_status WHERE kind = 'pusher'", 0, 'the second speaks to nobody');
	$two->{mmrepl_link}->cut;
	sql($one, q{UPDATE mmrepl.local_node SET config_version = config_version + 1, config_author = node_id});
	sql($one, q{INSERT INTO mmrepl.dbgroup_db (dbgroup, node_id, role, pos, since, copy)
		SELECT 'sync', d.node_id, 'source', 4, l.config_version, 1 FROM mmrepl.local_node AS l, mmrepl.db AS d WHERE d.name = 'aaa04'});
	sql($one, "SELECT mmrepl._settle_members(); SELECT mmrepl._wake()");
}
poll_is($four, "SELECT bool_or(last_error ~ 'joins the sync and waits for') FROM mmrepl.status", 't', 'the fourth says that it waits');
poll_is($four, "SELECT bool_or(last_error ~ 'waits for db \"aaa02\" to hear') FROM mmrepl.status", 't', 'and for whom');
poll_is($one, "SELECT last_error ~ 'joins the sync and waits for db \"aaa02\"' FROM mmrepl.status WHERE peer = 'aaa04'", 't', 'others say it too');
is(sql($four, 'SELECT opened, copied FROM mmrepl.sync_state'), 'f|0', 'it has nothing yet');
like(sql_error($four, "INSERT INTO t VALUES (1000, 1000, 'too early')"), qr/cannot write to table "t" yet.*db "aaa02" to hear of it/s, 'and takes nothing from clients');
is(sql($four, 'SELECT count(*) FROM mmrepl.change_log'), 0, 'it captures nothing');
$two->{mmrepl_link}->heal;
sql($two, 'SELECT mmrepl.start()');
poll_is($four, 'SELECT count(*) FROM mmrepl.sync_state WHERE opened AND copied = 1', 1, 'it has joined when the last one has heard');
push @load, start_load($four, "SELECT step('aaa04')");
poll_is($_, "SELECT count(*) > 20 FROM s WHERE v = 'aaa04'", 't', 'what the fourth writes comes to ' . $_->name) foreach $one, $two, $three, $four;

cmp_ok(sql($one, "SELECT count(*) FROM s"), '>', $before, 'all was written meanwhile');
ok(stop_load($_), 'no writer was refused') foreach @load;
my @all = ($one, $two, $three, $four);
wait_synced(@all);
is(sql($_, 'SELECT count(*) FROM t WHERE id >= 999'), 0, 'what was in the way is gone on ' . $_->name) foreach @all;
is(sql($_, q{SELECT count(*) FROM mmrepl.validate_sync('sync')}), 0, 'sound, as ' . $_->name . ' sees it') foreach @all;
poll_is($_, 'SELECT count(*) FROM mmrepl.change_log', 0, 'log of ' . $_->name . ' drains') foreach @all;
finish(\@all, qr/tables of db|cannot write to table|cannot be used|cannot be reached|could not connect|does not exist|unknown role|onetimecopy cannot|joins the sync|not joined yet|configuration has changed|cannot give|server closed|terminating|has not confirmed|connection|is stopped at the receiver|is not in the configuration|batch does not start where/,
	qw(t s z));
