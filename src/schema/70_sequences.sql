
-- Sequences: called by the db on which a configuration is made, on all others.

CREATE FUNCTION mmrepl._sequence_collect() RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_sequence_collect';
REVOKE ALL ON FUNCTION mmrepl._sequence_collect() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._sequence_collect() IS
    'takes nothing; locks the sequences here that the configuration wants changed (nextval waits until the transaction ends) and gives, as JSON, what each has used; raises 55P03 when a transaction keeps one in use for more than ten seconds';

CREATE FUNCTION mmrepl._sequence_apply(floors text) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_sequence_apply';
REVOKE ALL ON FUNCTION mmrepl._sequence_apply(text) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._sequence_apply(text) IS
    'takes what all dbs have used, as JSON; makes the sequences here what the configuration says, beyond those values; raises 2200H when there is no room left';

CREATE FUNCTION mmrepl._sequence_problem(nspname name, relname name) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_sequence_problem';
REVOKE ALL ON FUNCTION mmrepl._sequence_problem(name, name) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._sequence_problem(name, name) IS
    'takes a sequence; gives what is wrong with its interleaving here, NULL when nothing is';
