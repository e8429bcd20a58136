-- Settings: what there is, who may change it, what is refused.
SELECT name, setting, unit, context, min_val, max_val
  FROM pg_settings WHERE name LIKE 'mmrepl.%' ORDER BY name;
SELECT name FROM pg_settings WHERE name LIKE 'mmrepl.%' AND (short_desc IS NULL OR vartype <> 'integer');

-- units as an operator writes them
ALTER SYSTEM SET mmrepl.restart_delay = '2s';
ALTER SYSTEM SET mmrepl.conflict_history_retention = '7d';
ALTER SYSTEM SET mmrepl.segment_size = '32MB';
SELECT name, setting, error FROM pg_file_settings WHERE name IN ('mmrepl.restart_delay', 'mmrepl.conflict_history_retention', 'mmrepl.segment_size') ORDER BY name;
ALTER SYSTEM RESET mmrepl.restart_delay;
ALTER SYSTEM RESET mmrepl.conflict_history_retention;
ALTER SYSTEM RESET mmrepl.segment_size;

-- not for sessions, whoever they are: they change what is replicated
SET mmrepl.capture_buffer = '1MB';
SET mmrepl.max_workers = 10;
-- out of bounds
ALTER SYSTEM SET mmrepl.restart_delay = -1;
ALTER SYSTEM SET mmrepl.capture_buffer = '1kB';
-- no such thing
SET mmrepl.restart_dely = 1;
