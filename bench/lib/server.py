"""Private servers: made, started, stopped below MMR_WORK, reached through a socket in a directory nobody else may enter."""
import os
import shutil
import subprocess
import time

from . import usage
from .pq import Session, SqlError

WORK = os.environ["MMR_WORK"]
BINDIR = subprocess.run(
    [os.environ.get("PG_CONFIG", "pg_config"), "--bindir"], check=True, capture_output=True, text=True
).stdout.strip()
DB = "bench"

# The same for every tool; what a tool needs beyond that it says itself.
COMMON = {
    "listen_addresses": "''",
    "shared_buffers": "256MB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "max_worker_processes": "64",
    "max_connections": "100",
    "log_min_messages": "warning",
    "log_line_prefix": "'%m [%p] '",
    "timezone": "'UTC'",
}

_ports = iter(range(5600, 7000))
_started = []


def stop_all():
    """Stops what a part that failed has left running."""
    for server in list(_started):
        server.stop("immediate")


def program(name, *args, **kwargs):
    """Runs a program of the private PostgreSQL; raises with what it said when it fails."""
    kwargs.setdefault("env", dict(os.environ, PGOPTIONS=""))
    done = subprocess.run([os.path.join(BINDIR, name), *args], capture_output=True, text=True, check=False, **kwargs)
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout + done.stderr


class Server:
    """One cluster with one database."""

    def __init__(self, name, conf, number=1, env=None, filled=None):
        """filled: directory of a stopped server to begin with a copy of, its database included."""
        self.number, self._env = number, dict(os.environ, PGOPTIONS="", **(env or {}))
        self.name, self.port = name, next(_ports)
        self.dir = os.path.join(WORK, "clusters", name)
        self.sockets = os.path.join(WORK, "s")
        self.log = os.path.join(WORK, "logs", name + ".log")
        os.makedirs(self.sockets, mode=0o700, exist_ok=True)
        os.makedirs(os.path.dirname(self.dir), exist_ok=True)
        os.makedirs(os.path.dirname(self.log), exist_ok=True)
        if filled:
            shutil.copytree(filled, self.dir)
        else:
            program("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-N", "-D", self.dir)
        with open(os.path.join(self.dir, "postgresql.conf"), "a", encoding="utf-8") as f:
            for key, value in {**COMMON, "port": self.port, "unix_socket_directories": f"'{self.sockets}'", **conf}.items():
                f.write(f"{key} = {value}\n")
        self.start()
        if not filled:
            with self.session("postgres") as s:
                s.rows(f"CREATE DATABASE {DB}")

    def conninfo(self, db=DB):
        """Where the others, and we, reach it."""
        return f"host={self.sockets} port={self.port} dbname={db} user=postgres"

    def start(self):
        """Starts it and waits until it answers."""
        _started.append(self)
        program("pg_ctl", "-D", self.dir, "-l", self.log, "-w", "-t", "120", "start", env=self._env)

    def stop(self, mode="fast"):
        """Stops it and waits."""
        _started.remove(self)
        if os.path.exists(os.path.join(self.dir, "postmaster.pid")):
            program("pg_ctl", "-D", self.dir, "-m", mode, "-w", "-t", "300", "stop")

    def remove(self):
        """Deletes a stopped one."""
        shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def pid(self):
        """The postmaster."""
        with open(os.path.join(self.dir, "postmaster.pid"), encoding="ascii") as f:
            return int(f.readline())

    def session(self, db=DB):
        """A connection, for with."""
        return _Closing(Session(self.conninfo(db)))

    def connect(self, db=DB):
        """A connection that the caller closes."""
        return Session(self.conninfo(db))

    def sql(self, *statements):
        """Runs statements one by one; gives the first value of the last one."""
        with self.session() as s:
            value = None
            for one in statements:
                value = s.value(one)
            return value

    def wal(self):
        """Bytes of WAL written so far."""
        return int(self.sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    def wait_for(self, query, seconds=600, pause=0.01):
        """Polls until the query gives true."""
        with self.session() as s:
            usage.wait_until(lambda: s.value(query) == "t", seconds, f"{self.name}: {query}", pause)


class _Closing:
    def __init__(self, session):
        self.session = session

    def __enter__(self):
        return self.session

    def __exit__(self, *_):
        self.session.close()


def visible(session, query, expected, since, seconds=900, pause=0.002):
    """Seconds after since until the query gives expected, asked again after pause."""
    end = since + seconds
    while True:
        try:
            if session.value(query) == expected:
                return time.monotonic() - since
        except SqlError as e:
            raise RuntimeError(f"while waiting: {e}") from e
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {query}")
        if pause:
            time.sleep(pause)
