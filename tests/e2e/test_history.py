"""How much history is kept: the window, leases, what GC frees, deleted parents."""
import threading

from cluster import ApiError, http, wait_for


def storage(cluster, branch, rest=""):
    """URL of the branch's timeline on the pageserver; of its tenant when `rest` is None."""
    ident = branch.get()["timeline_id"]
    for tenant in http("GET", f"{cluster.pageserver.http_url}/v1/status")["tenants"]:
        if ident in [timeline["timeline"] for timeline in tenant["timelines"]]:
            found = f"{cluster.pageserver.http_url}/v1/tenants/{tenant['tenant']}"
            return found if rest is None else f"{found}/timelines/{ident}{rest}"
    raise AssertionError("the timeline is not on the pageserver")


def is_refused(method, url, status, body=None):
    try:
        http(method, url, body)
    except ApiError as error:
        assert error.status == status, error
        return True
    return False


def position(lsn):
    high, low = lsn.split("/")
    return int(high, 16) << 32 | int(low, 16)


def set_window(project, branch, seconds):
    """Through the API: control tells the pageserver."""
    project.api("PATCH", "", {"project": {"history_retention_seconds": seconds}})
    url = storage(project.cluster, branch, None)
    wait_for("the window", lambda: http("GET", f"{url}/retention")["history_retention_seconds"] == seconds)


def collect_up_to(cluster, branch, lsn):
    """GC until the begin of history has reached `lsn`: what is durable moves with flushes."""
    tenant, ident = storage(cluster, branch, None), branch.get()["timeline_id"]

    def reached():
        cutoffs = {t["timeline"]: t["cutoff_lsn"] for t in http("POST", f"{tenant}/gc")["timelines"]}
        return position(cutoffs[ident]) >= position(lsn) and cutoffs[ident]
    return wait_for("the cutoff to move", reached)


