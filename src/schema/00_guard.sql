\echo Use "CREATE EXTENSION mmrepl" to load this file. \quit

REVOKE ALL ON SCHEMA mmrepl FROM PUBLIC;
GRANT USAGE ON SCHEMA mmrepl TO pg_monitor;

