"""libpq through ctypes: as much of it as a measurement needs, without a package of Python's."""
import ctypes
import ctypes.util

_lib = ctypes.CDLL(ctypes.util.find_library("pq") or "libpq.so.5")
for _name, _result, _args in (
    ("PQconnectdb", ctypes.c_void_p, [ctypes.c_char_p]),
    ("PQstatus", ctypes.c_int, [ctypes.c_void_p]),
    ("PQerrorMessage", ctypes.c_char_p, [ctypes.c_void_p]),
    ("PQbackendPID", ctypes.c_int, [ctypes.c_void_p]),
    ("PQfinish", None, [ctypes.c_void_p]),
    ("PQexec", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
    ("PQresultStatus", ctypes.c_int, [ctypes.c_void_p]),
    ("PQresultErrorMessage", ctypes.c_char_p, [ctypes.c_void_p]),
    ("PQntuples", ctypes.c_int, [ctypes.c_void_p]),
    ("PQnfields", ctypes.c_int, [ctypes.c_void_p]),
    ("PQgetisnull", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
    ("PQgetvalue", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
    ("PQclear", None, [ctypes.c_void_p]),
):
    _f = getattr(_lib, _name)
    _f.restype, _f.argtypes = _result, _args

_COMMAND_OK, _TUPLES_OK, _EMPTY = 1, 2, 0


class SqlError(Exception):
    """What the server answered."""


class Session:
    """One connection. The call into libpq lets other threads run."""

    def __init__(self, conninfo):
        self._conn = _lib.PQconnectdb(conninfo.encode())
        if _lib.PQstatus(self._conn) != 0:
            message = _lib.PQerrorMessage(self._conn).decode().strip()
            self.close()
            raise SqlError(message)
        self.pid = _lib.PQbackendPID(self._conn)
        self.rows("SET client_min_messages = error")

    def close(self):
        """Ends the connection; more than once is fine."""
        if self._conn:
            _lib.PQfinish(self._conn)
            self._conn = None

    def rows(self, sql):
        """Runs sql, gives the rows of its last statement as tuples of str or None."""
        result = _lib.PQexec(self._conn, sql.encode())
        try:
            if _lib.PQresultStatus(result) not in (_COMMAND_OK, _TUPLES_OK, _EMPTY):
                raise SqlError(_lib.PQresultErrorMessage(result).decode().strip() + "\n" + sql[:200])
            width = range(_lib.PQnfields(result))
            return [
                tuple(
                    None if _lib.PQgetisnull(result, r, c) else _lib.PQgetvalue(result, r, c).decode()
                    for c in width
                )
                for r in range(_lib.PQntuples(result))
            ]
        finally:
            _lib.PQclear(result)

    def value(self, sql):
        """The first value of the first row, None without rows."""
        rows = self.rows(sql)
        return rows[0][0] if rows else None