def test_gc_frees_what_is_before_the_window_but_for_branches_and_leases(cluster):
    project = cluster.create_project("history")
    main = project.main()
    with main.connect() as db:
        db.query("CREATE TABLE t AS SELECT i, 0 AS round, repeat('x', 200) AS v FROM generate_series(1, 4000) i")
        lsns = []
        for number in range(1, 9):
            db.query(f"UPDATE t SET round = {number}")
            lsns.append(db.value("SELECT pg_current_wal_insert_lsn()"))
            db.query("VACUUM t")
        end = db.value("SELECT pg_current_wal_insert_lsn()")
        then = db.value("SELECT now() - interval '1 minute'").replace(" ", "T")
    leased, branched, lost = lsns[1], lsns[3], lsns[5]
    url, tenant = storage(cluster, main), storage(cluster, main, None)
    wait_for("ingest", lambda: position(http("GET", url)["last_record_lsn"]) >= position(end))
    http("PUT", f"{url}/leases/report", {"lsn": leased, "seconds": 3600})
    branch = project.create_branch("past", main, parent_lsn=branched)
    http("PUT", storage(cluster, branch, "/leases/begin"), {"lsn": branched}) # its own begin moves as well
    digests = {lsn: http("GET", f"{url}/digest?lsn={lsn}") for lsn in (leased, branched, lost, end)}
    assert http("GET", f"{tenant}/retention")["history_retention_seconds"] == 86400
    http("POST", f"{tenant}/gc")
    assert http("GET", f"{url}/digest?lsn={lost}") == digests[lost] # all of it is within a day
    table = "&".join(f"{name}={number}" for name, number in zip(("spc", "db", "rel"), main.sql(
        "SELECT 1663, oid, (SELECT relfilenode FROM pg_class WHERE relname = 't') FROM pg_database WHERE datname = current_database()")[0]))
    early, late = (http("GET", f"{url}/digest?lsn={lsn}&{table}&fork=0") for lsn in (leased, end))
    assert early["relations"] == 1 and early["pages"] > 0 and early["hash"] != late["hash"], (early, late)
    assert http("GET", f"{url}/digest?lsn={end}&{table}&block=0")["pages"] == 1
    assert is_refused("GET", f"{url}/digest?lsn={end}&{table}&block=999999", 404)
    assert is_refused("GET", f"{url}/digest?lsn={end}&block=0", 400)
    before = http("GET", url)["physical_bytes"]

    set_window(project, main, 0)
    collect_up_to(cluster, main, lsns[7])
    assert is_refused("GET", f"{url}/digest?lsn={lost}", 400)
    assert is_refused("GET", f"{url}/digest?lsn={branched}", 400)
    assert is_refused("GET", f"{url}/page?spc=1663&db=5&rel=1259&block=0&lsn={lost}", 400)
    assert is_refused("PUT", f"{url}/leases/late", 400, {"lsn": lost})
    assert is_refused("POST", f"{url}/lsn_at_time", 400, {"time": then})
    assert http("GET", f"{url}/digest?lsn={leased}") == digests[leased]
    assert http("GET", f"{url}/digest?lsn={end}") == digests[end]
    assert http("GET", storage(cluster, branch, f"/digest?lsn={branched}")) == digests[branched]
    after = http("GET", url)["physical_bytes"]
    assert after < before * 3 / 4, (before, after)
    sizes = http("GET", f"{tenant}/size")
    assert sizes["timelines"] == 2 and sizes["physical_bytes"] >= after, sizes
    one = http("GET", url)["logical_bytes"]
    assert one / 2 < sizes["synthetic_bytes"] < sizes["logical_bytes"] + position(end) - position(lsns[0]), sizes
    reasons = {holder["reason"] for holder in http("GET", f"{url}/why_kept")["kept_by"]}
    assert reasons == {"window", "branch", "lease"}, reasons
    answer = http("GET", f"{url}/why_kept?lsn={leased}")
    assert answer["readable"] and "report" in [holder.get("name") for holder in answer["kept_by"]]
    oid, node = main.sql("SELECT d.oid, pg_relation_filenode('t') FROM pg_database d WHERE datname = 'app'")[0]
    block = f"spc=1663&db={oid}&rel={node}&block=0"
    answer = http("GET", f"{url}/why_kept?{block}&lsn={leased}")
    assert {holder["reason"] for holder in answer["kept_by"]} >= {"lease"}, answer
    assert position(answer["version_lsn"]) <= position(leased), answer
    answer = http("GET", f"{url}/why_kept?{block}&lsn={end}")
    assert [holder["reason"] for holder in answer["kept_by"]] == ["window"], answer
    assert branch.sql("SELECT min(round), max(round), count(*) FROM t") == [("4", "4", "4000")]
    assert main.sql("SELECT min(round), max(round), count(*) FROM t") == [("8", "8", "4000")]

    http("DELETE", f"{url}/leases/report")
    assert is_refused("GET", f"{url}/digest?lsn={leased}", 400)
    assert is_refused("DELETE", f"{url}/leases/report", 404)


