
-- Capture triggers on the tables of syncs in which this db is a source.

CREATE FUNCTION mmrepl._attach_reconcile() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_attach_reconcile';
REVOKE ALL ON FUNCTION mmrepl._attach_reconcile() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._attach_reconcile() IS
    'takes nothing; makes the capture triggers here what the configuration says; raises 55P03 when a transaction keeps a table locked for more than ten seconds, 55000 when a table has no usable key';

CREATE FUNCTION mmrepl._attach_problem(rel regclass) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'mmrepl_attach_problem';
REVOKE ALL ON FUNCTION mmrepl._attach_problem(regclass) FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._attach_problem(regclass) IS
    'takes a table; gives what is wrong with its capture triggers, NULL when nothing is';
