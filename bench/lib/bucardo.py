"""Bucardo: a Perl daemon beside the servers. Its own database is on the first server, as most have it."""
import glob
import os
import subprocess
import time

from . import usage
from .server import BINDIR, DB, WORK
from .tool import Tool

_PERL = (
    "bucardo",
    "libdbix-safe-perl",
    "libdbd-pg-perl",
    "libdbi-perl",
    "libboolean-perl",
    "libpod-parser-perl",
    "libencode-locale-perl",
)

_SLEEPS = ("mcp_loop_sleep", "ctl_sleep", "kid_sleep", "kid_nodeltarows_sleep", "endsync_sleep")


class Bucardo(Tool):
    """Debian's, both databases as sources, as its users run it."""

    name = "bucardo"
    foreign = True
    knows_arrived = False
    two_way = True
    replicates = True
    part_of = 0.1
    # seconds; None: as it comes (0.2 to 0.5), which costs less and waits longer
    sleep = 0.01

    def __init__(self, extras):
        self._extras = extras
        self._env, self.env = None, {}
        self._dirs = {}
        self._running = {}

    def missing(self):
        why = self._extras.need("postgresql-plperl-15", server_files=("plperl.so", "plperlu.control"))
        why = why or self._extras.need(*_PERL, files=("/usr/bin/bucardo", "/usr/share/perl5/DBIx/Safe.pm"))
        if why:
            return why
        root = self._extras.root
        libs = [root + "/usr/share/perl5", *_glob_perl(root), os.environ.get("PERL5LIB", "")]
        # it looks for psql by itself
        self.env = {"PERL5LIB": ":".join(filter(None, libs))}
        self._env = dict(os.environ, **self.env, HOME=WORK, PATH=BINDIR + ":" + os.environ["PATH"])
        done = subprocess.run(
            ["perl", self._extras.path("/usr/bin/bucardo"), "--version"],
            env=self._env, capture_output=True, text=True, check=False,
        )
        return None if done.returncode == 0 else "bucardo does not start: " + done.stderr.strip().splitlines()[0]

    def _call(self, servers, *args):
        first = servers[0]
        directory = self._dirs[first.name]
        done = subprocess.run(
            ["perl", self._extras.path("/usr/bin/bucardo"), "--no-bucardorc", "--batch",
             f"--db-host={first.sockets}", f"--db-port={first.port}", "--db-user=bucardo", "--db-name=bucardo",
             f"--piddir={directory}", f"--log-dest={directory}", *args],
            env=self._env, cwd=directory, capture_output=True, text=True, check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"bucardo {args[0]}: {done.stdout.strip()} {done.stderr.strip()}")
        return done.stdout

    def begin(self, servers, copy=False):
        first = servers[0]
        directory = os.path.join(WORK, "bucardo", first.name)
        os.makedirs(directory, exist_ok=True)
        self._dirs[first.name] = directory
        for one in servers:
            one.sql("CREATE ROLE bucardo SUPERUSER LOGIN")
            with one.session() as s:
                s.rows("CREATE EXTENSION plperlu")
        with first.session("postgres") as s:
            s.rows("CREATE DATABASE bucardo OWNER bucardo")
        schema = self._extras.path("/usr/share/bucardo/bucardo.schema")
        with first.session("bucardo") as s:
            s.rows("CREATE EXTENSION plperlu")
        done = subprocess.run(
            [os.path.join(BINDIR, "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", schema,
             f"host={first.sockets} port={first.port} dbname=bucardo user=bucardo"],
            env=self._env, capture_output=True, text=True, check=False,
        )
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
            raise RuntimeError("bucardo.schema: " + " ".join(errors[:1]))
        self._call(servers, "set", f"piddir={directory}", f"reason_file={directory}/reason", "stopfile=fullstopbucardo",
                   f"warning_file={directory}/warning", "log_level=terse")
        if self.sleep:
            self._call(servers, "set", *(f"{name}={self.sleep}" for name in _SLEEPS))
        for one in servers:
            self._call(servers, "add", "db", one.name, f"dbname={DB}", f"host={one.sockets}", f"port={one.port}", "user=bucardo")
        self._call(servers, "add", "all", "tables", "relgroup=bench", f"db={first.name}")
        self._call(
            servers, "add", "sync", "bench", "relgroup=bench",
            "dbs=" + ",".join(one.name + ":source" for one in servers), f"onetimecopy={1 if copy else 0}",
        )
        self.servers_up(servers)

    def servers_up(self, servers):
        self._call(servers, "start", "--exit-on-nosync")
        pidfile = os.path.join(self._dirs[servers[0].name], "bucardo.mcp.pid")
        # it is made first, and written then
        usage.wait_until(lambda: os.path.exists(pidfile) and os.path.getsize(pidfile) > 0, 60, "bucardo's daemon")
        with open(pidfile, encoding="ascii") as f:
            pid = int(f.readline())
        self._running[servers[0].name] = (pid, os.getsid(pid))
        # its KID connects to both
        for one in servers:
            one.wait_for("SELECT count(*) >= 2 FROM pg_stat_activity WHERE usename = 'bucardo' AND datname = 'bench'", 60)
        time.sleep(1)

    def servers_down(self, servers):
        pid, _ = self._running.pop(servers[0].name, (None, None))
        if pid is None:
            return
        self._call(servers, "stop")
        usage.wait_until(lambda: not usage.title(pid), 60, "end of bucardo's daemon")
        for one in servers:
            one.wait_for("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'bucardo')", 60)
        stop = os.path.join(self._dirs[servers[0].name], "fullstopbucardo")
        if os.path.exists(stop):
            os.remove(stop)

    hold = servers_down
    release = servers_up

    def peer_back(self, servers):
        # it does not find back by itself after more than mcp_dbproblem_sleep
        self.servers_down(servers)
        self.servers_up(servers)

    def roots(self):
        return [session for _, session in self._running.values()]



def _glob_perl(root):
    return glob.glob(root + "/usr/lib/*/perl5/*")
