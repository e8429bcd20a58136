# Bad input: each case gets its own error with a hint, and changes nothing on either side. Method: the document, the
# triggers and the sequences of both dbs before and after. Passes wrongly if the document left something out.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $one = new_node('aaa01');
my $two = new_node('aaa02');
my $bare = new_node('bare', preload => 0);
my $few = new_node('few', conf => "max_worker_processes = 3\n");
my ($ca, $cb, $cfew) = map { conninfo($_) } $one, $two, $few;

# a role that needs a password, and has one
$two->safe_psql('postgres', "SET password_encryption = 'scram-sha-256'; CREATE ROLE locked LOGIN PASSWORD 'right'");
my $hba = slurp_file($two->data_dir . '/pg_hba.conf');
append_to_file($two->data_dir . '/pg_hba.conf.new', "local all locked scram-sha-256\n$hba");
rename($two->data_dir . '/pg_hba.conf.new', $two->data_dir . '/pg_hba.conf') or die;
$two->reload;

sql_all(<<'SQL', $one, $two);
CREATE TABLE good (id serial PRIMARY KEY, v text);
CREATE TABLE nokey (a int);
CREATE TABLE uq (a int, b int NOT NULL, c int NOT NULL);
CREATE UNIQUE INDEX uq_null ON uq (a);
CREATE UNIQUE INDEX uq_part ON uq (b) WHERE b > 0;
CREATE UNIQUE INDEX uq_expr ON uq ((b + c));
CREATE INDEX uq_dup ON uq (b);
CREATE UNIQUE INDEX uq_good ON uq (b);
ALTER TABLE uq ADD CONSTRAINT uq_defer UNIQUE (c) DEFERRABLE;
CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY);
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE distant (a int) SERVER elsewhere;
CREATE VIEW seen AS SELECT 1 AS a;
CREATE TABLE other (a int PRIMARY KEY);
SQL
sql($one, <<'SQL');
CREATE TABLE here_only (a int PRIMARY KEY);
CREATE SEQUENCE here_seq;
CREATE TABLE d1 (a int PRIMARY KEY, b int, c varchar(12), e int, g int GENERATED ALWAYS AS (b + 1) STORED);
CREATE TABLE d2 (x int NOT NULL, y int PRIMARY KEY);
CREATE TABLE d3 (x int, y text COLLATE "C", PRIMARY KEY (x));
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE d4 (x int PRIMARY KEY, m mood);
CREATE ROLE plain LOGIN;
SQL
sql($two, <<'SQL');
CREATE TABLE d1 (a int PRIMARY KEY, b text, c varchar(10), g int);
CREATE TABLE d2 (x int PRIMARY KEY, y int NOT NULL);
CREATE TABLE d3 (x int, y text);
CREATE TYPE mood AS ENUM ('good', 'bad', 'ugly');
CREATE TABLE d4 (x int PRIMARY KEY, m mood);
SQL

# before there is anything
sql($one, 'CREATE EXTENSION mmrepl');
like(sql_error($one, "SELECT mmrepl.add_db('aaa02', '$cb')"), qr/this database is not a db yet.*HINT:/s, 'the first db is this one');
is(sql($two, "SELECT count(*) FROM pg_extension WHERE extname = 'mmrepl'"), '0', 'no extension was left there');
sql($bare, 'CREATE EXTENSION mmrepl');
like(sql_error($bare, "SELECT mmrepl.add_db('x', 'dbname=x')"), qr/must be loaded when the server starts.*HINT:.*shared_preload_libraries/s,
	'not preloaded here');
sql($bare, 'DROP EXTENSION mmrepl');

sql($one, <<"SQL");
SELECT mmrepl.add_db('aaa01', '$ca');
SELECT mmrepl.add_db('aaa02', '$cb');
SELECT mmrepl.add_table('good', relgroup => 'herd');
SELECT mmrepl.add_all_sequences(relgroup => 'herd', exclude => '{here_seq}');
SELECT mmrepl.add_sync('first', 'herd', '{aaa01:source,aaa02:source}');
SELECT mmrepl.add_table('d1', relgroup => 'bad');
SELECT mmrepl.add_table('d2', relgroup => 'bad');
SELECT mmrepl.add_table('d3', relgroup => 'bad');
SELECT mmrepl.add_table('d4', relgroup => 'bad');
SELECT mmrepl.add_table('here_only', relgroup => 'bad');
SELECT mmrepl.add_sequence('here_seq', relgroup => 'bad');
SELECT mmrepl.add_table('other', relgroup => 'fine');
SQL

my $state = q(SELECT mmrepl._config_document(), (SELECT string_agg(tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text, ',' ORDER BY 1)
	FROM pg_trigger WHERE NOT tgisinternal), (SELECT string_agg(seqrelid::regclass || ' ' || seqincrement, ',' ORDER BY 1) FROM pg_sequence),
	(SELECT string_agg(extname, ',' ORDER BY 1) FROM pg_extension));

