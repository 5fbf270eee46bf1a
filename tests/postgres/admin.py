"""What administrators and their tools ask (sql/admin.sql) has the same answer, or the same error, on a stock server and on a compute."""
import pathlib

import pq
from stock_server import StockServer

NAME_MAX = 76
STATEMENTS = pathlib.Path(__file__).resolve().parent / "sql/admin.sql"
SETTINGS = {"shared_preload_libraries": "pg_stat_statements,pg_prewarm", "track_commit_timestamp": "on"}


def ask(db, statement, folder):
    try:
        return db.query(statement.replace("FOLDER", str(folder)))
    except pq.Error as error:
        return error.sqlstate, str(error).splitlines()[0].replace(str(folder), "FOLDER")


def admin(compute):
    """Yields (statement, passed, about)."""
    lines = [line for line in STATEMENTS.read_text().splitlines() if line and not line.startswith("--")]
    settings = [f"{name} = '{value}'" for name, value in SETTINGS.items()]
    with StockServer(compute.cluster, *settings, user="postgres") as stock:
        with stock.connect() as there, pq.connect(compute.uri) as here:
            for line in lines:
                want, got = ask(there, line, stock.folder), ask(here, line, compute.work)
                yield line[:NAME_MAX], want == got, f"{line}\n   a stock server: {want}\n   a compute:      {got}\n"
