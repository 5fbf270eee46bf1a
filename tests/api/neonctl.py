"""The command list of neonctl, in the words of both generations (2.x: axios and tables; 5.x: fetch)."""
import json
import os
import subprocess
import tempfile
import time

CLI = {2: "node_modules/neonctl-2/cli.js", 5: "node_modules/neonctl-5/bin/cli.js"}


def expect(condition, why=None):
    if not condition:
        raise AssertionError(why)


def check_psql(uri, env, sql="SELECT 1", wanted="1"):
    """Through the gateway, with SCRAM bound to its certificate, or not at all."""
    expect("channel_binding=require" in uri, uri)
    result = subprocess.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", uri, "-c", sql], env=env, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, timeout=600)
    expect(result.returncode == 0, result.stdout)
    expect(wanted is None or result.stdout.strip() == wanted, result.stdout)
    return result.stdout.strip()


class Neonctl:
    def __init__(self, version, node, folder, url):
        self.command = [node, str(folder / CLI[version])]
        self.version = version
        self.home = tempfile.TemporaryDirectory(prefix="neonctl-")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.home.name, "NEON_API_HOST": url, "NEON_API_KEY": "any",
                    "NO_COLOR": "1", "CI": "1"}
        self.project = None

    def run(self, *args, project=True, rc=0):
        command = [*self.command, *args, "--no-analytics"]
        if project and self.project:
            command += ["--project-id", self.project]
        result = subprocess.run(command, env=self.env, cwd=self.home.name, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600)
        expect((result.returncode == 0) == (rc == 0),
               f"{' '.join(args)}: exit {result.returncode}\n{result.stdout[-1500:]}{result.stderr[-1500:]}")
        return result

    def json(self, *args, project=True):
        out = self.run(*args, "--output", "json", project=project).stdout
        try:
            return json.loads(out)
        except ValueError:
            raise AssertionError(f"{' '.join(args)}: no JSON: {out[:500]!r}") from None


class Commands:
    """One client's walk, in order; each method is a step and may use what those before it left."""

    def __init__(self, cli, env):
        self.cli, self.env = cli, env

    def uri(self, *args):
        return self.cli.run("connection-string", *args).stdout.strip()

    def projects_create(self):
        made = self.cli.json("projects", "create", "--name", f"shop-{self.cli.version}", "--database", "app", "--role",
                             "app", project=False)
        self.cli.project = made["project"]["id"]
        expect(made["connection_uris"][0]["connection_uri"].startswith("postgresql://app:"), made)

    def me(self):
        expect(self.cli.json("me", project=False)["login"])
        expect(self.cli.json("orgs", "list", project=False)[0]["id"] == "org-local")

    def projects_list(self):
        listed = self.cli.json("projects", "list", project=False)
        listed = listed["projects"] if isinstance(listed, dict) else listed
        expect(self.cli.project in [p["id"] for p in listed], listed)
        expect(self.cli.project in self.cli.run("projects", "list", project=False).stdout)

    def projects_get_and_update(self):
        project = self.cli.project
        self.cli.json("projects", "update", project, "--name", "renamed", project=False)
        expect(self.cli.json("projects", "get", project, project=False)["name"] == "renamed")

    def connection_string(self):
        check_psql(self.uri("main"), self.env, "CREATE TABLE item AS SELECT i FROM generate_series(1, 10) i", None)
        check_psql(self.uri(), self.env, "SELECT count(*) FROM item", "10")

    def branches_create(self):
        made = self.cli.json("branches", "create", "--name", "feature/x-1", "--parent", "main")
        expect(made["branch"]["name"] == "feature/x-1" and made["endpoints"], made)
        check_psql(self.uri("feature/x-1"), self.env, "SELECT sum(i) FROM item", "55")
        check_psql(self.uri("feature/x-1"), self.env, "CREATE TABLE extra (a int, b text)", None)

    def branches_create_in_the_past(self):
        lsn = check_psql(self.uri("main"), self.env, "SELECT pg_current_wal_lsn()", None)
        check_psql(self.uri("main"), self.env, "DELETE FROM item", None)
        self.cli.json("branches", "create", "--name", "before", "--parent", lsn)
        check_psql(self.uri("before"), self.env, "SELECT count(*) FROM item", "10")

    def branches_list_and_get(self):
        names = {b["name"]: b for b in self.cli.json("branches", "list")}
        expect({"main", "feature/x-1", "before"} <= set(names), names)
        expect(self.cli.json("branches", "get", "feature/x-1")["id"] == names["feature/x-1"]["id"])
        expect("feature/x-1" in self.cli.run("branches", "list").stdout)

    def branches_rename_and_expire(self):
        self.cli.json("branches", "rename", "before", "back-then")
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
        self.cli.json("branches", "set-expiration", "back-then", "--expires-at", when)
        expect(self.cli.json("branches", "get", "back-then")["expires_at"].startswith(when[:19]))
        self.cli.json("branches", "set-expiration", "back-then")
        expect("expires_at" not in self.cli.json("branches", "get", "back-then"))

    def branches_schema_diff(self):
        out = self.cli.run("branches", "schema-diff", "main", "feature/x-1", "--database", "app").stdout
        expect("+CREATE TABLE public.extra" in out, out)

    def roles_and_databases(self):
        self.cli.json("roles", "create", "--name", "reader", "--branch", "feature/x-1")
        self.cli.json("databases", "create", "--name", "second", "--owner-name", "reader", "--branch", "feature/x-1")
        expect("reader" in [r["name"] for r in self.cli.json("roles", "list", "--branch", "feature/x-1")])
        expect("second" in [d["name"] for d in self.cli.json("databases", "list", "--branch", "feature/x-1")])
        uri = self.uri("feature/x-1", "--role-name", "reader", "--database-name", "second")
        check_psql(uri, self.env, "SELECT current_user || '@' || current_database()", "reader@second")
        self.cli.json("databases", "delete", "second", "--branch", "feature/x-1")
        self.cli.json("roles", "delete", "reader", "--branch", "feature/x-1")

    def branches_restore(self):
        self.cli.json("branches", "reset", "feature/x-1", "--parent")
        check_psql(self.uri("feature/x-1"), self.env, "SELECT count(*) FROM item", "0")
        self.cli.json("branches", "restore", "feature/x-1", "back-then")
        check_psql(self.uri("feature/x-1"), self.env, "SELECT count(*) FROM item", "10")

    def branches_set_default(self):
        self.cli.json("branches", "set-default", "feature/x-1")
        expect(self.cli.json("branches", "get", "feature/x-1")["default"] is True)
        self.cli.json("branches", "set-default", "main")

    def branches_add_compute(self):
        self.cli.json("branches", "create", "--name", "bare", "--no-compute")
        self.cli.json("branches", "add-compute", "bare", "--type", "read_write")
        check_psql(self.uri("bare"), self.env)

    def operations_list(self):
        expect("start_compute" in [o["action"] for o in self.cli.json("operations", "list")])

    def ip_allow(self):
        self.cli.json("ip-allow", "add", "10.1.2.3")
        expect("10.1.2.3" in self.cli.run("ip-allow", "list").stdout)
        self.cli.json("ip-allow", "reset")
        expect("10.1.2.3" not in self.cli.run("ip-allow", "list").stdout)

    def unknown_names_are_said(self):
        expect("not found" in self.cli.run("branches", "get", "no-such", rc=1).stderr)

    def set_context(self):
        self.cli.run("set-context")
        expect(self.cli.json("branches", "list", project=False))

    def branches_delete(self, *more):
        for name in ("bare", "feature/x-1", "back-then", *more):
            self.cli.json("branches", "delete", name)
        expect([b["name"] for b in self.cli.json("branches", "list")] == ["main"])

    def projects_delete(self):
        self.cli.json("projects", "delete", self.cli.project, project=False)


