"""pq.py: libpq through ctypes, as far as the chaos test needs it. Calls release Python's lock while they wait."""
import ctypes
import ctypes.util
import glob
import os
import subprocess

OK, BAD = 0, 1
TUPLES_OK, COMMAND_OK, EMPTY = 2, 1, 0


class Error(Exception):
    """What the server refused: sqlstate and message."""

    def __init__(self, sqlstate, message):
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate
        self.message = message


class Lost(Exception):
    """The connection is gone: what was under way may have happened or not."""


def _load():
    names = []
    pg_config = os.environ.get("PG_CONFIG", "pg_config")
    try:
        libdir = subprocess.run([pg_config, "--libdir"], capture_output=True, text=True, check=True).stdout.strip()
        names += [os.path.join(libdir, "libpq.so.5")]
    except (OSError, subprocess.CalledProcessError):
        pass
    names += glob.glob("/usr/lib/*/libpq.so.5") + [ctypes.util.find_library("pq") or "libpq.so.5"]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise SystemExit("libpq is not here")


_lib = _load()
for _name, _res, _args in (
        ("PQconnectdb", ctypes.c_void_p, [ctypes.c_char_p]),
        ("PQstatus", ctypes.c_int, [ctypes.c_void_p]),
        ("PQfinish", None, [ctypes.c_void_p]),
        ("PQerrorMessage", ctypes.c_char_p, [ctypes.c_void_p]),
        ("PQexec", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
        ("PQresultStatus", ctypes.c_int, [ctypes.c_void_p]),
        ("PQresultErrorField", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int]),
        ("PQntuples", ctypes.c_int, [ctypes.c_void_p]),
        ("PQnfields", ctypes.c_int, [ctypes.c_void_p]),
        ("PQgetisnull", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
        ("PQgetvalue", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
        ("PQclear", None, [ctypes.c_void_p]),
        ("PQsetNoticeProcessor", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p])):
    _f = getattr(_lib, _name)
    _f.restype, _f.argtypes = _res, _args

_NOTICE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)
notices = []


def _on_notice(_arg, message):
    notices.append(message.decode(errors="replace").strip())


_on_notice_c = _NOTICE(_on_notice)


class Conn:
    def __init__(self, conninfo):
        self.conn = _lib.PQconnectdb(conninfo.encode())
        if _lib.PQstatus(self.conn) != OK:
            message = _lib.PQerrorMessage(self.conn).decode(errors="replace").strip()
            self.close()
            raise Lost(message)
        _lib.PQsetNoticeProcessor(self.conn, ctypes.cast(_on_notice_c, ctypes.c_void_p), None)

    def exec(self, sql):
        """Rows of the last statement, as tuples of str or None."""
        if self.conn is None:
            raise Lost("closed")
        res = _lib.PQexec(self.conn, sql.encode())
        try:
            status = _lib.PQresultStatus(res) if res else -1
            if status in (TUPLES_OK, COMMAND_OK, EMPTY):
                if _lib.PQstatus(self.conn) != OK:
                    raise Lost("connection lost")
                return [tuple(None if _lib.PQgetisnull(res, i, j) else _lib.PQgetvalue(res, i, j).decode()
                              for j in range(_lib.PQnfields(res)))
                        for i in range(_lib.PQntuples(res))]
            state = _lib.PQresultErrorField(res, ord("C")) if res else None
            message = _lib.PQresultErrorField(res, ord("M")) if res else None
            text = (message or _lib.PQerrorMessage(self.conn)).decode(errors="replace").strip()
            if _lib.PQstatus(self.conn) != OK or state is None:
                raise Lost(text)
            raise Error((state or b"?????").decode(), text)
        finally:
            if res:
                _lib.PQclear(res)

    def close(self):
        if self.conn is not None:
            _lib.PQfinish(self.conn)
            self.conn = None
