"""nemesis.py: what goes wrong while the writers write."""
import collections
import random
import signal
import threading
import time

import pq
from check import Checker


class Nemesis(threading.Thread):
    def __init__(self, servers, network, members, seed, run, say, profile):
        super().__init__(daemon=True)
        self.members = members
        self.servers, self.network, self.run_state, self.say = servers, network, run, say
        self.seed, self.rest, self.burst = seed, profile.rest, profile.burst
        self.counts = collections.Counter()
        self.lock = threading.Lock()
        self.later = []                 # (time, what, function): ends of faults
        self.stopped = set()
        weights = {"cut": 6, "late": 2, "vanish": 2, "isolate": 2, "slow": 2, "kill_worker": 4, "terminate_worker": 4,
                   "kill_client": 2, "kill_server": 4, "restart": 2, "freeze": 3, "maintain": 4, "pause": 2, "stop_here": 2,
                   "kick": 1, "recopy": 1, "membership": 3}
        if profile.faults:
            weights = {f: profile.faults.split(",").count(f) for f in profile.faults.split(",") if f != "none"}
        if profile.clock:
            weights["clock"] = max(weights.get("clock", 0), 4)
        else:
            weights.pop("clock", None)
        if len(servers) < 3:
            weights.pop("membership", None)
        self.actions = {getattr(self, f): w for f, w in weights.items()}

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

    def late(self, server):
        """What is on the way arrives much later, and nobody has hung up."""
        link = self.rng.choice(list(self.network.links.values()))
        way = self.rng.choice(["to", "to", "from"])
        self.network.cut(link, "drop", (way,))
        self.count(f"late ({way})", f"{link.source} -> {link.target}")
        self.after(self.rng.choice([1, 2, 4]), "heal", lambda: self.network.heal(link))

    def late_burst(self, server):
        """In the middle of a burst; a slow link makes for large batches under way."""
        link = self.rng.choice(list(self.network.links.values()))
        link.delay = 0.25
        self.after(self.burst[0] - 0.35, "late", lambda: self.network.cut(link, "drop", ("to",)))
        self.count("late (to)", f"{link.source} -> {link.target}")
        self.after(self.burst[1] - 2.5, "heal", lambda: self.network.heal(link))

    def vanish(self, server):
        """Packets are lost, and neither end is told."""
        link = self.rng.choice(list(self.network.links.values()))
        self.network.cut(link, "vanish")
        self.count("vanish", f"{link.source} -> {link.target}")
        self.after(self.rng.choice([2, 6]), "heal", lambda: self.network.heal(link))

    def isolate(self, server):
        """Nobody reaches this server, and it reaches nobody."""
        links = [x for x in self.network.links.values() if server.name in (x.source, x.target)]
        how, forget = self.rng.choice(["drop", "reset"]), self.rng.random() < 0.5
        for x in links:
            self.network.cut(x, how)
        self.count("isolate", server.name)
        self.after(self.rng.choice([0.5, 2, 5]), "heal", lambda: [self.network.heal(x, forget) for x in links])

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

    def kill_client(self, server):
        """A backend of a writer."""
        pids = server.processes("[local]")
        sig = self.rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGTERM, signal.SIGINT])
        if pids:
            if sig == signal.SIGKILL:
                server.crashes.append(time.time())
            server.send(self.rng.choice(pids), sig)
            self.count(f"{sig.name} of client's backend", server.name)

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
                               "SELECT pg_switch_wal()", "ALTER TABLE bucket ALTER v SET STORAGE MAIN", "ANALYZE", "VACUUM FREEZE mmrepl.progress", "VACUUM FULL users",
                               "ALTER TABLE acct ALTER v TYPE int USING v + 0", "ALTER TABLE bucket ALTER v TYPE text USING v || ''",
                               "TABLE mmrepl.status", "TABLE mmrepl.change_log"])
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

    def recopy(self, server):
        """All get the initial copy once more, while everybody writes: nothing may come of it."""
        if self.sql(server, "SELECT mmrepl.update_sync('chaos', onetimecopy => 1)"):
            self.count("copy again", server.name)

    def clock(self, server):
        offset = self.rng.choice([-40, -5, -1, -0.1, 0, 0.1, 1, 5, 40])
        server.set_clock(offset)
        self.count("clock", f"{server.name} {offset:+} s")

    def membership(self, server):
        """Somebody leaves, or comes in again."""
        members, rng = self.members, self.rng
        dead, fresh = rng.random() < 0.4, rng.random() < 0.5
        numbers = [rng.random(), rng.random()]
        if members.out:
            server = sorted(members.out, key=lambda s: s.name)[0]
            others = members.inside()
            other, source = (others[int(x * len(others))] for x in numbers)
            # in a star the hub gives the copy
            if source.role == "target" or others[0].role == "hub":
                source = others[0]
            if members.join(server, other, fresh, source, Checker.CONFLICTS):
                self.count("join" + (" anew" if fresh else ""), f"{server.name} from {source.name}")
            return
        if server.role == "hub":
            return
        others = [s for s in members.inside() if s is not server]
        other = others[int(numbers[0] * len(others))]
        if len([s for s in others if s.role != "target"]) >= 2 and server.writable.is_set() and members.leave(server, other, dead):
            self.count("leave" + (" dead" if dead else ""), f"{server.name}, by {other.name}")

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

    def pause_after(self, rest):
        """When the next fault is due."""
        now = time.time()
        return now - now % self.burst[1] + self.burst[1] if self.burst else now + rest

    def run(self):
        threading.Thread(target=self.heal_in_time, daemon=True).start()
        until = self.pause_after(1)
        number = 0
        while not self.run_state.is_set():
            time.sleep(0.05)
            if time.time() < until:
                continue
            # numbers of its own for each: what one meets does not change the next
            number += 1
            self.rng = random.Random(f"{self.seed}/nemesis/{number}")
            rest = self.rng.choice(self.rest)
            server = self.rng.choice(self.servers)
            action = self.rng.choices(list(self.actions), list(self.actions.values()))[0]
            if server.proc.poll() is None or action in (self.cut, self.late, self.vanish, self.isolate, self.slow):
                action(server)
            until = self.pause_after(rest)

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
