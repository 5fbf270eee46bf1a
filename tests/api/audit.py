"""The wire rules, row by row of the binary's own route table: arguments, 404s, errors, pages, ETag, Retry-After.

What each route's arguments and path parameters are stands in /api/v2/openapi.json, which is made of the tables that check
them, so a route that is added is asked too. Control is alone: everything here is decided before a node is needed.
"""
import re
import threading

API = "/api/v2"
NOT_FOUND = {"project": "PROJECT_NOT_FOUND", "branch": "BRANCH_NOT_FOUND", "endpoint": "ENDPOINT_NOT_FOUND",
             "operation": "OPERATION_NOT_FOUND", "snapshot": "SNAPSHOT_NOT_FOUND", "role": "ROLE_NOT_FOUND",
             "database": "DATABASE_NOT_FOUND", "organization": "ORGANIZATION_NOT_FOUND", "key": "KEY_NOT_FOUND",
             "permission": "PERMISSION_NOT_FOUND"}
GOOD = {"date-time": "2026-01-02T03:04:05Z", "pattern": "0/16B3748", "integer": "1", "boolean": "true", "string": "x"}


def good(schema):
    if schema["type"] == "array":
        return good(schema["items"])
    if "enum" in schema:
        return schema["enum"][0]
    return GOOD["pattern"] if "pattern" in schema else GOOD[schema.get("format", schema["type"])]


def excluded(schema):
    if schema["type"] == "array": # "a,b"
        yield ",".join([good(schema["items"])] * (schema["maxItems"] + 1))
        yield from (good(schema) + "," + name for name in excluded(schema["items"]))
        return
    if schema["type"] != "string" or {"enum", "format", "pattern"} & set(schema):
        yield "none-of-these"
    yield "%ff" # no UTF-8: what is kept of it would not be what was said
    if schema["type"] == "integer":
        yield from (str(schema["minimum"] - 1), str(schema["maximum"] + 1), "1.5", "-1")


def query(arguments):
    return "?" + "&".join(f"{n}={v}" for n, v in arguments.items())


def check_problem(place, status, answer, headers):
    """RFC 9457 and what clients print, in one."""
    assert headers["Content-Type"].startswith("application/problem+json"), (place, headers["Content-Type"])
    assert {"type", "title", "status", "detail", "message", "code", "request_id"} <= set(answer), (place, answer)
    assert answer["status"] == status and answer["message"] and re.fullmatch("[A-Z_]+", answer["code"]), (place, answer)
    assert "org_id is required" not in answer["message"], place # it makes a client ask
    assert ("Retry-After" in headers) == (status in (423, 429, 503)), (place, status, headers)


def check_routes(control, project, branch):
    wrong, arguments, missing = [], 0, 0
    document = control.ok("GET", API + "/openapi.json")
    for path, item in document["paths"].items():
        for method, operation in item.items():
            method, full = method.upper(), API + path
            schemas = {p["name"]: p for p in operation["parameters"] if p["in"] == "query"}
            needed = {n: good(p["schema"]) for n, p in schemas.items() if p["required"]}
            here = full.replace("{project}", project).replace("{branch}", branch)
            here = re.sub(r"\{[a-z]+\}", "no-such-1", here)
            bodyless = method in ("GET", "DELETE")

            # Arguments: what is excluded is refused first, and the refusal begins with the name; what is unknown is ignored.
            cases = [(n, {**needed, n: v}) for n, p in schemas.items() for v in excluded(p["schema"])]
            cases += [(n, {m: v for m, v in needed.items() if m != n}) for n in needed]
            for name, said in cases:
                status, answer, headers = control.exchange(method, here + query(said), None if bodyless else {})
                arguments += 1
                if status != 400 or not answer["message"].startswith(name + ":"):
                    wrong.append(f"{method} {here}{query(said)}: {status} {answer}")
                else:
                    check_problem(here, status, answer, headers)

            # All of them at once, and right, and only those that must be: no handler asks for one that the table does not have.
            # (A schema without a wrong database waits for its compute.)
            for said in ({n: good(p["schema"]) for n, p in schemas.items()}, dict(needed)) if method == "GET" else ():
                said |= {"no_such": "argument", **({"to": "2027-01-02T03:04:05Z"} if "to" in said else {})}
                said.pop("org_id", None)
                if path.endswith("schema") and "db_name" not in said:
                    continue
                status, answer = control.call(method, here + query(said))
                if status == 400 and answer["code"] == "BAD_REQUEST" and "no_such" in answer["message"]:
                    wrong.append(f"{method} {here}{query(said)}: {status} {answer}")

            # A path parameter that nothing has: 404, whose code names it.
            for name in re.findall(r"\{([a-z]+)\}", path):
                if name == "lease":
                    continue # whoever deletes one that is not there has what he wants; PUT makes it
                at = full.replace("{project}", project if name != "project" else "no-such-1")
                at = at.replace("{branch}", branch if name != "branch" else "no-such-1")
                at = at.replace("{organization}", "org-local" if name != "organization" else "no-such-1")
                at = re.sub(r"\{[a-z]+\}", "no-such-1", at)
                body = None if bodyless else FILLED.get((method, path), {})
                status, answer, headers = control.exchange(method, at + query({**needed, "no_such": "argument"}), body)
                missing += 1
                if (status, answer.get("code")) != (404, NOT_FOUND[name]):
                    wrong.append(f"{method} {at}: {status} {answer}, not {NOT_FOUND[name]}")
                else:
                    check_problem(at, status, answer, headers)
    print(f"   {arguments} arguments, {missing} of what is not there")
    assert arguments > 60 and missing > 110 and not wrong, "\n".join(wrong)


