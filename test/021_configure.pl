# Configuration: given on one db, known on all; from both, one after the other and at once; with a peer away; taken
# back without traces. Method: the documents of all dbs must be equal, triggers and sequences what they say. Passes
# wrongly if the documents were equal because nothing had been configured: so each step looks for what it did.
use strict;
use warnings;
use IPC::Run;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $one = new_node('aaa01');
my $two = new_node('aaa02');
my @both = ($one, $two);
my $document = 'SELECT mmrepl._config_document()';
my $version = 'SELECT config_version FROM mmrepl.local_node';
my $triggers = "SELECT coalesce(string_agg(DISTINCT tgrelid::regclass::text, ' ' ORDER BY tgrelid::regclass::text), '')"
  . " FROM pg_trigger WHERE tgname LIKE 'mmrepl%'";

sub same_document
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sql($two, $document), sql($one, $document), "$name: known on both");
	return;
}

sub says
{
	my ($node, $call) = @_;
	my ($rc, $out, $err) = $node->psql('app', "SELECT mmrepl.$call");
	return $err;
}

# names of every kind, as bytes
my $long = 'ü' x 31 . 'x';
my $dbname = q(it's "db" ä: 1);
sql($_, <<"SQL") foreach @both;
CREATE SCHEMA "Se ma";
CREATE TABLE "Se ma"."t ""x"" ' ä" ("k ""1"" ' ö" serial PRIMARY KEY, "v v" text);
CREATE TABLE "$long" ("$long" int PRIMARY KEY);
CREATE TABLE late (a serial PRIMARY KEY);
CREATE TABLE plain (a int PRIMARY KEY);
SQL
my $quoted = $dbname =~ s/'/''/gr;
sql($one, "CREATE EXTENSION mmrepl; SELECT mmrepl.add_db('$quoted', '" . conninfo($one) . "')");
sql($one, "SELECT mmrepl.add_db('$long', '" . conninfo($two) . "')");
same_document('two dbs');
sql($one, <<"SQL");
SELECT mmrepl.add_all_tables(exclude => '{late,plain}', relgroup => '$long');
SELECT mmrepl.add_all_sequences(schemas => '{Se ma}', relgroup => '$long');
SELECT mmrepl.add_sync('$long', '$long', array['$quoted:source', '$long:source'], onetimecopy => 2);
SQL
same_document('a sync');
is(sql($two, 'SELECT name FROM mmrepl.db ORDER BY node_id'), "$dbname\n$long", 'names of dbs are right');
is(sql($two, 'SELECT name, relgroup, dbgroup FROM mmrepl.sync'), "$long|$long|$long", 'names of groups are right');
my $members = qq("Se ma"."t ""x"" ' ä" "$long");
is(sql($_, $triggers), $members, 'triggers on ' . $_->name) foreach @both;
is(sql($one, "SELECT increment_by FROM pg_sequences WHERE schemaname = 'Se ma'"), '10', 'sequence interleaved here');
is(sql($one, "SELECT count(*) FROM mmrepl.validate_sync('$long')"), '0', 'the sync is sound');

# changed from the other db, while the sync runs
sql($two, "SELECT mmrepl.add_table('late', relgroup => '$long')");
same_document('a table added from the other db');
like(sql($_, $triggers), qr/\blate\b/, 'its triggers on ' . $_->name) foreach @both;
sql($one, "SELECT mmrepl.add_table('plain', relgroup => '$long')");
sql($two, "SELECT mmrepl.remove_table('plain')");
same_document('a table removed from the other db');
is(sql($_, $triggers . " AND tgrelid = 'plain'::regclass"), '', 'no triggers left on ' . $_->name) foreach @both;
sql($one, "SELECT mmrepl.update_sync('$long', new_name => 'sync')");
sql($two, "SELECT mmrepl.update_db('$quoted', new_name => 'aaa01'); SELECT mmrepl.update_db('$long', new_name => 'aaa02')");
same_document('new names');

# over connections of a role that may only call functions
sql_all("CREATE ROLE courier LOGIN; GRANT USAGE ON SCHEMA mmrepl TO courier; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA mmrepl TO courier", @both);
sql($one, "SELECT mmrepl.update_db('" . $_->name . "', conninfo => '" . conninfo($_) . " user=courier')") foreach @both;
sql($one, "SELECT mmrepl.add_table('plain', relgroup => '$long')");
same_document('by a role that is no superuser');
like(sql($_, $triggers), qr/\bplain\b/, 'triggers of a table it does not own on ' . $_->name) foreach @both;
sql($two, "SELECT mmrepl.remove_table('plain')");
is(sql($_, $triggers . " AND tgrelid = 'plain'::regclass"), '', 'taken back on ' . $_->name) foreach @both;

# documents that are not for this db
my $given = sql($one, $document) =~ s/'/''/gr;
is(sql($two, "SELECT mmrepl._config_receive('$given', 2, false)"), 'f', 'the same document again is nothing new');
is(sql($two, "SELECT mmrepl._config_receive('$given'::jsonb || '{\"version\": 1}', 2, false)"), 'f', 'nor is an older one');
like(sql_error($two, "SELECT mmrepl._config_receive('$given'::jsonb || '{\"version\": 1}', 2, true)"),
	qr/holds a newer configuration/, 'which is refused in a call that changes it');
like(sql_error($two, "SELECT mmrepl._config_receive('$given'::jsonb || '{\"version\": 1000, \"config_id\": \"00000000-0000-0000-0000-000000000000\"}', 2, false)"),
	qr/belongs to another configuration.*HINT:/s, 'one of another configuration is refused');
like(sql_error($two, "SELECT mmrepl._config_receive('$given'::jsonb || '{\"version\": 1000}', 1, false)"),
	qr/sent to the wrong database/, 'one for another db is refused');
like(sql_error($two, "SELECT mmrepl._config_receive('$given'::jsonb || '{\"version\": 1000, \"format\": 2}', 2, false)"),
	qr/unknown format.*HINT:/s, 'one of another format is refused');
like(sql_error($two, "SELECT mmrepl._config_receive('{\"db\": []}', 2, false)"), qr/unknown format/, 'one without anything is refused');
same_document('after all those');

# rolled back: nothing anywhere
my $before = sql($one, $document);
sql($one, "BEGIN; SELECT mmrepl.add_relgroup('gone'); ROLLBACK");
is(sql($_, $document), $before, 'rolled back on ' . $_->name) foreach @both;
like(sql_error($one, "BEGIN; SELECT mmrepl.add_relgroup('gone'); PREPARE TRANSACTION 'x'"), qr/cannot PREPARE/, 'no PREPARE');
like(sql_error($one, "BEGIN; SELECT mmrepl.add_relgroup('gone'); SAVEPOINT a; SELECT mmrepl.add_relgroup('half'); ROLLBACK TO a; COMMIT"),
	qr/cannot commit a change.*HINT:/s, 'no half transaction');
is(sql($_, $document), $before, 'refused commit left nothing on ' . $_->name) foreach @both;
sql($one, "BEGIN; SAVEPOINT a; SELECT mmrepl.add_relgroup('gone'); ROLLBACK TO a; SELECT mmrepl.add_relgroup('kept'); COMMIT");
same_document('after a savepoint');
is(sql($two, "SELECT string_agg(name, ',') FROM mmrepl.relgroup WHERE name IN ('gone', 'kept')"), 'kept', 'only what was kept');

# at once: one waits or gives up with a clear error, nobody hangs
my $session = session($one);
$session->query_safe("BEGIN; SELECT mmrepl.add_relgroup('slow')");
my $start = time;
like(sql_error($two, "SELECT mmrepl.add_relgroup('other')"), qr/configuration is being changed by another session.*HINT:/s, 'the other one gives up');
cmp_ok(time - $start, '<', 60, 'in bounded time');
$session->query_safe('COMMIT');
$session->quit;
same_document('after the wait');
my @started;
foreach my $round (1 .. 3)
{
	foreach my $node (@both)
	{
		my ($out, $err) = ('', '');
		push @started, [ IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('app'), '-c', "SELECT mmrepl.add_relgroup('" . $node->name . "_$round')" ],
				'>', \$out, '2>', \$err), \$err, $node->name . "_$round" ];
	}
}
my $done = 0;
foreach (@started)
{
	my ($run, $err, $name) = @$_;
	$run->finish;
	my $there = sql($one, "SELECT count(*) FROM mmrepl.relgroup WHERE name = '$name'");
	$done += $there;
	ok($there ? $$err !~ /ERROR/ : $$err =~ /configuration is being changed|newer configuration/, "$name: " . ($there ? 'done' : 'refused'))
	  or diag($$err);
}
cmp_ok($done, '>', 0, 'some of those that came at once got through');
same_document('after the crowd');

