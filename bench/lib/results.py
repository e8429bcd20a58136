"""What was measured: kept as JSON, shown as Markdown. A part that is not run again keeps its old numbers, with their date."""
import datetime
import json
import os
import platform
import subprocess

from .server import BINDIR, COMMON


class Results:
    """records: raw numbers of all parts. Written by the parts, read by their reports."""

    def __init__(self, directory):
        """directory: where results.json is, and goes."""
        self.skipped = {}
        self._running, self._before = None, None
        self._targets = []
        self._data = {"parts": {}}
        try:
            with open(os.path.join(directory, "results.json"), encoding="utf-8") as f:
                self._data = json.load(f)
        except (OSError, ValueError):
            pass

    def begin_part(self, letter, scale, repeat):
        """What was known of the part goes, if this comes to its end."""
        self._running, self._before = letter, self._data["parts"].get(letter)
        self._data["parts"][letter] = {
            "scale": scale, "repeat": repeat, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M"),
            "commit": os.environ.get("BENCH_COMMIT", "unknown"), "machine": machine(), "skipped": dict(self.skipped),
            "records": [],
        }

    def leave_out(self, tool, why):
        """A tool failed in the part that is running."""
        self._data["parts"][self._running]["skipped"][tool] = why.splitlines()[0]

    def end_part(self, letter, seconds):
        """It took so long."""
        self._data["parts"][letter]["seconds"] = round(seconds)

    def give_up_part(self, letter):
        """It failed: what was known before stands."""
        if self._before is None:
            del self._data["parts"][letter]
        else:
            self._data["parts"][letter] = self._before

    def record(self, part, tool, case, rep, **numbers):
        """One measurement."""
        self._data["parts"][part]["records"].append({"tool": tool, "case": case, "rep": rep, **numbers})
        shown = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in numbers.items()
                         if isinstance(v, (int, float)))
        print(f"  {tool} {case} #{rep + 1}: {shown}", flush=True)

    def records(self, part, **having):
        """Those of a part that have these values."""
        return [r for r in self._data["parts"].get(part, {"records": []})["records"]
                if all(r.get(k) == v for k, v in having.items())]

    def tool_names(self, part):
        """Tools that a part has numbers of, in the order they came."""
        return list(dict.fromkeys(r["tool"] for r in self.records(part)))

    def cases(self, part):
        """Cases of a part."""
        return list(dict.fromkeys(r["case"] for r in self.records(part)))

    def target(self, found):
        """Remembers how a target was met."""
        self._targets.append(found)

    def write(self, out, parts):
        """results.json and RESULTS.md."""
        with open(os.path.join(out, "results.json"), "w", encoding="utf-8") as f:
            json.dump(self._data, f, indent=1)
            f.write("\n")
        with open(os.path.join(out, "RESULTS.md"), "w", encoding="utf-8") as f:
            f.write(self._markdown(parts))

    def _markdown(self, parts):
        self._targets = []
        sections = []
        for letter, module in parts.items():
            done = self._data["parts"].get(letter)
            if done and done["records"]:
                text = f"## {module.TITLE}\n\n" + " ".join((module.__doc__ or "").split()) + "\n\n"
                if getattr(module, "METHOD", None):
                    text += module.METHOD.strip() + "\n\n"
                text += "\n".join(str(t) for t in module.report(self))
                text += "\n" + _stamp(done)
                sections.append(text)
        lines = ["# What it costs, measured", "", "Made by `make bench`; bench/README.md says how it is measured.", ""]
        lines += ["## Targets", "", "| target | goal | measured | |", "| --- | --- | ---: | --- |"]
        for what, value, goal, met in self._targets:
            shown = "" if value is None else f"{value:,.2f}"
            lines.append(f"| {what} | {goal} | {shown} | {'not measured' if met is None else 'met' if met else '**not met**'} |")
        return "\n".join(lines) + "\n\n" + "\n".join(sections)


def _stamp(done):
    """Where, when and of what."""
    m = done["machine"]
    text = (f"Measured {done['date']} UTC, commit {done['commit']}, SCALE={done['scale']:g}, REPEAT={done['repeat']}, "
            f"{done.get('seconds', '?')} s; {m['cpu']}, {m['cores']} cores, {m['memory_gb']} GB, Linux {m['kernel']}, {m['server']}.\n")
    for name, why in done["skipped"].items():
        text += f"Without {name}: {why}.\n"
    return text


def machine():
    """The machine, as far as it explains numbers."""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        cpu = next((l.split(":", 1)[1].strip() for l in f if l.startswith("model name")), platform.machine())
    with open("/proc/meminfo", encoding="utf-8") as f:
        memory = int(f.readline().split()[1])
    server = subprocess.run([os.path.join(BINDIR, "postgres"), "--version"], check=True, capture_output=True, text=True)
    return {
        "cpu": cpu, "cores": len(os.sched_getaffinity(0)), "memory_gb": round(memory / 2**20), "kernel": platform.release(),
        "server": server.stdout.strip(), "settings": COMMON,
    }
