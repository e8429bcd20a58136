#!/usr/bin/env python3
"""radius_conf.py: turn a copy of Debian's FreeRADIUS configuration into one
server of the demonstration.

    radius_conf.py RADDB DATABASE_HOST DATABASE_PORT AUTH_PORT ACCT_PORT

RADDB is a copy of /etc/freeradius/3.0; the logs go to RADDB/log, the pid file
to RADDB/run.  DATABASE_HOST may be the directory of a Unix socket.  What is
changed:

- paths, ports, and no user to change to: it runs as whoever starts it;
- sql: PostgreSQL, clients from table nas, a lost connection is tried again
  after a second;
- authentication waits for the database: where it is away the server keeps
  silent, so that the client asks the other server, instead of rejecting
  everybody.  Accounting does so as it comes;
- no EAP and no proxying: neither is used here, and EAP wants certificates.
"""
import os
import re
import sys

MODULES = ("always", "attr_filter", "chap", "detail", "digest", "exec", "expiration", "expr", "files",
           "logintime", "mschap", "pap", "preprocess", "realm", "sql", "unix")

SILENT = """\
	sql {
		fail = 1
	}
	if (fail) {
		do_not_respond
	}
"""


def edit(path, *changes):
    """Apply (pattern, replacement, how often it must be found) to a file."""
    with open(path) as f:
        text = f.read()
    for pattern, replacement, times in changes:
        text, found = re.subn(pattern, lambda m: m.expand(replacement), text,
                              flags=re.M)
        if found < times:
            sys.exit("radius_conf.py: %s: nothing there that looks like %s"
                     % (path, pattern))
    with open(path, "w") as f:
        f.write(text)


def main():
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    raddb, host, port, auth, acct = sys.argv[1:]
    raddb = os.path.abspath(raddb)
    # The detail module makes this directory itself, but two threads that do it
    # at the same time drop a record.
    for name in ("log/radacct/127.0.0.1", "run"):
        os.makedirs(os.path.join(raddb, name), exist_ok=True)

    edit(os.path.join(raddb, "radiusd.conf"),
         (r"^raddbdir = .*", "raddbdir = " + raddb, 1),
         (r"^logdir = .*", "logdir = %s/log" % raddb, 1),
         (r"^run_dir = .*", "run_dir = %s/run" % raddb, 1),
         (r"^proxy_requests\s*=.*", "proxy_requests = no", 1),
         (r"^\$INCLUDE proxy.conf", "", 1),
         (r"^(\s*)(user|group) = .*", r"\1#\2 =", 0))

    edit(os.path.join(raddb, "mods-available", "sql"),
         (r"^\tdialect = .*", '\tdialect = "postgresql"', 1),
         (r"^\tdriver = .*", '\tdriver = "rlm_sql_postgresql"', 1),
         (r"^#\tserver = .*", '\tserver = "%s"' % host, 1),
         (r"^#\tport = .*", "\tport = " + port, 1),
         (r"^#\tlogin = .*", '\tlogin = "radius"', 1),
         (r"^\t\tretry_delay = .*", "\t\tretry_delay = 1", 1),
         (r"^#?\s*read_clients = .*", "\tread_clients = yes", 1))
    listen = "\n".join("listen {\n\ttype = %s\n\tipaddr = 127.0.0.1\n"
                       "\tport = %s\n}\n" % (kind, number)
                       for kind, number in (("auth", auth), ("acct", acct)))
    default = os.path.join(raddb, "sites-available", "default")
    edit(default,
         (r"^listen \{\n(?:[^}\n].*\n|\n)*\}\n", "", 2),
         (r"^server default \{\n", "server default {\n" + listen, 1),
         (r"^\teap \{\n(?:\t\t.*\n|#.*\n|\n)*\t\}\n", "", 1),
         (r"^\s+eap$", "", 1),
         (r"^\s+remove_reply_message_if_eap$", "", 1))
    # Only what asks and answers for a login: authorize and post-auth.
    with open(default) as f:
        text = f.read()
    head, accounting, tail = re.split(r"(^accounting \{\n(?:.*\n)*?^\}\n)",
                                      text, maxsplit=1, flags=re.M)
    head, n = re.subn(r"^\t-sql\n", SILENT, head, flags=re.M)
    tail, m = re.subn(r"^\t-sql\n", SILENT, tail, flags=re.M)
    tail, k = re.subn(r"^\t\t-sql\n", SILENT, tail, flags=re.M)
    if (n, m, k) != (1, 1, 1):
        sys.exit("radius_conf.py: the default site is not what Debian 12 ships")
    with open(default, "w") as f:
        f.write(head + accounting + tail)

    # The package ships no links: its installation makes them.
    for kind, names in (("mods", MODULES), ("sites", ("default",))):
        enabled = os.path.join(raddb, kind + "-enabled")
        os.makedirs(enabled, exist_ok=True)
        for name in os.listdir(enabled):
            os.unlink(os.path.join(enabled, name))
        for name in names:
            os.symlink("../%s-available/%s" % (kind, name), os.path.join(enabled, name))


if __name__ == "__main__":
    main()
