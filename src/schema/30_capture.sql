-- Triggers of captured tables (src/capture.c).

CREATE FUNCTION mmrepl._capture() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'mmrepl_capture';
REVOKE ALL ON FUNCTION mmrepl._capture() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._capture() IS 'row trigger of replicated tables: notes the key of each changed row; its argument is the name of the key index, or empty for the primary key';

CREATE FUNCTION mmrepl._capture_truncate() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'mmrepl_capture_truncate';
REVOKE ALL ON FUNCTION mmrepl._capture_truncate() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._capture_truncate() IS 'statement trigger of replicated tables: notes a TRUNCATE';

