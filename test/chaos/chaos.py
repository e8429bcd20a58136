#!/usr/bin/env python3
"""chaos.py: random writers on several servers that replicate to each other, and a nemesis; then quiet, and a check that all are equal.

  PG_CONFIG=.../pg_config chaos.py --seed 1 --nodes 2 --minutes 1
Environment: PG_CONFIG (mmrepl is installed there). The exit status is 0 when everything holds.

The seed fixes what each writer asks for, transaction by transaction (--plan shows it), the roles, the initial copy and the
sequence of faults with what each is about. It does not fix when a statement meets another, or a fault: that is the machine's."""
import argparse
import collections
import dataclasses
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pq
from check import Checker
from links import Network
from members import Members
from nemesis import Nemesis
from profiles import FUNCTIONS, PROFILES, STRATEGIES
from server import Server
from workload import Planner, Writer


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--nodes", type=int, default=2)
    p.add_argument("--minutes", type=float, default=1.0)
    p.add_argument("--profile", default="default", choices=sorted(PROFILES), help="what is written, and what goes wrong; see profiles.py")
    p.add_argument("--writers", type=int, help="connections that write, per server")
    p.add_argument("--pace", type=float, help="seconds between the transactions of a writer, on average")
    p.add_argument("--faults", help="by name: cut,slow,kill_worker,... (none: no faults)")
    p.add_argument("--star", action="store_true", default=None, help="the first server is a hub, and hands on what the others write")
    p.add_argument("--strategies", action="store_true", default=None, help="conflicts of some tables are not settled by the newest")
    p.add_argument("--clock", action="store_true", default=None, help="clocks jump")
    p.add_argument("--copy", type=int, choices=[0, 1, 2], help="onetimecopy (else by the seed)")
    p.add_argument("--targets", type=int, help="how many servers, from the last, only receive (else by the seed)")
    p.add_argument("--plan", type=int, metavar="N", help="only show the first N transactions of each writer")
    p.add_argument("--keep", action="store_true", help="the servers' directories stay (else only if the run fails)")
    p.add_argument("--discard", action="store_true", help="they never do")
    p.add_argument("--verbose", action="store_true")
    a = p.parse_args()
    given = {k: getattr(a, k) for k in ("writers", "pace", "faults", "clock", "star", "strategies") if getattr(a, k) is not None}
    a.profile = dataclasses.replace(PROFILES[a.profile], **given)
    rng = random.Random(f"{a.seed}/roles")
    copy, targets = rng.choice([0, 0, 0, 1, 2]), rng.choice([0, 0, 0, 1]) if a.nodes > 2 else 0
    a.copy = copy if a.copy is None else a.copy
    a.targets = (0 if a.profile.lonely else targets) if a.targets is None else a.targets
    return a


def plans(a):
    """The planner of every writer, by name."""
    sources = 1 if a.profile.lonely else a.nodes - a.targets
    return {(n, i): Planner(a.seed, f"n{n + 1}", i, a.profile) for n in range(sources) for i in range(a.profile.writers)}


def show_plan(a):
    for planner in plans(a).values():
        print(f"-- {planner.name}")
        print("\n".join(planner.text(a.plan)))


def digest(a):
    """Two runs with the same have the same workload."""
    told = "".join("\n".join(p.text(100)) for p in plans(a).values())
    return hashlib.sha256(told.encode()).hexdigest()[:12]


