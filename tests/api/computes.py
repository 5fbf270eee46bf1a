"""What only a compute can do: run anew, give a database another name or owner."""
import signal

import pq
from cluster import wait_for
from snapshots import refused


def test_a_restart_brings_new_settings(cluster):
    project = cluster.create_project("restarted")
    main = project.main()
    main.sql("CREATE TABLE t AS SELECT 1 AS n")
    began, endpoint = main.value("SELECT pg_postmaster_start_time()"), main.endpoint()["id"]
    project.api("PATCH", f"/endpoints/{endpoint}", {"endpoint": {"settings": {"pg_settings": {"work_mem": "7MB"}}}})
    answer = project.api("POST", f"/endpoints/{endpoint}/restart")
    assert "CREATE TABLE public.t" in project.api("GET", f"/branches/{main.id}/schema?db_name=app")["sql"] # waits for it
    project.wait_operations(answer)
    assert [o["action"] for o in answer["operations"]] == ["suspend_compute", "start_compute"], answer
    assert main.value("SHOW work_mem") == "7MB" and main.value("SELECT pg_postmaster_start_time()") != began
    assert main.value("SELECT n FROM t") == "1" and main.endpoint()["current_state"] == "active"
    # Control dies between the two halves: the second is not forgotten.
    cluster.control.kill()
    cluster.control.start()
    project.api("POST", f"/endpoints/{endpoint}/restart")
    cluster.control.kill()
    cluster.control.start()
    wait_for("it runs again", lambda: [o for o in project.api("GET", "/operations")["operations"]
                                       if o["status"] == "running"] == [])
    assert main.value("SELECT n FROM t") == "1"
    main.suspend()
    answer = project.wait_operations(project.api("POST", f"/endpoints/{endpoint}/restart")) # it slept
    assert [o["action"] for o in answer["operations"]] == ["start_compute"], answer
    project.delete()


def test_a_database_gets_another_name(cluster):
    project = cluster.create_project("renamed")
    main = project.main()
    path = f"/branches/{main.id}/databases"
    main.sql("CREATE TABLE t AS SELECT generate_series(1, 10) AS n")

    def count(database):
        uri = project.api("GET", f"/connection_uri?branch_id={main.id}&database_name={database}&role_name=app")["uri"]
        with pq.connect(uri) as db:
            return db.query("SELECT count(*), current_database() FROM t")[0]

    project.wait_operations(project.api("POST", f"/branches/{main.id}/roles", {"role": {"name": "keeper"}}))
    with main.connect() as db: # a session in it is ended
        answer = project.api("PATCH", path + "/app", {"database": {"name": "shop", "owner_name": "keeper"}})
        assert answer["database"]["name"] == "shop" and answer["database"]["owner_name"] == "keeper", answer
        project.wait_operations(answer)
        try:
            db.query("SELECT 1")
            raise AssertionError("the session lives on")
        except pq.Error:
            pass
    assert list(count("shop")) == ["10", "shop"]
    assert [d["name"] for d in project.api("GET", path)["databases"]] == ["shop"]
    refused(404, "DATABASE_NOT_FOUND", project.api, "PATCH", path + "/app", {"database": {"name": "x"}})
    refused(404, "ROLE_NOT_FOUND", project.api, "PATCH", path + "/shop", {"database": {"owner_name": "nobody"}})
    project.wait_operations(project.api("POST", path, {"database": {"name": "app", "owner_name": "app"}}))
    refused(409, "ALREADY_EXISTS", project.api, "PATCH", path + "/shop", {"database": {"name": "app"}})
    refused(422, "ROLE_OWNS_DATABASE", project.api, "DELETE", f"/branches/{main.id}/roles/keeper")
    for owner in ("app", "keeper"): # and nothing else
        answer = project.api("PATCH", path + "/shop", {"database": {"owner_name": owner}})
        assert [answer["database"][key] for key in ("name", "owner_name")] == ["shop", owner], answer
        project.wait_operations(answer)
    main.suspend()
    same = project.api("PATCH", path + "/shop", {"database": {"owner_name": "keeper"}})
    assert same["operations"] == [] and main.endpoint()["current_state"] == "idle", same
    # a compute that sleeps is started for it
    project.wait_operations(project.api("PATCH", path + "/shop", {"database": {"name": "store"}}))
    assert list(count("store")) == ["10", "store"]
    main.suspend()
    main.start() # nothing of it comes back
    assert list(count("store")) == ["10", "store"]
    assert main.value("SELECT string_agg(datname || ':' || pg_get_userbyid(datdba), ',' ORDER BY datname) FROM pg_database"
                      " WHERE NOT datistemplate AND datname <> 'postgres'") == "app:app,store:keeper"

    # What the compute hears of at once: an owner that has gone since, a new name of what is gone as well.
    cluster.agent.kill(signal.SIGSTOP)
    try:
        project.api("POST", f"/branches/{main.id}/roles", {"role": {"name": "brief"}})
        for change in ({"owner_name": "brief"}, {"owner_name": "keeper"}):
            project.api("PATCH", path + "/store", {"database": change})
        project.api("DELETE", f"/branches/{main.id}/roles/brief")
        project.api("PATCH", path + "/store", {"database": {"name": "sold"}})
        last = project.api("DELETE", path + "/sold")
    finally:
        cluster.agent.kill(signal.SIGCONT)
    project.wait_operations(last)
    assert main.value("SELECT string_agg(datname, ',') FROM pg_database"
                      " WHERE NOT datistemplate AND datname <> 'postgres'") == "app"
    assert main.value("SELECT count(*) FROM pg_roles WHERE rolname = 'brief'") == "0"
    project.delete()
