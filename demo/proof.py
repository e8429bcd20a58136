#!/usr/bin/env python3
"""proof.py: what is true at the end of the demonstration.

    proof.py WORK

Reads both databases (WORK/databases: "name socket_directory port" per line),
the ledger that nas.py kept, and the logs of the servers.  Says of every check
what was compared with what.  Exit status 0 only if all of them hold.
"""
import calendar
import json
import os
import re
import subprocess
import sys
import time

BAD = []


def psql(database, sql):
    """Rows of one query, as lists of text."""
    name, sockets, port = database
    out = subprocess.run(
        ["psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", sockets,
         "-p", port, "-U", "postgres", "-d", "radius", "-c", sql],
        check=True, stdout=subprocess.PIPE, universal_newlines=True).stdout
    return [line.split("\t") for line in out.splitlines()]


def say(good, text):
    print("   %s  %s" % ("ok    " if good else "NOT OK", text))
    if not good:
        BAD.append(text)


def some(things, how=str):
    """The first few of a list, for a person who wants to look."""
    for thing in things[:5]:
        print("             " + how(thing))
    if len(things) > 5:
        print("             ... and %d more" % (len(things) - 5))


def tables(databases):
    """Every table of the FreeRADIUS schema, row by row, both sides."""
    print("   Every table, both sides:\n")
    print("   %-16s %10s %10s   %s" % ("", databases[0][0], databases[1][0],
                                       "checksum of all rows"))
    names = [row[0] for row in psql(databases[0],
             "SELECT relname FROM pg_class WHERE relkind = 'r' "
             "AND relnamespace = 'public'::regnamespace ORDER BY 1")]
    unequal = []
    for name in names:
        sides = [psql(database, """
            SELECT count(*), coalesce(md5(string_agg(t::text, E'\\n'
                ORDER BY t::text COLLATE "C")), 'empty')
            FROM public."%s" t""" % name)[0] for database in databases]
        same = sides[0] == sides[1]
        print("   %-16s %10s %10s   %s" %
              (name, sides[0][0], sides[1][0],
               sides[0][1][:16] + " on both" if same else
               "%s | %s" % (sides[0][1][:16], sides[1][1][:16])))
        if not same:
            unequal.append(name)
    print()
    say(names and not unequal, "%d tables hold the same rows on both servers%s" %
        (len(names), "" if not unequal else ", but not " + ", ".join(unequal)))
    if "radacct" in unequal:
        differing(databases)


def differing(databases):
    sides = [dict(psql(database, "SELECT acctuniqueid, md5(t::text) FROM radacct t"))
             for database in databases]
    keys = [key for key in sorted(set(sides[0]) | set(sides[1]))
            if sides[0].get(key) != sides[1].get(key)]
    some(keys, lambda key: "radacct %s: %s" % (key, ", ".join(
        "%s has %s" % (database[0], psql(database,
            "SELECT radacctid, acctsessionid, acctsessiontime, acctstoptime "
            "FROM radacct WHERE acctuniqueid = '%s'" % key) or "nothing")
        for database in databases)))


def accounting(databases, ledger):
    """Every acknowledged accounting record against radacct, on both sides."""
    sessions, answered, unanswered = {}, {}, 0
    for entry in ledger:
        if entry["kind"] != "acct":
            continue
        if entry["answer"] != "Accounting-Response":
            unanswered += 1
            continue
        sessions.setdefault(entry["session"], []).append(entry)
        of = answered.setdefault(entry["status"], {})
        of[entry["server"]] = of.get(entry["server"], 0) + 1
    print("\n   Acknowledged accounting records, from the clients' ledger:\n")
    for status in ("Start", "Interim", "Stop"):
        of = answered.get(status, {})
        print("   %-16s %10d %10d" % (status, of.get(databases[0][0], 0),
                                      of.get(databases[1][0], 0)))
    stopped = sum(1 for past in sessions.values()
                  if any(p["status"] == "Stop" for p in past))
    moved = sum(1 for past in sessions.values()
                if len(set(p["server"] for p in past)) > 1)
    print("""
   %d sessions, %d of them stopped, %d used both servers; %d records met a dead
   server and went to the other one. A row of radacct holds all that is known of a session:
   its last record and its first, whichever servers they met, and whoever came late.
""" % (len(sessions), stopped, moved, unanswered))

    for database in databases:
        rows = {}
        for line in psql(database, """
                SELECT json_build_object('session', acctsessionid, 'user', username,
                    'nas', host(nasipaddress), 'start', extract(epoch FROM acctstarttime),
                    'update', extract(epoch FROM acctupdatetime),
                    'stop', extract(epoch FROM acctstoptime), 'time', acctsessiontime,
                    'in', acctinputoctets, 'out', acctoutputoctets,
                    'cause', acctterminatecause) FROM radacct"""):
            row = json.loads(line[0])
            rows.setdefault(row["session"], []).append(row)
        one_server(database[0], sessions, rows)
    example(databases, sessions)


