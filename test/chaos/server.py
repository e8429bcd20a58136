"""server.py: one private PostgreSQL, its processes, and what can be done to them."""
import glob
import os
import resource
import signal
import socket
import struct
import subprocess
import threading
import time

import pq

CONF = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{sockets}'
shared_preload_libraries = 'mmrepl'
max_worker_processes = 40
max_prepared_transactions = 40
max_connections = 80
shared_buffers = 24MB
fsync = off
restart_after_crash = on
log_line_prefix = '%m [%p] %q[%b %a] '
log_min_messages = warning
log_min_error_statement = panic
log_checkpoints = off
backtrace_functions = 'MemoryContextAlloc,MemoryContextAllocZero,palloc,palloc0,repalloc,errfinish'
wal_writer_delay = 3s
deadlock_timeout = 500ms
autovacuum_naptime = 5s
timezone = 'UTC'
synchronous_commit = {synchronous_commit}
mmrepl.restart_delay = 500
mmrepl.heartbeat_interval = {heartbeat}
mmrepl.connect_timeout = 3
mmrepl.lock_timeout = 1000
mmrepl.segment_size = 64
mmrepl.capture_buffer = 8
mmrepl.frame_size = 8
"""


def cores():
    """A crash leaves a core in the data directory."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, name, base, bindir, synchronous_commit="on", heartbeat=300, preload=None, source=None):
        self.name = name
        self.dir = os.path.join(base, name)
        self.sockets = base
        self.bindir = bindir
        self.log = os.path.join(base, name + ".log")
        self.port = free_port()
        self.proc = None
        self.lock = threading.Lock()
        self.crashes = []               # when it was killed or stopped at once
        self.preload = preload          # library: preload.c
        self.source = source            # address of its connections to others
        self.role = "source"
        self.address = None             # where the others reach it
        self.writable = threading.Event()
        self.writable.set()
        self.run("initdb", "-D", self.dir, "-N", "-A", "trust", "-U", "postgres", "--locale=C.UTF-8", "-E", "UTF8")
        with open(os.path.join(self.dir, "postgresql.conf"), "a") as f:
            f.write(CONF.format(port=self.port, sockets=base, synchronous_commit=synchronous_commit,
                                heartbeat=heartbeat))
        self.set_clock(0)

    def run(self, program, *args):
        subprocess.run([os.path.join(self.bindir, program), *args], check=True, stdout=subprocess.DEVNULL)

    def conninfo(self, dbname="app", app="chaos"):
        return f"host={self.sockets} port={self.port} dbname={dbname} user=postgres application_name={app}"

    def connect(self, dbname="app", app="chaos"):
        return pq.Conn(self.conninfo(dbname, app))

    def query(self, *statements, dbname="app", app="chaos-check"):
        c = self.connect(dbname, app)
        try:
            return [c.exec(sql) for sql in statements][-1]
        finally:
            c.close()

    def has_database(self):
        self.start()
        self.wait_up(dbname="postgres")
        return self.query("SELECT count(*) FROM pg_database WHERE datname = 'app'", dbname="postgres")[0][0] == "1"

    # ---- clock

    def set_clock(self, seconds):
        """In place: the server has the file mapped."""
        path = os.path.join(self.sockets, self.name + ".clock")
        with open(path, "r+b" if os.path.exists(path) else "wb") as f:
            f.write(struct.pack("q", int(seconds * 1000000)))

    def environment(self):
        return dict(os.environ, LD_PRELOAD=self.preload, CHAOS_CLOCK=os.path.join(self.sockets, self.name + ".clock"),
                    CHAOS_SOURCE=self.source)

    # ---- processes

    def pids(self):
        found = []
        for path in glob.glob("/proc/[0-9]*/cwd"):
            try:
                if os.readlink(path) == self.dir:
                    found.append(int(path.split("/")[2]))
            except OSError:
                pass
        return found

    def processes(self, *titles):
        """Processes whose title holds one of these."""
        found = []
        for pid in self.pids():
            try:
                title = open(f"/proc/{pid}/cmdline").read()
            except OSError:
                continue
            if any(t in title for t in titles):
                found.append(pid)
        return sorted(found)

    def start(self):
        with self.lock:
            self._start()

    def _start(self):
        if self.proc is not None and self.proc.poll() is None:
            return
        deadline = time.time() + 20
        while self.pids() and time.time() < deadline:
            time.sleep(0.05)
        for pid in self.pids():
            self.send(pid, signal.SIGKILL)
        try:
            os.unlink(os.path.join(self.dir, "postmaster.pid"))
        except OSError:
            pass
        self.proc = subprocess.Popen([os.path.join(self.bindir, "postgres"), "-D", self.dir], cwd=self.dir,
                                     stdout=subprocess.DEVNULL, stderr=open(self.log, "a"), start_new_session=True,
                                     env=self.environment(), preexec_fn=cores)

    def wait_up(self, timeout=60, dbname="app"):
        deadline = time.time() + timeout
        while True:
            try:
                self.query("SELECT 1", dbname=dbname)
                return
            except (pq.Lost, pq.Error) as e:
                if self.proc.poll() is not None:
                    self.start()
                if time.time() > deadline:
                    raise RuntimeError(f"{self.name} does not come up: {e}")
                time.sleep(0.05)

    def send(self, pid, sig):
        try:
            os.kill(pid, sig)
            return True
        except OSError:
            return False

    def kill(self, all_at_once=True):
        """SIGKILL of the postmaster, and of all its children unless they are to find out for themselves."""
        self.crashes.append(time.time())
        pids = self.pids()
        self.send(self.proc.pid, signal.SIGKILL)
        if all_at_once:
            for pid in pids:
                self.send(pid, signal.SIGKILL)
        self.proc.wait()

    def stop(self, sig=signal.SIGINT, timeout=20):
        """SIGINT: fast, SIGQUIT: immediate."""
        if self.proc is None or self.proc.poll() is not None:
            return
        if sig == signal.SIGQUIT:
            self.crashes.append(time.time())
        self.send(self.proc.pid, sig)
        try:
            self.proc.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
