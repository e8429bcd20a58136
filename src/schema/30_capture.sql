-- Triggers of captured tables (src/capture.c), and of those that are not to be written yet (src/closed.c).

CREATE FUNCTION mmrepl._capture() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'mmrepl_capture';
REVOKE ALL ON FUNCTION mmrepl._capture() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._capture() IS 'row trigger of replicated tables: notes the key of each changed row; its argument is the name of the key index; without one it is the primary key';

CREATE FUNCTION mmrepl._capture_truncate() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'mmrepl_capture_truncate';
REVOKE ALL ON FUNCTION mmrepl._capture_truncate() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._capture_truncate() IS 'statement trigger of replicated tables: notes a TRUNCATE';


CREATE FUNCTION mmrepl._closed() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'mmrepl_closed';
REVOKE ALL ON FUNCTION mmrepl._closed() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._closed() IS 'trigger of tables of a sync that this database joins: refuses what clients write (25006) until the initial copy is in; lets them pass then';