# Bodies that are good, so that the path is what is wrong.
P, B = "/projects/{project}", "/projects/{project}/branches/{branch}"
FILLED = {
    ("PATCH", B): {"branch": {}}, ("POST", B + "/restore"): {"source_branch_id": "br-x-y-1"},
    ("POST", B + "/roles"): {"role": {"name": "r"}}, ("POST", B + "/databases"): {"database": {"name": "d", "owner_name": "o"}},
    ("PATCH", B + "/databases/{database}"): {"database": {"name": "d"}},
    ("POST", P + "/endpoints"): {"endpoint": {"branch_id": "br-x-y-1"}},
    ("PATCH", P + "/endpoints/{endpoint}"): {"endpoint": {}}, ("PATCH", P + "/snapshots/{snapshot}"): {"snapshot": {}},
    ("PUT", B + "/backup_schedule"): {"schedule": []}, ("PUT", B + "/leases/{lease}"): {"lsn": "0/8", "seconds": 1},
    ("POST", P + "/permissions"): {"email": "a@b.c"}, ("POST", B + "/safekeepers"): {"add": [1]},
    ("POST", "/organizations/{organization}/api_keys"): {"key_name": "k"},
}


def check_lists(control):
    """"a,b", or the argument again for each; what is empty in it is not there."""
    ids = sorted(control.ok("POST", API + "/projects", {"project": {"name": f"list {n}"}})["project"]["id"] for n in range(3))
    frame = "granularity=daily&from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z"
    for path, key in (("/projects", "projects"), ("/v2/projects", "projects"), ("/v2/branches", "branches")):
        for said in (f"project_ids={ids[0]},{ids[1]}", f"project_ids={ids[0]}&project_ids={ids[1]}",
                     f"project_ids=&project_ids={ids[0]},{ids[1]}", f"project_ids={ids[0]}&project_ids=&project_ids={ids[1]}"):
            found = control.ok("GET", f"{API}/consumption_history{path}?{frame}&org_id=org-local&{said}")[key]
            assert sorted(f["project_id"] for f in found) == ids[:2], (path, said, found)
        many = "".join(f"&project_ids=p-{n}" for n in range(99))
        control.ok("GET", f"{API}/consumption_history{path}?{frame}&org_id=org-local{many}&project_ids=&project_ids=x")
        status, answer = control.call("GET", f"{API}/consumption_history{path}?{frame}&org_id=org-local{many}&project_ids=x,y")
        assert status == 400 and answer["message"].startswith("project_ids:"), (path, status, answer)


def walk(control, path, key, arguments, limit=2, between=None):
    """Every page; -> ids"""
    ids, cursor = [], None
    for _ in range(100):
        said = {**arguments, "limit": limit, **({"cursor": cursor} if cursor else {})}
        answer = control.ok("GET", path + query(said))
        assert len(answer[key]) <= limit, answer
        ids += [o["id"] for o in answer[key]]
        pagination = answer.get("pagination", {})
        if not answer[key] or not pagination:
            return ids
        cursor = pagination.get("next") or pagination["cursor"]
        if between:
            between(ids)
    raise AssertionError(f"{path}: there is no last page")


