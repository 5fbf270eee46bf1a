"""What must hold when the server or the network does not behave: nothing lost, nothing half, nothing wrong taken."""
import os
import re
import signal
import threading

import fault_http as fault
from run import BUCKET

BIG = 200 * 1024  # four parts
ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>scripted</Message></Error>"
SMALL = b"content of a small object"


def put_and_check(bench, content, action, times, method="PUT", contains=""):
    """The action happens so often, and the put is through nevertheless."""
    bench.proxy.add(action, method, contains, times)
    bench.run("put", "a", bench.file(content)).must()
    assert bench.stored("a") == content
    # Seen by the proxy: libcurl itself sends again what got no answer on a connection that was used before.
    assert sum(m == method and contains in path for m, path in bench.proxy.seen) == times + 1
    assert bench.uploads() == 0


def put_and_fail(bench, content, action, code, method="PUT", contains=""):
    bench.proxy.add(action, method, contains)
    result = bench.run("put", "a", bench.file(content)).must(code)
    assert "object a" in result.text, result.text
    assert bench.stored("a") is None
    return result


# Puts. "/a" is the object; the probe of conditional puts goes first.


def test_put_survives_server_errors(bench):
    put_and_check(bench, SMALL, fault.answer(500), 3, contains="/a")


def test_put_survives_a_slow_down(bench):
    put_and_check(bench, SMALL, fault.answer(503, ERROR % b"SlowDown"), 2, contains="/a")


def test_put_survives_a_lost_request(bench):
    put_and_check(bench, SMALL, fault.drop_request, 1, contains="/a")


def test_put_survives_a_lost_answer(bench):
    put_and_check(bench, SMALL, fault.lose_answer, 1, contains="/a")


def test_put_survives_a_cut_request(bench):
    put_and_check(bench, SMALL, fault.cut_request, 1, contains="/a")


def test_put_survives_damage_on_the_way(bench):
    put_and_check(bench, SMALL, fault.damage_request, 2, contains="/a")


def test_put_survives_a_stalled_answer(bench):
    def stall(exchange):
        exchange.forward()
        exchange.wait_for_hangup()
    put_and_check(bench, SMALL, stall, 1, contains="/a")


def test_put_gives_up_on_server_errors(bench):
    result = put_and_fail(bench, SMALL, fault.answer(500, ERROR % b"InternalError"), "ERR_IO", contains="/a")
    assert "gave up after 4 attempts" in result.text and "InternalError" in result.text


def test_put_gives_up_when_the_server_is_busy(bench):
    put_and_fail(bench, SMALL, fault.answer(503, ERROR % b"SlowDown"), "ERR_BUSY", contains="/a")


def test_put_gives_up_on_damage(bench):
    put_and_fail(bench, SMALL, fault.damage_request, "ERR_CORRUPT", contains="/a")


def test_put_gives_up_on_cut_requests(bench):
    put_and_fail(bench, SMALL, fault.cut_request, "ERR_IO", contains="/a")


def test_nobody_there_is_an_io_error(bench):
    with fault.socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = bench.url(f"http://127.0.0.1:{port}")
    bench.run("put", "a", bench.file(SMALL), url=url).must("ERR_IO")


def test_deadline_ends_the_attempts(bench):
    """Ten seconds of stalling an attempt, but only one and a half for all of them."""
    bench.proxy.add(lambda exchange: exchange.wait_for_hangup(), method="HEAD")
    url = bench.url(bench.proxy.endpoint, deadline_ms="1500", stall_timeout_ms="10s", attempts_max="100")
    bench.run("head", "a", url=url).must("ERR_TIMEOUT")
    assert len(bench.proxy.seen) == 1


