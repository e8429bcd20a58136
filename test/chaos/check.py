"""check.py: what must hold when all is quiet."""
import collections
import json
import re
import time

import pq
from workload import TABLES

KEY = {"acct": "id::text", "users": "name", "comp": "a || '|' || trim_scale(b)", "parent": "id::text", "child": "id::text",
       "bucket": "id::text", "sess": "uid", "seat": "id::text", "room": "id::text"}
UNIQUE = {"acct": ["id", "u", "CASE WHEN grp = 1 THEN part END"], "users": ["name", "lower(email)"],
          "comp": ["a || '|' || trim_scale(b)"], "parent": ["id"], "child": ["id"], "bucket": ["id"], "sess": ["id", "uid"],
          "seat": ["id", "pos", "alt"], "room": ["id"]}
# the same of rows as the history keeps them
KEYS = {"acct": lambda r: r["id"], "users": lambda r: r["name"], "comp": lambda r: (r["a"], r["b"]), "parent": lambda r: r["id"],
        "child": lambda r: r["id"], "bucket": lambda r: r["id"], "sess": lambda r: r["uid"], "seat": lambda r: r["id"],
        "room": lambda r: r["id"]}
VALUES = {"acct": [lambda r: r["u"], lambda r: r["part"] if r["grp"] == 1 else None], "users": [lambda r: r["email"] and r["email"].lower()],
          "sess": [lambda r: r["id"]], "seat": [lambda r: r["pos"], lambda r: r["alt"]],
          "room": [], "comp": [], "parent": [], "child": [], "bucket": []}

# sure: false if nobody knows whether the others ever had it
Event = collections.namedtuple("Event", "node sure lo hi op row")

NO_INDEX = "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;"

BUG = re.compile(r"PANIC|TRAP:|was not closed|\bleak|still referenced|unexpected snapshot|snapshot reference|"
                 r"invalid memory alloc|could not find block|corrupt|cache lookup failed|"
                 r"terminated by signal (?:4|6|7|8|11)|could not (?:read|open|access) (?:file|status)|out of range|"
                 r"internal error|unexpected(?!ly| postmaster exit| EOF on client| pageaddr)|tuple concurrently|duplicate key value.*mmrepl|MultiXact")
EXPECTED_STATES = {"23505", "23503", "40P01", "40001", "55P03", "57014", "57P01", "57P02", "57P03", "25P02", "P0001", "42704", "23P01"}


def canonical(table, row):
    """A row as something to be found again."""
    return table, json.dumps(row, sort_keys=True)


def overlap(a, b):
    def bounds(row):
        text = row.get("span") or "empty"
        return [int(x) for x in text.strip("[)").split(",")] if "," in text else None
    x, y = bounds(a), bounds(b)
    return x is not None and y is not None and x[0] < y[1] and y[0] < x[1]


