"""The parts by letter. A part has TITLE, run(bench), which records, and report(bench), which gives tables and sets targets
from what is recorded, so that it can be written anew without measuring."""
from . import a_bulk, b_pgbench, c_backlog, d_latency

PARTS = {
    "a": a_bulk,
    "b": b_pgbench,
    "c": c_backlog,
    "d": d_latency,
}
