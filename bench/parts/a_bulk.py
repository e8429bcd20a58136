"""(a) Many rows in one transaction: insert, update, delete."""
import time

from lib import usage
from lib.measure import Meter, median
from lib.report import Table, number, ratio, target
from lib.server import visible

TITLE = "(a) bulk: one transaction"
ROWS = 1_000_000
CASES = ("insert", "update", "delete")


def schema(server):
    """A narrow table, with a key of 8 bytes. Autovacuum would come at any time: it is vacuumed between measurements."""
    server.sql("CREATE TABLE bulk (id bigint PRIMARY KEY, n int NOT NULL, note text) WITH (autovacuum_enabled = false)")


def run(bench):
    """All tools in turn, as often as is asked for."""

    def measure(pair, rep):
        rows = max(1000, int(ROWS * bench.scale * pair.tool.part_of))
        for case in CASES:
            bench.record("a", pair.tool.name, case, rep, rows=rows, **_measure(bench, pair, case, rows))
        _empty(pair)

    bench.rounds(schema, measure)


def _empty(pair):
    # not captured: everybody starts again with new files
    for one in pair.servers:
        one.sql("SET session_replication_role = replica; TRUNCATE bulk")
    pair.tool.arrived(pair.servers)


def _measure(bench, pair, case, rows):
    sql = {
        "insert": f"INSERT INTO bulk SELECT i, i, 'row ' || i FROM generate_series(1, {rows}) AS i",
        "update": "UPDATE bulk SET n = n + 1",
        "delete": "DELETE FROM bulk",
    }[case]
    seen = {"insert": "1", "update": str(rows + 1), "delete": None}[case]
    look = f"SELECT {'1' if case == 'insert' else 'n'} FROM bulk WHERE id = {rows}"
    pair.quiet()
    with pair.a.session() as writer, pair.b.session() as reader:
        if pair.tool.replicates:
            reader.value(look)
        meter = Meter(pair, but=(reader.pid,))
        own = usage.own_cpu(writer.pid)
        start = time.monotonic()
        writer.rows(sql)
        done = time.monotonic()
        own = usage.own_cpu(writer.pid) - own
        local_wal = meter.wal(pair.a)
        drain = visible(reader, look, seen, done) if pair.tool.replicates else None
        pair.tool.settle(pair.servers)
        # the writer is still there: its CPU belongs to what replication costs
        found = {
            "local_s": done - start,
            "local_cpu_s": own,
            "local_wal": local_wal,
            "drain_s": drain,
            "cpu_s": meter.cpu(),
            "wal_a": meter.wal(pair.a),
            "wal_b": meter.wal(pair.b),
        }
    bench.check(pair, ["bulk"])
    if case != "insert":
        for one in pair.servers:
            one.sql("VACUUM bulk")
    return found


def _beyond(bench, name, case, key, per):
    """Median of what a tool took more than no replication in the same round, per row times per."""
    found = []
    for one in bench.records("a", tool=name, case=case):
        base = bench.records("a", tool="none", case=case, rep=one["rep"])
        if base:
            found.append((one[key] / one["rows"] - base[0][key] / base[0]["rows"]) * per)
    return median(found)


def report(bench):
    """Tables and targets."""
    text = []
    for case in CASES:
        table = Table(
            f"{case}", "tool", "rows", "local s", "local CPU, extra µs/row", "local WAL, extra B/row", "drained rows/s",
            "x native", "CPU of all, extra s/1M rows", "x native ", "WAL source, extra B/row", "WAL peer B/row",
        )
        drained, extra = {}, {}
        for name in bench.tool_names("a"):
            mine = bench.records("a", tool=name, case=case)
            extra[name] = _beyond(bench, name, case, "cpu_s", 1e6)
            drained[name] = median(r["rows"] / r["drain_s"] for r in mine if r["drain_s"])
            plain = name == "none"
            table.row(
                name, f"{mine[0]['rows']:,}", number(median(r["local_s"] for r in mine), 2),
                "" if plain else number(_beyond(bench, name, case, "local_cpu_s", 1e6), 2),
                "" if plain else number(_beyond(bench, name, case, "local_wal", 1), 1),
                number(drained[name], 0), ratio(drained[name], drained.get("native")),
                "" if plain else number(extra[name], 2), ratio(extra[name], extra.get("native")),
                "" if plain else number(_beyond(bench, name, case, "wal_a", 1), 1),
                number(median(r["wal_b"] / r["rows"] for r in mine), 1) if not plain else "",
            )
        text.append(table)
        bench.target(target(f"capture: extra CPU, {case}", _beyond(bench, "mmrepl", case, "local_cpu_s", 1e6), "at most", 0.5, "µs/row"))
        bench.target(target(f"capture: extra WAL, {case}", _beyond(bench, "mmrepl", case, "local_wal", 1), "at most", 24, "B/row"))
        bench.target(target(f"extra CPU of all against native, {case}", _of(extra), "at most", 0.5, "x"))
        bench.target(target(f"drain rate against native, {case}", _of(drained), "at least", 2, "x"))
    return text


def _of(found):
    """mmrepl against native."""
    if not found.get("mmrepl") or not found.get("native"):
        return None
    return found["mmrepl"] / found["native"]
