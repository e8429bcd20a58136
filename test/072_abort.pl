# A conflict under abort halts the sync on all dbs until somebody resumes it. Strategies that make no sense are refused, and change nothing.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, link => 1) } qw(aaa01 aaa02);
sql_all(q{
	CREATE TABLE t (id int PRIMARY KEY, v text);
	CREATE TABLE u (id int PRIMARY KEY, v text UNIQUE);
	CREATE TABLE own (id int PRIMARY KEY, v text);
	CREATE TABLE out (id int PRIMARY KEY, v text);
	INSERT INTO own VALUES (1, 'a'), (2, 'b');
	CREATE ROLE app; GRANT CREATE ON SCHEMA public TO app;
	CREATE FUNCTION fine(a own, b own) RETURNS own LANGUAGE sql AS 'SELECT greatest(a, b)';
	CREATE FUNCTION first(a own, b own) RETURNS own LANGUAGE sql AS 'SELECT a';
	CREATE FUNCTION other_key(a own, b own) RETURNS own LANGUAGE sql AS $$ SELECT greatest(a.id, b.id) + 1, greatest(a.v, b.v) $$;
	CREATE FUNCTION fails(a own, b own) RETURNS own LANGUAGE plpgsql AS $$ BEGIN RAISE 'no way'; END $$;
	CREATE FUNCTION path(a own, b own) RETURNS own LANGUAGE plpgsql AS $$ BEGIN PERFORM 1 FROM own; RETURN greatest(a, b); END $$;
	CREATE FUNCTION set_of(a own, b own) RETURNS SETOF own LANGUAGE sql AS 'SELECT a';
	CREATE FUNCTION wrong(a own, b own) RETURNS int LANGUAGE sql AS 'SELECT 1';
	CREATE FUNCTION one(a own) RETURNS own LANGUAGE sql AS 'SELECT a';
	CREATE FUNCTION newer(a own, b own, a_at timestamptz, b_at timestamptz, a_db text, b_db text) RETURNS own LANGUAGE sql AS 'SELECT CASE WHEN a_at > b_at THEN a ELSE b END';
	CREATE FUNCTION foreign_code(a own, b own) RETURNS own LANGUAGE sql AS 'SELECT greatest(a, b)'; ALTER FUNCTION foreign_code OWNER TO app;
	CREATE FUNCTION mine(a own, b own) RETURNS own LANGUAGE sql AS 'SELECT greatest(a, b)'; REVOKE ALL ON FUNCTION mine FROM PUBLIC;
	CREATE FUNCTION leaves(a own, b own) RETURNS own LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.out VALUES (1, 'was here') ON CONFLICT DO NOTHING; RETURN greatest(a, b); END $$;
}, @nodes);
sql($a, 'CREATE FUNCTION here_only(a own, b own) RETURNS own LANGUAGE sql AS $$ SELECT greatest(a, b) $$');
join_nodes(\@nodes, args => "conflict_strategy => 'bucardo_abort'", exclude => ['out']);
wait_synced(@nodes);
is(sql($b, 'SELECT conflict_strategy FROM mmrepl.syncs'), 'abort', q{Bucardo's name});

# Refused.
my $config = 'SELECT config_version FROM mmrepl.local_node';
my $version = sql($a, $config);
my $bad = sub {
	my ($call, $error, $name) = @_;
	like(sql_error($a, "SELECT mmrepl.$call") // 'no error', $error, $name // $call);
};
foreach (
	[ 'newest', qr/unknown conflict strategy "newest".*HINT:.*latest.*priority.*abort.*function/s ],
	[ '', qr/unknown conflict strategy ""/ ],
	[ 'bucardo_latest_all_tables', qr/unknown conflict strategy.*row with row.*latest/s ],
	[ 'bucardo_source', qr/HINT:.*priority/s ], [ 'bucardo_target', qr/HINT:.*priority/s ], [ 'bucardo_skip', qr/HINT:.*abort/s ],
	[ 'bucardo_random', qr/HINT:.*latest/s ], [ 'bucardo_custom', qr/HINT:.*function/s ], [ 'bucardo_xyz', qr/unknown conflict strategy/ ],
	[ 'priority:', qr/Name the dbs/ ], [ 'priority: aaa01, nobody', qr/db "nobody" does not exist/ ], [ 'aaa01 nobody', qr/db "nobody" does not exist/ ],
	[ 'aaa01, aaa01', qr/named twice/ ], [ 'priority: "aaa01', qr/quote is left open/ ],
	[ 'function: nowhere.f', qr/function nowhere\.f of the conflict strategy does not exist/ ], [ 'function: f(int)', qr/without its arguments/ ], [ 'function:', qr/Name the function/ ],
	[ 'function: a.b.c', qr/Name the function/ ])
{
	my ($strategy, $error) = @$_;
	$bad->("update_sync('sync', conflict_strategy => '$strategy')", $error, "sync: '$strategy'");
	$bad->("update_table('t', conflict_strategy => '$strategy')", $error, "table: '$strategy'");
}
foreach (
	[ 'first', qr/merge function public\.first gives another row when its two sides change places/ ], [ 'other_key', qr/gives a row with another key/ ],
	[ 'fails', qr/raises an error on rows of the table: no way/ ], [ 'path', qr/relation "own" does not exist/ ], [ 'set_of', qr/is no plain function/ ],
	[ 'wrong', qr/does not return public\.own/ ], [ 'one', qr/there is no function public\.one\(public\.own, public\.own\)/ ],
	[ 'foreign_code', qr/neither a superuser nor the table's owner/ ])
{
	my ($function, $error) = @$_;
	$bad->("update_table('own', conflict_strategy => 'function: $function')", $error, "function $function");
}
$bad->("update_table('own', conflict_strategy => 'function: here_only')", qr/there is no function public\.here_only.*on "aaa02"/s, 'function on one db only');
$bad->("update_sync('sync', conflict_strategy => 'function: fine')", qr/public\.t: .*there is no function public\.fine/s, 'a function that fits one of the tables');
$bad->("update_table('nowhere', conflict_strategy => 'latest')", qr/was not added/, 'unknown table');
$bad->("update_table('out', conflict_strategy => 'latest')", qr/was not added/, 'table that was not added');
$bad->("add_table('out', conflict_strategy => 'priority: nobody')", qr/db "nobody" does not exist/, 'add_table');
sql($a, q{ALTER TABLE own OWNER TO app});
$bad->("update_table('own', conflict_strategy => 'function: mine')", qr/owner may not execute/, 'function that the owner of the table may not execute');
sql($a, q{ALTER TABLE own OWNER TO CURRENT_USER});
is(sql($a, $config), $version, 'nothing has changed');
sql($a, "SELECT mmrepl.update_table('own', conflict_strategy => 'function: $_')") foreach qw(fine newer leaves);
is(sql($a, 'SELECT count(*) FROM out'), 0, 'a function that is tried leaves nothing');
sql($a, "SELECT mmrepl.update_table('own', conflict_strategy => 'sync')");
sql($a, q{SELECT mmrepl.add_dbgroup('one_way', '{aaa01:source,aaa02:target}')});
$bad->(q{add_sync('s', 'nothing', dbgroup => 'one_way', conflict_strategy => 'priority: aaa02')}, qr/relgroup "nothing" does not exist/, 'unknown relgroup');
sql($a, q{SELECT mmrepl.add_table('out', relgroup => 'outs')});
$bad->(q{add_sync('s', 'outs', dbgroup => 'one_way', conflict_strategy => 'priority: aaa02')}, qr/db "aaa02" is not a source of sync "s"/, 'a target does not write');

# Halted: nothing of it goes on, both say why, the history has the rows; what is no conflict flows before and after.
my $halt = sub {
	my ($name, $before, $x, $y) = @_;
	sql($a, $before) if $before;
	wait_synced(@nodes);
	$_->{mmrepl_link}->cut foreach @nodes;
	sql($a, $x);
	sql($b, $y);
	$_->{mmrepl_link}->heal foreach @nodes;
	poll_is($_, q{SELECT state ~ '^halted: .*strategy is abort' FROM mmrepl.syncs}, 't', "$name: halted, says " . $_->name) foreach @nodes;
	is(sql($_, q{SELECT state || ' ' || (last_error ~ 'strategy is abort') FROM mmrepl.status}), 'halted true', 'and status says why') foreach @nodes;
	return;
};
my $go_on = sub {
	my ($name) = @_;
	like(sql_error($a, q{SELECT mmrepl.wait_for_sync('sync', 1)}), qr/sync "sync" is halted.*DETAIL:.*strategy is abort.*resume/s, "$name: wait_for_sync says so");
	sql($b, q{SELECT mmrepl.resume('sync')});
};
$halt->('update', "INSERT INTO t VALUES (1, 'base')", "UPDATE t SET v = 'a' WHERE id = 1", "UPDATE t SET v = 'b' WHERE id = 1; INSERT INTO t VALUES (2, 'waits')");
is(sql($_, 'SELECT v FROM t WHERE id = 1'), $_ == $a ? 'a' : 'b', 'nothing is decided on ' . $_->name) foreach @nodes;
is(sql($a, 'SELECT count(*) FROM t WHERE id = 2'), 0, 'the batch waits as a whole');
like(sql($a, 'SELECT state FROM mmrepl.syncs'), qr/^halted: on db "aaa0[12]": conflict update_origin_differs in table "public\.t"/, 'the view of syncs says why');
# with nothing done it halts again
my $halted = sql($a, $config);
$go_on->('as it was');
poll_is($a, "SELECT config_version > $halted + 1 FROM mmrepl.local_node", 't', 'resumed and halted again');
poll_is($_, q{SELECT state ~ '^halted' FROM mmrepl.syncs}, 't', 'on ' . $_->name) foreach @nodes;
my $seen = join ',', map { sql($_, q{SELECT string_agg(DISTINCT resolution || ' ' || (local_row ->> 'v') || (remote_row ->> 'v'), ',') FROM mmrepl.conflict_history}) } @nodes;
like($seen, qr/abort (?:ab|ba)/, 'the rows are in the history of one of them');
# over a restart, too
$a->restart;
like(sql($a, 'SELECT state FROM mmrepl.syncs'), qr/^halted/, 'still halted after a restart');
# the rows made equal by hand
sql_all("UPDATE t SET v = 'both' WHERE id = 1", @nodes);
$go_on->('rows made equal');
wait_synced(@nodes);
same_rows('t', \@nodes);
is(sql($a, 'SELECT v FROM t WHERE id = 1'), 'both', 'as it was decided by hand');
# who is told of a conflict late, when somebody has looked at it already and resumed, does not halt it again
$a->{mmrepl_link}->cut;
sql($a, "UPDATE t SET v = 'late a' WHERE id = 1");
poll($b, "SELECT v = 'late a' FROM t WHERE id = 1");
my $held = session($b);
$held->query_safe("BEGIN; UPDATE t SET v = 'late b' WHERE id = 1");
sql($a, "UPDATE t SET v = 'late aa' WHERE id = 1");
poll_is($b, q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'mmrepl push%' AND wait_event_type = 'Lock'}, 1, 'a batch waits for a row');
my $pusher = worker_pid($a, 'pusher');
kill 'STOP', $pusher;
my $from = -s $b->logfile;
$held->query_safe('COMMIT');
$held->quit;
ok(log_like($b, qr/push 1\] ERROR:  .*strategy is abort/, $from), 'it has met a conflict');
sql($b, "UPDATE t SET v = 'late aa' WHERE id = 1");
$from = -s $a->logfile;
sql($b, "SELECT mmrepl.$_('sync')") foreach qw(pause resume);
kill 'CONT', $pusher;
$a->{mmrepl_link}->heal;
wait_synced(@nodes);
same_rows('t', \@nodes);
unlike(slurp_file($a->logfile, $from), qr/is halted/, 'it is not halted for what is over');
# another strategy
$halt->('delete', "INSERT INTO t VALUES (3, 'base')", 'DELETE FROM t WHERE id = 3', "UPDATE t SET v = 'b' WHERE id = 3");
sql($a, q{SELECT mmrepl.update_sync('sync', conflict_strategy => 'latest')});
is(sql($b, 'SELECT state FROM mmrepl.status'), 'halted', 'a strategy alone does not resume');
sql($a, q{SELECT mmrepl.resume('sync')});
wait_synced(@nodes);
is(sql($_, 'SELECT v FROM t WHERE id = 3'), 'b', 'settled by the newest on ' . $_->name) foreach @nodes;
sql($a, q{SELECT mmrepl.update_sync('sync', conflict_strategy => 'abort')});
# a unique value
$halt->('unique value', '', "INSERT INTO u VALUES (1, 'same')", "INSERT INTO u VALUES (2, 'same')");
is(sql($_, 'SELECT count(*) FROM u'), 1, 'no row is lost on ' . $_->name) foreach @nodes;
sql($b, q{UPDATE u SET v = 'other'});
$go_on->('value changed');
wait_synced(@nodes);
is(sql($_, 'SELECT string_agg(id || v, $$ $$ ORDER BY id) FROM u'), '1same 2other', 'both rows on ' . $_->name) foreach @nodes;
# what is no conflict: no matter
sql($a, q{INSERT INTO t VALUES (10, 'x'); UPDATE t SET v = 'y' WHERE id = 10});
wait_synced(@nodes);
sql($b, q{UPDATE t SET v = 'z' WHERE id = 10; INSERT INTO u VALUES (5, 'p'), (6, 'q')});
wait_synced(@nodes);
sql($a, q{UPDATE u SET v = 'r' WHERE id = 6; UPDATE u SET v = 'q' WHERE id = 5});
wait_synced(@nodes);
# the same on both sides
$_->{mmrepl_link}->cut foreach @nodes;
sql_all(q{INSERT INTO t VALUES (20, 'equal'); DELETE FROM t WHERE id = 10}, @nodes);
$_->{mmrepl_link}->heal foreach @nodes;
wait_synced(@nodes);
is(sql($a, q{SELECT state FROM mmrepl.syncs}), 'active', 'what is equal is no conflict');

finish(\@nodes, qr/terminat|could not connect|connection|server closed|strategy is abort|halted|configuration is being changed|unknown conflict|does not exist|cannot|named|neither|not added|left open|Name the|is not a source|paused/, qw(t u own));
