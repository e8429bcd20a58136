# Risk: two servers that are the same db, or one whose past is lost, replicate; or a failover that lost nothing is made hard. Method: a base backup
# started beside its original, a standby promoted while the primary lives and when it is dead, one that had not received everything,
# pg_rewind, a copy that was started while the original was down. Would pass wrongly if nothing flowed before: looked at.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

my ($one, $two) = my @all = pair_with_backup();
my $bad = q{SELECT bool_and(state = 'bad') FROM mmrepl.status};
my $well = q{SELECT bool_and(state = 'good') FROM mmrepl.status};

# a clone started by accident beside its original: the same identity in everything that the server knows of itself
my $clone = PostgreSQL::Test::Cluster->new('clone');
$clone->init_from_backup($one, 'base');
$clone->start;
poll_is($clone, q{SELECT count(*) FROM mmrepl.status WHERE state = 'bad' AND last_error ~ 'answers at the connection string of this db is another one'}, 1,
	'a clone sees that it is one');
sql($clone, "INSERT INTO t VALUES (100, 'of the clone')");
like(sql_error($clone, "SELECT mmrepl.add_relgroup('x')"), qr/does not take part any more.*DROP EXTENSION mmrepl in it/s, 'it configures nothing, and says what to do');
like(sql_error($clone, 'SELECT mmrepl.confirm_identity()'), qr/is another one/, 'it cannot be confirmed while the original is there');
like(sql_error($clone, 'SELECT mmrepl.rejoin()'), qr/another server answers to the connection string of db "aaa01"/, 'nor take its place');
poll_is($two, $well, 't', 'the others do not mind');
poll_is($one, $well, 't', 'nor does the original');
sql($one, "INSERT INTO t VALUES (21, 'goes on')");
wait_synced(@all);
is(sql($two, 'SELECT count(*) FROM t WHERE id = 100'), 0, 'nothing flows from the clone');
sql($clone, 'DROP EXTENSION mmrepl');
is(sql($clone, 'SELECT count(*) FROM t'), 21, 'without the extension it can be used by itself');
$clone->stop;

# promoted while its primary lives
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($one, 'base', has_streaming => 1);
$standby->start;
$one->wait_for_catchup($standby, 'replay', $one->lsn('insert'));
$standby->promote;
poll_is($standby, 'SELECT NOT pg_is_in_recovery()', 't', 'promoted');
poll_is($standby, q{SELECT state, last_error ~ 'on timeline 2, but .* on timeline 1' FROM mmrepl.status}, 'bad|t', 'it refuses');
sql($standby, "INSERT INTO t VALUES (101, 'of two primaries')");
like(sql_error($standby, 'SELECT mmrepl.confirm_identity()'), qr/is another one.*stop the other one/s, 'it cannot be confirmed while the primary is there');
poll_is($one, $well, 't', 'the primary goes on');
sql($one, "INSERT INTO t VALUES (22, 'goes on still')");
wait_synced(@all);
is(sql($two, 'SELECT count(*) FROM t WHERE id = 101'), 0, 'nothing flows from the promoted one');
$standby->stop;

# failover: the primary is dead, its standby had received everything, and is found at the same address
my $heir = PostgreSQL::Test::Cluster->new('heir');
$one->backup('second');
$heir->init_from_backup($one, 'second', has_streaming => 1);
$heir->start;
$one->wait_for_catchup($heir, 'replay', $one->lsn('insert'));
$one->stop;
$heir->promote;
poll_is($heir, 'SELECT NOT pg_is_in_recovery()', 't', 'the heir is promoted');
sql($heir, "INSERT INTO t VALUES (23, 'of the heir')");
sql($heir, 'SELECT mmrepl.confirm_identity()');
sql($two, sprintf "SELECT mmrepl.update_db('aaa01', '%s')", conninfo($heir));
poll_is($heir, $well, 't', 'it is confirmed at once');
wait_synced($heir, $two);
is(sql($two, 'SELECT v FROM t WHERE id = 23'), 'of the heir', 'what it captured before that flows');