class Run:
    def __init__(self, a):
        self.a = a
        self.base = tempfile.mkdtemp(prefix="chaos.", dir=os.environ.get("MMR_WORK"))
        self.began = time.time()
        self.story = open(os.path.join(self.base, "story"), "w")
        self.lock = threading.Lock()
        self.servers = []
        self.writers = []

    def say(self, text, loud=None):
        with self.lock:
            line = f"{time.time() - self.began:8.3f} {text}"
            print(line, file=self.story, flush=True)
            if loud or (loud is None and (self.a.verbose or not text.startswith("nemesis"))):
                print(line, flush=True)

    def set_up(self):
        rng = random.Random(f"{self.a.seed}/set-up")
        bindir = subprocess.run([os.environ.get("PG_CONFIG", "pg_config"), "--bindir"], capture_output=True, text=True,
                                check=True).stdout.strip()
        preload = self.build_preload()
        names = [f"n{i + 1}" for i in range(self.a.nodes)]
        self.network = Network()
        self.schema = schema = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.sql")).read()
        for name in names:
            s = Server(name, self.base, bindir, rng.choice(["on", "off"]), self.a.profile.heartbeat,
                       preload, f"127.0.1.{len(self.servers) + 1}")
            self.servers.append(s)
            s.start()
            port = self.network.add(s, [n for n in names if n != name])
            s.address = f"host=127.0.0.1 port={port} dbname=app user=postgres"
        for s in self.servers:
            s.wait_up(dbname="postgres")
            s.query("CREATE DATABASE app", dbname="postgres")
            s.query(schema)
            if self.a.profile.strategies:
                s.query(FUNCTIONS)
        for s in self.servers[self.a.nodes - self.a.targets:]:
            s.role = "target"
        if self.a.profile.star:
            self.servers[0].role = "hub"
        self.fill()
        script = "CREATE EXTENSION mmrepl;"
        for s in self.servers:
            script += f"SELECT mmrepl.add_db('{s.name}', '{s.address}');"
        script += "SELECT mmrepl.add_table('sess', key => 'sess_uid', relgroup => 'herd');"
        script += "SELECT mmrepl.add_all_tables(relgroup => 'herd', exclude => '{audit}');"
        script += "SELECT mmrepl.add_sequence('sess_id_seq', relgroup => 'herd');"
        script += ("SELECT mmrepl.add_sync('chaos', relgroup => 'herd', dbs => '{%s}', onetimecopy => %d);"
                   % (",".join(f"{s.name}:{s.role}" for s in self.servers), self.a.copy))
        for table, strategy in STRATEGIES.items() if self.a.profile.strategies else ():
            strategy = " ".join(s.name for s in self.servers) if strategy == "priority" else strategy
            script += f"SELECT mmrepl.update_table('{table}', conflict_strategy => '{strategy}');"
        conn = self.servers[0].connect()
        for statement in script.split(";"):
            if statement:
                conn.exec(statement)
        conn.close()

    def build_preload(self):
        path = os.path.join(self.base, "preload.so")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "preload.c")
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", path, source, "-ldl"], check=True)
        return path

    def fill(self):
        """Rows that the initial copy takes from the first server; what others have (onetimecopy 1) goes."""
        if not self.a.copy:
            return
        tables = {"acct": "i, i, NULL, 0, 0, '{tag}'||i", "users": "'user'||i, 'Mail'||i, '', '{tag}'||i", "comp": "i, 1.0, 'c', '{tag}'||i",
                  "parent": "i, 'p', '{tag}'||i", "bucket": "i, 'b', '{tag}'||i", "seat": "i, i, NULL, '{tag}'||i",
                  "room": "i, int4range(i, i+1), '{tag}'||i"}
        for s in self.servers if self.a.copy == 1 else self.servers[:1]:
            for table, row in tables.items():
                s.query("SET session_replication_role = replica", f"INSERT INTO {table} SELECT {row.format(tag='fill.' + s.name + '.')}"
                        f" FROM generate_series(0, {4 if table in ('comp', 'parent') else 5}) i")
        key = {"users": "name", "comp": "a || '|' || trim_scale(b)"}
        for table in tables:
            # older than anything
            self.servers[0].query(f"INSERT INTO audit (lo, hi, tbl, op, key, row) SELECT -1, 0, '{table}', 'W',"
                                  f" {key.get(table, 'id::text')}, to_jsonb(t) FROM {table} t")

    def play(self):
        stop = threading.Event()
        for node, number in plans(self.a):
            s = self.servers[node]
            self.writers.append(Writer(s, s.name, number, self.a.seed, self.a.profile, stop))
        self.members = Members(self.servers, self.writers, self.schema + (";" + FUNCTIONS if self.a.profile.strategies else ""), self.say)
        self.nemesis = Nemesis(self.servers, self.network, self.members, self.a.seed, stop, self.say, self.a.profile)
        for w in self.writers:
            w.start()
        if self.nemesis.actions:
            self.nemesis.start()
        time.sleep(self.a.minutes * 60)
        stop.set()
        self.say("quiet", True)
        self.nemesis.settle()
        if self.nemesis.actions:
            self.nemesis.join()
            self.nemesis.settle()
        for w in self.writers:
            w.join(60)
            if w.is_alive():
                self.say(f"a writer of {w.server.name} does not come to an end", True)
        self.end_prepared()
        for s in self.members.inside():
            for sql in ("SELECT mmrepl.start()", "SELECT mmrepl.resume('chaos')"):
                try:
                    s.query(sql)
                except (pq.Error, pq.Lost) as e:
                    self.say(f"{s.name}: {sql}: {e}", True)

    def end_prepared(self):
        rng = random.Random(f"{self.a.seed}/end")
        for s in self.servers:
            for (gid,) in s.query("SELECT gid FROM pg_prepared_xacts ORDER BY gid"):
                s.query(f"{'COMMIT' if rng.random() < 0.7 else 'ROLLBACK'} PREPARED '{gid}'")

    def check(self):
        c = self.checker = Checker(self.servers, self.members, self.say, STRATEGIES if self.a.profile.strategies else {})
        if self.a.profile.clock:
            for s in self.servers:
                s.set_clock(0)
        if self.nemesis.counts.keys() & {"leave", "leave dead"}:
            for name in self.members.all_in(60, Checker.CONFLICTS):
                c.fail(f"{name} does not come in again")
        synced = c.wait_synced(90)
        equal = c.until_equal(10 if synced else 2)
        c.unique()
        writes = c.audit() if equal else 0
        if self.a.profile.lonely:
            c.no_conflicts()
        c.set_aside()
        if synced:
            c.drained(60)
            c.workers()
        told = c.logs()
        c.clients(self.writers)
        return writes, told

    def report(self, writes, told):
        counts, errors = collections.Counter(), collections.Counter()
        for w in self.writers:
            counts.update(w.counts)
            for (state, message), n in w.errors.items():
                errors[state] += n
        conflicts = sum(int(s.query("SELECT count(*) FROM mmrepl.conflict_log")[0][0]) for s in self.servers)
        self.say(f"seed {self.a.seed}, {self.a.nodes} nodes ({self.a.targets} targets), onetimecopy {self.a.copy},"
                 f" workload {digest(self.a)}: {writes} row writes, {dict(counts)}, client errors {dict(errors)}", True)
        self.say(f"{sum(self.nemesis.counts.values())} faults: {dict(self.nemesis.counts)}", True)
        self.say(f"{conflicts} conflicts, notices {len(pq.notices)} {set(pq.notices[:3]) if pq.notices else ''}", True)
        for message, n in told.most_common():
            self.say(f"  log {n:4} {message}", self.a.verbose or bool(self.checker.failures))
        self.say("FAILED" if self.checker.failures else "passed", True)

    def clean(self, failed):
        for s in self.servers:
            s.stop(signal.SIGQUIT)
        if (failed or self.a.keep) and not self.a.discard:
            self.say(f"kept: {self.base}", True)
        else:
            shutil.rmtree(self.base, ignore_errors=True)


def main():
    a = arguments()
    if a.plan:
        show_plan(a)
        return
    run = Run(a)
    failed = True
    try:
        run.set_up()
        run.play()
        run.report(*run.check())
        failed = bool(run.checker.failures)
    finally:
        run.clean(failed)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
