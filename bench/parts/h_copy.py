"""(h) The initial copy of 5M rows, beside native's table sync and pg_dump | psql."""
import os
import subprocess
import time

from lib.measure import Meter, median
from lib.pair import Pair
from lib.report import Table, number, ratio, target
from lib.server import BINDIR, Server, visible
from lib.tool import Tool
from .a_bulk import schema

TITLE = "(h) initial copy of 5M rows"
METHOD = """
One table with a primary key, empty at the peer. The clock runs from the call that starts the copy (CREATE SUBSCRIPTION; add_sync) until the
last row is visible at the peer; the publication, the extension and its list of dbs and tables are there before.
For pg_dump the table is not there before, and its index is made after the rows; it is measured once. "rising": rows lie in the order of
their keys, as they do where a sequence gives them; "random": they do not at all, with a fifth of the rows.
"""
ROWS = 5_000_000
# case: rows lie in the order of what, and are that part of all
ORDERS = {"copy": ("i", 1), "random": ("hashint8(i)", 0.2)}
NAMES = {"copy": "rising keys", "random": "random keys"}


class _Dump(Tool):
    """pg_dump | psql: a copy without replication."""

    name = "pg_dump to psql"

    def begin(self, servers, copy=False):
        servers[1].sql("DROP TABLE bulk")
        dump = subprocess.Popen([os.path.join(BINDIR, "pg_dump"), "-t", "bulk", servers[0].conninfo()], stdout=subprocess.PIPE)
        load = subprocess.run(
            [os.path.join(BINDIR, "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", os.devnull, servers[1].conninfo()],
            stdin=dump.stdout, check=False,
        )
        if dump.wait() or load.returncode:
            raise RuntimeError("pg_dump | psql failed")


def run(bench):
    """New servers for each; the source is a copy of one that was filled once."""
    for order, (by, part) in ORDERS.items():
        _run(bench, order, by, max(10_000, int(ROWS * part * bench.scale)))


def _run(bench, order, by, rows):
    filled = Server("h_filled", {})
    schema(filled)
    filled.sql(f"INSERT INTO bulk SELECT i, i, 'row ' || i FROM generate_series(1, {rows}) AS i ORDER BY {by}", "VACUUM ANALYZE bulk")
    filled.stop()
    tools = [t for t in bench.tools if t.name in ("native", "mmrepl")]
    for rep in range(bench.repeat):
        for tool in tools + ([_Dump()] if rep == 0 and order == "copy" else []):
            pair = Pair(tool, "h", lambda server: None if server.number == 1 else schema(server), begin=False, filled=filled.dir)
            meter = Meter(pair)
            start = time.monotonic()
            with pair.b.session() as reader:
                tool.begin(pair.servers, copy=True)
                took = visible(reader, f"SELECT 1 FROM bulk WHERE id = {rows}", "1", start, pause=0.02)
            tool.arrived(pair.servers)
            bench.record("h", tool.name, order, rep, rows=rows, copy_s=took, cpu_s=meter.cpu(), wal_b=meter.wal(pair.b))
            pair.check_equal(["bulk"])
            pair.remove()
    filled.remove()


def report(bench):
    """A table for each order, and the target."""
    tables = []
    for order in ORDERS:
        table = Table(NAMES[order], "tool", "rows", "seconds", "rows/s", "x native", "CPU s of all/1M rows", "x native ", "WAL peer B/row")
        rates, costs = {}, {}
        for name in bench.tool_names("h"):
            mine = bench.records("h", tool=name, case=order)
            if not mine:
                continue
            rates[name] = median(r["rows"] / r["copy_s"] for r in mine)
            costs[name] = median(1e6 * r["cpu_s"] / r["rows"] for r in mine)
            table.row(name, f"{mine[0]['rows']:,}", number(median(r["copy_s"] for r in mine), 1), number(rates[name], 0),
                      ratio(rates[name], rates.get("native")), number(costs[name], 2), ratio(costs[name], costs.get("native")),
                      number(median(r["wal_b"] / r["rows"] for r in mine), 0))
        mine, native = rates.get("mmrepl"), rates.get("native")
        bench.target(target(f"initial copy against native's, {NAMES[order]}", mine / native if mine and native else None, "at least", 1, "x"))
        if rates:
            tables.append(table)
    return tables
