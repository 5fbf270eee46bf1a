"""SQL that only a compute can get wrong, with so few buffers that every page leaves and comes back; see sql/README.md."""
import pathlib
import subprocess

import pq
from cluster import wait_for

SQL = pathlib.Path(__file__).resolve().parent / "sql"


def test_sql_prints_what_stock_postgres_prints(cluster):
    project = cluster.create_project("sql")
    branch = project.create_branch("small-buffers", project.main(), endpoint=False)
    project.wait_operations(project.api("POST", "/endpoints", {"endpoint": {
        "branch_id": branch.id, "type": "read_write", "settings": {"pg_settings": {"shared_buffers": "1MB"}}}}))
    uri = wait_for("it runs", lambda: branch.compute().get("superuser_uri"))
    with pq.connect(uri) as db:
        assert db.value("SHOW shared_buffers") == "1MB"
    wrong = []
    for path in sorted(SQL.glob("*.sql")):
        with pq.connect(uri) as db:
            db.query(f"CREATE DATABASE {path.stem}")
        done = subprocess.run([cluster.postgres / "bin/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", path,
                               uri.replace("/postgres?", f"/{path.stem}?")], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=120)
        if done.stdout != path.with_suffix(".out").read_text():
            wrong.append(f"{path.name}: printed\n{done.stdout[-1500:]}")
    assert not wrong, "\n".join(wrong)
