"""What is compared. A tool makes a pair of servers replicate; everything else about a measurement is the same for all.

Each tool says: conf and env (settings of both servers, their environment), two_way, foreign (only compared with: may fail), part_of (the share of the rows it is given: who is very slow gets
fewer, results are per row), missing() (why it cannot run here, or None), and what is done with a pair of servers (pair.py).
"""
import time


class Tool:
    """No replication: what everybody is compared with."""

    name = "none"
    conf = {}
    env = {}
    two_way = False
    replicates = False
    foreign = False
    knows_arrived = True
    part_of = 1.0

    def missing(self):
        """Why it cannot run here, or None."""
        return None

    def prepare(self, servers):
        """What has to be there before the call that starts replication; once for these servers."""

    def begin(self, servers, copy=False):
        """Makes the first server's tables go to the others; all have them, with the same rows, or none with copy."""

    def hold(self, servers):
        """Nothing flows from here on; changes are kept for release."""

    def release(self, servers):
        """Goes on."""

    def labels(self, servers):
        """What some processes do, by pid, where their titles do not say it."""
        return {}

    def roots(self):
        """Processes of its own outside the servers."""
        return []

    def servers_up(self, servers):
        """After the servers have been started again."""

    def servers_down(self, servers):
        """Before the servers are stopped."""

    def arrived(self, servers):
        """Waits until the peers have said that they have everything."""

    def settle(self, servers):
        """Waits for what belongs to the work but comes after the rows are visible."""
        self.arrived(servers)
        time.sleep(0.7)

    def peer_back(self, servers):
        """After a peer that was away has been started again."""

