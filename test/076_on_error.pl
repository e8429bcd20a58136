# on_error => 'stop' and resume; the limit of rows that stand aside; a large batch, an initial copy and crashes while rows
# cannot be applied. The controls: with set_aside the same goes on, and nothing stands where nothing is wrong.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, conf => "mmrepl.heartbeat_interval = 100\nmmrepl.frame_size = 16\n") } qw(aaa01 aaa02);
sql_all(q{
	CREATE TABLE t (id int PRIMARY KEY, v int, pad text);
	CREATE TABLE other (id int PRIMARY KEY, v int);
	CREATE TABLE bad (id int PRIMARY KEY, v int)}, @nodes);
like(sql_error($a, q{CREATE EXTENSION mmrepl; SELECT mmrepl.add_sync('s', relgroup => 'r', dbs => '{x}', on_error => 'explode')}), qr/on_error cannot be "explode"/, 'on_error is one of two');
sql($a, 'DROP EXTENSION IF EXISTS mmrepl');
join_nodes(\@nodes, args => q{on_error => 'stop'});
is(sql($b, 'SELECT on_error FROM mmrepl.syncs'), 'stop', 'it is in the configuration');
sql($b, 'ALTER TABLE t ADD CONSTRAINT positive CHECK (v >= 0) NOT VALID; ALTER TABLE bad ADD CHECK (v >= 0) NOT VALID');

# ---- stop
sql($a, 'INSERT INTO t VALUES (1, 1), (2, -2), (3, 3)');
poll_is($a, q{SELECT state = 'halted' FROM mmrepl.status}, undef, 'the sync stops');
like(sql($a, 'SELECT last_error FROM mmrepl.status'), qr/sync "sync" stops: a row of table "t" cannot be applied: .*positive/, 'and status says why');
is(sql($b, 'SELECT count(*) FROM t'), 0, 'nothing of the batch is applied');
is(sql($b, 'SELECT count(*) FROM mmrepl.apply_error'), 0, 'and nothing set aside');
poll_is($b, q{SELECT state = 'halted' FROM mmrepl.status}, undef, 'on both sides');
sql($b, 'INSERT INTO other VALUES (100, 100)');
sql($b, 'ALTER TABLE t DROP CONSTRAINT positive');
sql($a, 'INSERT INTO other VALUES (1, 1)');
is(sql($a, q{SELECT state FROM mmrepl.status}), 'halted', 'it does not go on by itself');
sql($b, q{SELECT mmrepl.resume('sync')});
wait_synced(@nodes);
same_rows($_, \@nodes) foreach qw(t other);
poll_is($a, q{SELECT state = 'good' FROM mmrepl.status}, undef, 'it goes on after resume, said on either side');

# ---- stopped, the source restarted, then set_aside instead
sql($b, 'ALTER TABLE t ADD CONSTRAINT positive CHECK (v >= 0) NOT VALID');
sql($a, 'UPDATE t SET v = -1 WHERE id = 1; INSERT INTO other VALUES (2, 2)');
poll_is($a, q{SELECT state = 'halted' FROM mmrepl.status}, undef, 'it stops again');
$a->restart;
poll_is($a, q{SELECT state = 'halted' FROM mmrepl.status}, undef, 'also when the source comes back');
like(sql_error($a, q{SELECT mmrepl.update_sync('sync', on_error => 'explode')}), qr/on_error cannot be/, 'on_error is one of two');
sql($a, q{SELECT mmrepl.update_sync('sync', on_error => 'set_aside'); SELECT mmrepl.resume('sync')});
wait_synced(@nodes);
is(sql($b, 'SELECT count(*) FROM other WHERE id = 2'), 1, 'with set_aside the rest goes on');
is(sql($b, 'SELECT string_agg(key::text, $$,$$) FROM mmrepl.apply_error'), '{"id": 1}', 'and the row stands aside');

# ---- a crash of either side leaves it as it is, and loses nothing
kill_postmaster($b);
start_again($b);
# (what was not on its disk yet is sent again)
poll_is($b, 'SELECT count(*) FROM mmrepl.apply_error', 1, 'it stands after a crash of the receiver');
sql($a, 'INSERT INTO other VALUES (3, 3)');
wait_synced(@nodes);
poll_is($b, 'SELECT tries > 2 FROM mmrepl.apply_error', undef, 'and is tried again');
kill_postmaster($a);
start_again($a);
poll($a, 'SELECT true');
sql($a, 'UPDATE t SET v = -3 WHERE id = 3');
wait_synced(@nodes);
is(sql($b, 'SELECT count(*) FROM mmrepl.apply_error'), 2, 'so it is after a crash of the source');

# ---- a batch of many frames, killed in the middle of being taken with care
sql($a, q{INSERT INTO t SELECT i, CASE WHEN i % 5000 = 0 THEN -i ELSE i END, repeat('x', 100) FROM generate_series(10001, 40000) i});
poll($b, q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'mmrepl push%' AND state <> 'idle') OR (SELECT count(*) > 2 FROM mmrepl.apply_error)});
kill_worker($b, 'apply');
poll($b, 'SELECT true');
wait_synced(@nodes);
is(sql($b, 'SELECT count(*) FROM t WHERE id > 10000'), 29994, 'a large batch is there but for what cannot be');
is(sql($b, 'SELECT count(*) FROM mmrepl.apply_error'), 8, 'which stands aside, once each');

# ---- the limit
$b->append_conf('postgresql.conf', 'mmrepl.max_apply_errors = 10');
$b->reload;
poll($b, q{SELECT setting = '10' FROM pg_settings WHERE name = 'mmrepl.max_apply_errors'});
sql($a, 'INSERT INTO t SELECT i, -1 FROM generate_series(50001, 50005) i');
poll_is($a, q{SELECT state = 'bad' AND last_error LIKE '%max_apply_errors%' FROM mmrepl.status}, undef, 'where more cannot be applied than is allowed the sync waits');
is(sql($b, 'SELECT count(*) FROM mmrepl.apply_error'), 8, 'and none more stands aside');
sql($b, 'ALTER TABLE t DROP CONSTRAINT positive');
wait_synced(@nodes);
poll_is($b, 'SELECT count(*) = 0 FROM mmrepl.apply_error', undef, 'all is applied when it can be');
same_rows($_, \@nodes) foreach qw(t other);

# ---- an initial copy
sql($a, q{SET session_replication_role = replica; INSERT INTO bad SELECT i, CASE i WHEN 5 THEN -5 ELSE i END FROM generate_series(1, 100) i});
sql($a, q{SELECT mmrepl.update_sync('sync', onetimecopy => 2)});
poll_is($b, 'SELECT count(*) = 99 FROM bad', undef, 'an initial copy is there but for the row that cannot be applied');
poll_is($b, q{SELECT count(*) = 1 FROM mmrepl.apply_error WHERE tablename = 'bad' AND at IS NULL}, undef, 'which stands aside');
sql($b, 'ALTER TABLE bad DROP CONSTRAINT bad_v_check');
poll_is($b, 'SELECT count(*) = 0 FROM mmrepl.apply_error', undef, 'and comes when it can');
same_rows('bad', \@nodes);
is(sql($a, 'SELECT count(*) FROM mmrepl.apply_error'), 0, 'nothing stands where nothing is wrong');
finish(\@nodes, qr/violates|on_error cannot|cannot be applied|max_apply_errors|connection|terminat|crash|recovery|lost|does not exist/, qw(t other bad));
