"""(g) What it costs when there is much: tables, entries that wait, peers; and when there is nothing to do."""
import os
import threading
import time

from lib import usage
from lib.measure import Meter, median, percentile
from lib.pair import Pair
from lib.report import Table, number, target
from lib.server import WORK, program, visible
from .a_bulk import schema as bulk_schema

TITLE = "(g) growth and rest"
METHOD = """
*tables*: single updates of one table, one after the other, with that many tables in the sync; CPU of all processes for each. *waiting*: three
dbs, one of them away, so that what is written waits for it; then the two others update the same 1,000 rows of those
for a while (conflicts), 200 transactions a second each; what is done once with what came, as reading it in and building
indexes, is over by then, and shown by itself: CPU of both servers for each entry from the commit on. *peers*: one transaction with 200,000 inserted rows, CPU beyond the
transaction itself. *rest*: a pair that has nothing to do, CPU and voluntary context switches of all its processes; Bucardo here
with its own settings. Measured once.
"""
TABLES = (10, 100, 1000)
WAITING = (0, 100_000, 1_000_000, 10_000_000)
PEERS = (1, 2, 3)
# every segment of the change log that is closed and large enough has its index
INDEXED = r"""
SELECT NOT EXISTS (SELECT FROM pg_class l JOIN pg_namespace s ON s.oid = l.relnamespace AND s.nspname = 'mmrepl'
JOIN pg_class i ON i.relnamespace = s.oid AND i.relname = l.relname || '_index'
WHERE l.relname ~ '^log_[0-9]+$' AND pg_relation_size(i.oid) = 0 AND pg_relation_size(l.oid) >=
(SELECT 256 * setting::int8 FROM pg_settings WHERE name = 'mmrepl.segment_size')
AND l.oid <> (SELECT tableoid FROM mmrepl.log ORDER BY xid DESC LIMIT 1))"""


def run(bench):
    """One after the other."""
    ours = [t for t in bench.tools if t.replicates and not t.foreign]
    for n in TABLES:
        for tool in ours:
            _tables(bench, tool, max(2, int(n * min(1, bench.scale * 10))), n)
    for tool in ours:
        if tool.two_way:
            _waiting(bench, tool)
    for n in PEERS:
        for tool in ours:
            _peers(bench, tool, n)
    _rest(bench)


def _tables(bench, tool, count, n):
    def schema(server):
        server.sql(f"""DO $$ BEGIN FOR i IN 1 .. {count} LOOP
                       EXECUTE format('CREATE TABLE many_%s (id bigint PRIMARY KEY, n bigint NOT NULL)', i); END LOOP; END $$""",
                   "INSERT INTO many_1 VALUES (1, 0)")

    pair = bench.pair(tool, schema, suffix=f"_t{n}")
    writes, taken = max(50, int(500 * bench.scale)), []
    with pair.a.session() as writer, pair.b.session() as reader:
        meter = None
        for i in range(20 + writes):
            if i == 20:
                pair.quiet()
                meter = Meter(pair, but=(reader.pid,))
            writer.rows(f"UPDATE many_1 SET n = {i + 1} WHERE id = 1")
            late = visible(reader, "SELECT n FROM many_1 WHERE id = 1", str(i + 1), time.monotonic(), pause=0)
            if i >= 20:
                taken.append(1000 * late)
        bench.record("g", tool.name, f"tables {n}", 0, tables=count, cpu_us=1e6 * meter.cpu() / writes, p50_ms=percentile(taken, 50))
    bench.check(pair, ["many_1"])
    pair.remove()