# the old primary comes back as if nothing had been
$one->start;
poll_is($one, $bad, 't', 'the old primary refuses');
my $rejected = sql($one, q{SELECT string_agg(last_error, ' ') FROM mmrepl.status});
like($rejected, qr/has heard of a life of this database that this one has not had/, 'and says why');
sql($one, "INSERT INTO t VALUES (102, 'of the old primary')");
like(sql_error($one, 'SELECT mmrepl.rejoin()'), qr/another server answers to the connection string/, 'it cannot take the place of its heir');

# pg_rewind makes it a standby of the heir; started as a primary it would be a clone
$one->stop;
$heir->append_conf('pg_hba.conf', "local replication all trust\n");
$heir->reload;
my $keep = slurp_file($one->data_dir . '/postgresql.conf');
command_ok([ 'pg_rewind', '--target-pgdata', $one->data_dir, '--source-server', $heir->connstr('postgres'), '--no-sync' ], 'pg_rewind');
unlink $one->data_dir . '/postgresql.conf';
append_to_file($one->data_dir . '/postgresql.conf', $keep);
$one->start;
poll_is($one, q{SELECT count(*) FROM mmrepl.status WHERE state = 'bad' AND last_error ~ 'answers at the connection string of this db is another one'}, 1,
	'rewound and started as a primary it is a clone');
sql($one, "INSERT INTO t VALUES (103, 'rewound')");
poll_is($heir, $well, 't', 'the heir goes on');

# an heir that had not received everything
my $late = PostgreSQL::Test::Cluster->new('late');
$heir->backup('third');
$late->init_from_backup($heir, 'third', has_streaming => 1);
$late->start;
$heir->wait_for_catchup($late, 'replay', $heir->lsn('insert'));
$late->stop;
sql($heir, "INSERT INTO t VALUES (24, 'lost'), (25, 'lost')");
wait_synced($heir, $two);
$heir->stop;
$late->start;
$late->promote;
poll_is($late, 'SELECT NOT pg_is_in_recovery()', 't', 'the late one is promoted');
sql($late, "INSERT INTO t VALUES (26, 'of the late one')");
sql($late, 'DO $$ BEGIN FOR i IN 1 .. 100 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$');
like(sql_error($late, 'SELECT mmrepl.confirm_identity()'), qr/has applied changes of this database that are not here.*Call mmrepl\.rejoin\(\)/s, 'that something is lost is seen');
sql($two, sprintf "SELECT mmrepl.update_db('aaa01', '%s')", conninfo($late));
sql($late, 'SELECT mmrepl.rejoin()');
poll_is($late, $well, 't', 'it comes back by rejoin');
wait_synced($late, $two);
is(sql($_, 'SELECT count(*) FROM t WHERE id IN (24, 25, 26)'), 3, 'nothing is lost, ' . $_->name) foreach $late, $two;
same_rows('t', [ $late, $two ]);

# a copy of the files that is started while the original is down: it cannot know; but two of them cannot go on
$late->stop;
my $second = PostgreSQL::Test::Cluster->new('second');
PostgreSQL::Test::RecursiveCopy::copypath($late->data_dir, $second->data_dir);
chmod 0700, $second->data_dir;
$second->append_conf('postgresql.conf', "port = @{[ $second->port ]}\nunix_socket_directories = '@{[ $second->host ]}'\n");
$second->start;
sql($second, "INSERT INTO t VALUES (104, 'second')");
$late->start;
poll_is($late, $bad, 't', 'of two that are the same, one refuses');
like(sql($late, q{SELECT string_agg(last_error, ' ') FROM mmrepl.status}), qr/of this database that/, 'who comes second');
$second->stop;
sql($late, 'SELECT mmrepl.rejoin()');
poll_is($late, $well, 't', 'and can rejoin when the other one is gone');
wait_synced($late, $two);
same_rows('t', [ $late, $two ]);
is(sql($two, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM t WHERE id > 99"), '104', 'nothing else got through');
$_->stop foreach $one, $late, $two;
log_clean($two, qr/could not connect|has been put back|does not take part|configuration|another server|cannot be used|server closed|joins the sync|not joined|terminating|connection|claims to be it|is not in the|wrong database|does not exist/);
done_testing();