# a peer away: what needs it is refused, the rest reaches it later; first without pushers
sql_all('SELECT mmrepl.stop()', @both);
$two->stop;
$before = sql($one, $document);
like(sql_error($one, "SELECT mmrepl.add_sync('second', 'kept', '{aaa01:source,aaa02:source}')"), qr/"aaa02" cannot be used: could not connect/,
	'a sync with a db that is away is refused');
is(sql($one, $document), $before, 'and nothing has changed');
like(says($one, "add_relgroup('missed')"), qr/WARNING:.*"aaa02" cannot be reached: it gets the new configuration/, 'told that one is away');
$two->start;
like(says($two, "add_relgroup('after')"), qr/NOTICE:.*newer configuration/, 'who comes back takes over what it missed before it changes anything');
is(sql($two, "SELECT count(*) FROM mmrepl.relgroup WHERE name IN ('missed', 'after')"), '2', 'both changes are there');
same_document('after it came back');
sql_all('SELECT mmrepl.start()', @both);
$two->stop;
sql($one, "SELECT mmrepl.add_relgroup('missed too')");
my $want = sql($one, $version);
$two->start;
poll_is($two, $version, $want, 'who comes back is given the configuration by the pushers');
same_document('after it came back and nobody configured');
$one->stop;
sql($two, "SELECT mmrepl.add_relgroup('missed here')");
$want = sql($two, $version);
$one->start;
poll_is($one, $version, $want, 'the same the other way round');