def check_pages(control):
    """Each once, in order, on pages of any size; also when what a cursor stands for is gone by then."""
    made = control.ok("POST", API + "/projects", {"project": {"name": "pages"}})
    base = f"{API}/projects/{made['project']['id']}"
    control.ok("PATCH", f"{base}/endpoints/{made['endpoints'][0]['id']}", {"endpoint": {"name": "x"}})
    projects = [p["id"] for p in control.ok("GET", API + "/projects?limit=400")["projects"]]
    for limit in (1, 2, 3, 400):
        assert walk(control, API + "/projects", "projects", {}, limit) == projects
    operations = [o["id"] for o in control.ok("GET", base + "/operations")["operations"]]
    assert len(operations) >= 2
    for limit in (1, 2, 1000):
        assert walk(control, base + "/operations", "operations", {}, limit) == operations

    names = ["b", "a", "d", "c", "\u00e9", "a b"]
    for name in names: # a root each: a branch asks for the head of its parent, and nobody is there to say
        control.ok("POST", API + "/projects", {"project": {"name": f"page {name}"}})
    found = [p["name"] for p in control.ok("GET", API + "/projects?limit=400&search=page%20")["projects"]]
    assert found == [f"page {n}" for n in names]

    def delete_last(ids):
        control.call("DELETE", f"{API}/projects/{ids[-1]}")
    assert len(walk(control, API + "/projects", "projects", {"search": "page%20"}, 2, delete_last)) == len(names)
    for path in ("/projects", f"/projects/{made['project']['id']}/operations", f"/projects/{made['project']['id']}/branches",
                 f"/projects/{made['project']['id']}/snapshots"):
        status, answer = control.call("GET", f"{API}{path}?cursor=br-no-cursor-1")
        assert status == 400 and answer["message"].startswith("cursor:"), (path, status, answer)


def check_versions(control):
    """If-None-Match answers 304 while the whole view is the same, and says the new one when it is not."""
    made = control.ok("POST", API + "/projects", {"project": {"name": "versions"}})
    base = f"{API}/projects/{made['project']['id']}"
    for path, member in ((base, "project"), (f"{base}/branches/{made['branch']['id']}", "branch"),
                         (f"{base}/endpoints/{made['endpoints'][0]['id']}", "endpoint")):
        status, _, headers = control.exchange("GET", path)
        etag = headers["ETag"]
        status, answer, headers = control.exchange("GET", path, headers={"If-None-Match": etag})
        assert (status, answer, headers["ETag"]) == (304, "", etag), (path, status, answer)
        control.ok("PATCH", path, {member: {"name": "other"}}, headers={"If-Match": etag})
        status, answer, headers = control.exchange("GET", path, headers={"If-None-Match": etag})
        assert status == 200 and answer[member]["name"] == "other" and headers["ETag"] != etag, (path, status)
        status, answer = control.call("PATCH", path, {member: {"name": "late"}}, headers={"If-Match": etag})
        assert (status, answer["code"]) == (412, "PRECONDITION_FAILED"), (path, answer)


def check_what_passes(control):
    """423 and 503 say when to try again."""
    made = control.ok("POST", API + "/projects", {"project": {"name": "passes"}})
    base, branch = f"{API}/projects/{made['project']['id']}", made["branch"]["id"]
    seen = set()
    for method, path, body in (("POST", f"/branches/{branch}/restore", {"source_branch_id": branch, "source_lsn": "0/8"}),
                               ("GET", f"/branches/{branch}/digest", None), ("GET", "/size", None)):
        status, answer, headers = control.exchange(method, base + path, body)
        assert status in (423, 503), (path, status, answer)
        assert int(headers["Retry-After"]) >= 1, (path, answer)
        check_problem(path, status, answer, headers)
        seen.add(status)
    assert seen == {423, 503}, seen


def check_keys_of_readers(control):
    """An Idempotency-Key is for requests that change something: a HEAD is a GET, also of a schema, which starts a compute."""
    made = control.ok("POST", API + "/projects", {"project": {"name": "reads"}})
    base = f"{API}/projects/{made['project']['id']}"
    endpoint = f"{base}/endpoints/{made['endpoints'][0]['id']}"
    control.ok("POST", endpoint + "/suspend")
    answers = []

    def head():
        answers.append(control.call("HEAD", f"{base}/branches/{made['branch']['id']}/schema", headers={"Idempotency-Key": "k"})[0])
    first = threading.Thread(target=head)
    first.start()
    while control.ok("GET", base + "/operations?limit=1")["operations"][0]["action"] != "start_compute":
        assert first.is_alive(), answers
    control.ok("DELETE", endpoint)
    first.join()
    head()
    assert answers == [404, 423], answers # its compute went, and no other one is made of a branch that is not there yet
