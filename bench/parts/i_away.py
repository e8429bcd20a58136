"""(i) pgbench with the peer away, in turn with no replication: what the writer pays for capture."""
from lib.measure import Meter, median, percentile
from lib.report import Table, number, target
from lib.server import DB
from lib.tools import EmptyTrigger
from .b_pgbench import TABLES, pgbench, schema

TITLE = "(i) pgbench with the peer away"
METHOD = """
A machine's speed may move by more than the few percent this is about, and two servers on one disk may differ by as much, for good. So there are two
databases in one server: one whose peer is away, and one beside it without replication. pgbench runs in the one and in the other in turn, two
seconds each, with one client, because what several
clients do to each other on two cores is another thing; the ratio is taken of neighbours, and the median of those counts. Native, which costs the writer
nothing but some WAL, shows what such a figure is worth. The empty trigger, in a server without replication, has nothing to do: whoever
captures by AFTER ROW triggers pays at least for their being called. mmrepl looks for a peer that is away every five seconds, as it does by default,
not ten times a second as in the other parts.
"""
SECONDS = 2
BESIDE = "beside"
PAIRS = 6


def run(bench):
    """Native, mmrepl, and a trigger that does nothing."""
    tools = {tool.name: tool for tool in bench.tools if tool.name in ("none", "native", "mmrepl")}
    if "none" not in tools:
        return
    branches, seconds = max(1, round(10 * bench.scale)), max(1, round(SECONDS * bench.scale))
    if "mmrepl" in tools:
        tools["empty trigger"] = EmptyTrigger()
    tools.pop("none")
    for tool in tools.values():
        pair = bench.pair(tool, lambda server: schema(server, branches), n=2 if tool.replicates else 1)
        with pair.a.session("postgres") as s:
            s.rows(f"CREATE DATABASE {BESIDE}")
        schema(pair.a, branches, BESIDE)
        pair.quiet()
        if tool.name == "mmrepl":
            pair.a.sql("ALTER SYSTEM SET mmrepl.restart_delay = '5s'", "SELECT pg_reload_conf()")
        if tool.replicates:
            pair.peer_away()
        for commit in ("off", "on"):
            for db in (BESIDE, DB):
                pgbench(pair.a, seconds, commit, clients=1, db=db)
            pair.a.sql("CHECKPOINT")
            for rep in range(PAIRS * bench.repeat):
                found = {}
                for db in (BESIDE, DB) if rep % 2 else (DB, BESIDE):
                    meter = Meter(pair)
                    found[db] = pgbench(pair.a, seconds, commit, clients=1, db=db)[0], meter.cpu()
                bench.record("i", tool.name, commit, rep, transactions=found[DB][0], cpu_s=found[DB][1],
                             base_transactions=found[BESIDE][0], base_cpu_s=found[BESIDE][1])
        if tool.replicates:
            pair.peer_back()
            pair.wait_arrived(TABLES)
            bench.check(pair, TABLES)
        pair.remove()


def report(bench):
    """Tables and targets."""
    text = []
    for commit in ("off", "on"):
        table = Table(f"synchronous_commit {commit}", "tool", "pairs of runs", "kept", "middle half of the pairs", "CPU per transaction x none")
        for name in bench.tool_names("i"):
            mine = bench.records("i", tool=name, case=commit)
            kept = [r["transactions"] / r["base_transactions"] for r in mine]
            cost = median(r["cpu_s"] / r["transactions"] / (r["base_cpu_s"] / r["base_transactions"]) for r in mine)
            table.row(name, len(mine), f"{100 * median(kept):.1f}%",
                      f"{100 * percentile(kept, 25):.1f}% to {100 * percentile(kept, 75):.1f}%", number(cost, 3))
            if name == "mmrepl":
                bench.target(target(f"pgbench with the peer away, synchronous_commit {commit}: throughput lost",
                                    100 * (1 - median(kept)), "at most", 3, "%"))
        text.append(table)
    return text
