"""nemesis.py: what goes wrong while the writers write."""
import collections
import random
import signal
import threading
import time

import pq


class Nemesis(threading.Thread):
    def __init__(self, servers, network, seed, run, say, only=None, clock=False):
        super().__init__(daemon=True)
        self.servers, self.network, self.run_state, self.say = servers, network, run, say
        self.rng = random.Random(f"{seed}/nemesis")
        self.counts = collections.Counter()
        self.lock = threading.Lock()
        self.later = []                 # (time, what, function): ends of faults
        self.stopped = set()
        actions = {self.cut: 6, self.slow: 2, self.kill_worker: 4, self.terminate_worker: 4, self.kill_server: 4,
                   self.restart: 2, self.freeze: 3, self.maintain: 4, self.pause: 2, self.stop_here: 2, self.kick: 1}
        if clock:
            actions[self.clock] = 4
        if only:
            actions = {f: w for f, w in actions.items() if f.__name__ in only.split(",")}
        self.actions = actions

    def count(self, what, where):
        self.counts[what] += 1
        self.say(f"nemesis: {what} {where}")

    def after(self, seconds, what, function):
        with self.lock:
            self.later.append((time.time() + seconds, what, function))

    def sql(self, server, sql):
        try:
            server.query("SET statement_timeout = 8000", "SET lock_timeout = 2000", sql, app="chaos-nemesis")
            return True
        except (pq.Lost, pq.Error) as e:
            self.say(f"nemesis: {sql}: {e}")
            return False

    # ---- faults

    def cut(self, server):
        link = self.rng.choice(list(self.network.links.values()))
        how = self.rng.choice(["drop", "drop", "reset"])
        ways = self.rng.choice([("to", "from"), ("to",), ("from",)])
        forget = self.rng.random() < 0.5
        links = [link]
        if self.rng.random() < 0.4:     # both directions between the two
            links.append(self.network.links[(link.target, link.source)])
        for x in links:
            self.network.cut(x, how, ways)
        self.count(f"cut ({how}{'' if len(ways) == 2 else ' ' + ways[0]})", f"{link.source} -> {link.target} x{len(links)}")
        self.after(self.rng.choice([0.3, 1, 3, 8]), "heal", lambda: [self.network.heal(x, forget) for x in links])

    def slow(self, server):
        link = self.rng.choice(list(self.network.links.values()))
        link.delay = self.rng.choice([0.02, 0.1, 0.3])
        self.count("delay", f"{link.source} -> {link.target}")
        self.after(self.rng.choice([1, 4]), "heal", lambda: self.network.heal(link))

    def worker(self, server):
        what = self.rng.choice(["mmrepl pusher", "mmrepl janitor", "mmrepl launcher", "127.0.0.1", "127.0.0.1", "mmrepl pusher"])
        pids = server.processes(what)
        return what, (self.rng.choice(pids) if pids else None)

    def kill_worker(self, server):
        what, pid = self.worker(server)
        if pid is not None:
            server.crashes.append(time.time())
            server.send(pid, signal.SIGKILL)
            self.count(f"SIGKILL of {what if 'mmrepl' in what else 'apply backend'}", server.name)

    def terminate_worker(self, server):
        what, pid = self.worker(server)
        if pid is not None:
            server.send(pid, signal.SIGTERM)
            self.count(f"SIGTERM of {what if 'mmrepl' in what else 'apply backend'}", server.name)

    def kill_server(self, server):
        both = self.rng.random() < 0.15
        all_at_once = self.rng.random() < 0.8
        away = self.rng.choice([0.1, 0.5, 2, 6])
        for s in self.servers if both else [server]:
            s.kill(all_at_once)
            self.count("SIGKILL of postmaster", s.name)
            self.after(away, "start", s.start)

    def restart(self, server):
        sig = self.rng.choice([signal.SIGINT, signal.SIGQUIT])
        server.stop(sig)
        self.count("restart " + ("fast" if sig == signal.SIGINT else "immediate"), server.name)
        server.start()

    def freeze(self, server):
        what, pid = self.worker(server)
        pids = server.pids() if self.rng.random() < 0.2 else [pid] if pid is not None else []
        for p in pids:
            server.send(p, signal.SIGSTOP)
        self.count("SIGSTOP", f"{server.name}: {len(pids)}")
        self.stopped.update((server, p) for p in pids)
        self.after(self.rng.choice([0.3, 1, 4]), "SIGCONT", lambda: [server.send(p, signal.SIGCONT) for p in pids])

    def maintain(self, server):
        sql = self.rng.choice(["VACUUM FREEZE", "VACUUM FULL acct", "REINDEX TABLE users", "CHECKPOINT", "CLUSTER comp USING comp_pkey",
                               "SELECT pg_switch_wal()", "ALTER TABLE bucket ALTER v SET STORAGE MAIN", "ANALYZE", "VACUUM FREEZE mmrepl.progress"])
        if self.sql(server, sql):
            self.count("maintenance", f"{server.name}: {sql}")

    def pause(self, server):
        if self.sql(server, "SELECT mmrepl.pause('chaos')"):
            self.count("pause", server.name)
        other = self.rng.choice(self.servers)
        self.after(self.rng.choice([0.5, 2]), "resume", lambda: self.sql(other, "SELECT mmrepl.resume('chaos')"))

    def stop_here(self, server):
        if self.sql(server, "SELECT mmrepl.stop()"):
            self.count("stop", server.name)
        self.after(self.rng.choice([0.5, 2]), "start", lambda: self.sql(server, "SELECT mmrepl.start()"))

    def kick(self, server):
        if self.sql(server, "SELECT mmrepl.kick('chaos', 1)"):
            self.count("kick", server.name)

    def clock(self, server):
        offset = self.rng.choice([-40, -5, -1, 0, 1, 5, 40])
        server.set_clock(offset)
        self.count("clock", f"{server.name} {offset:+} s")

    # ---- life

    def due(self, everything=False):
        now = time.time()
        with self.lock:
            ends = [x for x in self.later if everything or x[0] <= now]
            self.later = [x for x in self.later if x not in ends]
        for _, what, function in sorted(ends, key=lambda x: x[0]):
            self.say(f"nemesis: {what}")
            function()

    def heal_in_time(self):
        """In a thread of its own: a fault under way may wait for the end of another."""
        while not self.run_state.is_set():
            time.sleep(0.05)
            self.due()

    def run(self):
        threading.Thread(target=self.heal_in_time, daemon=True).start()
        until = time.time() + 1
        while not self.run_state.is_set():
            time.sleep(0.05)
            if time.time() < until:
                continue
            server = self.rng.choice(self.servers)
            action = self.rng.choices(list(self.actions), list(self.actions.values()))[0]
            if server.proc.poll() is not None and action not in (self.cut, self.slow):
                until = time.time() + 0.2
                continue
            action(server)
            until = time.time() + self.rng.choice([0.2, 0.8, 1.5, 3])

    def settle(self):
        """Everything works again."""
        self.due(True)
        time.sleep(0.2)
        for server, pid in self.stopped:
            server.send(pid, signal.SIGCONT)
        for link in self.network.links.values():
            self.network.heal(link)
        for s in self.servers:
            s.start()
        for s in self.servers:
            s.wait_up()
