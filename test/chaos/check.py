"""check.py: what must hold when all is quiet."""
import collections
import json
import re
import time

import pq
from workload import TABLES

KEY = {"acct": "id::text", "users": "name", "comp": "a || '|' || trim_scale(b)", "parent": "id::text", "child": "id::text",
       "bucket": "id::text", "sess": "uid"}
UNIQUE = {"acct": ["id", "u", "CASE WHEN grp = 1 THEN part END"], "users": ["name", "lower(email)"],
          "comp": ["a || '|' || trim_scale(b)"], "parent": ["id"], "child": ["id"], "bucket": ["id"], "sess": ["id", "uid"]}
# of two writes on two nodes this far apart the later one is the newer, whatever happened between trigger and trigger
MARGIN = 0.3

BUG = re.compile(r"PANIC|TRAP:|was not closed|\bleak|still referenced|unexpected snapshot|snapshot reference|"
                 r"invalid memory alloc|could not find block|corrupt|cache lookup failed|"
                 r"terminated by signal (?:4|6|7|8|11)|could not (?:read|open|access) (?:file|status)|out of range|"
                 r"internal error|unexpected(?!ly| postmaster exit| EOF on client| pageaddr)|tuple concurrently|duplicate key value.*mmrepl|MultiXact")
EXPECTED_STATES = {"23505", "23503", "40P01", "40001", "55P03", "57014", "57P01", "57P02", "57P03", "25P02", "P0001", "42704"}


class Checker:
    def __init__(self, servers, say, skewed=False):
        self.servers, self.say, self.skewed = servers, say, skewed
        self.failures = []

    def fail(self, what):
        self.failures.append(what)
        self.say("FAILED: " + what)

    # ---- quiet

    def wait_synced(self, timeout):
        deadline = time.time() + timeout
        for _ in range(2):
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
        return dict(server.query(f"SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;"
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
        try:
            self.tell_key(table, key)
        except (pq.Lost, pq.Error) as e:
            self.say(f"    {e}")

    def tell_key(self, table, key):
        quoted = key.replace("'", "''")
        for s in self.servers:
            for row in s.query(f"SELECT at, seq, op, row FROM audit WHERE tbl = '{table}' AND (key = '{quoted}' OR op = 'T')"
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
        for s in self.servers:
            for table, expressions in UNIQUE.items():
                for e in expressions:
                    for row in s.query(f"SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;"
                                       f" SELECT {e}, count(*) FROM {table} WHERE ({e}) IS NOT NULL GROUP BY 1 HAVING count(*) > 1"):
                        self.fail(f"{s.name}: {table} has {row[0]} as {e} {row[1]} times")
                seq = s.query(f"SELECT count(*) FROM {table}")[0][0]
                by_index = s.query(f"SET enable_seqscan = off; SET enable_bitmapscan = off;"
                                   f" SELECT count(*) FROM (SELECT 1 FROM {table} ORDER BY {KEY[table].split(' ')[0].replace('::text', '')} OFFSET 0) x")[0][0]
                if seq != by_index:
                    self.fail(f"{s.name}: {table} has {seq} rows, and {by_index} by its index")
                try:
                    s.query(f"REINDEX TABLE {table}")
                except pq.Error as e:
                    self.fail(f"{s.name}: {table}: {e}")

    # ---- nothing lost, nothing invented

    def audit(self):
        """Of each key, the newest of all committed writes stands, or has lost a conflict that the history tells of."""
        events = collections.defaultdict(list)
        truncates = collections.defaultdict(list)
        writes = 0
        for n, s in enumerate(self.servers):
            for seq, at, tbl, op, key, row in s.query(
                    "SELECT seq, extract(epoch FROM at), tbl, op, key, row FROM audit ORDER BY seq"):
                event = (n, int(seq), float(at), op, row)
                writes += 1
                (truncates[tbl] if op == "T" else events[(tbl, key)]).append(event)
        lost = set()
        for s in self.servers:
            for r1, r2 in s.query("SELECT local_row->>'tag', remote_row->>'tag' FROM mmrepl.conflict_log"
                                  " WHERE conflict_type IN ('insert_exists', 'update_exists', 'multiple_unique_conflicts')"):
                lost.update((r1, r2))
        for table, versions in self.state.items():
            rows = versions[0]
            for key in set(rows) | {k for t, k in events if t == table}:
                self.audit_key(table, key, rows.get(key), events[(table, key)] + truncates[table], lost)
        return writes

    @staticmethod
    def same(stored, written):
        return stored is not None and written is not None and json.loads(stored) == json.loads(written)

    def audit_key(self, table, key, row, events, lost):
        if row is not None and not any(self.same(row, e[4]) for e in events):
            self.fail(f"{table} {key}: nobody wrote the row {row[:300]}")
            self.tell_history(table, key)
            return
        if self.skewed:
            return
        newest = {}
        for e in events:
            if e[0] not in newest or newest[e[0]][1] < e[1]:
                newest[e[0]] = e
        last = max(e[2] for e in newest.values())
        stand = [e for e in newest.values() if e[2] >= last - MARGIN]
        for e in stand:
            if e[3] in "DT" and row is None:
                return
            if e[3] == "W" and (self.same(row, e[4]) or row is None and json.loads(e[4])["tag"] in lost):
                return
        self.fail(f"{table} {key}: the newest write does not stand; here is {row and row[:300]}")
        for e in sorted(newest.values(), key=lambda e: e[2]):
            self.say(f"  {self.servers[e[0]].name} at {e[2]:.6f}: {e[3]} {e[4] and e[4][:300]}")
        self.tell_history(table, key)

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
                if state not in EXPECTED_STATES:
                    self.fail(f"client of {w.server.name}: {n} times {state} {message}")
