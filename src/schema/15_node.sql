
-- Who this database is.

CREATE FUNCTION mmrepl._node_identity(OUT system_identifier int8, OUT database_oid oid, OUT timeline int4)
    LANGUAGE c STABLE PARALLEL RESTRICTED
    AS 'MODULE_PATHNAME', 'mmrepl_node_identity';
REVOKE ALL ON FUNCTION mmrepl._node_identity() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl._node_identity() IS
    'takes nothing; gives what tells this database from all others: the server''s system identifier (as a signed number), the database''s oid, the timeline it writes';

CREATE FUNCTION mmrepl.confirm_identity() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'mmrepl_confirm_identity';
REVOKE ALL ON FUNCTION mmrepl.confirm_identity() FROM PUBLIC;
COMMENT ON FUNCTION mmrepl.confirm_identity() IS
    'takes nothing; after a promotion that lost nothing: lets replication go on under the new timeline; raises MR004 in a copy (other server or database)';

INSERT INTO mmrepl.local_node (system_identifier, database_oid, timeline)
    SELECT i.system_identifier, i.database_oid, i.timeline FROM mmrepl._node_identity() AS i;
