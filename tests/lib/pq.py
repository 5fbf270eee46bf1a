"""libpq through ctypes: the little of it that the drivers need, with the real client library and no package.

    with pq.connect("postgresql://app:secret@127.0.0.1:5432/app") as db:
        rows = db.query("SELECT 1")          # [("1",)]
"""
import ctypes
import ctypes.util
import glob
import os

PGRES_COMMAND_OK, PGRES_TUPLES_OK = 1, 2


def _load():
    # The library of the patched build first: same version as the server.
    candidates = glob.glob(os.path.join(os.environ.get("POSTGRES_DIR", "/nonexistent"), "lib", "libpq.so.5"))
    found = ctypes.util.find_library("pq")
    for name in candidates + ([found] if found else []):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError("libpq.so.5 not found: set POSTGRES_DIR to the output of tools/build-postgres")


_pq = None


def _lib():
    global _pq
    if _pq is None:
        _pq = _load()
        for name, result, args in (
            ("PQconnectdb", ctypes.c_void_p, [ctypes.c_char_p]),
            ("PQstatus", ctypes.c_int, [ctypes.c_void_p]),
            ("PQerrorMessage", ctypes.c_char_p, [ctypes.c_void_p]),
            ("PQfinish", None, [ctypes.c_void_p]),
            ("PQexec", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
            ("PQresultStatus", ctypes.c_int, [ctypes.c_void_p]),
            ("PQresultErrorMessage", ctypes.c_char_p, [ctypes.c_void_p]),
            ("PQresultErrorField", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int]),
            ("PQntuples", ctypes.c_int, [ctypes.c_void_p]),
            ("PQnfields", ctypes.c_int, [ctypes.c_void_p]),
            ("PQgetvalue", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
            ("PQgetisnull", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
            ("PQclear", None, [ctypes.c_void_p]),
            ("PQgetCancel", ctypes.c_void_p, [ctypes.c_void_p]),
            ("PQcancel", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
            ("PQfreeCancel", None, [ctypes.c_void_p]),
            ("PQbackendPID", ctypes.c_int, [ctypes.c_void_p]),
        ):
            function = getattr(_pq, name)
            function.restype, function.argtypes = result, args
    return _pq


class Error(Exception):
    """sqlstate is None when the connection was lost: then the outcome of a COMMIT is unknown."""

    def __init__(self, message, sqlstate=None):
        super().__init__(message.strip())
        self.sqlstate = sqlstate


class Connection:
    def __init__(self, conninfo):
        self._conn = _lib().PQconnectdb(conninfo.encode())
        if _pq.PQstatus(self._conn) != 0:
            message = _pq.PQerrorMessage(self._conn).decode(errors="replace")
            self.close()
            raise Error(message)
        self.pid = _pq.PQbackendPID(self._conn)

    def query(self, sql):
        """Run one command; all values as text, NULL as None."""
        result = _pq.PQexec(self._conn, sql.encode())
        try:
            status = _pq.PQresultStatus(result)
            if status not in (PGRES_COMMAND_OK, PGRES_TUPLES_OK):
                message = _pq.PQresultErrorMessage(result) or _pq.PQerrorMessage(self._conn)
                state = _pq.PQresultErrorField(result, ord("C")) if result else None
                raise Error((message or b"connection lost").decode(errors="replace"), state and state.decode())
            return [tuple(None if _pq.PQgetisnull(result, row, column) else
                          _pq.PQgetvalue(result, row, column).decode()
                          for column in range(_pq.PQnfields(result)))
                    for row in range(_pq.PQntuples(result))]
        finally:
            if result:
                _pq.PQclear(result)

    def value(self, sql):
        return self.query(sql)[0][0]

    def cancel(self):
        """From another thread: end the query that runs, if one does."""
        handle, why = _pq.PQgetCancel(self._conn), ctypes.create_string_buffer(256)
        try:
            if not _pq.PQcancel(handle, why, len(why)):
                raise Error(why.value.decode(errors="replace"))
        finally:
            _pq.PQfreeCancel(handle)

    def close(self):
        if self._conn:
            _pq.PQfinish(self._conn)
            self._conn = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def connect(conninfo, timeout_s=10):
    joiner = "&" if "?" in conninfo else "?"
    if conninfo.startswith("postgres") and "connect_timeout" not in conninfo:
        conninfo += f"{joiner}connect_timeout={timeout_s}"
    return Connection(conninfo)