def _waiting(bench, tool):
    pair = bench.pair(tool, bulk_schema, suffix="_w", n=3)
    there, seconds = 0, max(3, round(8 * bench.scale))
    script = os.path.join(WORK, "conflict.sql")
    with open(script, "w", encoding="ascii") as f:
        f.write("\\set k random(1, 1000)\nUPDATE bulk SET n = n + 1 WHERE id = :k;\n")
    pair.a.sql("INSERT INTO bulk SELECT i, i, 'row ' || i FROM generate_series(1, 1000) AS i")
    pair.tool.arrived(pair.servers)
    pair.servers[2].stop("immediate")
    two = Pair.of(pair, pair.servers[:2])
    def conflicts(length):
        work = [threading.Thread(target=program, args=(
            "pgbench", "-n", "-c", "2", "-R", "200", "-T", str(length), "-f", script, one.conninfo())) for one in two.servers]
        for one in work:
            one.start()
        for one in work:
            one.join()
        two.wait_same(["bulk WHERE id <= 1000"], pause=0.05)

    for n in WAITING:
        rows, once = int(n * bench.scale), None
        if rows > there:
            new = rows - there
            pair.a.sql(f"INSERT INTO bulk SELECT i, i, 'row ' || i FROM generate_series({1001 + there}, {1000 + rows}) AS i")
            there = rows
            meter = Meter(two)
            with pair.b.session() as reader:
                visible(reader, f"SELECT 1 FROM bulk WHERE id = {1000 + rows}", "1", time.monotonic(), pause=0.05)
            conflicts(1)
            # what has waited for so long gets indexes
            for one in two.servers:
                one.wait_for(INDEXED, pause=0.2)
            _until_quiet(two)
            once = 1e6 * meter.cpu() / new
        conflicts(2)
        for one in two.servers:
            # the rows compared at the end are to be found by the index, however many others there are
            one.sql("ANALYZE bulk", "CHECKPOINT")
        meter = Meter(two)
        conflicts(seconds)
        bench.record("g", tool.name, f"waiting {n}", 0, waiting=rows, cpu_us=1e6 * meter.cpu() / (400 * seconds), once_us=once)
    pair.servers[2].start()
    pair.tool.peer_back(pair.servers)
    pair.tool.arrived(pair.servers)
    bench.check(pair, ["bulk"])
    pair.remove()


def _until_quiet(pair):
    """Nobody works any more: less than a twentieth of a CPU for two seconds."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        meter = Meter(pair)
        time.sleep(2)
        if meter.cpu() < 0.1:
            break


def _peers(bench, tool, n):
    pair = bench.pair(tool, bulk_schema, suffix=f"_p{n}", n=n + 1)
    rows = max(1000, int(200_000 * bench.scale))
    pair.quiet()
    with pair.a.session() as writer, pair.b.session() as reader:
        meter = Meter(pair, but=(reader.pid, writer.pid))
        writer.rows(f"INSERT INTO bulk SELECT i, i, 'row ' || i FROM generate_series(1, {rows}) AS i")
        done = time.monotonic()
        drain = max(_visible_at(one, rows, done) for one in pair.servers[1:])
        pair.tool.settle(pair.servers)
        bench.record("g", tool.name, f"peers {n}", 0, rows=rows, drain_s=drain, cpu_us=1e6 * meter.cpu() / rows)
    bench.check(pair, ["bulk"])
    pair.remove()


def _visible_at(server, rows, since):
    with server.session() as reader:
        return visible(reader, f"SELECT 1 FROM bulk WHERE id = {rows}", "1", since)


def _rest(bench):
    seconds = max(5, round(15 * bench.scale))
    for tool in bench.tools:
        if tool.name == "bucardo":
            tool.sleep = None

    def measure(pair, rep):
        time.sleep(5)
        roots = pair.roots()
        cpu, switches, start = usage.cpu(roots), usage.switches(roots), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - start
        bench.record("g", pair.tool.name, "rest", rep, cpu_s_hour=(usage.cpu(roots) - cpu) / took * 3600,
                     wakeups_s=(usage.switches(roots) - switches) / took)

    bench.rounds(bulk_schema, measure, repeat=1, suffix="_r")


def report(bench):
    """A table for each."""
    growth = Table("growth: CPU of all processes, µs", "tool", "what", "how many", "CPU µs each", "p50 ms", "once, CPU µs/entry")
    for one in bench.records("g"):
        kind, _, n = one["case"].partition(" ")
        if n:
            what = {"tables": "single update, tables in the sync", "waiting": "conflicting update, entries that wait",
                    "peers": "inserted row, peers"}[kind]
            many = one.get("tables", one.get("waiting")) if kind != "peers" else int(n)
            growth.row(one["tool"], what, f"{many:,}", number(one["cpu_us"], 2 if kind == "peers" else 0), number(one.get("p50_ms"), 2),
                       number(one.get("once_us"), 2))
    rest = Table("a pair at rest", "tool", "CPU s/hour", "wake-ups/s")
    for name in bench.tool_names("g"):
        mine = bench.records("g", tool=name, case="rest")
        if mine:
            rest.row(name, number(median(r["cpu_s_hour"] for r in mine), 1), number(median(r["wakeups_s"] for r in mine), 1))
    bench.target(target("cost of a batch, 1000 tables against 10", _times(bench, "tables 1000", "tables 10"), "at most", 1.25, "x"))
    bench.target(target("cost of a conflicting update, most entries waiting against none",
                        _times(bench, f"waiting {WAITING[-1]}", f"waiting {WAITING[0]}"), "at most", 1.25, "x"))
    return [growth, rest]


def _times(bench, case, base):
    much, little = bench.records("g", tool="mmrepl", case=case), bench.records("g", tool="mmrepl", case=base)
    return much[0]["cpu_us"] / little[0]["cpu_us"] if much and little else None
