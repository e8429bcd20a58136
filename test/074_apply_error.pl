# Rows that cannot be applied (A11), two servers: each alone is set aside, whatever the reason, and what came with it is
# there; it comes by itself when it can; operators retry and discard; newer writes from anywhere settle it.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my ($a, $b) = my @nodes = map { new_node($_, conf => 'mmrepl.heartbeat_interval = 100') } qw(aaa01 aaa02);
sql_all(q{
	CREATE TABLE t (id int PRIMARY KEY, v int, pad text);
	CREATE TABLE twice (id int PRIMARY KEY, u int UNIQUE, v int);
	CREATE TABLE n (id int PRIMARY KEY, v int);
	CREATE TABLE x (id int PRIMARY KEY, r int4range);
	CREATE TABLE trig (id int PRIMARY KEY, v int);
	CREATE TABLE idx (id int PRIMARY KEY, v int);
	CREATE DOMAIN small AS int;
	CREATE TABLE dom (id int PRIMARY KEY, v small);
	CREATE TABLE col (id int PRIMARY KEY, v int);
	CREATE TABLE len (id int PRIMARY KEY, s varchar(20));
	CREATE TABLE js (id int PRIMARY KEY, v int, j json);
	CREATE TABLE enums (id int PRIMARY KEY, e text);
	CREATE TABLE del (id int PRIMARY KEY, v int);
	INSERT INTO del VALUES (1, 1), (2, 2)}, @nodes);
join_nodes(\@nodes, exclude => ['enums']);
wait_synced(@nodes);

# what stands aside on a node: "table key" of each
sub standing
{
	my ($node, $where) = @_;
	return sql($node, q{SELECT string_agg(tablename || ' ' || (key->>'id'), ', ' ORDER BY tablename, (key->>'id')::int) FROM mmrepl.apply_error}
		  . (defined $where ? " WHERE $where" : ''));
}

sub gone_is
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return poll_is($node, 'SELECT count(*) = 0 FROM mmrepl.apply_error', undef, $name);
}

# ---- rows that jsonb cannot hold (json can): they are kept as text, and nothing fails because of that
my $odd = q{'{"a": "\\u0000", "b": 1e1000000, "c": "\\ud800"}'};
sql($a, "INSERT INTO js VALUES (1, 1, $odd)");
wait_synced(@nodes);
sql($b, 'ALTER TABLE js ADD CONSTRAINT positive CHECK (v >= 0)');
sql($a, "INSERT INTO js VALUES (2, -1, $odd), (3, 1, $odd)");
wait_synced(@nodes);
is(sql($b, q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM js}), '1 3', 'such a row that is set aside holds nothing up');
like(sql($b, q{SELECT row FROM mmrepl.apply_error}), qr/u0000/, 'and is shown');
sql($b, 'ALTER TABLE js DROP CONSTRAINT positive');
gone_is($b, 'and comes');
sql($b, 'SELECT mmrepl.pause(name) FROM mmrepl.syncs');
sql($b, 'UPDATE js SET v = 2 WHERE id = 1');
sql($a, 'UPDATE js SET v = 3 WHERE id = 1');
sql($b, 'SELECT mmrepl.resume(name) FROM mmrepl.syncs');
wait_synced(@nodes);
is(sql($b, 'SELECT string_agg(t::text, $$;$$ ORDER BY id) FROM js t'), sql($a, 'SELECT string_agg(t::text, $$;$$ ORDER BY id) FROM js t'), 'such rows in a conflict');
like(join('', map { sql($_, q{SELECT local_row FROM mmrepl.conflict_history WHERE conflict_type = 'update_origin_differs'}) } @nodes), qr/u0000/, 'are in the history');
sql($_, 'TRUNCATE mmrepl.conflict_log') foreach @nodes;

# ---- one bad row among ten thousand, then ten
sql($b, 'ALTER TABLE t ADD CONSTRAINT positive CHECK (v >= 0)');
sql($a, "INSERT INTO t SELECT i, CASE i WHEN 7777 THEN -1 ELSE i END, repeat('x', 50) FROM generate_series(1, 10000) i");
wait_synced(@nodes);
is(sql($b, 'SELECT count(*) FROM t'), 9999, 'one bad row of ten thousand leaves the rest applied');
is(sql($b, q{SELECT tablename, key, op, sqlstate, constraint_name, row->>'v', source, db, sync, tries >= 1, detail LIKE '%7777%' FROM mmrepl.apply_error}),
	't|{"id": 7777}|insert|23514|positive|-1|aaa01|aaa01|sync|t|t', 'and it is in apply_error, with its reason and its row');
