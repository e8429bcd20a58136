"""members.py: servers leave the sync while the others write, and come in again."""
import threading
import time

import pq

DROPPED = "SELECT lo, hi, tbl, op, key, row FROM audit ORDER BY seq"


class Members:
    """Who has a part in the sync. What those wrote that left must be accounted for, too: `past` keeps it when their
    database goes. A write is sure if its server was asked to deliver everything before it left; when it died, nobody
    knows what the others had of it."""

    def __init__(self, servers, writers, schema, say):
        self.servers, self.writers, self.schema, self.say = servers, writers, schema, say
        self.out = set()
        self.past = []                  # (server's number, sure, rows of audit)
        self.past_conflicts = []        # (server's name, rows as Checker.CONFLICTS gives them)
        self.unsure = set()             # servers whose present database holds writes that may be lost
        self.run_state = None

    def inside(self):
        return [s for s in self.servers if s not in self.out]

    def fail(self, what, error):
        self.say(f"nemesis: {what}: {str(error).splitlines()[0]}")
        return False

    # ---- its writers

    def hush(self, server, timeout):
        """They end what they have begun, and wait. True if they do."""
        server.writable.clear()
        deadline = time.time() + timeout
        for w in self.writers:
            if w.server is server:
                while not w.idle.is_set() and time.time() < deadline and w.is_alive():
                    time.sleep(0.02)
        return all(w.idle.is_set() or not w.is_alive() for w in self.writers if w.server is server)

    @staticmethod
    def end_prepared(server):
        for (gid,) in server.query("SELECT gid FROM pg_prepared_xacts"):
            server.query(f"ROLLBACK PREPARED '{gid}'")

    # ---- out

    def dbs(self, leaver=None):
        return ",".join(f"{s.name}:{s.role}" for s in self.inside() if s is not leaver)

    def leave(self, server, other, dead):
        """True if it has left."""
        if dead:
            server.writable.clear()
            server.kill()
        else:
            try:
                if not self.hush(server, 10):
                    raise pq.Lost("its writers do not come to an end")
                self.end_prepared(server)
                if server.query("SELECT mmrepl.wait_for_sync('chaos', 8)")[0][0] != "t":
                    raise pq.Lost("it does not get its changes out")
            except (pq.Error, pq.Lost) as e:
                server.writable.set()
                return self.fail(f"{server.name} does not leave", e)
        gone = self.take_out(server, other)
        if gone:
            self.out.add(server)
            if dead:
                self.unsure.add(server)
        else:
            server.start()
            server.writable.set()
        return gone

    def take_out(self, server, other):
        """What the others' configuration says afterwards decides, not what the call said."""
        try:
            other.query("SET statement_timeout = 15000", "SET lock_timeout = 3000",
                        f"SELECT mmrepl.update_dbgroup('chaos', '{{{self.dbs(server)}}}', force => true)", app="chaos-nemesis")
        except (pq.Error, pq.Lost) as e:
            self.fail(f"{server.name} is not taken out", e)
        while True:
            try:
                return other.query(f"SELECT count(*) FROM mmrepl.dbs WHERE name = '{server.name}' AND 'chaos' = ANY (syncs)")[0][0] == "0"
            except (pq.Error, pq.Lost):
                other.wait_up()

    # ---- in

    def keep_past(self, server, conflicts):
        """What its database knows, before it is dropped."""
        server.start()
        server.wait_up()
        if server.query("SELECT to_regclass('mmrepl.conflict_log') IS NULL")[0][0] == "t":
            return                      # new already: an earlier try has ended half way
        self.end_prepared(server)
        self.past.append((self.servers.index(server), server not in self.unsure, server.query(DROPPED)))
        self.past_conflicts.append((server.name, server.query(conflicts)))
        self.unsure.discard(server)

    def anew(self, server):
        """An empty database under the old name."""
        deadline = time.time() + 30
        while True:
            try:
                server.query("SELECT mmrepl.stop()")
            except (pq.Error, pq.Lost):
                pass
            try:
                server.query("DROP DATABASE IF EXISTS app WITH (FORCE)", dbname="postgres")
                server.query("CREATE DATABASE app", dbname="postgres")
                server.query(self.schema)
                return
            except (pq.Error, pq.Lost):
                if time.time() > deadline:
                    raise
                time.sleep(0.3)

    def join(self, server, other, fresh, copy_from, conflicts):
        """Asks for it; True if the others' configuration has it. `opened` tells when it may be written to."""
        try:
            if fresh or server in self.unsure:
                # its database may have gone already, in an earlier try
                if server.has_database():
                    self.keep_past(server, conflicts)
                self.anew(server)
                other.query("SET statement_timeout = 20000", f"SELECT mmrepl.remove_db(name) FROM mmrepl.dbs WHERE name = '{server.name}'",
                            f"SELECT mmrepl.add_db('{server.name}', '{server.address}', dbgroup => 'chaos', role => '{server.role}',"
                            f" onetimecopy => 1, copy_from => '{copy_from.name}')", app="chaos-nemesis")
            else:
                other.query("SET statement_timeout = 20000",
                            f"SELECT mmrepl.update_dbgroup('chaos', '{{{self.dbs()},{server.name}:{server.role}}}', onetimecopy => 1,"
                            f" copy_from => '{copy_from.name}')", app="chaos-nemesis")
        except (pq.Error, pq.Lost) as e:
            self.fail(f"{server.name} does not come in", e)
        while True:
            try:
                inside = other.query(f"SELECT count(*) FROM mmrepl.dbs WHERE name = '{server.name}' AND 'chaos' = ANY (syncs)")[0][0] == "1"
                break
            except (pq.Error, pq.Lost):
                other.wait_up()
        if inside:
            self.out.discard(server)
            threading.Thread(target=self.open, args=(server,), daemon=True).start()
        return inside

    def opened(self, server):
        try:
            return server.query("SELECT count(*) FROM mmrepl.sync_state WHERE NOT mmrepl._closed_to_clients(sync_id)")[0][0] == "1"
        except (pq.Error, pq.Lost):
            return False

    def open(self, server):
        while server not in self.out and not self.opened(server):
            time.sleep(0.2)
        if server not in self.out:
            self.say(f"nemesis: {server.name} has joined")
            server.writable.set()

    def all_in(self, timeout, conflicts):
        """When all else works again. Names those that are not."""
        deadline = time.time() + timeout
        while time.time() < deadline:
            for s in list(self.out):
                sources = [x for x in self.inside() if x.role != "target"]
                # in a star the hub gives the copy
                self.join(s, self.inside()[0], True, sources[0 if sources[0].role == "hub" else -1], conflicts)
            if not self.out and all(self.opened(s) for s in self.servers):
                return []
            time.sleep(0.5)
        return [s.name for s in self.servers if s in self.out or not self.opened(s)]

    # ---- for the checker

    def writes(self):
        """Every write: number of the server, sure, row of audit."""
        for n, sure, rows in self.past:
            for row in rows:
                yield n, sure, row
        for n, s in enumerate(self.servers):
            for row in s.query(DROPPED):
                yield n, s not in self.unsure, row

