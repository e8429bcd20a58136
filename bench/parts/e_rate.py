"""(e) The highest rate of pgbench at which no lag reaches one second, written to one server and to both."""
import threading
import time

from lib.report import Table, number
from .b_pgbench import TABLES, pgbench, schema as pgbench_schema

TITLE = "(e) highest rate without falling behind"
METHOD = """
pgbench (TPC-B-like, eight clients, synchronous_commit off) first as fast as it can; while it runs a row is updated 20 times a second and its age
at the peer is watched. If that reaches one second, a lower rate is looked for by halving the interval three times. "limit": clients, when all
that could be written arrived in time, else replication. With both servers written to, the rate is the sum of both, and conflicts are
settled. Measured once.
"""
SECONDS = 5
LAG = 1.0


def schema(server, branches):
    """pgbench's and the row that is watched."""
    pgbench_schema(server, branches)
    server.sql("CREATE TABLE beat (id int PRIMARY KEY, at timestamptz NOT NULL)", "INSERT INTO beat VALUES (1, now()), (2, now())")


class _Beat(threading.Thread):
    """Updates a row on one server and looks how old it is on the other."""

    def __init__(self, source, peer, row):
        super().__init__(daemon=True)
        self._source, self._peer, self._row = source, peer, row
        self._end = threading.Event()
        self.worst, self.failed = 0.0, None

    def run(self):
        began = time.monotonic()
        try:
            with self._source.session() as writer, self._peer.session() as reader:
                writer.rows("SET synchronous_commit = off")
                while not self._end.wait(0.05):
                    writer.rows(f"UPDATE beat SET at = clock_timestamp() WHERE id = {self._row}")
                    late = float(reader.value(
                        f"SELECT extract(epoch FROM clock_timestamp() - at) FROM beat WHERE id = {self._row}"))
                    if time.monotonic() - began > 1:
                        self.worst = max(self.worst, late)
        except Exception as e:  # pylint: disable=broad-except
            self.failed = e

    def stop(self):
        """Ends it; gives the longest lag after the first second."""
        self._end.set()
        self.join()
        if self.failed:
            raise self.failed
        return self.worst


def _probe(pair, seconds, rate, both):
    """(rate that was reached, longest lag)."""
    sources = pair.servers if both else [pair.a]
    beats = [_Beat(one, pair.b if one is pair.a else pair.a, one.number) for one in sources]
    reached = [0.0] * len(sources)

    def work(i):
        reached[i] = pgbench(sources[i], seconds, "off", clients=8, rate=rate and max(1, round(rate / len(sources))))[1]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(sources))]
    for one in beats + threads:
        one.start()
    for one in threads:
        one.join()
    lag = max(one.stop() for one in beats)
    pair.wait_arrived(TABLES, 120)
    return sum(reached), lag


def run(bench):
    """One way with all, both ways with who can."""
    branches, seconds = max(1, round(10 * bench.scale)), max(3, round(SECONDS * bench.scale))

    def measure(pair, _):
        pgbench(pair.a, 1, "off")
        for case in ("one way", "both ways") if pair.tool.two_way else ("one way",):
            both = case == "both ways"
            most, lag = _probe(pair, seconds, None, both)
            found, limit = most, "clients"
            if lag >= LAG:
                low, high, found, limit = 0.0, most, 0.0, "replication"
                for _ in range(3):
                    rate = (low + high) / 2
                    reached, lag = _probe(pair, seconds, rate, both)
                    if lag < LAG and reached >= 0.9 * rate:
                        low, found = rate, reached
                    else:
                        high = rate
            bench.record("e", pair.tool.name, case, 0, tps=found, unlimited_tps=most, limit=limit)
            bench.check(pair, TABLES)

    bench.rounds(lambda s: schema(s, branches), measure, tools=[t for t in bench.tools if t.replicates], repeat=1)


def report(bench):
    """One table."""
    table = Table("", "tool", "written to", "transactions/s", "limit", "pgbench without a limit")
    for one in bench.records("e"):
        table.row(one["tool"], one["case"], number(one["tps"], 0), one["limit"], number(one["unlimited_tps"], 0))
    return [table]
