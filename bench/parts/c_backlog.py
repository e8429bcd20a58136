"""(c) A backlog of small transactions, held back and let go: how fast it drains."""
import time

from lib.measure import Meter, median
from lib.report import Table, number, ratio, target
from lib.server import visible

TITLE = "(c) backlog of small transactions"
METHOD = """
Each transaction changes one row in each of four tables: updates in two, an insert in one, an insert or a delete in one. They are held back
with what each tool has for it (DISABLE of the subscription, pause, the daemon stopped); the clock runs from the call that lets them go until
the last is visible. "spread": each row is changed once. "hot": the updates go to the same 2,000 rows again and again; a tool that sends
states and not history sends them once.
"""
TRANSACTIONS = 200_000
TABLES = ("one", "two", "three", "four")


def schema(server, rows):
    """Four tables, and a procedure that commits. hot: how many rows the updates go to, of those that are there."""
    for table in TABLES:
        server.sql(f"CREATE TABLE {table} (id bigint PRIMARY KEY, n bigint NOT NULL, note text) WITH (autovacuum_enabled = false)")
    for table in ("one", "three"):
        server.sql(f"INSERT INTO {table} SELECT i, 0, 'start' FROM generate_series(0, {rows}) AS i", f"VACUUM ANALYZE {table}")
    server.sql("""
        CREATE PROCEDURE work(first bigint, count bigint, hot bigint) LANGUAGE plpgsql AS $$
        BEGIN
            FOR i IN first .. first + count - 1 LOOP
                UPDATE one SET n = i WHERE id = i % hot;
                INSERT INTO two VALUES (i, i, 'new');
                UPDATE three SET n = i WHERE id = (i * 7) % hot;
                IF i % 2 = 0 THEN
                    INSERT INTO four VALUES (i, i, 'new');
                ELSE
                    DELETE FROM four WHERE id = i - 1;
                END IF;
                COMMIT;
            END LOOP;
        END $$""")


def run(bench):
    """All tools in turn; no replication is only generated, for the CPU of that."""
    most = max(1000, int(TRANSACTIONS * bench.scale))
    # a prime, so that (i * 7) % hot goes through all of them
    everything = next(n for n in range(most, 2 * most) if all(n % d for d in range(2, int(n ** 0.5) + 1)))
    first = {}

    def measure(pair, rep):
        for case, hot, share in (("spread", everything, 1), ("hot", 1999, 0.25)):
            count = int(most * share * (0.25 if pair.tool.foreign else 1))
            start = first.get(pair, 0)
            first[pair] = start + count
            found = _measure(bench, pair, count, start, hot)
            bench.record("c", pair.tool.name, case, rep, transactions=count, **found)

    bench.rounds(lambda server: schema(server, everything), measure)


def _measure(bench, pair, count, first, hot):
    pair.quiet()
    meter = Meter(pair)
    if pair.tool.replicates:
        pair.tool.hold(pair.servers)
    with pair.a.session() as writer:
        writer.rows("SET synchronous_commit = off")
        start = time.monotonic()
        writer.rows(f"CALL work({first}, {count}, {hot})")
        made = time.monotonic() - start
    drain, before = None, meter.cpu()
    if pair.tool.replicates:
        with pair.b.session() as reader:
            start = time.monotonic()
            pair.tool.release(pair.servers)
            drain = visible(reader, f"SELECT 1 FROM two WHERE id = {first + count - 1}", "1", start)
    pair.tool.settle(pair.servers)
    found = {"made_s": made, "drain_s": drain, "cpu_made_s": before, "cpu_s": meter.cpu(), "wal_b": meter.wal(pair.b)}
    bench.check(pair, TABLES)
    for one in pair.servers:
        for table in TABLES:
            one.sql(f"VACUUM {table}")
    return found


def report(bench):
    """Tables and target."""
    return [_report(bench, case) for case in bench.cases("c")]


def _report(bench, case):
    table = Table(case, "tool", "transactions", "made/s", "drained transactions/s", "row changes/s", "x native",
                  "CPU of all beyond none, s/1M row changes", "x native ", "WAL peer B/transaction")
    rates, costs = {}, {}
    for name in bench.tool_names("c"):
        mine = bench.records("c", tool=name, case=case)
        extra = []
        for one in mine:
            base = bench.records("c", tool="none", case=case, rep=one["rep"])
            if base and name != "none":
                extra.append((one["cpu_s"] / one["transactions"] - base[0]["cpu_s"] / base[0]["transactions"]) / 4 * 1e6)
        rates[name] = median(r["transactions"] / r["drain_s"] for r in mine if r["drain_s"])
        costs[name] = median(extra)
        table.row(
            name, f"{mine[0]['transactions']:,}", number(median(r["transactions"] / r["made_s"] for r in mine), 0),
            number(rates[name], 0), number(rates[name] and 4 * rates[name], 0), ratio(rates[name], rates.get("native")),
            number(costs[name], 2), ratio(costs[name], costs.get("native")),
            number(median(r["wal_b"] / r["transactions"] for r in mine), 0) if name != "none" else "",
        )
    mine, native = rates.get("mmrepl"), rates.get("native")
    bench.target(target(f"drain rate against native, small transactions, {case}", mine / native if mine and native else None, "at least", 2, "x"))
    return table
