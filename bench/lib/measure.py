"""One measurement: what it took between two moments, on all servers of a pair and in the tool's own processes."""
import time

from . import usage


class Meter:
    """CPU of everything but the sessions in but, WAL of each server, since it was made."""

    def __init__(self, pair, but=()):
        self._pair, self._but = pair, but
        self._wal = {one: one.wal() for one in pair.servers if pair.is_up(one)}
        self._start = self._cpu()
        self.began = time.monotonic()

    def _cpu(self):
        # the sessions of the measurement itself are children of the postmasters too
        return usage.cpu(self._pair.roots(), self._but)

    def cpu(self):
        """CPU seconds so far."""
        return self._cpu() - self._start

    def wal(self, server):
        """Bytes of WAL of a server so far."""
        return server.wal() - self._wal[server]


def median(values):
    """The median, None of nothing."""
    values = sorted(v for v in values if v is not None)
    if not values:
        return None
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def percentile(values, p):
    """The value below which p percent of the values are."""
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p / 100))]
