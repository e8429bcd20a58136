"""(b) pgbench, TPC-B-like, written to one server: throughput and CPU while replicating, and while the peer is away."""
import re
import time

from lib.measure import Meter, median
from lib.report import Table, number, ratio
from lib.server import DB, program

TITLE = "(b) pgbench: one server is written to"
METHOD = """
pgbench's own TPC-B-like transaction (four row changes), four clients. CPU is that of all servers and the daemon, until
everything has arrived; with the peer away, that of the server that is written to. "kept" is throughput against no replication
in the same round.
With the peer away that is not fine enough for a target of a few percent: see (i).
"""
SECONDS = 5
TABLES = ("pgbench_accounts", "pgbench_tellers", "pgbench_branches", "pgbench_history")
CASES = [(commit, peer) for commit in ("off", "on") for peer in ("replicating", "away")]


def schema(server, branches=10, db=DB):
    """pgbench's tables; its history gets a key, which all tools need that go by keys."""
    program("pgbench", "-i", "-q", "-s", str(branches), server.conninfo(db))
    with server.session(db) as s:
        s.rows("ALTER TABLE pgbench_history ADD COLUMN id bigserial PRIMARY KEY")
        s.rows(f"ALTER SEQUENCE pgbench_history_id_seq INCREMENT 10 START {server.number} RESTART")


def pgbench(server, seconds, commit, clients=4, rate=None, db=DB):
    """Runs it. Gives (transactions, transactions per second)."""
    options = ["-n", "-c", str(clients), "-j", "2", "-T", str(seconds)] + (["-R", str(rate)] if rate else [])
    said = program("pgbench", *options, server.conninfo(db) + f" options='-c synchronous_commit={commit}'")
    count = int(re.search(r"actually processed: (\d+)", said).group(1))
    return count, float(re.search(r"tps = ([\d.]+) \(without", said).group(1))


def run(bench):
    """All tools in turn."""
    branches = max(1, round(10 * bench.scale))
    seconds = max(2, round(SECONDS * bench.scale))

    def measure(pair, rep):
        # pages and plans of a server that has just been started
        pgbench(pair.a, 1, "off")
        for commit, peer in CASES:
            if peer == "away" and not pair.tool.replicates:
                continue
            found = _measure(pair, seconds, commit, peer == "away")
            bench.record("b", pair.tool.name, f"{commit}, {peer}", rep, **found)
        bench.check(pair, TABLES)

    bench.rounds(lambda server: schema(server, branches), measure)


def _measure(pair, seconds, commit, away):
    pair.quiet()
    if away:
        pair.peer_away()
    meter = Meter(pair)
    count, tps = pgbench(pair.a, seconds, commit)
    start = time.monotonic()
    if not away:
        pair.wait_arrived(TABLES)
    found = {"transactions": count, "tps": tps, "cpu_s": meter.cpu(), "wal_a": meter.wal(pair.a),
             "late_s": time.monotonic() - start}
    if away:
        pair.peer_back()
        pair.wait_arrived(TABLES)
    return found


def _kept(bench, name, case):
    commit = case.split(",")[0]
    found = []
    for one in bench.records("b", tool=name, case=case):
        base = bench.records("b", tool="none", case=f"{commit}, replicating", rep=one["rep"])
        if base:
            found.append(one["tps"] / base[0]["tps"])
    return median(found)


def report(bench):
    """Tables."""
    text = []
    for case in [f"{c}, {p}" for c, p in CASES]:
        table = Table(f"synchronous_commit {case}", "tool", "transactions/s", "kept", "CPU ms/transaction", "x none", "WAL source B/transaction")
        base = None
        for name in bench.tool_names("b"):
            mine = bench.records("b", tool=name, case=case) or (
                bench.records("b", tool=name, case=case.replace("away", "replicating")) if name == "none" else [])
            if not mine:
                continue
            cost = median(1000 * r["cpu_s"] / r["transactions"] for r in mine)
            base = base or cost
            kept = None if name == "none" else _kept(bench, name, case)
            table.row(
                name, number(median(r["tps"] for r in mine), 0), "" if kept is None else f"{100 * kept:.1f}%",
                number(cost, 3), ratio(cost, base), number(median(r["wal_a"] / r["transactions"] for r in mine), 0),
            )
        text.append(table)
    return text
