"""libpq through ctypes: the little of it that the drivers need, with the real client library and no package.

    with pq.connect("postgresql://app:secret@127.0.0.1:5432/app") as db:
        rows = db.query("SELECT 1")          # [("1",)]
"""
import ctypes
import ctypes.util
import glob
import os

PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_COPY_OUT, PGRES_COPY_IN = 1, 2, 3, 4
PGRES_PIPELINE_SYNC, PGRES_PIPELINE_ABORTED = 10, 11


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
_PARAMS = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p),
           ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
_PREPARED = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p,
             ctypes.c_void_p, ctypes.c_int]


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
            ("PQparameterStatus", ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_char_p]),
            ("PQsocket", ctypes.c_int, [ctypes.c_void_p]),
            ("PQprepare", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]),
            ("PQsendPrepare", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]),
            ("PQexecPrepared", ctypes.c_void_p, _PREPARED),
            ("PQsendQueryPrepared", ctypes.c_int, _PREPARED),
            ("PQexecParams", ctypes.c_void_p, _PARAMS),
            ("PQsendQueryParams", ctypes.c_int, _PARAMS),
            ("PQdescribePrepared", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
            ("PQclosePrepared", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
            ("PQnparams", ctypes.c_int, [ctypes.c_void_p]),
            ("PQenterPipelineMode", ctypes.c_int, [ctypes.c_void_p]),
            ("PQexitPipelineMode", ctypes.c_int, [ctypes.c_void_p]),
            ("PQpipelineSync", ctypes.c_int, [ctypes.c_void_p]),
            ("PQsendQuery", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]),
            ("PQgetResult", ctypes.c_void_p, [ctypes.c_void_p]),
            ("PQputCopyData", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
            ("PQputCopyEnd", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p]),
            ("PQgetCopyData", ctypes.c_int, [ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int]),
            ("PQfreemem", None, [ctypes.c_void_p]),
        ):
            function = getattr(_pq, name)
            function.restype, function.argtypes = result, args
    return _pq


class Error(Exception):
    """sqlstate is None when the connection was lost: then the outcome of a COMMIT is unknown."""

    def __init__(self, message, sqlstate=None):
        super().__init__(message.strip())
        self.sqlstate = sqlstate


def _texts(values):
    return (ctypes.c_char_p * len(values))(*(None if value is None else str(value).encode() for value in values))


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
        return self._rows(_pq.PQexec(self._conn, sql.encode()))

    def _rows(self, result, good=(PGRES_COMMAND_OK, PGRES_TUPLES_OK)):
        try:
            status = _pq.PQresultStatus(result)
            if status not in good:
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

    def first(self, sql):
        """The first result: of a connection that ends it is the reason, for which PQexec has no place."""
        self.send(sql)
        return self.received()

    def send(self, sql):
        """Ask, and read nothing yet."""
        _pq.PQsendQuery(self._conn, sql.encode())

    def received(self):
        return self._rows(_pq.PQgetResult(self._conn))

    def value(self, sql):
        return self.query(sql)[0][0]

    def parameter(self, name):
        """What the server reported last, None when it did not."""
        value = _pq.PQparameterStatus(self._conn, name.encode())
        return value and value.decode()

    def socket(self):
        return _pq.PQsocket(self._conn)

    def prepare(self, name, sql):
        self._rows(_pq.PQprepare(self._conn, name.encode(), sql.encode(), 0, None))

    def execute(self, name, *values):
        return self._rows(_pq.PQexecPrepared(self._conn, name.encode(), len(values), _texts(values), None, None, 0))

    def params(self, sql, *values):
        return self._rows(_pq.PQexecParams(
            self._conn, sql.encode(), len(values), None, _texts(values), None, None, 0))

    def describe(self, name):
        """How many parameters a prepared statement has."""
        result = _pq.PQdescribePrepared(self._conn, name.encode())
        count = _pq.PQnparams(result)
        self._rows(result)
        return count

    def close_prepared(self, name):
        self._rows(_pq.PQclosePrepared(self._conn, name.encode()))

    def pipeline(self, *steps):
        """Send ("prepare", NAME, SQL), ("execute", NAME, VALUES...), ("params", SQL, VALUES...) and ("sync",) without
        waiting, then fetch one outcome a step: rows, the Error, "skipped" or "sync"."""
        _pq.PQenterPipelineMode(self._conn)
        for what, *rest in steps:
            sent = {
                "sync": lambda: _pq.PQpipelineSync(self._conn),
                "prepare": lambda: _pq.PQsendPrepare(self._conn, rest[0].encode(), rest[1].encode(), 0, None),
                "execute": lambda: _pq.PQsendQueryPrepared(
                    self._conn, rest[0].encode(), len(rest) - 1, _texts(rest[1:]), None, None, 0),
                "params": lambda: _pq.PQsendQueryParams(
                    self._conn, rest[0].encode(), len(rest) - 1, None, _texts(rest[1:]), None, None, 0),
            }[what]()
            if not sent:
                raise Error(_pq.PQerrorMessage(self._conn).decode(errors="replace"))
        outcomes = [self._outcome() for _ in steps]
        _pq.PQexitPipelineMode(self._conn)
        return outcomes

    def _outcome(self):
        result = _pq.PQgetResult(self._conn)
        if not result:
            raise Error(_pq.PQerrorMessage(self._conn).decode(errors="replace") or "connection lost")
        status = _pq.PQresultStatus(result)
        if status in (PGRES_PIPELINE_SYNC, PGRES_PIPELINE_ABORTED):
            _pq.PQclear(result)
            if status == PGRES_PIPELINE_SYNC:
                return "sync"
            outcome = "skipped"
        else:
            try:
                outcome = self._rows(result)
            except Error as error:
                outcome = error
        end = _pq.PQgetResult(self._conn)
        assert not end, "one result a step"
        return outcome

    def copy_in(self, sql, lines, fail=None, extended=False):
        result = (_pq.PQexecParams(self._conn, sql.encode(), 0, None, None, None, None, 0) if extended else
                  _pq.PQexec(self._conn, sql.encode()))
        self._rows(result, (PGRES_COPY_IN,))
        for line in lines:
            if _pq.PQputCopyData(self._conn, line, len(line)) < 1:
                break # it has failed already: the result says why
        _pq.PQputCopyEnd(self._conn, fail and fail.encode())
        return self._last()

    def copy_out(self, sql):
        self._rows(_pq.PQexec(self._conn, sql.encode()), (PGRES_COPY_OUT,))
        lines, place = [], ctypes.c_void_p()
        while (size := _pq.PQgetCopyData(self._conn, ctypes.byref(place), 0)) > 0:
            lines.append(ctypes.string_at(place, size))
            _pq.PQfreemem(place)
        self._last()
        return lines

    def _last(self):
        """The end of a copy; the connection takes queries again after it."""
        failed = None
        while result := _pq.PQgetResult(self._conn):
            try:
                self._rows(result)
            except Error as error:
                failed = error
        if failed:
            raise failed

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
