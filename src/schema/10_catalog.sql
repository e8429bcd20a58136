-- Configuration.  All of it but local_node is one document that every node
-- holds, with one version; a call on one node carries it to the others.

CREATE TABLE mmrepl.local_node (
    singleton         bool PRIMARY KEY DEFAULT true CHECK (singleton),
    node_id           int4,                         -- NULL until add_db recognises this database
    system_identifier int8 NOT NULL,
    database_oid      oid NOT NULL,
    timeline          int4 NOT NULL,
    stopped           bool NOT NULL DEFAULT false,  -- by mmrepl.stop(): here only
    refused           text,                         -- why it does not take part any more: its past is not what the others know
    config_version    int8 NOT NULL DEFAULT 0,
    config_author     int4 NOT NULL DEFAULT 0,      -- node that made this version
    next_node_id      int4 NOT NULL DEFAULT 1,      -- never goes back: ids are not reused
    next_sync_id      int4 NOT NULL DEFAULT 1
);
COMMENT ON TABLE mmrepl.local_node IS 'who this database is, and which version of the configuration it holds; one row';

CREATE TABLE mmrepl.db (
    node_id           int4 PRIMARY KEY,
    name              text NOT NULL UNIQUE,
    conninfo          text NOT NULL,                -- secret: owner only
    system_identifier int8 NOT NULL,
    database_oid      oid NOT NULL
);
COMMENT ON TABLE mmrepl.db IS 'databases that take part; conninfo is readable by the owner only';

CREATE TABLE mmrepl.dbgroup (
    name              text PRIMARY KEY
);
COMMENT ON TABLE mmrepl.dbgroup IS 'named groups of dbs';

CREATE TABLE mmrepl.dbgroup_db (
    dbgroup           text NOT NULL REFERENCES mmrepl.dbgroup ON UPDATE CASCADE ON DELETE CASCADE,
    node_id           int4 NOT NULL REFERENCES mmrepl.db,
    role              text NOT NULL CHECK (role IN ('source', 'target', 'hub')),
    pos               int4 NOT NULL,                -- order in which they were named, from 1: also the sequence slot
    since             int8 NOT NULL DEFAULT 0,      -- version of the configuration that put it (as a source) into the group; 0: before any sync used that; below 0: the next, -1 as one who comes in
    copy              int2 NOT NULL DEFAULT 0 CHECK (copy IN (-1, 0, 1, 2)),    -- joins a running sync: its initial copy, as onetimecopy; -1: was a target of it
    copy_from         int4,                         -- node that gives it; NULL, or not there any more: the one that has been in the group for longest
    was               int8 NOT NULL DEFAULT 0,      -- what since was when it was a target
    needs_resync      bool NOT NULL DEFAULT false,  -- it was away for so long that the others keep nothing for it any more
    PRIMARY KEY (dbgroup, node_id),
    UNIQUE (dbgroup, pos)
);
COMMENT ON TABLE mmrepl.dbgroup_db IS 'which db is in which group, and in which role';

CREATE TABLE mmrepl.rel (
    nspname           name NOT NULL,
    relname           name NOT NULL,
    kind              "char" NOT NULL CHECK (kind IN ('r', 'S')),
    key_index         name,                         -- table: unique index that identifies rows, NULL: the primary key
    conflict_strategy text,                         -- table: NULL: as the sync says; as in sync
    seq_mode          text CHECK (seq_mode IN ('interleave', 'copy')),  -- sequence: NULL lets the sync decide
    PRIMARY KEY (nspname, relname)
);
COMMENT ON TABLE mmrepl.rel IS 'tables and sequences known to mmrepl';

CREATE TABLE mmrepl.relgroup (
    name              text PRIMARY KEY
);
COMMENT ON TABLE mmrepl.relgroup IS 'named groups of tables and sequences (herds)';

CREATE TABLE mmrepl.relgroup_rel (
    relgroup          text NOT NULL REFERENCES mmrepl.relgroup ON UPDATE CASCADE ON DELETE CASCADE,
    nspname           name NOT NULL,
    relname           name NOT NULL,
    PRIMARY KEY (relgroup, nspname, relname),
    FOREIGN KEY (nspname, relname) REFERENCES mmrepl.rel
);
COMMENT ON TABLE mmrepl.relgroup_rel IS 'which table or sequence is in which relgroup';

