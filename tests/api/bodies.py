"""Bodies of requests against our own OpenAPI file: every member that it describes, with values that it excludes.

What is excluded is refused before anything is looked up, and the refusal names the member. What the file does not have
is ignored. That a handler reads nothing else is not to be tested: it gets a copy with what the file has (bodies.h).
"""
WRONG = {"string": 7, "integer": "x", "number": "x", "boolean": "x", "object": 7, "array": 7}
GOOD = {"string": "x", "integer": 1, "number": 1, "boolean": True, "object": {}, "array": []}


def type_of(schema):
    return next(t for t in ([schema["type"]] if isinstance(schema["type"], str) else schema["type"]) if t != "null")


def good(schema):
    kind = type_of(schema)
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("format") == "date-time":
        return "2026-01-02T03:04:05Z"
    if "pattern" in schema:
        return "0/16B3748"
    if kind == "object":
        return {n: good(schema["properties"][n]) for n in schema.get("required", [])}
    return max(schema.get("minimum", 1), GOOD[kind]) if kind in ("integer", "number") else GOOD[kind]


def excluded(schema):
    """Values that the schema does not have."""
    kind = type_of(schema)
    yield WRONG[kind]
    if "enum" in schema:
        yield "none of these"
    if "maxLength" in schema:
        yield "x" * (schema["maxLength"] + 1)
    if "maximum" in schema:
        yield schema["maximum"] + 1
        yield schema["minimum"] - 1
    if "format" in schema or "pattern" in schema:
        yield "x"
    if "maxItems" in schema:
        yield [good(schema["items"])] * (schema["maxItems"] + 1)
    if kind == "array":
        yield ["x"]
    if kind == "integer":
        yield 1.5


def cases(schema, path=()):
    """(path of the member, the whole body with one excluded value)."""
    def around(value, name, parent):
        return {**good(parent), name: value, "unknown_member": {"of": ["any", "kind"]}}

    for name, member in schema.get("properties", {}).items():
        for value in excluded(member):
            yield (*path, name), around(value, name, schema)
        inner = member.get("items", member)
        if "properties" in inner:
            for where, body in cases(inner, (*path, name)):
                yield where, around([body] if "items" in member else body, name, schema)
        if name in schema.get("required", []):
            yield (*path, name), {n: v for n, v in good(schema).items() if n != name}
            yield (*path, name), {**good(schema), name: None}


def check(control, fill):
    document, count, wrong = control.ok("GET", "/api/v2/openapi.json"), 0, []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            for where, body in cases(schema or {}):
                status, answer = control.call(method.upper(), fill("/api/v2" + path), body)
                count += 1
                if status != 400 or not answer["message"].startswith(".".join(where) + ":"):
                    wrong.append(f"{method.upper()} {path} {body}: {status} {answer}")
    print(f"   {count} bodies")
    assert count > 200 and not wrong, "\n".join(wrong)
