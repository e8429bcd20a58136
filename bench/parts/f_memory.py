"""(f) Memory of every process while one transaction with 10M rows is written, sent and applied."""
import re
import time

from lib.report import Table, number, target
from lib.server import visible
from lib.usage import MemoryWatch
from .a_bulk import schema

TITLE = "(f) memory: a transaction of 10M rows"
METHOD = """
"own" is the peak of a process's private memory (RssAnon), "with shared" its high-water mark with all pages it touched, shared_buffers
(256 MB) included. The largest processes of each server are shown. The session of the user holds the server's queue of AFTER triggers, 12
to 16 bytes a row, as with any trigger or foreign key. Native, whose limits are settings, gets a fifth of the rows. Measured once.
"""
ROWS = 10_000_000
OTHERS = 0.2
LIMIT = 200


def run(bench):
    """Insert and update."""

    def measure(pair, _):
        rows = max(10_000, int(ROWS * bench.scale * (1 if pair.tool.name == "mmrepl" else OTHERS)))
        for case, sql, look, seen in (
            ("insert", f"INSERT INTO bulk SELECT i, i, 'row ' || i FROM generate_series(1, {rows}) AS i", "SELECT 1", "1"),
            ("update", "UPDATE bulk SET n = n + 1", "SELECT n", str(rows + 1)),
        ):
            pair.quiet()
            names = {one.pid: "source" if one is pair.a else "peer" for one in pair.servers}
            with pair.a.session() as writer, pair.b.session() as reader:
                watch = MemoryWatch(list(names))
                watch.start()
                start = time.monotonic()
                writer.rows(sql)
                done = time.monotonic()
                drain = visible(reader, f"{look} FROM bulk WHERE id = {rows}", seen, done, pause=0.1)
                pair.tool.arrived(pair.servers)
                labels = pair.tool.labels(pair.servers)
                found = watch.stop(names, {writer.pid: "session of the user", reader.pid: None, **labels})
            bench.record("f", pair.tool.name, case, 0, rows=rows, local_s=done - start, drain_s=drain,
                         processes=[(where, _short(title), own, most) for where, title, own, most in found if own >= 1])
        bench.check(pair, ["bulk"])

    bench.rounds(schema, measure, tools=[t for t in bench.tools if t.replicates and not t.foreign], repeat=1)


def _short(title):
    """A process's title without what differs from run to run."""
    title = re.sub(r"^postgres: ", "", title)
    return re.sub(r" +", " ", re.sub(r" of database \d+.*|\b(f_\w+|\d{3,})|\[local\]", "", title)).strip() or "postgres"


def report(bench):
    """A table for each case."""
    text = []
    for case in bench.cases("f"):
        table = Table(case, "tool", "rows", "server", "process", "own MB", "with shared MB")
        for one in bench.records("f", case=case):
            for where in ("source", "peer"):
                for _, title, own, most in [p for p in one["processes"] if p[0] == where][:3]:
                    table.row(one["tool"], f"{one['rows']:,}", where, title, number(own, 0), number(most, 0))
        text.append(table)
        mine = bench.records("f", case=case, tool="mmrepl")
        most = max((p[2] for r in mine for p in r["processes"]), default=None)
        bench.target(target(f"largest process, transaction of {mine[0]['rows'] if mine else 0:,} rows, {case}", most, "at most", LIMIT, "MB"))
    return text
