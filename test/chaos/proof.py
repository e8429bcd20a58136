#!/usr/bin/env python3
"""proof.py: the chaos test would notice. mmrepl is built without one of its rules after the other (src/breaks.h), and
some seed must fail; as it is, it must pass with the same profiles.

  PG_CONFIG=.../pg_config proof.py [RULE...]      in a tree that may be built and installed from
Environment: SEED (1), SEEDS (how many are tried for a rule, 8). The exit status is 0 if every rule was missed."""
import glob
import os
import re
import subprocess
import sys
import time

# rule left out: profile, servers
RULES = {
    "PURGE_ON_ACK": ("late", 2),
    "LABEL_FIRST": ("hot", 2),
    "RECORD": ("hot", 3),
    "NEWEST": ("hot", 2),
    "DEFER": ("lonely", 2),
    "RANK": ("unique", 3),
    "TRUNCATE_ORDER": ("truncate", 2),
    "TRUNCATE_SPARE": ("truncate", 2),
    "CLOCK_TICK": ("clock", 2),
    "CLOCK_FLOOR": ("clock", 2),
    "FLUSH": ("crash", 2),
    "POSITION": ("long", 2),
}
# of a star, which chaos has not: tests of hubs show them
ELSEWHERE = {"SPARED"}
MINUTES = {"late": 0.65}
SEED = int(os.environ.get("SEED", "1"))
SEEDS = int(os.environ.get("SEEDS", "8"))


def build(rule):
    for path in glob.glob("src/*.c"):
        if "MMR_BREAK_" in open(path).read() or path == "src/init.c":
            os.utime(path)
    flags = [f"COPT=-DMMR_BREAK_{rule}"] if rule else []
    subprocess.run(["make", "-s", "-j2", "install", "PG_CONFIG=" + os.environ["PG_CONFIG"], *flags], check=True,
                   stdout=subprocess.DEVNULL)


def chaos(seed, profile, nodes):
    """What failed first, or None."""
    told = subprocess.run([sys.executable, "-B", "test/chaos/chaos.py", "--seed", str(seed), "--nodes", str(nodes), "--profile", profile,
                           "--minutes", str(MINUTES.get(profile, 0.2)), "--targets", "0", "--copy", "0", "--discard"], capture_output=True, text=True,
                          env=dict(os.environ, MMREPL_BROKEN="1"))
    if told.returncode == 0:
        return None
    failed = re.findall(r"FAILED: (.*)", told.stdout) or (told.stdout + told.stderr).strip().splitlines()[-1:]
    return failed[0] if failed else "?"


def as_it_is(profiles):
    build(None)
    bad = 0
    for profile, nodes in profiles:
        failed = chaos(SEED, profile, nodes)
        bad += failed is not None
        print(f"{'as it is':16} {profile:9} {nodes} nodes  seed {SEED}: {'passes' if failed is None else 'FAILS: ' + failed}", flush=True)
    return bad


def without(rule):
    profile, nodes = RULES[rule]
    build(rule)
    began = time.time()
    for seed in range(SEED, SEED + SEEDS):
        failed = chaos(seed, profile, nodes)
        if failed is not None:
            print(f"{rule:16} {profile:9} {nodes} nodes  seed {seed} fails, {time.time() - began:.0f} s: {failed[:110]}", flush=True)
            return 0
    print(f"{rule:16} {profile:9} {nodes} nodes  NOT NOTICED with {SEEDS} seeds from {SEED}", flush=True)
    return 1


def main():
    known = set(re.findall(r"defined\(MMR_BREAK_(\w+)\)", open("src/breaks.h").read()))
    if known != set(RULES) | ELSEWHERE:
        sys.exit(f"src/breaks.h and proof.py do not name the same rules: {sorted(known ^ (set(RULES) | ELSEWHERE))}")
    rules = sys.argv[1:] or list(RULES)
    bad = as_it_is(sorted({RULES[rule] for rule in rules}))
    bad += sum(without(rule) for rule in rules)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