def test_no_attempt_begins_in_the_last_millisecond(bench):
    """The attempt has all the time there is: what ends it leaves nothing for another one."""
    count = 60
    bench.proxy.add(lambda exchange: exchange.wait_for_hangup(), "HEAD")
    url = bench.url(bench.proxy.endpoint, deadline_ms="40", backoff_ms="1", attempts_max="100")
    for _ in range(count):
        bench.run("head", "a", url=url).must("ERR_TIMEOUT")
    assert len(bench.proxy.seen) <= count # less on a machine so busy that the time is over before the request


def test_redirect_is_refused(bench):
    with fault.FaultProxy(bench.server.port) as elsewhere:
        bench.proxy.add(fault.answer(307, headers=[("Location", elsewhere.endpoint + f"/{BUCKET}/x")]))
        assert "redirection" in bench.run("head", "a").must("ERR_INVALID").text
        assert len(bench.proxy.seen) == 1 and elsewhere.seen == []


def test_server_that_stored_something_else_is_noticed(bench):
    def change(status, headers, body):
        return status, [(n, '"' + "0" * 32 + '"' if n.lower() == "etag" else v) for n, v in headers], body
    result = put_and_fail(bench, SMALL, fault.rewrite(change), "ERR_CORRUPT", contains="/a")
    assert result.marks["s3.etag_differs"] == 1


# Multipart uploads.


def test_upload_survives_server_errors_and_lost_answers(bench):
    bench.proxy.add(fault.answer(500), "PUT", "partNumber=2", 2)
    bench.proxy.add(fault.lose_answer, "PUT", "partNumber=3", 1)
    bench.proxy.add(fault.damage_request, "PUT", "partNumber=4", 1)
    put_and_check(bench, os.urandom(BIG), fault.cut_request, 1, contains="partNumber=1")
    assert sum("partNumber" in path for _, path in bench.proxy.seen) == 4 + 5


def test_upload_whose_end_was_lost_is_through(bench):
    put_and_check(bench, os.urandom(BIG), fault.lose_answer, 1, method="POST", contains="uploadId=")


def test_upload_that_the_server_has_forgotten_is_looked_at(bench):
    """The end got through, its answer did not, and the second time there is no such upload."""
    bench.proxy.add(fault.lose_answer, "POST", "uploadId=", 1)
    bench.proxy.add(fault.answer(404, ERROR % b"NoSuchUpload"), "POST", "uploadId=")
    content = os.urandom(BIG)
    bench.run("put", "a", bench.file(content)).must()
    assert bench.stored("a") == content
    bench.proxy.clear()
    bench.proxy.add(fault.answer(404, ERROR % b"NoSuchUpload"), "POST", "uploadId=")
    assert "NoSuchUpload" in bench.run("put", "b", bench.file(content)).must("ERR_IO").text
    assert bench.stored("b") is None


def test_upload_whose_end_says_error_is_looked_at(bench):
    """HTTP 200 and an error inside: the parts were not joined, or were, who knows."""
    put_and_check(bench, os.urandom(BIG), fault.answer(200, ERROR % b"InternalError"), 1, "POST", "uploadId=")
    bench.proxy.clear()
    bench.run("delete", "a").must()
    put_and_check(bench, os.urandom(BIG), fault.answer_instead(200, ERROR % b"InternalError"), 1, "POST", "uploadId=")


def test_failed_upload_leaves_nothing(bench):
    result = put_and_fail(bench, os.urandom(BIG), fault.answer(500), "ERR_IO", contains="partNumber=3")
    assert result.marks["s3_upload.abort"] == 1 and bench.uploads() == 0
    bench.proxy.clear()
    result = put_and_fail(bench, os.urandom(BIG), fault.answer(500), "ERR_IO", "POST", "uploadId=")
    assert result.marks["s3_upload.abort"] == 1 and bench.uploads() == 0


