"""What processes cost, read from /proc: CPU of whole trees with the children that are gone, memory, wake-ups."""
import os
import threading
import time

_TICK = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    """(parent, own CPU seconds, CPU seconds of children that were waited for, session), None for a pid that is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            field = f.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    gone = (int(field[13]) + int(field[14])) / _TICK
    return int(field[1]), _running(pid) or (int(field[11]) + int(field[12])) / _TICK, gone, int(field[3])


def _running(pid):
    """Seconds on a CPU, finer than the ticks of stat; None if the kernel does not tell. (Of the first thread: the
    processes that are measured have no other.)"""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as f:
            return int(f.read().split()[0]) / 1e9
    except (OSError, IndexError, ValueError):
        return None


def tree(root):
    """Pids of root and of all that descend from it. root may also be a session, of what left its parent by forking twice."""
    below, session = {}, []
    for name in os.listdir("/proc"):
        stat = _stat(name) if name.isdigit() else None
        if stat:
            below.setdefault(stat[0], []).append(int(name))
            if stat[3] == root:
                session.append(int(name))
    found = [root] + [pid for pid in session if pid != root]
    for pid in found:
        found += [child for child in below.get(pid, []) if child not in found]
    return found


def cpu(roots, but=()):
    """CPU seconds so far of the trees below roots, without the processes in but. A child that ends is counted by its
    parent from then on, so that the difference of two calls is what was used between them."""
    total = 0.0
    for root in roots:
        for pid in tree(root):
            stat = _stat(pid)
            if stat and pid in but:
                total += stat[2]
            elif stat:
                total += stat[1] + stat[2]
    return total


def own_cpu(pid):
    """CPU seconds of one process."""
    stat = _stat(pid)
    return stat[1] if stat else 0.0


def switches(roots):
    """Voluntary context switches of living processes: how often they waited for something."""
    return sum(_status(pid).get("voluntary_ctxt_switches", 0) for root in roots for pid in tree(root))


def _status(pid):
    """Numbers of /proc/pid/status, memory in kB."""
    found = {}
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
            for line in f:
                name, _, value = line.partition(":")
                word = value.split()
                if word and word[0].isdigit():
                    found[name] = int(word[0])
    except OSError:
        pass
    return found


def title(pid):
    """What a process calls itself."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
            words = f.read().replace("\0", " ").split()
    except OSError:
        return ""
    # what it was started with is of no interest to others
    return "postmaster" if words and words[0].endswith("/postgres") and "-D" in words else " ".join(words)


class MemoryWatch(threading.Thread):
    """Looks at the memory of processes ten times a second. peak: title -> (MB of its own, MB in all with the shared
    pages it touched)."""

    def __init__(self, roots):
        super().__init__(daemon=True)
        self.roots, self.peak, self._end = roots, {}, threading.Event()

    def run(self):
        while not self._end.wait(0.1):
            for root in self.roots:
                for pid in tree(root):
                    status = _status(pid)
                    if "RssAnon" in status:
                        own, most = self.peak.get((pid, root), (0, 0))
                        self.peak[(pid, root)] = (max(own, status["RssAnon"]), max(most, status.get("VmHWM", 0)))

    def stop(self, names, labels):
        """Ends the watch. names: root -> what to call it. labels: pid -> what it does, where its title does not say so; None: not
        to be shown. Gives [(where, title, own MB, MB in all)], largest first."""
        titles = {key: labels.get(key[0], title(key[0])) for key in self.peak}
        self._end.set()
        self.join()
        found = [
            (names[root], titles[pid, root], own / 1024, most / 1024) for (pid, root), (own, most) in self.peak.items()
            if titles[pid, root] is not None
        ]
        return sorted(found, key=lambda one: -one[2])


def wait_until(ready, seconds, what, pause=0.005):
    """Polls until ready() is true; raises when it takes too long."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(pause)