poll_is($b, q{SELECT apply_errors, state FROM mmrepl.status}, '1|errors', 'status says so');
poll_is($a, q{SELECT apply_errors, state FROM mmrepl.status}, '0|good', 'and not where it came from');
is(conflicts($b), 'apply_error|set_aside|1', 'the history of conflicts tells of it, once');
is(sql($b, q{SELECT value FROM mmrepl.metrics WHERE name = 'mmrepl_apply_errors'}), 1, 'so do the metrics');
poll_is($b, 'SELECT tries >= 3 FROM mmrepl.apply_error', undef, 'it is tried again');
is(conflicts($b), 'apply_error|set_aside|1', 'which the history does not tell each time');
sql($a, 'INSERT INTO t SELECT i, CASE WHEN i % 100 = 0 THEN -i ELSE i END FROM generate_series(20001, 21000) i');
wait_synced(@nodes);
is(sql($b, 'SELECT count(*) FROM t WHERE id > 20000'), 990, 'ten bad rows leave the rest applied');
is(sql($b, 'SELECT count(*) FROM mmrepl.apply_error'), 11, 'and are all there');

# ---- it becomes good by ALTER TABLE here
is(sql($b, "BEGIN; ALTER TABLE t DROP CONSTRAINT positive; SELECT mmrepl.retry_apply_error(sync => 'sync'); COMMIT"), 11, 'an operator need not wait');
gone_is($b, 'all of them are applied when they can be');
same_rows('t', \@nodes);
poll_is($b, q{SELECT apply_errors, state FROM mmrepl.status}, '0|good', 'status is good again');

# ---- the same, by itself, and with what the source has then
sql($b, 'ALTER TABLE t ADD CONSTRAINT positive CHECK (v >= 0) NOT VALID');
sql($a, 'UPDATE t SET v = -5 WHERE id = 1; UPDATE t SET v = -6 WHERE id = 2; UPDATE t SET v = -7 WHERE id = 3; DELETE FROM t WHERE id = 7777');
wait_synced(@nodes);
is(standing($b), 't 1, t 2, t 3', 'three updates stand aside');
is(sql($b, 'SELECT string_agg(v::text, $$ $$ ORDER BY id) FROM t WHERE id <= 3'), '1 2 3', 'the rows here are as they were');
sql($a, 'UPDATE t SET v = 55 WHERE id = 1');
wait_synced(@nodes);
is(standing($b), 't 2, t 3', 'a newer row of the source settles it');
sql($b, 'UPDATE t SET v = 66 WHERE id = 2');
wait_synced(@nodes);
poll_is($b, q{SELECT count(*) = 1 FROM mmrepl.apply_error}, undef, 'so does a newer row of this side');
is(sql($a, 'SELECT v FROM t WHERE id = 2'), 66, 'which stands on the other, too');
sql($a, 'DELETE FROM t WHERE id = 3');
wait_synced(@nodes);
gone_is($b, 'so does a newer delete');
same_rows('t', \@nodes);

# ---- discard
sql($a, 'UPDATE t SET v = -9 WHERE id = 4');
wait_synced(@nodes);
my $id = sql($b, 'SELECT id FROM mmrepl.apply_error');
is(sql($b, "SELECT mmrepl.discard_apply_error($id)"), 1, 'discarded');
like(sql_error($b, "SELECT mmrepl.discard_apply_error($id)"), qr/there is no row \d+/, 'once');
sql($b, 'ALTER TABLE t DROP CONSTRAINT positive');
sql($a, "INSERT INTO t VALUES (30000, 1)");
wait_synced(@nodes);
is(sql($b, 'SELECT v FROM t WHERE id = 4'), 4, 'the row stays as it is here');
is(standing($b), '', 'and nothing stands');
sql($a, 'UPDATE t SET v = 44 WHERE id = 4');
wait_synced(@nodes);
same_rows('t', \@nodes, name => 'until its next write');