def test_upload_of_a_changing_file_is_refused(bench):
    path = bench.file(os.urandom(BIG))

    def change_file(exchange):
        with open(path, "r+b") as file:
            file.seek(BIG - 1)
            file.write(b"!")
        exchange.answer(*exchange.forward())
    content = bytearray(path.read_bytes())
    content[-1] = ord("?")
    path.write_bytes(bytes(content))
    bench.proxy.add(change_file, "PUT", "partNumber=1", 1)
    result = bench.run("put", "a", path).must("ERR_CORRUPT")
    assert result.marks["s3_upload.source_changed"] == 1
    assert bench.stored("a") is None and bench.uploads() == 0


def test_late_writer_does_not_replace_a_large_object(bench):
    """The name is free when the upload begins, and taken when it ends."""
    def come_first(exchange):
        bench.run("put", "a", bench.file(b"first"), url=bench.url()).must()
        exchange.answer(*exchange.forward())
    bench.proxy.add(come_first, "PUT", "partNumber=2", 1)
    bench.run("put", "a", bench.file(os.urandom(BIG))).must("ERR_EXISTS")
    assert bench.stored("a") == b"first" and bench.uploads() == 0


def test_killed_upload_is_no_object_and_is_swept(bench):
    reached = threading.Event()

    def hold(exchange):
        reached.set()
        exchange.wait_for_hangup()
    bench.proxy.add(hold, "PUT", "partNumber=3")
    content = os.urandom(BIG)
    victim = bench.start("put", "a", bench.file(content))
    assert reached.wait(30)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    bench.proxy.clear()
    assert bench.stored("a") is None and bench.uploads() == 1
    bench.run("head", "a").must("ERR_NOT_FOUND")
    assert bench.run("list", "").must().out == ""
    assert bench.run("sweep", 3600_000).must().out == "0"
    assert bench.uploads() == 1

    def age(status, headers, body):
        return status, headers, re.sub(rb"<Initiated>[^<]*<", b"<Initiated>2026-01-02T03:04:05.000Z<", body)
    bench.proxy.add(fault.rewrite(age), "GET", "uploads=")
    assert bench.run("sweep", 3600_000).must().out == "1"
    assert bench.uploads() == 0
    bench.run("put", "a", bench.file(content)).must()
    assert bench.stored("a") == content


# Gets.


def prepare(bench, content=SMALL):
    bench.run("put", "a", bench.file(content), url=bench.url()).must()
    return content


def get_and_check(bench, action, times):
    content = prepare(bench)
    bench.proxy.add(action, "GET", times=times)
    result, got = bench.get("a")
    result.must()
    assert got == content
    return result


def get_and_fail(bench, action, code):
    prepare(bench)
    bench.proxy.add(action, "GET")
    result, got = bench.get("a")
    result.must(code)
    assert got is None and "object a" in result.text
    return result


def test_get_survives_server_errors(bench):
    get_and_check(bench, fault.answer(503), 3)


def test_get_survives_cut_answers(bench):
    assert get_and_check(bench, fault.cut_answer, 2).marks["s3_client.retry"] == 2


def test_get_survives_a_stalled_answer(bench):
    get_and_check(bench, fault.stall_answer, 1)


def test_get_survives_damage_on_the_way(bench):
    assert get_and_check(bench, fault.damage_answer, 2).marks["objstore.read.corrupt"] == 2


def test_get_refuses_damage(bench):
    get_and_fail(bench, fault.damage_answer, "ERR_CORRUPT")


def test_get_refuses_cut_answers(bench):
    get_and_fail(bench, fault.cut_answer, "ERR_IO")


def test_get_refuses_short_answers_that_look_whole(bench):
    get_and_fail(bench, fault.shorten_answer, "ERR_CORRUPT")


def test_get_refuses_the_wrong_range(bench):
    def change(status, headers, body):
        return status, [(n, "bytes 1-25/26" if n.lower() == "content-range" else v) for n, v in headers], body
    get_and_fail(bench, fault.rewrite(change), "ERR_CORRUPT")


