"""A real S3 server for tests: OpenStack Swift with its S3 API (Debian's python3-swift), one process, one temporary folder.

    with S3Server() as server:
        server.request("PUT", "/bucket")
        subprocess.run([...], env=server.environment())     # keys and all; the URL is server.url("bucket/prefix")

Swift's four servers (proxy, account, container, object) run as green threads of one child process on free ports; the
storage is a folder, with one replica. `request` is a small S3 client of its own (SigV4), so that tests look at the
store with other eyes than the code under test.
"""
import datetime
import hashlib
import hmac
import http.client
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse

PYTHON = "/usr/bin/python3" # the one that Debian's packages are for
ACCESS_KEY, SECRET_KEY, REGION = "test:tester", "testing", "us-east-1"
STORAGE = ("account", "container", "object")

PROXY_CONF = """
[DEFAULT]
swift_dir = {folder}
log_level = CRITICAL
[pipeline:main]
pipeline = catch_errors cache listing_formats s3api tempauth copy slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = call:{cache}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = {region}
# Small parts, so that tests need few bytes; S3 proper wants 5 MiB.
min_segment_size = 1024
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
"""

STORAGE_CONF = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
log_level = CRITICAL
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""


def sign(secret_key, method, host, path, query, body, headers):
    """AWS signature version 4 over what is to be sent; adds the headers that it needs."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    payload = hashlib.sha256(body).hexdigest()
    headers |= {"host": host, "x-amz-date": now, "x-amz-content-sha256": payload}
    names = sorted(headers)
    canonical = "\n".join([method, path, query, *(f"{n}:{headers[n]}" for n in names), "", ";".join(names), payload])
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4" + secret_key.encode()
    for part in (now[:8], REGION, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={';'.join(names)}, "
                                f"Signature={signature}")
    return headers


class S3Server:
    def __init__(self, secret_key=SECRET_KEY):
        self.secret_key = secret_key
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="anabranch_s3."))
        self.process, self.port = None, None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        log = open(self.folder / "server.log", "wb")
        self.process = subprocess.Popen([PYTHON, __file__, str(self.folder), self.secret_key], stdout=subprocess.PIPE,
                                        stderr=log, start_new_session=True)
        log.close()
        line = self.process.stdout.readline()  # "PORT\n" once it listens; nothing when it ended
        if not line:
            raise RuntimeError("the S3 server (Debian's package python3-swift) did not start:\n" + (self.folder / "server.log").read_text()[-4000:])
        self.port = int(line)

    def stop(self):
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            self.process.stdout.close()
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def url(self, place, endpoint=None, **settings):
        """place is bucket/prefix; settings are the backend's own, see common/objstore/s3_settings.h."""
        settings = {"endpoint": endpoint or self.endpoint, "region": REGION} | settings
        return f"s3://{place}?" + "&".join(f"{k}={v}" for k, v in settings.items())

    def environment(self):
        return os.environ | {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def request(self, method, path, query=None, body=b"", headers=None):
        """-> (status, headers, body); path is "/bucket/object"."""
        line = urllib.parse.urlencode(sorted((query or {}).items()), quote_via=urllib.parse.quote)
        host = f"127.0.0.1:{self.port}"
        signed = sign(self.secret_key, method, host, urllib.parse.quote(path), line, body, dict(headers or {}))
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request(method, urllib.parse.quote(path) + ("?" + line if line else ""), body=body, headers=signed)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, content

    def must(self, *args, **kwargs):
        status, headers, body = self.request(*args, **kwargs)
        if status >= 300:
            raise RuntimeError(f"{args}: {status} {body[:500]!r}")
        return headers, body


# From here on: the child process.


class MemoryCache:
    """What Swift wants of memcached, for one process."""

    def __init__(self):
        self.items = {}

    def get(self, key, **_):
        return self.items.get(key)

    def set(self, key, value, **_):
        self.items[key] = value

    def delete(self, key, **_):
        self.items.pop(key, None)

    def incr(self, key, delta=1, **_):
        self.items[key] = int(self.items.get(key, 0)) + delta
        return self.items[key]


def cache_filter(_conf, **_local):
    memory = MemoryCache()

    def make(app):
        def serve(environ, start_response):
            environ.setdefault("swift.cache", memory)
            return app(environ, start_response)
        return serve
    return make


def write_ring(folder, kind, port):
    from swift.common.ring import RingBuilder
    builder = RingBuilder(4, 1, 1)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "disk", "weight": 1,
                     "replication_ip": "127.0.0.1", "replication_port": port, "meta": ""})
    builder.rebalance()
    builder.get_ring().save(str(folder / f"{kind}.ring.gz"))


def serve(folder, secret_key):
    import eventlet
    import eventlet.wsgi
    eventlet.monkey_patch()
    # Before anything of Swift reads it: the hash suffix lies in our folder, not in /etc/swift.
    import swift.common.utils
    swift.common.utils.SWIFT_CONF_FILE = str(folder / "swift.conf")
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
    swift.common.utils.HASH_PATH_SUFFIX = b"tests"
    from swift.common import wsgi
    (folder / "devices" / "disk").mkdir(parents=True)
    sockets = {kind: eventlet.listen(("127.0.0.1", 0)) for kind in (*STORAGE, "proxy")}
    for kind in STORAGE:
        write_ring(folder, kind, sockets[kind].getsockname()[1])
    for kind in STORAGE:
        (folder / f"{kind}.conf").write_text(STORAGE_CONF.format(folder=folder, kind=kind))
    cache = "s3_server:cache_filter"
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    (folder / "proxy.conf").write_text(PROXY_CONF.format(folder=folder, region=REGION, secret=secret_key, cache=cache))
    quiet = open(os.devnull, "w")
    servers = []
    for kind, listener in sockets.items():
        app = wsgi.loadapp(str(folder / f"{kind}.conf"), global_conf={"log_name": kind})
        servers.append(eventlet.spawn(eventlet.wsgi.server, listener, app, quiet, protocol=wsgi.SwiftHttpProtocol,
                                      capitalize_response_headers=False))
    print(sockets["proxy"].getsockname()[1], flush=True)
    servers[-1].wait()


if __name__ == "__main__":
    serve(pathlib.Path(sys.argv[1]), sys.argv[2])
