"""Servers that replicate by one tool, and whether they hold the same rows."""
from . import usage
from .server import Server


class Pair:
    """Servers that replicate by a tool: servers[0] is written to. Tables are made by schema before the tool begins."""

    def __init__(self, tool, name, schema, n=2, begin=True, filled=None):
        """filled: directory of a stopped server, whose copy becomes the first one. Without begin the caller begins."""
        self.tool, self.name = tool, name
        label = f"{name}_{''.join(c for c in tool.name if c.isalnum())}"
        self.servers = [
            Server(f"{label}_{i + 1}", tool.conf, i + 1, tool.env, filled if i == 0 else None) for i in range(n)
        ]
        self.up = True
        try:
            for one in self.servers:
                schema(one)
            tool.prepare(self.servers)
            if begin:
                tool.begin(self.servers)
        except BaseException:
            for one in self.servers:
                one.stop("immediate")
            raise

    @classmethod
    def of(cls, pair, servers):
        """Some servers of a pair, as a pair."""
        some = cls.__new__(cls)
        some.tool, some.name, some.servers, some.up = pair.tool, pair.name, servers, True
        return some

    @property
    def a(self):
        """Where the writes are."""
        return self.servers[0]

    @property
    def b(self):
        """Where they go."""
        return self.servers[1]

    def start(self):
        """Starts what stop stopped."""
        if not self.up:
            for one in self.servers:
                one.start()
            self.tool.servers_up(self.servers)
            self.up = True

    def stop(self):
        """Stops servers and tool, so that they cost nothing while others are measured."""
        if self.up:
            self.up = False
            self.tool.servers_down(self.servers)
            for one in self.servers:
                if self.is_up(one):
                    one.stop()

    def peer_away(self):
        """The second server is stopped; the tool is not told."""
        self.b.stop("immediate")

    def peer_back(self):
        """It is started again."""
        self.b.start()
        self.tool.peer_back(self.servers)

    def wait_arrived(self, tables, seconds=600):
        """Waits until the peer has everything; who cannot tell is asked for equal rows."""
        if self.tool.knows_arrived:
            self.tool.arrived(self.servers)
        else:
            self.wait_same(tables, seconds)

    def remove(self):
        """Stops and deletes."""
        self.stop()
        for one in self.servers:
            one.remove()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def roots(self):
        """Processes to account for."""
        found = self.tool.roots()
        for one in self.servers:
            try:
                found = found + [one.pid]
            except OSError:
                pass  # away
        return found

    def is_up(self, server):
        """Whether it has not been stopped."""
        try:
            return server.pid > 0
        except OSError:
            return False

    def quiet(self):
        """Before a measurement: nothing left to write from before."""
        self.tool.arrived(self.servers)
        for one in self.servers:
            one.sql("CHECKPOINT")

    def check_same(self, tables):
        """Raises unless the tables hold the same rows on all servers."""
        if self.tool.replicates:
            self.check_equal(tables)

    def check_equal(self, tables):
        """The same, whoever brought them there."""
        for table in tables:
            found = {one.name: one.sql(fingerprint(table)) for one in self.servers}
            if len(set(found.values())) != 1:
                raise WrongResult(f"{self.tool.name}: {table} differs: {found}")

    def wait_same(self, tables, seconds=600, pause=0.5):
        """Waits until the tables hold the same rows: only where nothing better tells that all has arrived."""
        if self.tool.replicates:
            usage.wait_until(lambda: self._same(tables), seconds, f"{self.name}: the same rows on all servers", pause)

    def _same(self, tables):
        try:
            self.check_same(tables)
            return True
        except WrongResult:
            return False


class WrongResult(Exception):
    """Replication ended with other rows at the peer: the measurement is worth nothing."""


def fingerprint(table):
    """SQL for a number of the rows and a sum over all they hold, whatever their order."""
    return f"SELECT count(*) || ' ' || coalesce(sum(hashtextextended(x::text, 0)::numeric), 0) FROM (SELECT * FROM {table}) AS x"