# ---- all kinds of reasons at once, and what is next to them goes through
sql($b, q{
	ALTER TABLE n ALTER v SET NOT NULL;
	ALTER TABLE x ADD EXCLUDE USING gist (r WITH &&);
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF TG_OP = 'DELETE' THEN RAISE EXCEPTION 'no delete of %', OLD.id; END IF;
		IF NEW.v = 13 THEN RAISE EXCEPTION 'no 13 here' USING ERRCODE = 'P0001', DETAIL = 'bad luck'; END IF;
		RETURN NEW; END $$;
	CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON trig FOR EACH ROW EXECUTE FUNCTION refuse();
	ALTER TABLE trig ENABLE ALWAYS TRIGGER refuse;
	CREATE TRIGGER refuse AFTER DELETE ON del FOR EACH ROW EXECUTE FUNCTION refuse();
	ALTER TABLE del ENABLE ALWAYS TRIGGER refuse;
	CREATE FUNCTION inv(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1 / $1';
	CREATE INDEX inverse ON idx (inv(v));
	ALTER DOMAIN small ADD CHECK (VALUE < 100);
	ALTER TABLE len ALTER s TYPE varchar(5)});
sql($a, 'ALTER TABLE col ADD extra text');
sql($a, q{
	BEGIN;
	INSERT INTO n VALUES (1, 1), (2, NULL), (3, 3);
	INSERT INTO trig VALUES (1, 1), (2, 13), (3, 3);
	INSERT INTO idx VALUES (1, 1), (2, 0), (3, 3);
	INSERT INTO dom VALUES (1, 1), (2, 200), (3, 3);
	INSERT INTO col VALUES (1, 1, 'a'), (2, 2, NULL);
	INSERT INTO len VALUES (1, 'abc'), (2, 'abcdefgh'), (3, 'def');
	DELETE FROM del WHERE id = 1;
	UPDATE del SET v = 3 WHERE id = 2;
	COMMIT});
wait_synced(@nodes);
is(standing($b), 'col 1, col 2, del 1, dom 2, idx 2, len 2, n 2, trig 2', 'each reason sets its row aside');
is(sql($b, q{SELECT string_agg(DISTINCT tablename || ' ' || sqlstate, ', ' ORDER BY tablename || ' ' || sqlstate) FROM mmrepl.apply_error}),
	'col MR006, del P0001, dom 23514, idx 22012, len 22001, n 23502, trig P0001', 'with its SQLSTATE');
is(sql($b, q{SELECT row, op FROM mmrepl.apply_error WHERE tablename = 'col' AND key->>'id' = '1'}), '{"v": 1, "id": 1, "extra": "a"}|insert', 'the row is shown with columns that are not here');
is(sql($b, q{SELECT op || coalesce(row::text, ' no row') FROM mmrepl.apply_error WHERE tablename = 'del'}), 'delete no row', 'a delete has none');
is(sql($b, 'SELECT (SELECT count(*) FROM n), (SELECT count(*) FROM trig), (SELECT count(*) FROM idx), (SELECT count(*) FROM dom), (SELECT count(*) FROM len), (SELECT v FROM del WHERE id = 2)'),
	'2|2|2|2|2|3', 'and the rest of each table is there');
sql($b, q{
	ALTER TABLE n ALTER v DROP NOT NULL; DROP TRIGGER refuse ON trig; DROP TRIGGER refuse ON del; DROP INDEX inverse;
	ALTER DOMAIN small DROP CONSTRAINT small_check; ALTER TABLE len ALTER s TYPE varchar(20); ALTER TABLE col ADD extra text;
	SELECT mmrepl.retry_apply_error(sync => 'sync')});
gone_is($b, 'all are applied when their reasons are gone');
same_rows($_, \@nodes) foreach qw(n trig idx dom len col del);

# ---- a row that collides, and cannot be put in when that is settled; columns that only the receiver has stay
sql_all('ALTER TABLE twice ADD CONSTRAINT small CHECK (v < 100)', $b);
sql($b, 'ALTER TABLE twice ADD mine text');
sql($a, 'INSERT INTO twice VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3)');
wait_synced(@nodes);
sql($b, q{SET session_replication_role = replica; UPDATE twice SET mine = 'kept ' || id});
sql($a, 'BEGIN; UPDATE twice SET u = -1 WHERE id = 1; UPDATE twice SET u = 1 WHERE id = 2; UPDATE twice SET u = 2 WHERE id = 1; COMMIT');
wait_synced(@nodes);
is(sql($b, q{SELECT string_agg(id || ' ' || u || ' ' || mine, ', ' ORDER BY id) FROM twice}), '1 2 kept 1, 2 1 kept 2, 3 3 kept 3', 'a swap keeps what only this side has');
sql($a, 'BEGIN; UPDATE twice SET u = -1 WHERE id = 1; UPDATE twice SET u = 2, v = 200 WHERE id = 2; UPDATE twice SET u = 1, v = 10 WHERE id = 1; COMMIT');
wait_synced(@nodes);
is(standing($b), 'twice 2', 'of a swap one row cannot be put in');
is(sql($b, 'SELECT u || $$ $$ || mine FROM twice WHERE id = 1'), '1 kept 1', 'the other is');
sql($b, q{ALTER TABLE twice DROP CONSTRAINT small; SELECT mmrepl.retry_apply_error(sync => 'sync')});
gone_is($b, 'and follows when it can');
same_rows('twice', \@nodes, except => ['mine']);

# ---- exclusion constraints are collisions, not errors; TRUNCATE settles
sql($a, q{INSERT INTO x VALUES (1, '[1,5]')});
wait_synced(@nodes);
sql($b, 'ALTER TABLE n ADD CONSTRAINT c CHECK (v < 100)');
sql($a, 'INSERT INTO n VALUES (50, 500), (51, 501)');
wait_synced(@nodes);
is(standing($b), 'n 50, n 51', 'two stand aside');
sql($a, 'TRUNCATE n');
wait_synced(@nodes);
gone_is($b, 'TRUNCATE settles them');
sql($b, 'ALTER TABLE n DROP CONSTRAINT c');
same_rows('n', \@nodes);

# ---- nothing of it is felt where all is well
is(sql($a, 'SELECT count(*) FROM mmrepl.apply_error'), 0, 'the source has none');
finish(\@nodes, qr/violates|is paused|no 13 here|no delete of|division by zero|value too long|comes from a peer but does not exist|out of range|no row \d+ that cannot/, qw(t x));
