-- What aaa01 knows before aaa02 joins: users, groups, access servers.
BEGIN;
INSERT INTO radcheck (username, attribute, op, value)
SELECT format('user%s', to_char(i, 'FM000')), 'Cleartext-Password', ':=', format('secret%s', to_char(i, 'FM000'))
FROM generate_series(1, 300) i;
INSERT INTO radreply (username, attribute, op, value)
SELECT format('user%s', to_char(i, 'FM000')), 'Session-Timeout', '=', '3600' FROM generate_series(1, 300) i;
INSERT INTO radreply (username, attribute, op, value)
SELECT format('user%s', to_char(i, 'FM000')), 'Reply-Message', '=', 'Grüß Gott' FROM generate_series(1, 300, 3) i;
INSERT INTO radusergroup (username, groupname, priority)
SELECT format('user%s', to_char(i, 'FM000')), (ARRAY['gold', 'silver', 'bronze'])[i % 3 + 1], 1
FROM generate_series(1, 300) i;
INSERT INTO radgroupreply (groupname, attribute, op, value)
SELECT g, 'Idle-Timeout', '=', idle FROM (VALUES ('gold', '3600'), ('silver', '1800'), ('bronze', '600')) v (g, idle);
INSERT INTO radgroupcheck (groupname, attribute, op, value)
SELECT g, 'Simultaneous-Use', ':=', '5' FROM unnest(ARRAY['gold', 'silver', 'bronze']) g;
INSERT INTO nas (nasname, shortname, secret, description)
SELECT '10.0.0.' || i, 'nas' || i, md5('nas' || i), 'access server ' || i FROM generate_series(1, 5) i;
COMMIT;