CREATE TABLE mmrepl.sync (
    sync_id           int4 PRIMARY KEY,
    name              text NOT NULL UNIQUE,
    relgroup          text NOT NULL REFERENCES mmrepl.relgroup ON UPDATE CASCADE,
    dbgroup           text NOT NULL REFERENCES mmrepl.dbgroup ON UPDATE CASCADE,
    onetimecopy       int2 NOT NULL DEFAULT 0 CHECK (onetimecopy IN (0, 1, 2)),
    conflict_strategy text NOT NULL DEFAULT 'latest',   -- as src/strategy.h says: latest, abort, priority:ID,ID, function:NAME
    on_error          text NOT NULL DEFAULT 'set_aside' CHECK (on_error IN ('set_aside', 'stop')),
    seq_step          int4 NOT NULL DEFAULT 10,     -- interleaved sequences: room for so many nodes
    paused            bool NOT NULL DEFAULT false,
    copy_round        int4 NOT NULL DEFAULT 1,      -- grows when a copy is asked for again
    since             int8 NOT NULL DEFAULT 0,      -- version of the configuration that made it; who is in the group since later joins a running sync
    halted            text,                         -- why it has paused itself; NULL: it has not
    makedelta         bool NOT NULL DEFAULT false   -- what it brings to a db is handed on by that db's other syncs
);
COMMENT ON TABLE mmrepl.sync IS 'a relgroup replicated among the dbs of a dbgroup';

-- State of this database alone.

