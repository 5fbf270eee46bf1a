"""Whether an HTTP answer is what an OpenAPI file says: the part of JSON schema that such files use.

`Spec(document).check(method, path, status, body)` returns a list of differences, each with its place in the answer; an
operation or status that the file does not have is None. A keyword that this file does not know is an error of its own:
it would be a check that nobody makes.
"""
import datetime
import re

NOTES = {"title", "description", "example", "examples", "default", "deprecated", "readOnly", "writeOnly",
         "externalDocs", "discriminator", "xml", "$comment"} # say something, demand nothing
KNOWN = {"type", "properties", "required", "items", "enum", "const", "allOf", "oneOf", "anyOf", "nullable", "format",
         "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "additionalProperties",
         "minProperties", "maxProperties", "$ref"} | NOTES
TYPES = {"string": str, "object": dict, "array": list, "boolean": bool, "integer": int, "number": (int, float)}
UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.I)


def is_time(text):
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        return False


FORMATS = {"date-time": is_time, "uuid": UUID.match, "int64": lambda n: -2**63 <= n < 2**63,
           "int32": lambda n: -2**31 <= n < 2**31}


def is_type(value, name):
    if isinstance(value, bool):
        return name == "boolean"
    if name == "null":
        return value is None
    return isinstance(value, TYPES[name])


class Spec:
    def __init__(self, document):
        self.document = document
        self.base = "/api/v2"
        self.operations = []
        for path, item in document["paths"].items():
            pattern = re.compile("^" + re.sub(r"\\{[^/]+?\\}", "[^/]+", re.escape(path)) + "$")
            for method, operation in item.items():
                if method in ("get", "post", "put", "patch", "delete"):
                    self.operations.append((method.upper(), path, pattern, operation))
        self.operations.sort(key=lambda o: o[1].count("{")) # /projects/shared before /projects/{id}

    def resolve(self, node):
        while "$ref" in node:
            at = self.document
            for step in node["$ref"].lstrip("#/").split("/"):
                at = at[step.replace("~1", "/").replace("~0", "~")]
            node = at
        return node

    def find(self, method, path):
        """The operation of a request, by its path without the base."""
        for its_method, name, pattern, operation in self.operations:
            if its_method == method and pattern.match(path):
                return name, operation
        return None

    def check(self, method, path, status, body):
        found = self.find(method, path)
        if found is None:
            return None
        responses = found[1]["responses"]
        response = responses.get(str(status), responses.get(f"{status // 100}XX"))
        if response is None and status >= 400:
            response = responses.get("default")
        if response is None:
            return [f"status {status} is none of {', '.join(map(str, responses))}"]
        content = self.resolve(response).get("content", {})
        media = content.get("application/json") or content.get("application/problem+json")
        if media is None or "schema" not in media:
            return []
        differences = []
        self.compare(body, media["schema"], "$", differences)
        return differences

    def compare(self, value, schema, place, out):
        schema = self.resolve(schema)
        unknown = [k for k in schema if k not in KNOWN and not k.startswith("x-")]
        if unknown:
            raise ValueError(f"{place}: the schema has {unknown}, which is not checked yet")
        if value is None and (schema.get("nullable") or "null" in listed(schema.get("type"))):
            return
        types = listed(schema.get("type"))
        if types and not any(is_type(value, t) for t in types):
            out.append(f"{place}: {value!r:.60} is no {' or '.join(types)}")
            return
        self.compare_value(value, schema, place, out)
        if isinstance(value, dict):
            self.compare_object(value, schema, place, out)
        if isinstance(value, list):
            self.compare_array(value, schema, place, out)
        self.compare_choices(value, schema, place, out)

    def compare_value(self, value, schema, place, out):
        if "enum" in schema and value not in schema["enum"]:
            out.append(f"{place}: {value!r} is none of {schema['enum']}")
        if "const" in schema and value != schema["const"]:
            out.append(f"{place}: {value!r} is not {schema['const']!r}")
        if isinstance(value, str):
            if "pattern" in schema and not re.search(schema["pattern"], value):
                out.append(f"{place}: {value!r} does not match {schema['pattern']}")
            if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
                out.append(f"{place}: {len(value)} characters")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
                out.append(f"{place}: {value} is out of range")
        test = FORMATS.get(schema.get("format"))
        if test and not isinstance(value, (dict, list)) and not test(value):
            out.append(f"{place}: {value!r} is no {schema['format']}")

    def compare_object(self, value, schema, place, out):
        for name in schema.get("required", []):
            if name not in value:
                out.append(f"{place}: no {name}")
        if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
            out.append(f"{place}: {len(value)} members")
        properties = schema.get("properties", {})
        more = schema.get("additionalProperties", True)
        for name, member in value.items():
            if name in properties:
                self.compare(member, properties[name], f"{place}.{name}", out)
            elif more is False:
                out.append(f"{place}: {name} is not foreseen")
            elif isinstance(more, dict):
                self.compare(member, more, f"{place}.{name}", out)

    def compare_array(self, value, schema, place, out):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            out.append(f"{place}: {len(value)} items")
        for i, item in enumerate(value):
            self.compare(item, schema.get("items", {}), f"{place}[{i}]", out)

    def compare_choices(self, value, schema, place, out):
        for part in schema.get("allOf", []):
            self.compare(value, part, place, out)
        for keyword in ("oneOf", "anyOf"):
            if keyword not in schema:
                continue
            tries = []
            for part in schema[keyword]:
                tries.append([])
                self.compare(value, part, place, tries[-1])
            if all(tries): # several may fit: the files are not strict about oneOf themselves
                out.append(f"{place}: fits none of {keyword}: {min(tries, key=len)[0]}")


def listed(types):
    return [] if types is None else [types] if isinstance(types, str) else types
