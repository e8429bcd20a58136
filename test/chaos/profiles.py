"""profiles.py: what the writers write, and how fast things go wrong."""
import dataclasses

TABLES = {"acct": 6, "users": 3, "comp": 2, "family": 3, "bucket": 2, "sess": 2, "seat": 2, "room": 2}


@dataclasses.dataclass
class Profile:
    keys: int = 14                      # keys of a table that all writers share
    writers: int = 4                    # connections that write, per server
    pace: float = 0.02                  # seconds between the transactions of a writer, on average
    truncate: float = 0.004             # of the transactions
    prepared: float = 0.03
    waits: tuple = (0.05, 0.3, 0.3, 2.0, 6.0)   # in the middle of a transaction, seconds
    tables: dict = dataclasses.field(default_factory=lambda: dict(TABLES))
    heartbeat: int = 300                # of mmrepl, ms: sets the pace of purging
    rest: tuple = (0.2, 0.8, 1.5, 3)    # between faults, seconds
    faults: str = ""                    # by name, with commas; none: all
    clock: bool = False                 # clocks jump
    burst: tuple = ()                   # all write for so many seconds, once in so many; a fault each time (late)
    lazy: bool = False                  # synchronous_commit off everywhere; else on every second server, by the seed
    star: bool = False                  # the first server is the hub
    strategies: bool = False            # STRATEGIES for some tables
    lonely: bool = False                # only the first server is written to: then there is no conflict at all


# What settles conflicts of which table, where it is not the newest.  The function takes one of the two rows as it is.
STRATEGIES = {"comp": "priority", "bucket": "function: longest_bucket", "child": "priority"}
FUNCTIONS = """CREATE FUNCTION longest_bucket(a bucket, b bucket) RETURNS bucket LANGUAGE sql IMMUTABLE AS $$
    SELECT r FROM unnest(ARRAY[a, b]) r ORDER BY coalesce(length(r.v), -1) DESC, r.tag COLLATE "C", r.v COLLATE "C", r.id LIMIT 1 $$"""


PROFILES = {
    "default": Profile(),
    # much in little time
    "short": Profile(keys=8, writers=3, pace=0.01, waits=(0.05, 0.3, 1.0), heartbeat=100, rest=(0.1, 0.3, 0.8), truncate=0.02),
    # all want the same few rows, and the network is bad
    "hot": Profile(keys=4, writers=3, pace=0.01, waits=(0.02, 0.1), heartbeat=60, rest=(0.1, 0.3, 0.6), truncate=0.004,
                   faults="cut,late,late,isolate"),
    # values that must be unique change hands
    "unique": Profile(keys=6, writers=3, pace=0.005, waits=(0.02, 0.1), heartbeat=100, rest=(0.1, 0.3, 0.6), truncate=0,
                      tables={"acct": 4, "users": 2, "seat": 2, "room": 1}, faults="cut,late,isolate"),
    "truncate": Profile(keys=8, writers=3, pace=0.01, waits=(0.02, 0.1), heartbeat=100, rest=(0.2, 0.5, 1), truncate=0.08,
                        faults="cut,late,isolate,maintain"),
    # a batch is under way while all it tells of is overwritten, and arrives when that has long been acknowledged
    "late": Profile(keys=30, writers=4, pace=0.003, waits=(0.02, 0.05), heartbeat=60, truncate=0, prepared=0, burst=(1.4, 12),
                    tables={"sess": 5, "acct": 1}, faults="late_burst"),
    "star": Profile(keys=8, writers=3, pace=0.01, waits=(0.02, 0.1), heartbeat=100, rest=(0.2, 0.5, 1), truncate=0.01, star=True),
    "strategies": Profile(keys=6, writers=3, pace=0.01, waits=(0.02, 0.1), heartbeat=100, rest=(0.2, 0.5, 1), strategies=True, truncate=0.002,
                          tables={"acct": 1, "comp": 4, "family": 3, "bucket": 4, "sess": 1}),
    "clock": Profile(keys=5, writers=3, pace=0.01, waits=(0.02, 0.1), heartbeat=300, rest=(0.2, 0.5, 1), clock=True,
                     faults="clock,clock,restart,kill_server,isolate"),
    # nobody waits for the disk, and servers lose what is not on it
    "crash": Profile(keys=14, writers=4, pace=0.01, waits=(0.02, 0.1), rest=(1.5, 2.5), lazy=True, faults="kill_server"),
    "long": Profile(keys=8, writers=5, pace=0.01, prepared=0.15, waits=(0.3, 1.0, 3.0), rest=(0.5, 1), faults="cut,kill_worker"),
    # one writes and nothing goes wrong: whatever is called a conflict is none
    "lonely": Profile(keys=6, writers=4, pace=0.003, waits=(0.02, 0.1), truncate=0.01, lonely=True, rest=(0.2, 0.5),
                      tables={"acct": 4, "users": 2, "seat": 4, "room": 2, "comp": 1}, faults="cut,late"),
}