def test_range_from_another_place_is_refused(bench):
    """A range has no checksum of its own: what the server says that it sent must be what was asked for."""
    prepare(bench)
    assert bench.run("range", "a", 3, 4).must().out == SMALL[3:7].decode()

    def change(status, headers, body):
        return status, [(n, "bytes 4-7/25" if n.lower() == "content-range" else v) for n, v in headers], SMALL[4:8]
    bench.proxy.add(fault.rewrite(change), "GET")
    bench.run("range", "a", 3, 4).must("ERR_CORRUPT")


def test_get_refuses_an_object_without_checksum(bench):
    def change(status, headers, body):
        return status, [(n, v) for n, v in headers if "xxh3" not in n.lower()], body
    get_and_fail(bench, fault.rewrite(change), "ERR_CORRUPT")


def test_get_takes_the_whole_from_a_server_without_ranges(bench):
    def change(status, headers, body):
        assert status == 206
        return 200, [(n, v) for n, v in headers if n.lower() != "content-range"], body
    get_and_check(bench, fault.rewrite(change), None)


def test_page_of_a_stranger_does_not_say_that_an_object_is_missing(bench):
    get_and_fail(bench, fault.answer(404, b"<html><body>no such host</body></html>"), "ERR_IO")


# Listing and deleting.


def test_listing_survives_answers_that_are_none(bench):
    for name in ("a", "b", "c"):
        bench.run("put", name, bench.file(SMALL), url=bench.url()).must()
    url = bench.url(bench.proxy.endpoint, list_page_count="2")
    bench.proxy.add(fault.shorten_answer, "GET", "continuation-token", 1)
    bench.proxy.add(fault.answer(200, b"<html>"), "GET", "list-type", 1)
    bench.proxy.add(fault.cut_answer, "GET", "list-type", 1)
    result = bench.run("list", "", url=url).must()
    assert result.out == "a 25\nb 25\nc 25"
    assert result.marks["s3_client.retry"] == 3


def test_listing_refuses_what_is_no_listing(bench):
    bomb = (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
            b"<ListBucketResult><Name>&b;</Name></ListBucketResult>")
    bench.proxy.add(fault.answer(200, bomb), "GET")
    assert bench.run("list", "").must("ERR_CORRUPT").marks["s3_xml.doctype"] == 4
    bench.proxy.clear()
    bench.proxy.add(fault.answer(200, b"x" * (5 << 20)), "GET")
    bench.run("list", "").must("ERR_FULL")


def listing(*names, truncated=False, token=""):
    entries = "".join(f"<Contents><Key>PREFIX/{n}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
                      f"<Size>1</Size></Contents>" for n in names)
    return (f"<ListBucketResult><IsTruncated>{str(truncated).lower()}</IsTruncated>{entries}"
            f"<NextContinuationToken>{token}</NextContinuationToken></ListBucketResult>")


def test_listing_refuses_disorder_and_circles(bench):
    for body, text in ((listing("b", "a"), "not sorted"), (listing("a", "a"), "not sorted"),
                       (listing("a", truncated=True), "how to go on"),
                       (listing("a", truncated=True, token="t"), "circle")):
        bench.proxy.clear()
        bench.proxy.add(fault.answer(200, body.replace("PREFIX", bench.prefix).encode()), "GET")
        result = bench.run("list", "").must("ERR_CORRUPT")
        assert text in result.text, result.text


def test_delete_survives_lost_answers(bench):
    for name in ("a", "b", "c"):
        bench.run("put", name, bench.file(SMALL), url=bench.url()).must()
    bench.proxy.add(fault.lose_answer, "POST", "delete", 1)
    bench.proxy.add(fault.lose_answer, "DELETE", "", 1)
    bench.run("delete", "a", "b").must()
    bench.run("delete", "c").must()
    assert bench.run("list", "").must().out == ""


def test_delete_that_the_server_refuses_is_an_error(bench):
    body = b"<DeleteResult><Error><Key>x/b</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    bench.proxy.add(fault.answer(200, body), "POST", "delete")
    result = bench.run("delete", "a", "b").must("ERR_DENIED")
    assert "x/b stays" in result.text