CREATE TABLE mmrepl.progress (
    sync_id           int4 NOT NULL,
    source_node       int4 NOT NULL,
    position          pg_catalog.pg_snapshot,       -- of the source: applied here up to it; NULL: nothing yet
    context           bytea,                        -- for every node the position the source had applied when it sent that
    max_ts            int8 NOT NULL DEFAULT 0,      -- highest version time ever applied, microseconds since 2000
    batches           int8 NOT NULL DEFAULT 0,
    inserted          int8 NOT NULL DEFAULT 0,
    updated           int8 NOT NULL DEFAULT 0,
    deleted           int8 NOT NULL DEFAULT 0,
    truncated         int8 NOT NULL DEFAULT 0,
    conflicts         int8 NOT NULL DEFAULT 0,
    last_good         timestamptz,
    last_changes      timestamptz,
    last_inserted     int8 NOT NULL DEFAULT 0,
    last_updated      int8 NOT NULL DEFAULT 0,
    last_deleted      int8 NOT NULL DEFAULT 0,
    PRIMARY KEY (sync_id, source_node)
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE mmrepl.progress IS 'per sync and source: what of it has been applied here; written by the transaction that applies';

CREATE TABLE mmrepl.peer_state (
    sync_id           int4 NOT NULL,
    peer_node         int4 NOT NULL,
    acked             pg_catalog.pg_snapshot,       -- position of this database that the peer has confirmed
    last_good         timestamptz,
    last_bad          timestamptz,
    last_error        text,
    context           bytea,                        -- of a target: what it has told of the others' changes
    part              text NOT NULL,                -- since of both in the group, and the peer's role, when it said so
    PRIMARY KEY (sync_id, peer_node)
) WITH (fillfactor = 20);
COMMENT ON TABLE mmrepl.peer_state IS 'per sync and peer: what the pusher last knew, kept over a restart; written now and then';

CREATE TABLE mmrepl.sync_state (
    sync_id           int4 PRIMARY KEY,
    since             int8 NOT NULL,                -- dbgroup_db.since of this db
    opened            bool NOT NULL,                -- false: it joins a running sync and waits until all others know of it
    copied            int4 NOT NULL DEFAULT 0,      -- the sync's copy_round whose initial copy is in
    copied_from       int4                          -- node that gave the last one
);
COMMENT ON TABLE mmrepl.sync_state IS 'syncs in which this database has a part: has it joined, has it its initial copy';

CREATE TABLE mmrepl.met (
    sync_id           int4 NOT NULL,
    node_id           int4 NOT NULL,
    clock             int8 NOT NULL,                -- its clock then, microseconds since 2000
    PRIMARY KEY (sync_id, node_id)
);
COMMENT ON TABLE mmrepl.met IS 'while this database joins a running sync: who has told that it knows';

CREATE TABLE mmrepl.known_member (
    sync_id           int4 NOT NULL,
    node_id           int4 NOT NULL,
    role              text NOT NULL,
    since             int8 NOT NULL,
    PRIMARY KEY (sync_id, node_id)
);
COMMENT ON TABLE mmrepl.known_member IS 'other dbs of the syncs in which this database has a part, as it last acted on them; its lock orders the end of a batch against changes of that';

CREATE TABLE mmrepl.departed (
    sync_id           int4 NOT NULL,
    node_id           int4 NOT NULL,
    taken             bool NOT NULL DEFAULT false,  -- over by this database, as far as its own log goes
    asked             int4[] NOT NULL DEFAULT '{}', -- on a source: targets that have been asked what it left with them; on a target: sources that have
    PRIMARY KEY (sync_id, node_id)
);
COMMENT ON TABLE mmrepl.departed IS 'sources that have departed from a sync, and whose entries, in the log here or of targets, this database has not all taken over yet';

CREATE TABLE mmrepl.life (
    run               int8 PRIMARY KEY,             -- random
    ended             int8                          -- first transaction number of the one after it; NULL: it goes on
);
COMMENT ON TABLE mmrepl.life IS 'runs of this server in which this database took part: what a peer has heard of another one is of a past that is lost';

CREATE TABLE mmrepl.peer_life (
    node_id           int4 PRIMARY KEY,
    run               int8 NOT NULL
);
COMMENT ON TABLE mmrepl.peer_life IS 'of which run of another db''s server this database has heard last';

CREATE TABLE mmrepl.sequence_state (
    nspname           name NOT NULL,
    relname           name NOT NULL,
    old_increment     int8 NOT NULL,                -- what it was before it was interleaved
    old_start         int8 NOT NULL,
    old_min           int8 NOT NULL,
    old_max           int8 NOT NULL,
    PRIMARY KEY (nspname, relname)
);
COMMENT ON TABLE mmrepl.sequence_state IS 'sequences of this database that are interleaved now, and what they were before';

CREATE TABLE mmrepl.conflict_log (
    id                int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at                timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    sync_id           int4 NOT NULL,
    nspname           name NOT NULL,
    relname           name NOT NULL,
    key               jsonb,                        -- NULL: the whole table
    conflict_type     text NOT NULL,
    resolution        text NOT NULL,
    local_row         jsonb,
    remote_row        jsonb,
    local_ts          int8,                         -- versions: microseconds since 2000, node that wrote
    local_node        int4,
    remote_ts         int8 NOT NULL,
    remote_node       int4 NOT NULL,
    error             text                          -- why the strategy was not followed; NULL: it was
);
CREATE INDEX conflict_log_at ON mmrepl.conflict_log (at);
COMMENT ON TABLE mmrepl.conflict_log IS 'conflicts settled here; read it through the view conflict_history';

-- Secrets stay with the owner; the rest may be read by monitoring.
REVOKE ALL ON ALL TABLES IN SCHEMA mmrepl FROM PUBLIC;
GRANT SELECT ON mmrepl.local_node, mmrepl.dbgroup, mmrepl.dbgroup_db, mmrepl.rel, mmrepl.relgroup,
    mmrepl.relgroup_rel, mmrepl.sync, mmrepl.progress, mmrepl.peer_state, mmrepl.sync_state, mmrepl.met,
    mmrepl.known_member, mmrepl.departed, mmrepl.life, mmrepl.peer_life, mmrepl.sequence_state TO pg_monitor;
GRANT SELECT (node_id, name, system_identifier, database_oid) ON mmrepl.db TO pg_monitor;

-- Configuration is dumped; state is not: a restored copy is another node and must not inherit positions.
SELECT pg_catalog.pg_extension_config_dump('mmrepl.dbgroup', '');
SELECT pg_catalog.pg_extension_config_dump('mmrepl.rel', '');
SELECT pg_catalog.pg_extension_config_dump('mmrepl.relgroup', '');
SELECT pg_catalog.pg_extension_config_dump('mmrepl.relgroup_rel', '');