def example(databases, sessions):
    """The life of the session that moved most, and its row."""
    def moves(past):
        return sum(a["server"] != b["server"] for a, b in zip(past, past[1:]))
    most = max(sorted(sessions), key=lambda s: moves(sessions[s]))
    print("\n   For example session %s: %s." % (most, ", ".join(
        "%s%s on %s" % ("late " if p["late"] else "", p["status"], p["server"])
        for p in sessions[most])))
    for database in databases:
        print("      %s: %s" % (database[0], psql(database, """
            SELECT format('radacctid %%s, %%s, %%s to %%s, %%s s, %%s octets out, %%s', radacctid,
                username, acctstarttime::time, coalesce(acctstoptime::time::text, 'now'),
                acctsessiontime, acctoutputoctets, acctterminatecause)
            FROM radacct WHERE acctsessionid = '%s'""" % most)[0][0]))


def one_server(name, sessions, rows):
    missing = [s for s in sorted(sessions) if s not in rows]
    say(not missing, "%s: %d of %d sessions with an acknowledged record have their row"
        % (name, len(sessions) - len(missing), len(sessions)))
    some(missing)
    strange = [s for s in sorted(rows) if s not in sessions or len(rows[s]) > 1]
    say(not strange, "%s: no row that no client asked for, no session twice" % name)
    some(strange)

    lost, wrong, stops, right = [], [], 0, 0
    for session in sorted(set(sessions) & set(rows)):
        row, past = rows[session][0], sessions[session]
        # What a late Interim repeats was known before: the step tells.
        last = max(past, key=lambda entry: entry["step"])
        expected = {"user": last["user"], "update": last["event"],
                    "time": last["time"], "in": last["in"], "out": last["out"]}
        stop = last["status"] == "Stop"
        expected["stop"] = last["event"] if stop else None
        if stop:
            stops += 1
            expected["cause"] = "User-Request"
            if row["stop"] is None:
                lost.append(session)
        differ = ["%s is %s, not %s" % (key, row[key], value)
                  for key, value in expected.items() if row[key] != value]
        start = min(entry["event"] for entry in past)
        if row["start"] != start:
            differ.append("start is %s, not %s" % (row["start"], start))
        if differ:
            wrong.append("%s: %s" % (session, ", ".join(differ)))
        else:
            right += 1
    say(not lost, "%s: %d of %d acknowledged Stops closed their session for good"
        % (name, stops - len(lost), stops))
    some(lost)
    say(not wrong, "%s: %d sessions have the start of their first and the times, octets "
        "and end of their last record" % (name, right))
    some(wrong)


def logins(databases, ledger):
    asked, answered = {}, 0
    for entry in ledger:
        if entry["kind"] == "auth" and entry["answer"]:
            answered += 1
            key = (entry["user"], entry["password"], entry["answer"])
            asked[key] = asked.get(key, 0) + 1
    refused = [entry for entry in ledger if entry["kind"] == "auth" and entry["answer"]
               and entry["answer"] != entry["expected"]]
    say(not refused, "%d logins answered, each as its password deserves "
        "(%d accepted, %d rejected)" %
        (answered, sum(n for k, n in asked.items() if k[2] == "Access-Accept"),
         sum(n for k, n in asked.items() if k[2] == "Access-Reject")))
    some(refused)
    for database in databases:
        have = {}
        for user, password, reply, count in psql(
                database, "SELECT username, pass, reply, count(*) FROM radpostauth "
                "GROUP BY 1, 2, 3"):
            have[(user, password, reply)] = int(count)
        short = [key for key, count in sorted(asked.items()) if have.get(key, 0) < count]
        say(not short, "%s: radpostauth has a row for each of them (%d rows)" %
            (database[0], sum(have.values())))
        some(short)


