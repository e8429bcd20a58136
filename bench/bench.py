"""make bench: mmrepl beside no replication, native logical replication, pglogical and Bucardo, on private servers.

Runs under scripts/with_server.sh, which gives MMR_WORK and PG_CONFIG. Environment:
    PARTS   letters of the parts to run (default: all); the others keep what results.json has of them
    SCALE   sizes and durations, 1 is what RESULTS.md means
    REPEAT  measurements of each thing, of which the median counts
    TOOLS   which tools (default: all that can be had)
    SPOIL   1: changes a row at the peer before each check, to see that the bench notices
Writes results.json (raw numbers) and RESULTS.md to MMR_WORK/out after each part. A part that fails, as one whose peer ends with
other rows does, leaves the others alone; then the bench fails at its end.
"""
import contextlib
import os
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from lib.extras import Extras  # noqa: E402
from lib.pair import Pair, WrongResult  # noqa: E402
from lib.results import Results  # noqa: E402
from lib.server import WORK, stop_all  # noqa: E402
from lib.tools import all_tools  # noqa: E402
from parts import PARTS  # noqa: E402


class Bench(Results):
    """What a part sees: tools, sizes, records."""

    def __init__(self, out, scale, repeat, names, spoil):
        super().__init__(out)
        self.scale, self.repeat, self._spoil = scale, repeat, spoil
        self._part, self.tools = None, []
        self._choose(names)

    def _choose(self, names):
        for tool in all_tools(Extras()):
            if names and tool.name not in names:
                continue
            why = tool.missing()
            if why:
                self.skipped[tool.name] = why
                say(f"{tool.name}: left out: {why}")
            else:
                self.tools.append(tool)

    def pair(self, tool, schema, suffix="", **options):
        """A new pair of servers, started."""
        say(f"  {tool.name}: setting up")
        return Pair(tool, f"{self._part}{suffix}", schema, **options)

    def rounds(self, schema, measure, tools=None, repeat=None, **options):
        """Pairs of all tools, measured in turn: measure(pair, rep). Only one pair is running at a time. A tool that is
        only compared with is measured once, and may fail: it is left out from then on, and the report says so."""
        pairs = []
        for tool in self.tools if tools is None else tools:
            with self._forgive(tool):
                pair = self.pair(tool, schema, **options)
                pair.stop()
                pairs.append(pair)
        for rep in range(repeat or self.repeat):
            for pair in [p for p in pairs if rep == 0 or not p.tool.foreign]:
                with self._forgive(pair.tool):
                    with pair:
                        measure(pair, rep)
                    continue
                pairs.remove(pair)
        for pair in pairs:
            pair.remove()

    @contextlib.contextmanager
    def _forgive(self, tool):
        try:
            yield
        except Exception as e:  # pylint: disable=broad-except
            if not tool.foreign:
                raise
            self.leave_out(tool.name, str(e))
            say(f"  {tool.name}: left out of ({self._part}) from here on: {e}")

    def check(self, pair, tables):
        """Every measurement ends with this."""
        if self._spoil and pair.tool.replicates:
            pair.b.sql(f"SET session_replication_role = replica; DELETE FROM {tables[0]} WHERE ctid = "
                       f"(SELECT min(ctid) FROM {tables[0]})" if pair.b.sql(f"SELECT count(*) FROM {tables[0]}") != "0" else
                       f"SET session_replication_role = replica; INSERT INTO {tables[0]} VALUES (-1, 0)")
        pair.check_same(tables)

    def part(self, letter, module):
        """Runs one part; False: it failed."""
        self._part = letter
        say(module.TITLE)
        start = time.monotonic()
        self.begin_part(letter, self.scale, self.repeat)
        try:
            module.run(self)
        except WrongResult as e:
            say(f"WRONG RESULT: {e}")
            self.give_up_part(letter)
            return False
        except Exception:  # pylint: disable=broad-except
            say(f"part {letter} failed: {traceback.format_exc()}")
            self.give_up_part(letter)
            return False
        finally:
            stop_all()
        took = time.monotonic() - start
        self.end_part(letter, took)
        say(f"  took {took:.0f} s")
        return True


def say(text):
    """To the screen, at once."""
    print(text, flush=True)


def main():
    """Runs the parts that are asked for, writes after each."""
    env = os.environ
    wanted = env.get("PARTS", "").split() or list(PARTS)
    unknown = [p for p in wanted if p not in PARTS]
    if unknown:
        sys.exit(f"There is no part {unknown[0]}; there are {' '.join(PARTS)}")
    out = os.path.join(WORK, "out")
    os.makedirs(out, exist_ok=True)
    bench = Bench(
        out, float(env.get("SCALE") or 1), int(env.get("REPEAT") or 3), env.get("TOOLS", "").split(), env.get("SPOIL") == "1"
    )
    failed = []
    for letter in wanted:
        if bench.part(letter, PARTS[letter]):
            bench.write(out, PARTS)
        else:
            failed.append(letter)
    if os.path.exists(os.path.join(out, "RESULTS.md")):
        with open(os.path.join(out, "RESULTS.md"), encoding="utf-8") as f:
            say(f.read())
    if failed:
        sys.exit(f"Parts that failed: {' '.join(failed)}")


if __name__ == "__main__":
    main()
