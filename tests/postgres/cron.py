"""pg_cron: what the parent scheduled does not run on a branch until its endpoint says so, and runs on the parent meanwhile.

Not in a suite: Debian's archive does not hold its source at all times. Built by hand into the server that POSTGRES_DIR names
(make PG_CONFIG=... install) the part runs by name.
"""
from cluster import wait_for
from compute import Compute

SETTINGS = {"shared_preload_libraries": "pg_cron", "cron.use_background_workers": "on"}
PARENT = SETTINGS | {"cron.launch_active_jobs": "on"}  # it is a branch itself, of the project's first
RAN = "SELECT count(*) FROM ran WHERE timeline = current_setting('anabranch.timeline_id') AND what = '{}'"


def count(compute, what):
    return int(compute.value(RAN.format(what)))


def schedule(compute):
    compute.sql("CREATE EXTENSION pg_cron")
    compute.sql("CREATE TABLE ran (timeline text DEFAULT current_setting('anabranch.timeline_id'), what text)")
    compute.sql("SELECT cron.schedule('second', '1 second', $$INSERT INTO ran (what) VALUES ('second')$$)")
    compute.sql("SELECT cron.schedule('start', '@reboot', $$INSERT INTO ran (what) VALUES ('start')$$)")
    wait_for("jobs run", lambda: count(compute, "second") >= 2)
    compute.restart()
    wait_for("jobs run at a start", lambda: count(compute, "start") == 1)


def held(parent, branch):
    """As long as the parent takes for three jobs more, none runs on the branch."""
    wait_for("its launcher is there", lambda: branch.value(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'") == "1")
    if branch.value("SELECT count(*) FROM cron.job WHERE active") != "2":
        return "its jobs are not there"
    before = count(parent, "second")
    wait_for("jobs run on the parent", lambda: count(parent, "second") >= before + 3)
    ran = count(branch, "second") + count(branch, "start")
    return f"{ran} jobs ran on the branch" if ran else ""


def cron(compute):
    schedule(compute)
    branch = Compute(compute.project, "cron-branch", compute.branch, **SETTINGS)
    why = held(compute, branch)
    yield "held_on_a_branch", why == "", why
    branch.restart()
    why = held(compute, branch)
    yield "held_after_its_restart", why == "", why
    allowed = Compute(compute.project, "cron-allowed", branch.branch, **PARENT)
    wait_for("jobs run when they may", lambda: count(allowed, "second") >= 2)
    yield "allowed_by_the_endpoint", True, ""
    why = held(compute, branch)
    yield "held_on_its_parent_still", why == "", why
    allowed.remove()
    branch.remove()