sub bad
{
	my ($name, $call, $error, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @nodes = @{ $opt{nodes} // [ $one, $two ] };
	my $before = join "\n", map { sql($_, $state) } @nodes;
	my $got = sql_error($opt{on} // $nodes[0], ($opt{before} // '') . "SELECT mmrepl.$call");
	like($got, $error, $name);
	like($got, qr/^HINT:/m, "$name: has a hint") if $opt{hint} // 1;
	unlike($got, qr/geheim|wrong/, "$name: tells no secret");
	my $after = join "\n", map { sql($_, $state) } @nodes;
	is($after, $before, "$name: nothing has changed");
	return $got;
}

# dbs
my $none = PostgreSQL::Test::Cluster::get_free_port();
bad('server unreachable', "add_db('x', 'host=127.0.0.1 port=$none dbname=app')", qr/could not connect to 127\.0\.0\.1:$none\/app/);
bad('no such database', "add_db('x', '@{[ $cb =~ s/dbname=app/dbname=nowhere/r ]}')", qr/database "nowhere" does not exist/);
bad('wrong password', "add_db('x', '$cb user=locked password=wrong')", qr/password authentication failed/);
bad('no password', "add_db('x', '$cb user=locked')", qr/fe_sendauth: no password supplied|password/);
bad('role may not create the extension', "add_db('x', '@{[ $cb =~ s/dbname=app/dbname=postgres/r ]} user=locked password=right')",
	qr/permission denied/);
bad('unknown option', "add_db('x', '$cb passwort=geheim')", qr/invalid connection string/);
bad('option not allowed', "add_db('x', '$cb service=y')", qr/connection option "service" is not allowed/);
bad('no dbname', "add_db('x', 'host=h password=geheim')", qr/names no database/);
bad('not preloaded there', "add_db('x', '" . conninfo($bare) . "')", qr/mmrepl is not preloaded on the server of db "x"/);
is(sql($bare, "SELECT count(*) FROM pg_extension WHERE extname = 'mmrepl'"), '0', 'not preloaded there: no extension was left');
bad('same name twice', "add_db('aaa02', '$cb')", qr/db "aaa02" already exists/);
bad('same database twice', "add_db('x', '$cb')", qr/db "x" is the same database as db "aaa02"/);
bad('this database twice', "add_db('x', '$ca')", qr/db "x" is the same database as db "aaa01"/);
bad('name too long', "add_db('" . ('n' x 64) . "', '$cb')", qr/argument "name" is too long/);
bad('empty name', "add_db('', '$cb')", qr/argument "name" must not be empty/);
bad('unknown db', "remove_db('nobody')", qr/db "nobody" does not exist/);
bad('db in use', "remove_db('aaa02', force => true)", qr/sync "first" cannot do without db "aaa02"/);

$few->safe_psql('postgres', 'CREATE DATABASE odd ENCODING \'LATIN1\' LOCALE \'C\' TEMPLATE template0; CREATE DATABASE proto');
my $codd = $cfew =~ s/dbname=app/dbname=odd/r;
bad('other encoding', "add_db('x', '$codd')", qr/has another encoding/) if sql($one, 'SHOW server_encoding') ne 'LATIN1';
$few->safe_psql('proto', q(CREATE EXTENSION mmrepl;
	CREATE OR REPLACE FUNCTION mmrepl._protocol_version() RETURNS int4 LANGUAGE sql AS 'SELECT 99'));
bad('other protocol version', "add_db('x', '@{[ $cfew =~ s/dbname=app/dbname=proto/r ]}')", qr/another version of mmrepl.*99/s);

# members
bad('no primary key', "add_table('nokey')", qr/has no primary key/);
bad('key not unique', "add_table('uq', key => 'uq_dup')", qr/index "uq_dup" is not unique/);
bad('key partial', "add_table('uq', key => 'uq_part')", qr/index "uq_part" is partial/);
bad('key nullable', "add_table('uq', key => 'uq_null')", qr/may be NULL: "a"/);
bad('key deferrable', "add_table('uq', key => 'uq_defer')", qr/index "uq_defer" is deferrable/);
bad('key with an expression', "add_table('uq', key => 'uq_expr')", qr/index "uq_expr" has an expression/);
bad('no such index', "add_table('uq', key => 'nowhere')", qr/has no index "nowhere"/);
bad('unknown table', "add_table('nowhere')", qr/table "nowhere" does not exist/);
bad('unlogged table', "add_table('unlogged')", qr/is unlogged/);
bad('temporary table', "add_table('temporary')", qr/is temporary/, before => 'CREATE TEMP TABLE temporary (a int PRIMARY KEY);');
bad('foreign table', "add_table('distant')", qr/is a foreign table/);
bad('view', "add_table('seen')", qr/is a view/);
bad('system table', "add_table('pg_class')", qr/belongs to the system/);
bad('own table', "add_table('mmrepl.db')", qr/belongs to mmrepl itself/);
bad('table that was not added', "remove_table('other_one')", qr/was not added/);
bad('unknown sequence', "add_sequence('nowhere')", qr/sequence "nowhere" does not exist/);
bad('unknown relgroup', "remove_relgroup('nowhere')", qr/relgroup "nowhere" does not exist/);
bad('relgroup in use', "remove_relgroup('herd')", qr/relgroup "herd" is used by a sync/);
bad('missing at the peer, into a running sync', "add_table('here_only', relgroup => 'herd')", qr/public\.here_only: does not exist on "aaa02"/);

# syncs
bad('unknown relgroup of a sync', "add_sync('s', 'nowhere', '{aaa01,aaa02}')", qr/relgroup "nowhere" does not exist/);
bad('unknown db of a sync', "add_sync('s', 'fine', '{aaa01,nobody}')", qr/db "nobody" does not exist/);
bad('unknown dbgroup of a sync', "add_sync('s', 'fine', dbgroup => 'nobody')", qr/dbgroup "nobody" does not exist/);
bad('unknown sync', "remove_sync('nowhere')", qr/sync "nowhere" does not exist/);
bad('sync twice', "add_sync('first', 'fine', '{aaa01,aaa02}')", qr/sync "first" already exists/);
bad('sync of one db', "add_sync('s', 'fine', '{aaa01}')", qr/needs at least two dbs/);
bad('unknown role', "add_sync('s', 'fine', '{aaa01:king,aaa02}')", qr/unknown role "king"/);
bad('no source', "add_sync('s', 'fine', '{aaa01:target,aaa02:target}')", qr/none of the dbs is a source/);
bad('unknown strategy', "add_sync('s', 'fine', '{aaa01,aaa02}', conflict_strategy => 'bucardo_source')", qr/unknown conflict strategy/);
bad('unknown copy', "add_sync('s', 'fine', '{aaa01,aaa02}', onetimecopy => 3)", qr/onetimecopy cannot be 3/);
bad('same table between the same dbs', "add_sync('s', 'herd', '{aaa02:source,aaa01:target}')",
	qr/public\.good: sync "first" already replicates it between the same dbs/);
my $all = bad('all that differs', "add_sync('s', 'bad', '{aaa01:source,aaa02:source}')", qr/cannot replicate what it is to hold/);
like($all, $_, "all that differs: $_") foreach
	qr/public\.d1: column "b" is integer on "aaa01", text on "aaa02"/,
	qr/public\.d1: column "c" is character varying\(12\) on "aaa01", character varying\(10\) on "aaa02"/,
	qr/public\.d1: column "e" is integer on "aaa01", missing on "aaa02"/,
	qr/public\.d1: column "g" is integer generated on "aaa01", integer on "aaa02"/,
	qr/public\.d2: the key is \(y\) on "aaa01", \(x\) on "aaa02"/,
	qr/public\.d3: has no primary key on "aaa02"/,
	qr/public\.d3: column "y" is text collate "C" on "aaa01", text on "aaa02"/,
	qr/public\.d4: column "m" is public\.mood \(good, bad\) on "aaa01", public\.mood \(good, bad, ugly\) on "aaa02"/,
	qr/public\.here_only: does not exist on "aaa02"/,
	qr/public\.here_seq: does not exist on "aaa02"/;

# who
bad('a role that may not', "add_relgroup('x')", qr/permission denied/, before => 'SET ROLE plain;', hint => 0);

# too few worker slots, there and here
sql($one, "SELECT mmrepl.add_db('few', '$cfew')");
bad('too few workers there', "add_sync('s', 'fine', '{aaa01:source,few:source}')", qr/public\.other: does not exist on "few"/,
	nodes => [ $one, $two, $few ]);
sql($few, 'CREATE TABLE other (a int PRIMARY KEY)');
foreach my $from ([ $one, 'there' ], [ $few, 'here' ])
{
	bad("too few workers $from->[1]", "add_sync('s', 'fine', '{aaa01:source,few:source}')", qr/not enough worker processes/,
		nodes => [ $one, $two, $few ], on => $from->[0]);
}

# part of another configuration
my $own = new_node('own');
sql($own, 'CREATE EXTENSION mmrepl');
sql($own, "SELECT mmrepl.add_db('own', '" . conninfo($own) . "')");
bad('part of another configuration', "add_db('own', '" . conninfo($own) . "')", qr/already has a configuration of its own/,
	nodes => [ $one, $two, $few, $own ]);

# nothing secret in a log
foreach my $node ($one, $two, $few, $bare, $own)
{
	unlike(slurp_file($node->logfile), qr/geheim|password=wrong|password=right/, 'no secret in the log of ' . $node->name);
	$node->stop;
	ok(!grep({ /PANIC|TRAP:|was not closed|\bleak|terminated by signal/ } split /\n/, slurp_file($node->logfile)), 'log of ' . $node->name);
}
done_testing();