def test_history_is_as_it_was_after_the_pageserver_was_killed(cluster):
    project = cluster.create_project("history-killed")
    main = project.main()
    with main.connect() as db:
        db.query("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
        lsn = db.value("SELECT pg_current_wal_insert_lsn()")
        db.query("INSERT INTO t SELECT i FROM generate_series(1, 1000) i")
        later = db.value("SELECT pg_current_wal_insert_lsn()")
    url, tenant = storage(cluster, main), storage(cluster, main, None)
    wait_for("ingest", lambda: position(http("GET", url)["last_record_lsn"]) >= position(later))
    http("PUT", f"{url}/leases/kept", {"lsn": lsn, "seconds": 0})
    set_window(project, main, 0)
    collect_up_to(cluster, main, later)
    digest, cutoff = http("GET", f"{url}/digest?lsn={lsn}"), http("GET", url)["cutoff_lsn"]
    cluster.pageserver.kill()
    cluster.pageserver.start()
    url = storage(cluster, main)
    assert http("GET", url)["cutoff_lsn"] == cutoff
    assert http("GET", f"{url}/digest?lsn={lsn}") == digest
    assert http("GET", f"{url}/leases")["leases"] == [{"name": "kept", "lsn": lsn}]
    assert http("GET", f"{tenant}/retention")["history_retention_seconds"] == 0
    assert main.value("SELECT count(*) FROM t") == "2000"


def test_a_lease_keeps_the_record_end_that_a_read_of_its_lsn_reads(cluster):
    project = cluster.create_project("history-header")
    main = project.main()
    with main.connect() as db:
        db.query("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
        later = db.value("SELECT pg_current_wal_insert_lsn()")
    url = storage(cluster, main)
    wait_for("ingest", lambda: position(http("GET", url)["last_record_lsn"]) >= position(later))
    boundary = position(later) // 8192 * 8192 # a page header of WAL follows
    typed = f"{boundary >> 32:X}/{(boundary & 0xFFFFFFFF) + 11:X}"
    answer = http("PUT", f"{url}/leases/typed", {"lsn": typed, "seconds": 0})
    assert position(answer["lsn"]) == boundary, answer
    digest = http("GET", f"{url}/digest?lsn={typed}")
    set_window(project, main, 0)
    collect_up_to(cluster, main, later)
    assert http("GET", f"{url}/digest?lsn={typed}") == digest
    assert http("PUT", f"{url}/leases/typed", {"lsn": typed, "seconds": 0}) == answer # the same again


def test_a_time_leads_to_an_lsn_and_an_lsn_to_its_time(cluster):
    main = cluster.create_project("history-time").main()
    with main.connect() as db:
        db.query("CREATE TABLE t (n int)")
        times = []
        for number in range(5):
            db.query(f"INSERT INTO t VALUES ({number})")
            times.append((db.value("SELECT pg_current_wal_insert_lsn()"), db.value("SELECT clock_timestamp()")))
            db.query("SELECT pg_sleep(0.01)") # so that the clock has moved
    url = storage(cluster, main)
    wait_for("ingest", lambda: position(http("GET", url)["last_record_lsn"]) >= position(times[-1][0]))
    for lsn, time in times:
        found = http("GET", f"{url}/time_of_lsn?lsn={lsn}")["time"]
        back = http("POST", f"{url}/lsn_at_time", {"time": found})["lsn"]
        assert position(back) >= position(lsn), (lsn, found, back)
        assert http("GET", f"{url}/time_of_lsn?lsn={back}")["time"] == found


def test_a_deleted_parent_stays_for_its_branch_and_goes_with_it(fresh_cluster):
    cluster = fresh_cluster
    project = cluster.create_project("history-parent")
    main = project.main()
    with main.connect() as db:
        db.query("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i")
    branch = project.create_branch("child", main)
    url, tenant = storage(cluster, main), storage(cluster, main, None)
    assert is_refused("DELETE", url, 409)
    cluster.control.kill() # it would want its branch back
    http("DELETE", f"{url}?children=keep")
    assert is_refused("GET", url, 404)
    assert is_refused("GET", f"{url}/digest", 404)
    http("PUT", f"{tenant}/retention", {"history_retention_seconds": 0})
    http("POST", f"{tenant}/gc")
    child = http("GET", tenant)["timelines"]
    assert len(child) == 1
    digest = http("GET", f"{tenant}/timelines/{child[0]['timeline']}/digest?lsn={child[0]['start_lsn']}")
    cluster.pageserver.kill()
    cluster.pageserver.start()
    assert digest == http("GET", f"{tenant}/timelines/{child[0]['timeline']}/digest?lsn={child[0]['start_lsn']}")
    http("DELETE", f"{tenant}/timelines/{child[0]['timeline']}")
    assert http("GET", tenant)["timelines"] == []

    def is_empty():
        metrics = http("GET", f"{cluster.pageserver.http_url}/metrics", raw=True).decode()
        return "pageserver_timelines 0" in metrics
    wait_for("the parent to go with its last child", is_empty)


def test_walks_over_all_pages_keep_no_read_waiting(cluster):
    """Who asks for a hash of everything, again and again, has others wait for hashes, but not for pages."""
    url, answered = storage(cluster, cluster.create_project("walks").main()), []

    def walk():
        try:
            http("GET", f"{url}/digest")
            answered.append(200)
        except ApiError as error:
            answered.append(error.status)

    http("GET", f"{url}/digest") # it is there
    cluster.pageserver.arm("digest.work=pause:3000")
    threads = [threading.Thread(target=walk) for _ in range(20)]
    try:
        for thread in threads:
            thread.start()
        wait_for("those beyond the limit are refused", lambda: answered.count(503) == 4, 30)
        http("GET", f"{url}/page?spc=1664&db=0&rel=1262&block=0", raw=True)
        assert answered == [503] * 4, answered
    finally:
        cluster.pageserver.arm("")
        for thread in threads:
            thread.join()
    assert answered.count(200) == 16, answered
