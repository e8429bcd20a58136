"""The parts by letter. A part has TITLE, run(bench), which records, and report(bench), which gives tables and sets targets
from what is recorded, so that it can be written anew without measuring."""
from . import a_bulk, b_pgbench, c_backlog, d_latency, e_rate, f_memory, g_growth, h_copy, i_away

PARTS = {
    "a": a_bulk,
    "b": b_pgbench,
    "c": c_backlog,
    "d": d_latency,
    "e": e_rate,
    "f": f_memory,
    "g": g_growth,
    "h": h_copy,
    "i": i_away,
}
