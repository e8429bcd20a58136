-- Start, stop, hurry and wait.

CREATE FUNCTION mmrepl._wake() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mmrepl_wake';
REVOKE ALL ON FUNCTION mmrepl._wake() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._wake() IS
    'at commit: wakes the launcher and every worker of this database, which then read the configuration again';