class Checker:
    # what losers() reads of a server
    CONFLICTS = ("SELECT relname, resolution, local_row, remote_row FROM mmrepl.conflict_log"
                 " WHERE conflict_type IN ('insert_exists', 'update_exists', 'multiple_unique_conflicts')")

    def __init__(self, servers, members, say, strategies):
        self.strategies = strategies
        self.servers, self.members, self.say = servers, members, say
        self.failures = []

    def fail(self, what):
        self.failures.append(what)
        if len(self.failures) <= 30:
            self.say("FAILED: " + what)

    # ---- quiet

    def wait_synced(self, timeout):
        deadline = time.time() + timeout
        # from one leaf of a star to the others it is two ways
        for _ in range(4 if self.servers[0].role == "hub" else 2):
            for s in self.servers:
                while True:
                    try:
                        if s.query("SELECT mmrepl.wait_for_sync('chaos', 5)")[0][0] == "t":
                            break
                        error = "timeout"
                    except (pq.Error, pq.Lost) as e:
                        error = str(e)
                        time.sleep(0.3)
                    if time.time() > deadline:
                        self.fail(f"{s.name} does not get its changes out: {error}")
                        self.show_status()
                        return False
        return True

    def show_status(self):
        for s in self.servers:
            for view in ("status", "worker_status"):
                try:
                    for row in s.query(f"SELECT to_jsonb(t) - '{{last_good,batches,bytes}}'::text[] FROM mmrepl.{view} t"):
                        self.say(f"  {s.name} {view}: {row[0]}")
                except (pq.Error, pq.Lost) as e:
                    self.say(f"  {s.name} {view}: {e}")

    # ---- equal

    def rows(self, server, table):
        return dict(server.query(f"{NO_INDEX}"
                                 f" SELECT {KEY[table]}, to_jsonb(t)::text FROM {table} t"))

    def equal(self):
        self.state = {t: [self.rows(s, t) for s in self.servers] for t in TABLES}
        return all(rows == versions[0] for versions in self.state.values() for rows in versions)

    def until_equal(self, timeout):
        deadline = time.time() + timeout
        while not self.equal():
            if time.time() > deadline:
                self.tell_differences()
                return False
            time.sleep(0.5)
        return True

    def tell_differences(self):
        for table, versions in self.state.items():
            keys = sorted({k for rows in versions for k in rows if any(r.get(k) != rows[k] for r in versions)})
            if not keys:
                continue
            self.fail(f"{table} differs in {len(keys)} keys: {', '.join(keys[:20])}")
            for key in keys[:5]:
                for s, rows in zip(self.servers, versions):
                    self.say(f"  {table} {key} on {s.name}: {rows.get(key)}")
                self.tell_history(table, key)

    def tell_history(self, table, key):
        if len(self.failures) > 10:
            return
        try:
            self.tell_key(table, key)
        except (pq.Lost, pq.Error) as e:
            self.say(f"    {e}")

    def tell_key(self, table, key):
        quoted = key.replace("'", "''")
        for s in self.servers:
            for row in s.query(f"SELECT lo, hi, op, row FROM audit WHERE tbl = '{table}' AND (key = '{quoted}' OR op = 'T')"
                               f" ORDER BY seq DESC LIMIT 6"):
                self.say(f"    written on {s.name}: {row}")
            try:
                for row in s.query(f"SELECT to_jsonb(l) FROM mmrepl.change_log l WHERE l::text LIKE '%{table}%'"
                                   f" AND (l.key IS NULL OR l.key::text LIKE '%{quoted.split('|')[0]}%') LIMIT 10"):
                    self.say(f"    log of {s.name}: {row[0]}")
            except pq.Error as e:
                self.say(f"    log of {s.name}: {e}")
            for row in s.query(f"SELECT to_jsonb(c) FROM mmrepl.conflict_log c WHERE relname = '{table}' AND (key::text LIKE"
                               f" '%{quoted.split('|')[0]}%' OR key IS NULL OR local_row::text LIKE '%{quoted}%') ORDER BY id DESC LIMIT 6"):
                self.say(f"    conflict on {s.name}: {row[0]}")

    # ---- unique

    def unique(self):
        amcheck = self.have_amcheck()
        for s in self.servers:
            for table, expressions in UNIQUE.items():
                for e in expressions:
                    for row in s.query(f"{NO_INDEX} SELECT {e}, count(*) FROM {table} WHERE ({e}) IS NOT NULL GROUP BY 1 HAVING count(*) > 1"):
                        self.fail(f"{s.name}: {table} has {row[0]} as {e} {row[1]} times")
                seq = s.query(f"{NO_INDEX} SELECT count(*) FROM {table}")[0][0]
                order = KEY[table].split(" ")[0].replace("::text", "")
                by_index = s.query(f"SET enable_seqscan = off; SET enable_bitmapscan = off;"
                                   f" SELECT count(*) FROM (SELECT 1 FROM {table} ORDER BY {order} OFFSET 0) x")[0][0]
                if seq != by_index:
                    self.fail(f"{s.name}: {table} has {seq} rows, and {by_index} by its index")
            for row in s.query(f"{NO_INDEX} SELECT a.id, b.id FROM room a JOIN room b ON a.id < b.id AND a.span && b.span"):
                self.fail(f"{s.name}: rooms {row[0]} and {row[1]} overlap")
            if amcheck:
                try:
                    s.query("SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am m ON m.oid = c.relam"
                            " WHERE m.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p' AND c.relnamespace <> 11"
                            " AND c.relnamespace <> 'pg_toast'::regnamespace")
                except pq.Error as e:
                    self.fail(f"{s.name}: {e}")
            for table in UNIQUE:
                try:
                    s.query(f"REINDEX TABLE {table}")
                except pq.Error as e:
                    self.fail(f"{s.name}: {table}: {e}")

    def have_amcheck(self):
        """It tells of indexes that do not fit their table, where it is installed."""
        try:
            for s in self.servers:
                s.query("CREATE EXTENSION IF NOT EXISTS amcheck")
            return True
        except pq.Error:
            return False

    # ---- nothing lost, nothing invented

    def audit(self):
        """Of each key, the newest of all committed writes stands, or has lost a conflict that the history tells of. What
        mmrepl's clock said before and after a write tells which is the newest, whatever the machines' clocks did."""
        events, truncates = collections.defaultdict(list), collections.defaultdict(list)
        writes = 0
        for n, sure, (lo, hi, tbl, op, key, row) in self.members.writes():
            event = Event(n, sure, int(lo), int(hi), op, row and json.loads(row))
            writes += 1
            (truncates[tbl] if op == "T" else events[(tbl, key)]).append(event)
        self.losers()
        self.settled()
        for table, versions in self.state.items():
            rows = versions[0]
            for key in sorted(set(rows) | {k for t, k in events if t == table}):
                row = json.loads(rows[key]) if key in rows else None
                self.audit_key(table, key, row, events[(table, key)] + truncates[table])
        if self.strategies:
            self.say(f"{self.by_strategy} keys whose conflicts a strategy has settled", True)
        return writes

    def audit_key(self, table, key, row, events):
        if row is not None and not any(row == e.row for e in events):
            self.fail(f"{table} {key}: nobody wrote the row {str(row)[:300]}")
            self.tell_history(table, key)
            return
        # another than the newest may stand if there was a conflict that a strategy has settled
        if table in self.strategies and (self.forgotten or (table, key) in self.decided or (table, None) in self.decided):
            self.by_strategy += 1
            return
        # its version is above lo and not above hi: those that nothing is surely newer than
        newest_lo = max((e.lo for e in events if e.sure), default=-1)
        if row is None and not any(e.sure for e in events):
            return
        for e in (e for e in events if e.hi > newest_lo):
            if row == e.row or row is None and canonical(table, e.row) in self.lost:
                return
        self.fail(f"{table} {key}: the newest write does not stand; here is {str(row)[:300]}")
        for e in sorted(events, key=lambda e: e.hi)[-6:]:
            self.say(f"  {self.servers[e.node].name}{'' if e.sure else ' (unsure)'} {e.lo} < ts <= {e.hi}: {e.op} {str(e.row)[:300]}")
        self.tell_history(table, key)

    def losers(self):
        """Rows that a row of another key has thrown out. Each for a reason: a value that both hold, and the older one goes."""
        self.lost = set()
        for name, rows in [(s.name, s.query(self.CONFLICTS)) for s in self.servers] + self.members.past_conflicts:
            for table, resolution, local, remote in rows:
                self.loser(name, table, resolution, local and json.loads(local), remote and json.loads(remote))

    def settled(self):
        """Keys of conflicts of tables with strategies; nobody knows them all when the history of one has gone."""
        key = collections.defaultdict(lambda: "key ->> 'id'", comp="(key ->> 'a') || '|' || trim_scale((key ->> 'b')::numeric)")
        self.forgotten = bool(self.members.past)
        self.by_strategy = 0
        self.decided = {(table, k) for table in self.strategies for s in self.servers
                        for (k,) in s.query(f"SELECT DISTINCT {key[table]} FROM mmrepl.conflict_log"
                                            f" WHERE relname = '{table}'")}

    def loser(self, name, table, resolution, local, remote):
        loser, winner = (local, remote) if resolution == "apply_remote" else (remote, local)
        if loser is None or winner is None:
            self.fail(f"{name}: a conflict of {table} without its rows: {resolution} {local} {remote}")
        elif KEYS[table](loser) != KEYS[table](winner):
            self.lost.add(canonical(table, loser))
            if not any(value(winner) == value(loser) is not None for value in VALUES[table]) and not overlap(winner, loser):
                self.fail(f"{name}: {table}: these rows do not collide: {local} {remote}")

    def no_conflicts(self):
        """When a single server was written to."""
        for s in self.servers:
            for row in s.query("SELECT to_jsonb(c) FROM mmrepl.conflict_log c ORDER BY id LIMIT 3"):
                self.fail(f"{s.name}: a conflict, though a single server was written to: {row[0]}")

    def set_aside(self):
        """Rows that could not be applied; a table that not every version has."""
        for s in self.servers:
            if s.query("SELECT to_regclass('mmrepl.apply_error') IS NOT NULL")[0][0] == "t":
                for row in s.query("SELECT to_jsonb(e) FROM mmrepl.apply_error e LIMIT 5"):
                    self.fail(f"{s.name}: set aside: {row[0][:600]}")

    # ---- the machinery

    def drained(self, timeout):
        deadline = time.time() + timeout
        while True:
            left = {s.name: int(s.query("SELECT count(*) FROM mmrepl.log")[0][0]) for s in self.servers}
            if not any(left.values()):
                return
            if time.time() > deadline:
                self.fail(f"the log does not drain: {left}")
                for s in self.servers:
                    for row in s.query("SELECT to_jsonb(l) FROM mmrepl.change_log l LIMIT 5"):
                        self.say(f"  {s.name}: {row[0]}")
                    for row in s.query("SELECT to_jsonb(p) FROM mmrepl.progress p"):
                        self.say(f"  {s.name}: {row[0]}")
                self.show_status()
                return
            time.sleep(0.5)

    def workers(self):
        sql = "SELECT kind, state, failures, pid, last_error FROM mmrepl.worker_status ORDER BY kind, pid"
        try:
            first = [s.query("SELECT kind, pid FROM mmrepl.worker_status WHERE kind <> 'apply' ORDER BY 1, 2") for s in self.servers]
            time.sleep(2)
            for s, before in zip(self.servers, first):
                if s.query("SELECT kind, pid FROM mmrepl.worker_status WHERE kind <> 'apply' ORDER BY 1, 2") != before:
                    self.fail(f"{s.name}: workers come and go")
                    self.show_status()
                for row in s.query("SELECT sync, peer, state, last_error FROM mmrepl.status WHERE state NOT IN ('good', 'pushing')"):
                    self.fail(f"{s.name}: {row}")
        except pq.Error as e:
            self.fail(f"views: {e} ({sql})")

    def logs(self):
        told = collections.Counter()
        for s in self.servers:
            for line in open(s.log, errors="replace"):
                if BUG.search(line) and "chaos]" not in line and "HINT:" not in line:
                    self.fail(f"{s.name}: {line.strip()[:400]}")
                elif re.search(r"(ERROR|FATAL|WARNING|LOG):", line) and "chaos]" not in line:
                    told[re.sub(r"\d+", "N", line.split("] ", 1)[1].strip())[:170]] += 1
        return told

    def clients(self, writers):
        for w in writers:
            for (state, message), n in w.errors.items():
                # after writes whose unique values are still to be checked; what Members ends when a server goes
                excused = "pending trigger events" in message or ("prepared transaction" in message and "busy" in message)
                if state not in EXPECTED_STATES and not excused:
                    self.fail(f"client of {w.server.name}: {n} times {state} {message}")
