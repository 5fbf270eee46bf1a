"""What must hold with a server that behaves."""
import os
import re
import subprocess
import threading

from fault_http import FaultProxy
from run import BUCKET
from s3_server import SECRET_KEY

BIG = 200 * 1024  # more than two parts of QUICK


def test_rules_of_every_backend(bench):
    """tests/unit/objstore/test_objstore.c, whose rules the directory keeps as well."""
    settings = bench.server.url("x", part_size="2MB", list_page_count="2").partition("?")[2]
    environment = bench.server.environment() | {
        "OBJSTORE_URL_HEAD": f"s3://{BUCKET}/{bench.prefix}/", "OBJSTORE_URL_TAIL": "?" + settings}
    result = subprocess.run([str(bench.build / "tests/unit/objstore/test_objstore")], env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout
    assert int(re.search(r"Checks: (\d+)", result.stdout).group(1)) >= 20, result.stdout
    assert bench.uploads() == 0


def test_another_client_reads_what_was_put(bench):
    content = os.urandom(BIG)
    bench.run("put", "small", bench.file(content[:1000])).must()
    bench.run("put", "big", bench.file(content)).must()
    assert bench.stored("small") == content[:1000]
    assert bench.stored("big") == content


def test_object_of_a_stranger_is_no_object_of_ours(bench):
    bench.server.must("PUT", f"/{BUCKET}/{bench.prefix}/a", body=b"content")
    result, content = bench.get("a")
    result.must("ERR_CORRUPT")
    assert content is None and "no checksum of ours" in result.text
    bench.run("put", "a", bench.file(b"content")).must("ERR_EXISTS")
    assert bench.stored("a") == b"content"


def test_names_of_strangers_are_not_listed(bench):
    for name in (".hidden", "with blank", "percent%2Fname", "and&<", "ours"):
        bench.server.must("PUT", f"/{BUCKET}/{bench.prefix}/{name}", body=b"x")
    assert bench.run("list", "").must().out == "ours 1"


def test_missing_bucket_is_not_a_missing_object(bench):
    url = bench.url(bench.proxy.endpoint, bucket="nowhere")
    for verb in (["head", "a"], ["get", "a", bench.folder / "to"], ["list", ""], ["delete", "a", "b"]):
        result = bench.run(*verb, url=url).must("ERR_INVALID")
        assert "bucket" in result.text.lower(), result.text


def test_wrong_key_is_denied_at_once(bench):
    wrong = "wrong" + SECRET_KEY
    environment = bench.server.environment() | {"AWS_SECRET_ACCESS_KEY": wrong}
    result = bench.run("head", "a", environment=environment).must("ERR_DENIED")
    assert len(bench.proxy.seen) == 1
    assert wrong not in result.text + result.log + result.out


def test_keys_from_a_file(bench):
    path = bench.file(f"# keys\n[other]\naws_access_key_id = x\n[default]\naws_access_key_id = test:tester\n"
                      f"aws_secret_access_key={SECRET_KEY}\n".encode())
    environment = {k: v for k, v in bench.server.environment().items() if not k.startswith("AWS_")}
    path.chmod(0o600)
    url = bench.url(credentials=path)
    bench.run("put", "a", path, url=url, environment=environment).must()
    path.chmod(0o644)
    bench.run("head", "a", url=url, environment=environment).must("ERR_DENIED")
    bench.run("head", "a", environment=environment).must("ERR_DENIED")


def test_swift_does_not_know_conditional_puts(bench):
    """If it does one day, test_conditional_put_* can do without their proxy."""
    status, _, _ = bench.server.request("PUT", f"/{BUCKET}/{bench.prefix}/a", headers={"if-none-match": "*"})
    assert status == 501
    assert bench.run("put", "a", bench.file(b"1")).must().marks["s3.no_conditional_put"] == 1
    bench.run("put", "a", bench.file(b"1")).must()
    bench.run("put", "a", bench.file(b"2")).must("ERR_EXISTS")
    assert bench.stored("a") == b"1"


def resend(bench, exchange, drop=()):
    """The request again, signed anew, without some headers."""
    low = {n.lower(): v for n, v in exchange.headers}
    kept = {n: v for n, v in low.items() if n.startswith(("content-md5", "content-type", "x-amz-meta")) and n not in drop}
    path, _, query = exchange.path.partition("?")
    pairs = dict(pair.split("=", 1) for pair in query.split("&") if pair)
    status, headers, body = bench.server.request(exchange.method, path, pairs, exchange.body, kept)
    exchange.answer(status, headers.items(), body)


def conditional(bench):
    """Swift with the one thing it lacks: a name that is taken refuses If-None-Match: *."""
    lock = threading.Lock()

    def act(exchange):
        if not any(n.lower() == "if-none-match" and v == "*" for n, v in exchange.headers):
            exchange.answer(*exchange.forward())
            return
        with lock:
            status, _, _ = bench.server.request("HEAD", exchange.path.partition("?")[0])
            if status == 404:
                resend(bench, exchange)
            else:
                exchange.answer(412, [], b"<Error><Code>PreconditionFailed</Code></Error>")
    return act


def test_conditional_put_decides_at_the_server(bench):
    bench.proxy.add(conditional(bench), method="PUT")
    bench.run("put", "a", bench.file(b"1")).must()
    assert all(method == "PUT" for method, _ in bench.proxy.seen), "nothing was looked up before"
    assert bench.run("put", "a", bench.file(b"1")).must().marks["s3.put_refused"] == 1
    assert bench.run("put", "a", bench.file(b"2")).must("ERR_EXISTS").marks["s3.put_refused"] == 1
    assert bench.stored("a") == b"1"


def test_conditional_put_of_a_large_object(bench):
    bench.proxy.add(conditional(bench), method="PUT")
    bench.proxy.add(conditional(bench), method="POST")
    first, second = os.urandom(BIG), os.urandom(BIG)
    bench.run("put", "a", bench.file(first)).must()
    bench.run("put", "a", bench.file(first)).must()
    bench.run("put", "a", bench.file(second)).must("ERR_EXISTS")
    assert bench.stored("a") == first and bench.uploads() == 0


def test_conditional_end_of_an_upload_decides_at_the_server(bench):
    """The name is free when the upload begins, and taken when it ends."""
    def come_first(exchange):
        bench.run("put", "a", bench.file(b"first"), url=bench.url()).must()
        exchange.answer(*exchange.forward())
    bench.proxy.add(come_first, "PUT", "partNumber=2", 1)
    bench.proxy.add(conditional(bench), method="PUT")
    bench.proxy.add(conditional(bench), method="POST")
    bench.run("put", "a", bench.file(os.urandom(BIG))).must("ERR_EXISTS")
    assert bench.stored("a") == b"first" and bench.uploads() == 0


def test_one_of_two_conditional_writers_wins(bench):
    """Both have seen that the name is free; the server lets one of them in."""
    inner = conditional(bench)
    barrier = threading.Barrier(2)

    def act(exchange):
        barrier.wait(30)
        inner(exchange)
    for probing in range(2):
        bench.proxy.add(inner, method="PUT", contains="probe")
    bench.proxy.add(act, method="PUT", contains="/same")
    contents = [b"first", b"second"]
    writers = [bench.start("put", "same", bench.file(c)) for c in contents]
    won = [w.wait(60) == 0 for w in writers]
    for writer in writers:
        writer.communicate()
    assert sorted(won) == [False, True]
    assert bench.stored("same") == contents[won.index(True)]


def test_server_that_ignores_the_condition_is_found_out(bench):
    bench.proxy.add(lambda exchange: resend(bench, exchange), method="PUT", contains="probe")
    assert bench.run("put", "a", bench.file(b"1")).must().marks["s3.no_conditional_put"] == 1
    bench.run("put", "a", bench.file(b"2")).must("ERR_EXISTS")
    assert bench.stored("a") == b"1"


def test_https_trusts_only_what_it_is_told_to(bench):
    certificate = bench.folder / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", certificate, "-out", bench.folder / "c.pem"],
                   check=True, stderr=subprocess.DEVNULL)
    with open(certificate, "a") as both:
        both.write((bench.folder / "c.pem").read_text())
    with FaultProxy(bench.server.port, certificate) as proxy:
        bench.run("put", "a", bench.file(b"1"), url=bench.url(proxy.endpoint, ca=bench.folder / "c.pem")).must()
        seen = len(proxy.seen)
        bench.run("head", "a", url=bench.url(proxy.endpoint)).must("ERR_IO")
        assert len(proxy.seen) == seen
    assert bench.stored("a") == b"1"