class Commands5(Commands):
    """What only the newer generation has."""

    def api_keys(self):
        made = self.cli.json("api-keys", "create", "--name", "of the test", project=False)
        expect(made["key"].startswith("ab_"), made)
        listed = self.cli.json("api-keys", "list", project=False)
        expect(made["id"] in [k["id"] for k in listed] and made["key"] not in json.dumps(listed), listed)
        self.cli.json("api-keys", "revoke", str(made["id"]), project=False)

    def snapshots(self):
        count, uri = "SELECT count(*) FROM item", self.uri("main")
        check_psql(uri, self.env, "INSERT INTO item VALUES (1), (2), (3)", None)
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
        made = self.cli.json("snapshots", "create", "--branch", "main", "--name", "three", "--expires-at", when)
        made = made.get("snapshot", made)
        check_psql(uri, self.env, "DELETE FROM item", None)
        self.cli.json("snapshots", "update", made["id"], "--name", "3 rows", "--clear-expiration")
        self.cli.json("snapshots", "restore", "3 rows", "--name", "look")
        self.cli.json("branches", "add-compute", "look", "--type", "read_write")
        check_psql(self.uri("look"), self.env, count, "3")
        self.cli.json("snapshots", "finalize", "look", "--name", "main-old")
        expect(self.uri("main") == uri, "the same endpoint and password")
        check_psql(uri, self.env, count, "3")
        self.cli.run("snapshots", "schedule", "set", "--branch", "main", "--frequency", "daily", "--hour", "3",
                     "--retention", "604800")
        expect("604800" in self.cli.run("snapshots", "schedule", "get", "--branch", "main", "--output", "json").stdout)
        self.cli.json("snapshots", "delete", "3 rows")
        expect("3 rows" not in self.cli.run("snapshots", "list").stdout)

    def branches_delete(self):
        super().branches_delete("main-old")

    def link_and_status(self):
        self.cli.run("link", "--project-id", self.cli.project, "--branch", "main", project=False)
        self.cli.run("status", project=False)

    def api(self):
        expect("branches" in self.cli.run("api", f"/projects/{self.cli.project}/branches", project=False).stdout)


ORDER = ["projects_create", "me", "projects_list", "projects_get_and_update", "connection_string", "branches_create",
         "branches_create_in_the_past", "branches_list_and_get", "branches_rename_and_expire", "branches_schema_diff",
         "roles_and_databases", "branches_restore", "branches_set_default", "branches_add_compute", "operations_list",
         "ip_allow", "unknown_names_are_said", "set_context", "api_keys", "snapshots", "link_and_status", "api",
         "branches_delete", "projects_delete"]


def run(results, version, node, folder, url, env):
    commands = (Commands if version == 2 else Commands5)(Neonctl(version, node, folder, url), env)
    for name in ORDER:
        if hasattr(commands, name):
            results.step(f"neonctl-{version}: {name.replace('_', ' ')}", getattr(commands, name))
