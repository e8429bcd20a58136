"""workload.py: writers. What a writer does is planned from its own random numbers before it is done, so that a seed
gives the same transactions whatever the servers answer."""
import collections
import random
import re
import threading
import time

import pq

TABLES = ["acct", "users", "comp", "parent", "child", "bucket", "sess", "seat", "room"]


class Planner:
    """Transactions of one writer, as lists of steps: SQL, or a number of seconds to wait."""

    def __init__(self, seed, node, writer, profile):
        self.profile = profile
        self.rng = random.Random(f"{seed}/{node}/{writer}")
        # on every second node nobody waits for the disk: what is committed stays unflushed for long
        self.lazy = profile.lazy or random.Random(f"{seed}/{node}").random() < 0.5
        self.name = f"{node}.{writer}"
        self.n = 0

    def tag(self):
        self.n += 1
        return f"{self.name}.{self.n}"

    def key(self):
        return self.rng.randrange(self.profile.keys)

    def acct(self):
        r, k = self.rng, self.key()
        u = r.choice(["NULL", str(r.randrange(10))])
        part, grp = r.randrange(8), r.randrange(3)
        c = r.random()
        if c < 0.25:
            return f"INSERT INTO acct VALUES ({k}, {u}, {part}, {grp}, {r.randrange(100)}, '{self.tag()}')"
        if c < 0.45:
            return (f"INSERT INTO acct VALUES ({k}, NULL, {part}, 0, 1, '{self.tag()}')"
                    f" ON CONFLICT (id) DO UPDATE SET v = acct.v + 1, tag = EXCLUDED.tag")
        if c < 0.65:
            return f"UPDATE acct SET u = {u}, grp = {grp}, v = v + 1, tag = '{self.tag()}' WHERE id = {k}"
        if c < 0.75:
            return f"DELETE FROM acct WHERE id = {k}"
        if c < 0.85:
            return f"UPDATE acct SET id = {self.key()}, tag = '{self.tag()}' WHERE id = {k}"
        return self.swap(r.sample(range(self.profile.keys), r.choice([2, 2, 3])))

    def swap(self, ids):
        """The unique values of these rows go round."""
        steps = " ".join(f"SELECT u INTO x{i} FROM acct WHERE id = {k} FOR UPDATE;" for i, k in enumerate(ids))
        steps += f" UPDATE acct SET u = NULL, tag = '{self.tag()}.' || id WHERE id IN ({', '.join(map(str, ids))});"
        for i, k in enumerate(ids):
            steps += f" UPDATE acct SET u = x{(i + 1) % len(ids)}, tag = '{self.tag()}' WHERE id = {k};"
        names = " ".join(f"x{i} int;" for i in range(len(ids)))
        return f"DO $$ DECLARE {names} BEGIN {steps} END $$"

    def users(self):
        r, k = self.rng, f"user{self.key()}"
        mail = r.choice(["NULL", f"'{r.choice(['M', 'm'])}ail{r.randrange(10)}'"])
        bio = f"repeat(md5('{r.randrange(99)}'), {r.choice([1, 1, 100, 400])})"
        c = r.random()
        if c < 0.4:
            return (f"INSERT INTO users VALUES ('{k}', {mail}, {bio}, '{self.tag()}')"
                    f" ON CONFLICT (name) DO UPDATE SET email = EXCLUDED.email, tag = EXCLUDED.tag")
        if c < 0.75:
            return f"UPDATE users SET email = {mail}, tag = '{self.tag()}' WHERE name = '{k}'"
        if c < 0.9:
            return f"DELETE FROM users WHERE name = '{k}'"
        return f"UPDATE users SET name = 'user{self.key()}', tag = '{self.tag()}' WHERE name = '{k}'"

    def comp(self):
        r = self.rng
        a, b = r.randrange(4), r.choice(["1", "1.0", "1.00", "2.5", "2.50", "-0.1", "1e3", "1000"])
        c = r.random()
        if c < 0.5:
            return (f"INSERT INTO comp VALUES ({a}, {b}, 'c{r.randrange(99)}', '{self.tag()}')"
                    f" ON CONFLICT (a, b) DO UPDATE SET c = EXCLUDED.c, tag = EXCLUDED.tag")
        if c < 0.7:
            return f"UPDATE comp SET c = 'u{r.randrange(99)}', tag = '{self.tag()}' WHERE a = {a}"
        if c < 0.85:
            return f"UPDATE comp SET b = {b}, tag = '{self.tag()}' WHERE a = {a} AND b = {r.choice(['1', '2.5'])}"
        return f"DELETE FROM comp WHERE a = {a} AND b = {b}"

    def family(self):
        r, p = self.rng, self.rng.randrange(6)
        c = r.random()
        if c < 0.25:
            return f"INSERT INTO parent VALUES ({p}, 'p', '{self.tag()}') ON CONFLICT DO NOTHING"
        if c < 0.6:
            return (f"INSERT INTO child VALUES ({self.key()}, {p}, '{self.tag()}')"
                    f" ON CONFLICT (id) DO UPDATE SET parent = EXCLUDED.parent, tag = EXCLUDED.tag")
        if c < 0.7:
            return f"DELETE FROM child WHERE id = {self.key()}"
        if c < 0.8:
            return f"UPDATE parent SET id = {r.randrange(6)}, tag = '{self.tag()}' WHERE id = {p}"
        if c < 0.88:
            return f"DELETE FROM parent WHERE id = {p}"
        return f"UPDATE parent SET name = 'q', tag = '{self.tag()}' WHERE id = {p}"

    def bucket(self):
        r = self.rng
        c = r.random()
        lo = r.randrange(100)
        if c < 0.55:
            return (f"INSERT INTO bucket VALUES ({lo}, 'b', '{self.tag()}')"
                    f" ON CONFLICT (id) DO UPDATE SET v = bucket.v || 'x', tag = EXCLUDED.tag")
        if c < 0.70:
            return f"UPDATE bucket SET v = 'r', tag = '{self.tag()}.' || id WHERE id BETWEEN {lo} AND {lo + 10}"
        if c < 0.85:
            return f"DELETE FROM bucket WHERE id BETWEEN {lo} AND {lo + 5}"
        n = r.choice([50, 300, 1500])
        lo = 1000 + r.randrange(1000)
        return (f"INSERT INTO bucket SELECT i, 'bulk', '{self.tag()}.' || i FROM generate_series({lo}, {lo + n}) i"
                f" ON CONFLICT (id) DO UPDATE SET v = 'again', tag = EXCLUDED.tag")

    def sess(self):
        r, k = self.rng, f"sess{self.key()}"
        c = r.random()
        if c < 0.45:
            return (f"INSERT INTO sess (uid, octets, tag) VALUES ('{k}', {r.randrange(99)}.50, '{self.tag()}')"
                    f" ON CONFLICT (uid) DO UPDATE SET octets = sess.octets + 1, tag = EXCLUDED.tag")
        if c < 0.8:
            return f"UPDATE sess SET octets = octets + 1.5, tag = '{self.tag()}' WHERE uid = '{k}'"
        return f"DELETE FROM sess WHERE uid = '{k}'"

    def seat(self):
        """Deferrable unique values: swaps and shifts that collide half way."""
        r, k = self.rng, self.key()
        pos, alt = r.choice(["NULL", str(r.randrange(10))]), r.choice(["NULL", str(r.randrange(10))])
        c = r.random()
        if c < 0.45:
            return (f"INSERT INTO seat VALUES ({k}, {pos}, {alt}, '{self.tag()}')"
                    f" ON CONFLICT (id) DO UPDATE SET pos = EXCLUDED.pos, alt = EXCLUDED.alt, tag = EXCLUDED.tag")
        if c < 0.60:
            a, b = r.sample(range(self.profile.keys), 2)
            return (f"UPDATE seat s SET pos = o.pos, tag = '{self.tag()}.' || s.id FROM seat o"
                    f" WHERE s.id IN ({a}, {b}) AND o.id IN ({a}, {b}) AND s.id <> o.id")
        if c < 0.70:
            return f"UPDATE seat SET pos = (pos + 1) % 10, tag = '{self.tag()}.' || id"
        if c < 0.80:
            return f"UPDATE seat SET alt = 9 - alt, tag = '{self.tag()}.' || id"
        if c < 0.90:
            return f"UPDATE seat SET id = {self.key()}, tag = '{self.tag()}' WHERE id = {k}"
        return f"DELETE FROM seat WHERE id = {k}"

    def room(self):
        """Spans that must not overlap."""
        r, k = self.rng, self.key()
        lo = r.randrange(40)
        span = f"int4range({lo}, {lo + r.randrange(1, 6)})"
        c = r.random()
        if c < 0.45:
            return f"INSERT INTO room VALUES ({k}, {span}, '{self.tag()}') ON CONFLICT DO NOTHING"
        if c < 0.75:
            return f"UPDATE room SET span = {span}, tag = '{self.tag()}' WHERE id = {k}"
        if c < 0.85:
            return f"UPDATE room SET id = {self.key()}, tag = '{self.tag()}' WHERE id = {k}"
        return f"DELETE FROM room WHERE id = {k}"

    def loop(self):
        """Exceptions caught in a loop: every second or so insert is undone."""
        body = ""
        for _ in range(self.rng.randrange(3, 12)):
            undo = "RAISE 'undone';" if self.rng.random() < 0.5 else ""
            body += f" BEGIN {self.op()}; {undo} EXCEPTION WHEN raise_exception OR integrity_constraint_violation THEN NULL; END;"
        return f"DO $x$ BEGIN {body} END $x$"

    def op(self):
        return getattr(self, self.rng.choices(list(self.profile.tables), list(self.profile.tables.values()))[0])()

    def transaction(self):
        """Steps, and how it ends: commit, rollback or (prepared) the number of transactions after which that is decided."""
        r = self.rng
        steps, depth = [], 0
        level = r.choices(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"], [8, 1, 1])[0]
        steps.append(f"BEGIN ISOLATION LEVEL {level}")
        flush = r.choice(["on", "off", "off", "local"])
        steps.append(f"SET LOCAL synchronous_commit = {'off' if self.lazy else flush}")
        for _ in range(r.choice([1, 1, 1, 2, 3, 5])):
            c = r.random()
            if c < 0.80:
                steps.append(self.op())
            elif c < 0.88:
                depth += 1
                steps.append(f"SAVEPOINT s{depth}")
                steps.append(self.op())
            elif c < 0.92 and depth:
                steps.append(r.choice([f"ROLLBACK TO s{depth}", f"RELEASE s{depth}"]))
                depth -= 1
            elif c < 0.96:
                steps.append(self.loop())
            else:
                steps.append(r.choice(self.profile.waits))
        c = r.random()
        if c < self.profile.truncate:
            truncate = r.choice(["bucket", "acct", "acct", "parent CASCADE", "comp, users", "seat, room", "sess RESTART IDENTITY"])
            steps += r.choice([[], [], ["SAVEPOINT t"]]) + [f"TRUNCATE {truncate}"]
            if "SAVEPOINT t" in steps:
                steps += ["ROLLBACK TO t", self.op()]
            elif r.random() < 0.3:
                steps.append(self.op())
        c = r.random()
        end = "COMMIT" if c < 0.90 else "ROLLBACK"
        if c > 1 - self.profile.prepared:
            end = (r.randrange(1, 30), r.random() < 0.8)
        return steps, end, r.random()

    def text(self, count):
        """The next transactions, to be read."""
        told = []
        for _ in range(count):
            steps, end, _rest = self.transaction()
            ends = end if isinstance(end, str) else f"PREPARE; after {end[0]} more: {'COMMIT' if end[1] else 'ROLLBACK'}"
            told += [step if isinstance(step, str) else f"-- waits {step} s" for step in steps] + [ends]
        return told


class Writer(threading.Thread):
    def __init__(self, server, node, number, seed, profile, run):
        super().__init__(daemon=True)
        self.server, self.pace, self.run_state = server, profile.pace, run
        self.burst = profile.burst
        self.planner = Planner(seed, node, number, profile)
        self.conn = None
        self.counts = collections.Counter()
        self.errors = collections.Counter()
        self.idle = threading.Event()   # set while the server is not to be written to, and nothing is under way
        self.prepared = []              # (transaction number at which it ends, gid, commit)
        self.number = 0

    def connected(self):
        while self.conn is None and not self.run_state.is_set():
            try:
                self.conn = self.server.connect()
                self.conn.exec("SET lock_timeout = 700; SET statement_timeout = 20000")
            except (pq.Lost, pq.Error):
                self.drop()
                time.sleep(0.1)
        return self.conn is not None

    def drop(self):
        if self.conn is not None:
            self.conn.close()
            self.conn = None

    def try_exec(self, sql):
        """True if it was done."""
        try:
            self.conn.exec(sql)
            return True
        except pq.Error as e:
            self.errors[(e.sqlstate, re.sub('"[^"]*"', '""', e.message))] += 1
        except pq.Lost:
            self.counts["lost"] += 1
            self.drop()
        return False

    def transaction(self, steps, end):
        for step in steps:
            if isinstance(step, float):
                self.run_state.wait(step)
            elif not self.try_exec(step):
                if self.conn is not None:
                    self.try_exec("ROLLBACK")
                self.counts["failed"] += 1
                return
            else:
                self.counts["statements"] += 1
        if isinstance(end, tuple):
            gid = f"{self.planner.name}.{self.number}"
            if self.try_exec(f"PREPARE TRANSACTION '{gid}'"):
                self.prepared.append((self.number + end[0], gid, end[1]))
                self.counts["prepared"] += 1
            return
        if self.try_exec(end):
            self.counts["committed" if end == "COMMIT" else "rolled back"] += 1

    def end_prepared(self, all_of_them=False):
        for item in list(self.prepared):
            due, gid, commit = item
            if not all_of_them and due > self.number:
                continue
            if not self.connected():
                return
            self.try_exec(f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{gid}'")
            if self.conn is not None:
                self.prepared.remove(item)

    def wait_for_burst(self):
        if self.burst:
            length, period = self.burst
            while time.time() % period > length and not self.run_state.wait(0.01):
                pass

    def wait_for_server(self):
        while not self.server.writable.is_set() and not self.run_state.is_set():
            self.end_prepared(True)
            if not self.prepared:
                self.idle.set()
            self.server.writable.wait(0.1)
        if self.idle.is_set():
            self.drop()                 # its database may be another one
            self.idle.clear()

    def run(self):
        try:
            while not self.run_state.is_set():
                self.wait_for_server()
                self.wait_for_burst()
                steps, end, rest = self.planner.transaction()
                self.number += 1
                if not self.connected():
                    break
                self.transaction(steps, end)
                self.end_prepared()
                time.sleep(rest * self.pace * 2)
        finally:
            self.drop()
