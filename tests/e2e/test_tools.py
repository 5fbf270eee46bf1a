"""The command line, the settings files and the README: what they promise works as printed."""
import json
import os
import pathlib
import re
import socket
import subprocess
import sys

from cluster import ROOT, http, wait_for


def test_cli_walks_through_a_project(cluster):
    def cli(*args):
        return json.loads(cluster.cli("-o", "json", *args).stdout)
    project = cli("projects", "create", "--name", "cli")["project"]["id"]
    assert project in [p["id"] for p in cli("projects", "list")["projects"]]
    branch = cli("branches", "create", "--project", project, "--name", "dev")["branch"]
    assert {b["name"] for b in cli("branches", "list", "--project", project)["branches"]} == {"main", "dev"}
    uri = cluster.cli("connection-string", "dev", "--project", project).stdout.strip()
    assert uri.startswith("postgresql://"), uri
    psql = cluster.postgres / "bin/psql"
    def answers():
        done = subprocess.run([psql, uri, "-Atc", "SELECT 6 * 7"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout.strip() == "42"
    wait_for("psql answers", answers)
    def psql_run(sql, at):
        return subprocess.run([psql, at, "-v", "ON_ERROR_STOP=1", "-qAtc", sql], check=False, text=True,
                              stdout=subprocess.PIPE).stdout.strip()
    psql_run("CREATE TABLE mine (n int)", uri)
    main_uri = cluster.cli("connection-string", "main", "--project", project).stdout.strip()
    psql_run("CREATE TABLE theirs (n int)", main_uri)
    cli("branches", "reset", "dev", "--project", project)
    wait_for("dev is what main is", lambda: psql_run("SELECT to_regclass('mine'), to_regclass('theirs')", uri) == "|theirs")
    orphan = cluster.cli("branches", "reset", "main", "--project", project, check=False)
    assert orphan.returncode != 0 and "has no parent" in orphan.stdout
    cli("branches", "delete", branch["id"], "--project", project)
    assert {b["name"] for b in cli("branches", "list", "--project", project)["branches"]} == {"main"}
    cli("projects", "delete", project)
    unknown = cluster.cli("branches", "list", "--project", "no-such-1", check=False)
    assert unknown.returncode != 0 and "no-such-1" in unknown.stdout


def test_a_wrong_command_line_says_which_part_of_it(cluster):
    """Before anything is asked or made."""
    nowhere = f"/tmp/anabranch-none-{os.getpid()}"
    for words, said in (("local up --port-base many", "--port-base"), ("local up --safekeepers 1", "--safekeepers"),
                        (f"local up --data {nowhere} --object-store ftp://host/x", "--object-store ftp://host/x"),
                        (f"local up --data {nowhere} --postgres /", "no bin/postgres"),
                        ("local status now", '"now"'), ("branches frob main", "branches frob"),
                        ("branches delete my branch", '"branch"'), ("branch up my branch", '"branch"'),
                        ("branch up b --ttl 90m", "30min")):
        done = cluster.cli(*words.split(), check=False)
        assert done.returncode in (1, 2) and said in done.stdout, (words, done.returncode, done.stdout)
    assert not pathlib.Path(nowhere, "cluster.json").exists()
    assert "anabranch local up" in cluster.cli("help").stdout


def test_a_project_from_the_environment_and_names_with_blanks(cluster):
    project, role, database = cluster.create_project("named"), "dev & ops", "a db/1"
    here = {"ANABRANCH_PROJECT": project.id}
    main = f"/branches/{project.main().id}"
    project.wait_operations(project.api("POST", f"{main}/roles", {"role": {"name": role}}))
    project.wait_operations(project.api("POST", f"{main}/databases", {"database": {"name": database, "owner_name": role}}))
    uri = cluster.cli("connection-string", "main", "--role", role, "--database", database, env=here).stdout
    assert "dev%20%26%20ops" in uri and "a%20db%2F1" in uri, uri
    other = cluster.cli("branches", "list", check=False, env={"ANABRANCH_PROJECT": "no/such"})
    assert other.returncode == 1 and "no/such" in other.stdout, other.stdout
    for moment, said in ((("--time", "2100-01-01T00:00:00Z"), "source_timestamp 2100"), (("--lsn", "F/0"), "source_lsn F/0 is ahead"),
                         (("--lsn", "0/8"), "source_lsn 0/8 is older")):
        wrong = cluster.cli("branches", "restore", "main", *moment, "--preserve", "old", check=False, env=here)
        assert wrong.returncode != 0 and said in wrong.stdout, wrong.stdout
    project.delete()


def test_nobody_else_sees_the_key_of_a_command(cluster):
    """Its command line is what everybody on the machine can read."""
    binary = cluster.build / "tools/anabranch/anabranch"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = ["projects", "list", "--api-url", f"http://127.0.0.1:{silent.getsockname()[1]}"]

        def run(*key, said=None):
            with subprocess.Popen([binary, *where, *key], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                process.stdin.write((said or "").encode())
                process.stdin.close()
                connection, _ = silent.accept()
                with connection:
                    asked = connection.recv(10000).decode()
                    line = pathlib.Path(f"/proc/{process.pid}/cmdline").read_text()
                    process.kill()
            return asked, line
        asked, line = run("--api-key", "ab_secret")
        assert "Bearer ab_secret" in asked and "secret" not in line and "--api-key" in line, (asked, line)
        asked, line = run("--api-key-file", "-", said="ab_secret\n")
        assert "Bearer ab_secret" in asked and "secret" not in line, (asked, line)


def test_settings_files_are_current_and_every_daemon_starts_with_its_own(cluster):
    import tempfile
    daemons = {"safekeeper": "safekeeper/serve/safekeeper", "pageserver": "pageserver/serve/pageserver",
               "control": "control/control", "gateway": "control/gateway/gateway",
               "compute-agent": "compute/agent/compute-agent"}
    for name, binary in daemons.items():
        path = cluster.build / binary
        printed = subprocess.run([path, "--print-config"], stdout=subprocess.PIPE, text=True, check=True).stdout
        committed = (ROOT / f"configs/local/{name}.conf")
        assert committed.read_text() == printed, f"{committed}: run tools/dev configs"
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            settings = [f"--data_dir={folder}/data", "--http_port=0"]
            if name in ("pageserver", "compute-agent"):
                settings.append(f"--object_store={folder}/objects")
            if name == "compute-agent":
                settings += [f"--postgres_dir={cluster.postgres}", f"--extension_dir={cluster.build}/extension",
                             f"--walproposer_binary={cluster.build}/compute/walproposer/walproposer"]
            if "listen_port" in printed:
                settings.append("--listen_port=0")
            process = subprocess.Popen([path, "--config", committed, *settings], stderr=subprocess.PIPE, text=True)
            try:
                ports = wait_for(f"{name} listens", lambda: json.loads(pathlib.Path(folder, "data/ports.json").read_text()), 20)
                assert http("GET", f"http://127.0.0.1:{ports['http_port']}/healthz", raw=True) is not None
                metrics = http("GET", f"http://127.0.0.1:{ports['http_port']}/metrics", raw=True).decode()
                assert "# TYPE" in metrics
            finally:
                process.terminate()
                assert process.wait(20) == 0, process.stderr.read()


def test_a_daemon_that_cannot_say_its_ports_ends_in_order(cluster):
    """A disk without room, when everything runs already: it says so, and is no crash."""
    import tempfile
    seeker = ["--tenant=" + "1" * 32, "--timeline=" + "2" * 32, "--generation=1", "--safekeepers=1@127.0.0.1:1",
              "--sync=true"]
    daemons = {"safekeeper/serve/safekeeper": ["--node_id=1", "--listen_port=0"],
               "pageserver/serve/pageserver": ["--node_id=1", "--listen_port=0", "--object_store={}/objects"],
               "control/control": [], "control/gateway/gateway": ["--listen_port=0"],
               "compute/walproposer/walproposer": seeker}
    for binary, settings in daemons.items():
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "data/ports.json.new").mkdir(parents=True)
            done = subprocess.run([cluster.build / binary, f"--data_dir={folder}/data", "--http_port=0",
                                   *(s.format(folder) for s in settings)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=60)
            assert done.returncode == 1 and "does not start: " in done.stdout, (binary, done.returncode, done.stdout)
            assert "ports.json.new" in done.stdout.splitlines()[-1], done.stdout


def test_unknown_setting_is_refused_by_name(cluster):
    for binary in ("safekeeper/serve/safekeeper", "control/control"):
        done = subprocess.run([cluster.build / binary, "--no_such_setting=1"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        assert done.returncode != 0 and "no_such_setting" in done.stdout, done.stdout


def test_curl_examples_of_the_readme_work_as_printed(cluster):
    text = (ROOT / "README.md").read_text()
    section = text.split("## First steps")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.S)
    assert blocks, "no examples"
    script = "set -euo pipefail\n" + "\n".join(blocks)
    env = {**os.environ, "ANABRANCH_API": cluster.control.http_url + "/api/v2", "ANABRANCH_DATA": str(cluster.data),
           "PATH": f"{cluster.postgres}/bin:{cluster.build}/tools/anabranch:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=180, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert "old data" in done.stdout, done.stdout


def test_a_word_that_names_no_test_is_an_error():
    done = subprocess.run([sys.executable, ROOT / "tests/e2e/run.py", "no_such_test"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode != 0 and "no test" in done.stdout, done
