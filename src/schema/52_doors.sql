-- What users call to configure.  Each call does its work on all dbs, or fails and changes nothing.

CREATE FUNCTION mmrepl.add_db(name text, conninfo text, dbgroup text DEFAULT NULL, role text DEFAULT 'source',
        onetimecopy int4 DEFAULT NULL, copy_from text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_add_db';
REVOKE ALL ON FUNCTION mmrepl.add_db(text, text, text, text, int4, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.add_db(text, text, text, text, int4, text) IS
    'takes a name and a libpq connection string by which every db can reach that database; connects, checks, creates the extension there; the first one added must be this database; with a dbgroup it joins the syncs of that, as update_dbgroup would have it (onetimecopy, copy_from); raises what stands in the way';

CREATE FUNCTION mmrepl.update_db(name text, conninfo text DEFAULT NULL, new_name text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_update_db';
REVOKE ALL ON FUNCTION mmrepl.update_db(text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.update_db(text, text, text) IS
    'takes the name of a db, and a new connection string and a new name (NULL: stays); the string must lead to the same database';

CREATE FUNCTION mmrepl.remove_db(name text, force bool DEFAULT false, timeout float8 DEFAULT 60) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_remove_db';
REVOKE ALL ON FUNCTION mmrepl.remove_db(text, bool, float8) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.remove_db(text, bool, float8) IS
    'takes the name of a db; takes it out of all its dbgroups and of the configuration, which it then holds no more; the extension stays there; without force it first delivers what was written there, within timeout seconds each time (55000), and its clients wait at the end of that; force: it is lost for good';

CREATE FUNCTION mmrepl._hold_writers() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_hold_writers';
REVOKE ALL ON FUNCTION mmrepl._hold_writers() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._hold_writers() IS
    'takes nothing; locks the tables that are captured here against writing until the transaction ends; raises 55P03 when a transaction is in the way';

CREATE FUNCTION mmrepl.add_dbgroup(name text, dbs text[]) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_add_dbgroup';
REVOKE ALL ON FUNCTION mmrepl.add_dbgroup(text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.add_dbgroup(text, text[]) IS
    'takes a name and dbs as in {aaa01:source,aaa02:target}; without a role the first is a source and the others are targets; a source that is the hub exchanges with all, the others with it alone';

CREATE FUNCTION mmrepl.update_dbgroup(name text, dbs text[] DEFAULT NULL, new_name text DEFAULT NULL,
        onetimecopy int4 DEFAULT NULL, copy_from text DEFAULT NULL, force bool DEFAULT false, timeout float8 DEFAULT 60) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_update_dbgroup';
REVOKE ALL ON FUNCTION mmrepl.update_dbgroup(text, text[], text, int4, text, bool, float8) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.update_dbgroup(text, text[], text, int4, text, bool, float8) IS
    'takes the name of a group, the dbs that are to be in it (all of them) and a new name (NULL: stays); syncs that use it follow: a db that comes in gets a copy of all tables from copy_from (NULL: the source that has been in for longest); onetimecopy 0 copies nothing, 1 replaces what the db has, 2 fills what is empty there, NULL copies and raises 55000 unless all is empty there; a source that goes out, or becomes a target, delivers first what was written there, as with remove_db (force, timeout)';

CREATE FUNCTION mmrepl.remove_dbgroup(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_remove_dbgroup';
REVOKE ALL ON FUNCTION mmrepl.remove_dbgroup(text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.remove_dbgroup(text) IS
    'takes the name of a group of dbs that no sync uses; removes it';

CREATE FUNCTION mmrepl.add_relgroup(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_add_relgroup';
REVOKE ALL ON FUNCTION mmrepl.add_relgroup(text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.add_relgroup(text) IS
    'takes a name; makes an empty group of tables and sequences (the functions that add some make it themselves)';

CREATE FUNCTION mmrepl.remove_relgroup(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_remove_relgroup';
REVOKE ALL ON FUNCTION mmrepl.remove_relgroup(text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.remove_relgroup(text) IS
    'takes the name of a relgroup that no sync uses; removes it, its tables and sequences stay known';

CREATE FUNCTION mmrepl.add_table(tbl text, key text DEFAULT NULL, relgroup text DEFAULT NULL, conflict_strategy text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_add_table';
REVOKE ALL ON FUNCTION mmrepl.add_table(text, text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.add_table(text, text, text, text) IS
    'takes a table (as regclass takes it), the unique index that identifies its rows on all dbs (NULL: the one it has already, or the primary key), a relgroup to put it into and a conflict strategy (NULL: the one it has already, or the sync''s); syncs that use the relgroup replicate it from then on';

CREATE FUNCTION mmrepl.update_table(tbl text, conflict_strategy text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_update_table';
REVOKE ALL ON FUNCTION mmrepl.update_table(text, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.update_table(text, text) IS
    'takes a table that was added, and a conflict strategy as add_sync takes it (NULL: stays; sync: none of its own any more); raises what does not fit on one of the dbs';

CREATE FUNCTION mmrepl.remove_table(tbl text, relgroup text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_remove_table';
REVOKE ALL ON FUNCTION mmrepl.remove_table(text, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.remove_table(text, text) IS
    'takes a table, also one that exists no more, and a relgroup to take it out of (NULL: out of all, and forget it); its rows stay as they are everywhere';

CREATE FUNCTION mmrepl.add_all_tables(schemas text[] DEFAULT NULL, exclude text[] DEFAULT '{}', relgroup text DEFAULT NULL) RETURNS int4
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_add_all_tables';
REVOKE ALL ON FUNCTION mmrepl.add_all_tables(text[], text[], text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.add_all_tables(text[], text[], text) IS
    'takes schemas (NULL: all but the system''s), names to leave out (name or schema.name, * for anything) and a relgroup; adds every table that can be replicated, says which cannot; gives how many';

CREATE FUNCTION mmrepl.add_sequence(seq text, mode text DEFAULT NULL, relgroup text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_add_sequence';
REVOKE ALL ON FUNCTION mmrepl.add_sequence(text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.add_sequence(text, text, text) IS
    'takes a sequence (as regclass takes it), a mode (interleave, copy; NULL: interleave in a sync with several sources, else copy) and a relgroup to put it into';

CREATE FUNCTION mmrepl.remove_sequence(seq text, relgroup text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_remove_sequence';
REVOKE ALL ON FUNCTION mmrepl.remove_sequence(text, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.remove_sequence(text, text) IS
    'takes a sequence and a relgroup to take it out of (NULL: out of all, and forget it); its increment becomes what it was';

CREATE FUNCTION mmrepl.add_all_sequences(schemas text[] DEFAULT NULL, exclude text[] DEFAULT '{}', relgroup text DEFAULT NULL) RETURNS int4
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_add_all_sequences';
REVOKE ALL ON FUNCTION mmrepl.add_all_sequences(text[], text[], text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.add_all_sequences(text[], text[], text) IS
    'as add_all_tables, for sequences';

CREATE FUNCTION mmrepl.add_sync(name text, relgroup text, dbs text[] DEFAULT NULL, dbgroup text DEFAULT NULL,
        onetimecopy int4 DEFAULT 0, conflict_strategy text DEFAULT 'latest', seq_step int4 DEFAULT 10,
        on_error text DEFAULT 'set_aside', makedelta bool DEFAULT false) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_add_sync';
REVOKE ALL ON FUNCTION mmrepl.add_sync(text, text, text[], text, int4, text, int4, text, bool) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.add_sync(text, text, text[], text, int4, text, int4, text, bool) IS
    'takes a name, a relgroup, dbs as in {aaa01:source,aaa02:source} or the name of a dbgroup, the initial copy (0 none, 1 replace what the others have, 2 only into empty tables), a conflict strategy, for how many dbs interleaved sequences leave room, what a row that cannot be applied does (set_aside: it alone waits, see apply_error; stop: the sync stops until resume), and whether what it brings to a db is handed on by the other syncs of that db; checks all tables on all dbs and starts to replicate; raises all that does not fit at once';

CREATE FUNCTION mmrepl.update_sync(name text, conflict_strategy text DEFAULT NULL, seq_step int4 DEFAULT NULL, new_name text DEFAULT NULL,
        onetimecopy int4 DEFAULT NULL, on_error text DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_update_sync';
REVOKE ALL ON FUNCTION mmrepl.update_sync(text, text, int4, text, int4, text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.update_sync(text, text, int4, text, int4, text) IS
    'takes the name of a sync and what is to change (NULL: stays); onetimecopy 1 or 2 has the first source copy its tables to the others once more: 2 fills those that are empty there, as a table added later, 1 replaces all';

CREATE FUNCTION mmrepl.remove_sync(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_remove_sync';
REVOKE ALL ON FUNCTION mmrepl.remove_sync(text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.remove_sync(text) IS
    'takes the name of a sync; ends it on all dbs: triggers go, sequences become what they were, rows stay; what was not yet delivered is not delivered';

CREATE FUNCTION mmrepl.validate_sync(name text) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_validate_sync';
REVOKE ALL ON FUNCTION mmrepl.validate_sync(text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.validate_sync(text) IS
    'takes the name of a sync; asks all its dbs, gives a row for each thing that is wrong (tables, columns, keys, triggers, sequences): none if it is sound; raises when a db cannot be reached';

-- A merge function that is there already.

CREATE FUNCTION mmrepl.radacct_merge(a anyelement, b anyelement) RETURNS anyelement
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'mmrepl_radacct_merge';
REVOKE ALL ON FUNCTION mmrepl.radacct_merge(anyelement, anyelement) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.radacct_merge(anyelement, anyelement) IS
    'takes two rows of FreeRADIUS''s radacct of one session; gives one: the earliest start, the stop wins over NULL and the later over the earlier, times and counters are the greatest, the rest is of the row that was heard of last; for conflict_strategy => ''function: mmrepl.radacct_merge''';
