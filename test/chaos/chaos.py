#!/usr/bin/env python3
"""chaos.py: random writers on several servers that replicate to each other, and a nemesis; then quiet, and a check that all are equal.

  PG_CONFIG=.../pg_config chaos.py --seed 1 --nodes 2 --minutes 1
Environment: PG_CONFIG (mmrepl is installed there). The exit status is 0 when everything holds."""
import argparse
import collections
import glob
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
from nemesis import Nemesis
from server import Server
from workload import Writer


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--nodes", type=int, default=2)
    p.add_argument("--minutes", type=float, default=1.0)
    p.add_argument("--writers", type=int, default=4, help="connections that write, per server")
    p.add_argument("--pace", type=float, default=0.02, help="seconds between the transactions of a writer, on average")
    p.add_argument("--only", help="faults, by name: cut,slow,kill_worker,... (none: no faults)")
    p.add_argument("--clock", action="store_true", help="clocks jump (libfaketime)")
    p.add_argument("--keep", action="store_true", help="the servers' directories stay")
    p.add_argument("--verbose", action="store_true")
    return p.parse_args()


class Run:
    def __init__(self, a):
        self.a = a
        self.base = tempfile.mkdtemp(prefix="chaos.", dir=os.environ.get("MMR_WORK"))
        self.began = time.time()
        self.story = open(os.path.join(self.base, "story"), "w")
        self.lock = threading.Lock()
        self.servers = []

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
        fake = (glob.glob("/usr/lib/*/faketime/libfaketime.so.1") or [None])[0] if self.a.clock else None
        names = [f"n{i + 1}" for i in range(self.a.nodes)]
        self.network = Network()
        schema = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.sql")).read()
        for name in names:
            s = Server(name, self.base, bindir, rng.choice(["on", "off"]), fake)
            self.servers.append(s)
            s.start()
            s.proxy_port = self.network.add(s, [n for n in names if n != name])
        for s in self.servers:
            s.wait_up(dbname="postgres")
            s.query("CREATE DATABASE app", dbname="postgres")
            s.query(schema)
        script = "CREATE EXTENSION mmrepl;"
        for s in self.servers:
            script += f"SELECT mmrepl.add_db('{s.name}', 'host=127.0.0.1 port={s.proxy_port} dbname=app user=postgres');"
        script += "SELECT mmrepl.add_table('sess', key => 'sess_uid', relgroup => 'herd');"
        script += "SELECT mmrepl.add_all_tables(relgroup => 'herd', exclude => '{audit}');"
        script += "SELECT mmrepl.add_sequence('sess_id_seq', relgroup => 'herd');"
        script += "SELECT mmrepl.add_sync('chaos', relgroup => 'herd', dbs => '{%s}');" % ",".join(n + ":source" for n in names)
        conn = self.servers[0].connect()
        for statement in script.split(";"):
            if statement:
                conn.exec(statement)
        conn.close()

    def play(self):
        stop = threading.Event()
        self.writers = [Writer(s, s.name, i, self.a.seed, self.a.pace, stop) for s in self.servers for i in range(self.a.writers)]
        self.nemesis = Nemesis(self.servers, self.network, self.a.seed, stop, self.say, self.a.only, self.a.clock)
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
        for s in self.servers:
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
        c = self.checker = Checker(self.servers, self.say, self.a.clock)
        if self.a.clock:
            for s in self.servers:
                s.set_clock(0)
        synced = c.wait_synced(90)
        equal = c.until_equal(10 if synced else 2)
        c.unique()
        writes = c.audit() if equal else 0
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
        self.say(f"seed {self.a.seed}, {self.a.nodes} nodes: {writes} row writes, {dict(counts)}, client errors {dict(errors)}", True)
        self.say(f"{sum(self.nemesis.counts.values())} faults: {dict(self.nemesis.counts)}", True)
        self.say(f"{conflicts} conflicts, notices {len(pq.notices)} {set(pq.notices[:3]) if pq.notices else ''}", True)
        for message, n in told.most_common():
            self.say(f"  log {n:4} {message}", self.a.verbose or bool(self.checker.failures))
        self.say("FAILED" if self.checker.failures else "passed", True)

    def clean(self, failed):
        for s in self.servers:
            s.stop(signal.SIGQUIT)
        if failed or self.a.keep:
            self.say(f"kept: {self.base}", True)
        else:
            shutil.rmtree(self.base, ignore_errors=True)


def main():
    run = Run(arguments())
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