# taken back
sql($one, "SELECT mmrepl.remove_sync('sync')");
same_document('sync removed');
foreach my $node (@both)
{
	is(sql($node, $triggers), '', 'no triggers left on ' . $node->name);
	is(sql($node, 'SELECT count(*) FROM pg_sequences WHERE increment_by <> 1'), '0', 'sequences are what they were on ' . $node->name);
	is(sql($node, 'SELECT count(*) FROM mmrepl.progress') + sql($node, 'SELECT count(*) FROM mmrepl.peer_state'), 0,
		'no progress left on ' . $node->name);
	is(sql($node, 'INSERT INTO late DEFAULT VALUES RETURNING 1'), '1', 'tables work on ' . $node->name);
}
sql($two, "SELECT mmrepl.remove_db('aaa02')");
is(sql($two, 'SELECT node_id, config_id FROM mmrepl.local_node') . sql($two, 'SELECT count(*) FROM mmrepl.db'), '|0', 'a removed db knows nothing more');
is(sql($one, 'SELECT string_agg(name, \',\') FROM mmrepl.db'), 'aaa01', 'and is not known any more');
sql($one, "SELECT mmrepl.add_db('aaa02', '" . conninfo($two) . " user=courier')");
is(sql($two, 'SELECT node_id FROM mmrepl.local_node'), '3', 'it comes back under a new id');
same_document('added again');

# the extension goes while a sync runs: the tables stay
sql($one, "SELECT mmrepl.add_table('late', relgroup => 'last'); SELECT mmrepl.add_all_sequences(relgroup => 'last');"
	. "SELECT mmrepl.add_sync('last', 'last', '{aaa01,aaa02}')");
is(sql($one, 'SELECT string_agg(role, \',\' ORDER BY pos) FROM mmrepl.dbgroup_db WHERE dbgroup = \'last\''), 'source,target', 'roles when none is given');
is(sql($one, $triggers), 'late', 'the source captures');
is(sql($two, $triggers), '', 'the target does not');
sql_all('DROP EXTENSION mmrepl', @both);
foreach my $node (@both)
{
	is(sql($node, $triggers), '', 'DROP EXTENSION leaves no trigger on ' . $node->name);
	is(sql($node, 'SELECT count(*) FROM pg_sequences WHERE increment_by <> 1'), '0', 'and sequences as they were on ' . $node->name);
	is(sql($node, 'INSERT INTO late DEFAULT VALUES RETURNING 1'), '1', 'tables work on ' . $node->name);
}
$_->stop foreach @both;
log_clean($_, qr/unknown format|is stopped at the receiver|terminating background worker|wrong database|another configuration|cannot PREPARE|cannot commit|configuration is being changed|newer configuration|could not connect|cannot be used|terminating connection|connection to client lost|shutting down|starting up/)
  foreach @both;
done_testing();
