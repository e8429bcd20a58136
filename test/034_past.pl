# Risk: a server that was put back to an earlier state gives out transaction numbers again that its peer counts as applied, and what it
# writes then is skipped for ever; or it has used up so many when they meet that nothing looks wrong. Method: its data directory is copied, it goes on, the copy is put back. Would pass wrongly if it
# refused before as well: looked at. Also here: a member that is not there any more is told of.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

my ($one, $two) = my @nodes = map { new_node($_) } qw(aaa01 aaa02);
sql_all('CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY)', @nodes);
join_nodes(\@nodes, copy => 2);
sql($one, "INSERT INTO t VALUES ($_, 'before')") foreach 1 .. 5;
wait_synced(@nodes);

# a table that is renamed on one side: the rest goes on, and status does not say good
sql($one, 'ALTER TABLE other RENAME TO something');
poll_is($one, q{SELECT state, last_error FROM mmrepl.status}, 'bad|table "public.other" of the sync does not exist here',
	'a renamed table is told of');
sql($one, "INSERT INTO t VALUES (6, 'goes on')");
poll_is($two, 'SELECT v FROM t WHERE id = 6', 'goes on', 'others go on meanwhile');
sql($one, 'ALTER TABLE something RENAME TO other');
poll_is($one, 'SELECT state FROM mmrepl.status', 'good', 'under its old name it is well again');
wait_synced(@nodes);

# the past of the first server
$one->stop;
my $past = $one->basedir . '/past';
PostgreSQL::Test::RecursiveCopy::copypath($one->data_dir, $past);
$one->start;
poll_is($one, 'SELECT state FROM mmrepl.status', 'good', 'stopped and started it is still itself');
sql($one, "INSERT INTO t VALUES ($_, 'lost')") foreach 10 .. 30;
wait_synced(@nodes);
is(sql($two, "SELECT count(*) FROM t WHERE v = 'lost'"), 21, 'the peer has what will be lost');
$one->stop('immediate');
File::Path::rmtree($one->data_dir);
PostgreSQL::Test::RecursiveCopy::copypath($past, $one->data_dir);
chmod 0700, $one->data_dir;
# numbers of transactions are used up before they meet: that the position there is in the future tells nothing then
$two->stop;
$one->start;
sql($one, 'DO $$ BEGIN FOR i IN 1 .. 300 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$');
$two->start;
my $refused = q{SELECT state, last_error ~ 'has (heard of a life|applied changes) of this database' FROM mmrepl.status};
poll_is($one, $refused, 'bad|t', 'a server put back to its past does not push');
poll_is($two, q{SELECT state, last_error ~ 'has been put back|does not take part' FROM mmrepl.status}, 'bad|t', 'nor is it pushed to');
$one->restart;
is(sql($one, 'SELECT refused IS NOT NULL FROM mmrepl.local_node'), 't', 'it keeps that in mind');
poll_is($one, $refused, 'bad|t', 'for ever');
like(sql_error($one, 'SELECT mmrepl.confirm_identity()'), qr/life of this database that this one has not had/, 'it cannot be confirmed');
like(sql_error($one, "SELECT mmrepl.add_relgroup('x')"), qr/does not take part any more/, 'nor configure the others');
sql($one, "INSERT INTO t VALUES (100, 'new life')");
is(sql($one, "SELECT mmrepl.wait_for_sync('sync', 1)"), 'f', 'nothing flows from it');
is(sql($two, 'SELECT count(*) FROM t WHERE id = 100'), 0, 'nothing arrives');
like(slurp_file($one->logfile), qr/HINT:  Call mmrepl\.rejoin\(\) here/, 'the log says what to do');

# what the hint says
sql($one, 'DROP EXTENSION mmrepl');
sql($two, 'SELECT mmrepl.remove_sync(\'sync\')');
sql($two, "SELECT mmrepl.remove_db('aaa01')");
sql($two, sprintf "SELECT mmrepl.add_db('aaa01', '%s')", conninfo($one));
sql($two, q{SELECT mmrepl.add_sync('sync', relgroup => 'herd', dbs => '{aaa02:source,aaa01:source}', onetimecopy => 1)});
wait_synced(@nodes);
is(sql($one, "SELECT count(*) FROM t WHERE v = 'lost'"), 21, 'what was lost is back');
sql($one, "INSERT INTO t VALUES (200, 'newer life')");
finish(\@nodes, qr/that are not here|that this one has not had|does not take part|put back to an earlier|does not exist|terminating|not there any more|could not connect|connection to client lost|has not confirmed|WARNING/,
	qw(t other));
