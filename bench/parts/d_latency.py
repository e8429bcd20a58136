"""(d) From commit to visible at the peer, for single writes on an otherwise idle pair."""
import random
import time

from lib.measure import median, percentile
from lib.report import Table, number, target
from lib.server import visible

TITLE = "(d) latency of single writes"
METHOD = """
One row is updated, one transaction at a time, synchronous_commit on; the clock runs from the return of the commit until a session at the
peer sees the row (it looks all the time). Between two writes there is a pause of 1 to 11 ms, so that nothing is in step.
"""
WRITES = 1000


def schema(server):
    """One row is enough."""
    server.sql("CREATE TABLE late (id bigint PRIMARY KEY, n bigint NOT NULL)", "INSERT INTO late VALUES (1, 0)")


def run(bench):
    """All tools in turn."""
    rng = random.Random(1)

    def measure(pair, rep):
        writes = max(50, int(WRITES * bench.scale * (0.2 if pair.tool.part_of < 1 else 1)))
        pair.quiet()
        taken = []
        with pair.a.session() as writer, pair.b.session() as reader:
            value = int(writer.value("SELECT n FROM late WHERE id = 1"))
            for i in range(writes + 20):
                value += 1
                writer.rows(f"UPDATE late SET n = {value} WHERE id = 1")
                late = visible(reader, "SELECT n FROM late WHERE id = 1", str(value), time.monotonic(), pause=0)
                if i >= 20:
                    taken.append(1000 * late)
                time.sleep(rng.uniform(0.001, 0.011))
        bench.record("d", pair.tool.name, "update", rep, writes=writes, p50_ms=percentile(taken, 50), p99_ms=percentile(taken, 99),
                     max_ms=max(taken))
        bench.check(pair, ["late"])

    bench.rounds(schema, measure, tools=[t for t in bench.tools if t.replicates])


def report(bench):
    """Table and target."""
    table = Table("", "tool", "writes", "p50 ms", "p99 ms", "longest ms")
    p50 = {}
    for name in bench.tool_names("d"):
        mine = bench.records("d", tool=name)
        p50[name] = median(r["p50_ms"] for r in mine)
        table.row(name, f"{mine[0]['writes']:,}", number(p50[name], 2), number(median(r["p99_ms"] for r in mine), 2),
                  number(median(r["max_ms"] for r in mine), 1))
    mine, native = p50.get("mmrepl"), p50.get("native")
    bench.target(target("p50 latency beyond native's", mine - native if mine and native else None, "at most", 0.3, "ms"))
    return [table]
