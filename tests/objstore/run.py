#!/usr/bin/env python3
"""The object store against a real S3 server (tests/lib/s3_server.py), and with a proxy between them that misbehaves.

Every `test_*` function in tests/objstore/test_*.py takes a Bench. Prints `ok NAME` or `FAILED NAME` with the reason.
`run.py --build DIR [NAME...]`: only tests whose name contains one of the words.
"""
import argparse
import importlib
import inspect
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE))

from fault_http import FaultProxy # noqa: E402
from s3_server import S3Server # noqa: E402

ROOT = HERE.parent.parent
BUCKET = "bucket"

# Small limits, so that a test that runs into one takes no time; what is not set is as in production.
QUICK = {"backoff_ms": "1", "backoff_max_ms": "2", "attempts_max": "4", "part_size": "64kB", "stall_timeout_ms": "1s"}


class Result:
    """What objtool printed."""

    def __init__(self, process):
        self.ok = process.returncode == 0
        *lines, last, marks = process.stdout.decode().removesuffix("\n").split("\n")
        self.out = "\n".join(lines)
        self.code, _, self.text = last.partition(" ")
        self.marks = {m: int(n) for m, n in (pair.split("=") for pair in marks.split())}
        self.log = process.stderr.decode()

    def must(self, code="ERR_OK"):
        assert self.code == code, f"{self.code} {self.text}\n{self.log}"
        return self


class Bench:
    """One test's view: a prefix of its own in the bucket, a folder, a proxy."""

    def __init__(self, build, server, name):
        self.build, self.server, self.prefix = build, server, name
        self.temp = tempfile.TemporaryDirectory(prefix="anabranch_store.")
        self.folder = pathlib.Path(self.temp.name)
        self.proxy = FaultProxy(server.port)

    def url(self, endpoint=None, bucket=BUCKET, **settings):
        return self.server.url(f"{bucket}/{self.prefix}", endpoint=endpoint, **(QUICK | settings))

    def start(self, *args, url=None, environment=None):
        command = [str(self.build / "tests/objstore/objtool"), url or self.url(self.proxy.endpoint), *map(str, args)]
        return subprocess.Popen(command, env=environment or self.server.environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def run(self, *args, **kwargs):
        process = self.start(*args, **kwargs)
        stdout, stderr = process.communicate(timeout=60)
        return Result(subprocess.CompletedProcess([], process.returncode, stdout, stderr))

    def file(self, content):
        path = self.folder / f"file{len(list(self.folder.iterdir()))}"
        path.write_bytes(content)
        return path

    def stored(self, name):
        """The object's bytes as the server has them; None: there is none."""
        status, _, body = self.server.request("GET", f"/{BUCKET}/{self.prefix}/{name}")
        assert status in (200, 404), (status, body)
        return body if status == 200 else None

    def uploads(self):
        """How many unfinished uploads there are."""
        _, body = self.server.must("GET", f"/{BUCKET}", {"uploads": "", "prefix": self.prefix + "/"})
        return body.count(b"<UploadId>")

    def get(self, name, **kwargs):
        """-> (result, bytes of the file that was downloaded, or None)"""
        path = self.folder / "downloaded"
        path.unlink(missing_ok=True)
        result = self.run("get", name, path, **kwargs)
        assert not path.with_name("downloaded.new").exists()
        return result, path.read_bytes() if path.exists() else None


def run_one(build, server, name, function):
    start = time.monotonic()
    bench = Bench(build, server, name)
    try:
        with bench.proxy:
            function(bench)
            assert bench.proxy.unused() == 0, "a fault of this test did not happen"
        print(f"ok {name} ({time.monotonic() - start:.1f} s)", flush=True)
        return True
    except Exception: # noqa: BLE001 - any failure is a failed test
        print(f"FAILED {name} ({time.monotonic() - start:.1f} s)", flush=True)
        traceback.print_exc(file=sys.stdout)
        print("requests:", *bench.proxy.seen[-30:], sep="\n    ")
        return False
    finally:
        bench.temp.cleanup()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    tests = []
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(path.stem)
        tests += [(name, f) for name, f in inspect.getmembers(module, inspect.isfunction) if name.startswith("test_")]
    chosen = [(n, f) for n, f in tests if not args.words or any(w in n for w in args.words)]
    with S3Server() as server:
        server.must("PUT", f"/{BUCKET}")
        good = [run_one(args.build.resolve(), server, name, function) for name, function in chosen]
        trouble = (server.folder / "server.log").read_text()
        if trouble:
            print("the S3 server said:\n" + trouble[-3000:])
    return 0 if good and all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