def sequences(databases):
    """Draw from every sequence on both sides; compare with each other and the tables."""
    print()
    owned = psql(databases[0], """
        SELECT s.oid::regclass, d.refobjid::regclass, quote_ident(a.attname)
        FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.deptype IN ('a', 'i')
            AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
        JOIN pg_attribute a ON (a.attrelid, a.attnum) = (d.refobjid, d.refobjsubid)
        WHERE s.relkind = 'S' AND s.relnamespace = 'public'::regnamespace ORDER BY 1""")
    bad, example = [], None
    for sequence, table, column in owned:
        drawn = []
        for database in databases:
            drawn.append([int(row[0]) for row in psql(
                database, "SELECT nextval('%s') FROM generate_series(1, 20)" % sequence)])
        used = [int(row[0]) for row in psql(
            databases[0], "SELECT count(*) FROM %s WHERE %s IN (%s)" %
            (table, column, ",".join(str(value) for side in drawn for value in side)))]
        if set(drawn[0]) & set(drawn[1]) or used[0]:
            bad.append("%s: %s | %s" % (sequence, drawn[0][:4], drawn[1][:4]))
        if table == "radacct":
            example = "%s: %s ... and %s ..." % (
                sequence, *(", ".join(str(value) for value in side[:3]) for side in drawn))
    say(owned and not bad, "%d sequences: 20 values drawn from each on both servers, "
        "none twice, none in use" % len(owned))
    if example:
        print("             " + example)
    some(bad)


def downtime(work):
    """From the SIGKILL to the first answer after it, seconds since 1970."""
    path = os.path.join(work, "down")
    if not os.path.exists(path):
        return (0, 0)
    with open(path) as f:
        begin, end = f.read().split()
    return float(begin), float(end)


def logs(work, databases):
    """What FreeRADIUS, and PostgreSQL towards FreeRADIUS, complained about."""
    print()
    begin, end = downtime(work)
    for name, _, _ in databases:
        down = name == "aaa02" and end
        inside, outside = 0, []
        with open(os.path.join(work, "logs", name + "-radius.log"),
                  errors="replace") as f:
            for line in f:
                found = re.match(r"\w+ (.{20}) : error: ", line, re.I)
                if found:
                    at = calendar.timegm(time.strptime(found.group(1),
                                                       "%b %d %H:%M:%S %Y"))
                    if down and int(begin) <= at <= end + 1:
                        inside += 1
                    else:
                        outside.append(line.strip()[:150])
        say(not outside, "%s: FreeRADIUS logged %d errors%s" %
            (name, len(outside), " but for the %.1f s without its database (%d then)"
             % (end - begin, inside) if down else ""))
        some(outside)
        refused = []
        with open(os.path.join(work, "logs", name + "-postgres.log"),
                  errors="replace") as f:
            for line in f:
                found = re.match(r"(\S+ [\d:]+)\.\d+ UTC radius (ERROR|FATAL|PANIC):", line)
                if found:
                    at = calendar.timegm(time.strptime(found.group(1),
                                                       "%Y-%m-%d %H:%M:%S"))
                    if not (down and int(begin) <= at <= end + 1):
                        refused.append(line.strip()[:150])
        say(not refused, "%s: PostgreSQL refused FreeRADIUS nothing (%d errors for its role)"
            % (name, len(refused)))
        some(refused)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    work = sys.argv[1]
    with open(os.path.join(work, "databases")) as f:
        databases = [line.split() for line in f]
    with open(os.path.join(work, "ledger")) as f:
        ledger = [json.loads(line) for line in f]
    tables(databases)
    accounting(databases, ledger)
    print()
    logins(databases, ledger)
    sequences(databases)
    logs(work, databases)
    return 1 if BAD else 0


if __name__ == "__main__":
    sys.exit(main())
