#!/usr/bin/env python3
"""Seeds for the fuzz targets that real WAL rarely has: `seeds.py TARGET TO_DIR`.

TARGET is redo, wal_decode, wal_reader, disk, exchange, gateway or objects. What a mutator would need many lucky steps for is laid out by hand here:
pages of posting trees, commits with every part, prepared transactions, databases that come and go. The corpus in
tests/data/fuzz was grown from these, from tests/data/wal_records, and from pairs of `walreplay --pairs`.
"""
import pathlib
import re
import struct
import sys

RMGRS = ("XLOG XACT SMGR CLOG DBASE TBLSPC MULTIXACT RELMAP STANDBY HEAP2 HEAP BTREE HASH GIN GIST SEQ SPGIST BRIN "
         "COMMIT_TS REPLORIGIN GENERIC LOGICALMSG").split()
REL = (1663, 5, 16384)
BEGIN, END = 0x2000100, 0x2000180
PAGE = 8192
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

u8, u16, u32, u64 = (struct.Struct(f"<{code}").pack for code in "BHIQ")


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def record(rmgr, info, main=b"", blocks=(), xid=1000, origin=None):
    """A WAL record; a block is (block number, fork, flags, data, image)."""
    headers, payload = b"", b""
    for index, block in enumerate(blocks):
        if block is None:
            continue
        number, fork, flags, data, image = (*block, *(0, 0, b"", b"")[len(block) - 1:])
        flags |= fork | (0x20 if data else 0) | (0x10 if image else 0)
        headers += u8(index) + u8(flags) + u16(len(data))
        if image:
            headers += u16(len(image)) + u16(0) + u8(2)
        headers += b"".join(map(u32, REL)) + u32(number)
        payload += image + data
    if origin is not None:
        headers += u8(253) + u16(origin)
    if main:
        headers += u8(255) + u8(len(main)) if len(main) < 256 else u8(254) + u32(len(main))
    size = 24 + len(headers) + len(payload) + len(main)
    body = headers + payload + main
    head = u32(size) + u32(xid) + u64(0) + u8(info) + u8(RMGRS.index(rmgr)) + u16(0)
    return head + u32(crc32c(body + head)) + body


def page(special=b"", items=(), lower=None, content=b"", flags=0):
    """A page with these items (index tuples know their size, 13 bits at byte 6)."""
    to = bytearray(PAGE)
    upper = PAGE - len(special)
    to[upper:] = special
    end = upper
    for number, item in enumerate(items):
        end -= (len(item) + 7) // 8 * 8
        to[end:end + len(item)] = item
        to[24 + 4 * number:28 + 4 * number] = u32(end | 1 << 15 | len(item) << 17)
    to[24 + 4 * len(items):24 + 4 * len(items) + len(content)] = content
    lower = 24 + 4 * len(items) if lower is None else lower
    to[0:8] = u32(0) + u32(0x1000000)
    to[10:20] = u16(flags) + u16(lower) + u16(end) + u16(upper) + u16(PAGE | 4)
    return bytes(to)


def tuple_of(size, number=1, block=0):
    return (u16(block >> 16) + u16(block & 0xFFFF) + u16(number) + u16(size)).ljust(size, b"\x07")


def heap_tuple(size=40):
    return (u32(700) + u32(0) + u32(0) + u16(0) + u16(0) + u16(1) + u16(2) + u16(0x800) + u8(24)).ljust(size, b"\x05")


def runs(content):
    out, at = b"", 0
    while at < PAGE:
        begin = at
        while begin < PAGE and content[begin] == 0:
            begin += 1
        end = content.find(bytes(8), begin)
        end = PAGE if end < 0 else end
        out += u16(begin - at) + u16(end - begin) + content[begin:end]
        at = end
    return out


def pair(content, rec, index=0, number=7, fork=0, state=None):
    """What fuzz_redo reads (tests/fuzz/redo_pair.h); `state` is the kind of a page that is no relation's."""
    key = u32(0) + u32(state) + u32(0) if state else b"".join(map(u32, REL))
    return b"Q" + u8(index) + u8(fork) + u8(0) + key + u32(number) + u64(BEGIN) + u64(END) + runs(content) + rec


EMPTY = bytes(PAGE)


def gin_seeds():
    def special(flags, count=0):
        return u32(0xFFFFFFFF) + u16(count) + u16(flags)

    def child(block, number):
        return u16(0) + u16(block) + u16(0) + u16(block) + u16(number)
    leaf = b"".join(bytes((0, 0, 0, i, 1, 0)) + u16(4) + bytes((2, 0x83, 1, 4)) for i in range(3))
    leaf_page = page(special(1 | 2 | 128), content=bytes(8) + leaf, lower=32 + len(leaf))
    inner = page(special(1, 3), content=bytes(8) + child(9, 3) + child(10, 5) + child(11, 7), lower=32 + 30)
    entry = page(special(0), items=[tuple_of(24, 1, 9), tuple_of(24, 2, 10)])
    add = u16(2) + u8(0) + u8(4) + u16(2) + bytes((0, 0, 0, 0, 7, 0)) + bytes((0, 0, 0, 0, 9, 0))
    add += u8(1) + u8(3) + leaf[:12]
    yield "gin-add-items", pair(leaf_page, record("GIN", 0x90, blocks=[(7, 0, 0, add)]))
    put = u16(3) + u8(0) + u8(2) + leaf[:12] + u8(1) + u8(1) + u8(2) + u8(4) + u16(1) + bytes((0, 0, 0, 9, 1, 0))
    yield "gin-segments", pair(leaf_page, record("GIN", 0x20, u16(1 | 2), [(7, 0, 0, put)]))
    main = u16(1) + u16(0) + u16(9) + u16(0) + u16(12)
    yield "gin-child", pair(inner, record("GIN", 0x20, main, [(7, 0, 0, u16(2) + child(12, 4)), (9,)]))
    main = u16(0) + u16(0) + u16(9) + u16(0) + u16(12)
    data = u16(2) + u16(0) + tuple_of(24, 3)
    yield "gin-downlink", pair(entry, record("GIN", 0x20, main, [(7, 0, 0, data), (9,)]))
    yield "gin-replace", pair(entry, record("GIN", 0x20, main, [(7, 0, 0, u16(1) + u16(1) + tuple_of(16, 3)), (9,)]))
    main = u16(2) + u16(0) + u32(12) + u32(800)
    for index in range(3):
        content = (leaf_page, inner, leaf_page)[index]
        yield f"gin-delete-{index}", pair(content, record("GIN", 0x50, main, [(7,), (8,), (9,)]), index, 7 + index)
    many = page(special(1, 816), content=bytes(8) + child(9, 3) * 816, lower=32 + 8160)
    main = u16(1) + u16(0) + u16(9) + u16(0) + u16(12)
    yield "gin-full", pair(many, record("GIN", 0x20, main, [(7, 0, 0, u16(2) + child(12, 4)), (9,)]))


def gist_seeds():
    special = u64(0) + u32(0xFFFFFFFF) + u16(1) + u16(0xFF81)
    leaf = page(special, items=[tuple_of(24, i) for i in range(1, 5)])
    data = u16(2) + tuple_of(32, 9)
    yield "gist-overwrite", pair(leaf, record("GIST", 0x00, u16(1) + u16(1), [(7, 0, 0, data)]))
    data = u16(1) + u16(2) + u16(4) + tuple_of(24, 9)
    yield "gist-replace", pair(leaf, record("GIST", 0x00, u16(3) + u16(1), [(7, 0, 0, data)]))
    image = page(special, items=[tuple_of(24)])
    yield "gist-image", pair(leaf, record("GIST", 0x00, u16(0) + u16(0), [(7,), (8, 0, 0, b"", image)]), 1, 8)


def hash_seeds():
    special = u32(5) + u32(9) + u32(3) + u16(2) + u16(0xFF80)
    bucket = page(special, items=[tuple_of(16, i) for i in range(1, 4)])
    meta = page(u32(0xFFFFFFFF) * 3 + u16(8) + u16(0xFF80), lower=4568)
    for name, tuples in (("some", 75e4), ("more", 1e7), ("most", 1e300)):
        yield f"hash-meta-{name}", pair(EMPTY, record("HASH", 0x00, struct.pack("<d", tuples) + u32(1) + u16(75),
                                                      [(0, 0, 0x40)]), 0, 0)
    blocks = [(6, 0, 0x40, u32(3)), (7,), (8, 0, 0, u32(77)), (9, 0, 0x40, u32(9)), (0, 0, 0, u32(78))]
    main = u16(4096) + u8(0)
    for index, content in enumerate((EMPTY, bucket, bucket, EMPTY, meta)):
        yield f"hash-overflow-{index}", pair(content, record("HASH", 0x30, main, blocks), index, blocks[index][0])
    moved = u16(2) + u16(4) + tuple_of(16, 8) + tuple_of(16, 9)
    blocks = [(3,), (4, 0, 0, moved), (5,), (6,), (7,), (8, 0, 0, u32(5)), (0, 0, 0, u32(5))]
    main = u32(4) + u32(9) + u16(2) + u8(0) + u8(1)
    for index in range(7):
        yield f"hash-squeeze-{index}", pair(meta if index == 6 else bucket, record("HASH", 0x80, main, blocks), index,
                                            blocks[index][0])
    main = u32(9) + u16(66) + u16(2) + u8(3)
    data = u32(7) + u32(15) + u32(4) + u32(8)
    blocks = [(3, 0, 0, b"", bucket), (4, 0, 0x40), (0, 0, 0, data)]
    for index, content in enumerate((bucket, EMPTY, meta)):
        yield f"hash-split-{index}", pair(content, record("HASH", 0x40, main, blocks), index, blocks[index][0])


def spgist_seeds():
    def dead(state):
        return u32(state | 16 << 2) + u16(0) + bytes(6) + u32(700)
    special = u16(0) + u16(2) + u16(1) + u16(0xFF82)
    node = tuple_of(8)
    inner = u32(2 << 3) + u16(24) + u16(0) + node + node
    leaf = page(special, items=[dead(1), dead(1), dead(3), dead(3)])
    inner_page = page(special, items=[inner, inner])
    main = u16(2) + u16(3) + u32(700) + u16(0) + u16(1) + u16(2)
    yield "spgist-redirects", pair(leaf, record("SPGIST", 0x80, main, [(7,)]))
    add = u16(1) + u16(3) + u8(0) + u8(1) + u16(2) + u16(1) + u16(0) + u32(700) + u8(0) + bytes(3) + inner
    for index in range(3):
        yield f"spgist-move-{index}", pair(inner_page, record("SPGIST", 0x30, add, [(7,), (8,), (9,)]), index, 7 + index)
    add = add[:5] + u8(2) + add[6:]
    yield "spgist-parent", pair(inner_page, record("SPGIST", 0x30, add, [(7,), (8,), (9,)]), 2, 9)


def other_seeds():
    special = u32(0) + u32(9) + u32(1) + u16(0) + u16(0)
    inner = page(special, items=[tuple_of(16, i, i) for i in range(1, 4)])
    main = u32(1) + u16(2) + u16(2) + u16(0)
    blocks = [(7, 0, 0, tuple_of(16, 5)), (8, 0, 0x40, tuple_of(16) * 2), (9,), (10,)]
    for index, content in enumerate((inner, EMPTY, inner, inner)):
        yield f"btree-split-{index}", pair(content, record("BTREE", 0x40, main, blocks), index, 7 + index)
    lists = []
    for i in range(2):
        tids = b"".join(u16(0) + u16(i) + u16(j) for j in range(1, 449))
        lists.append(u16(0) + u16(16) + u16(0x2000 | 448) + u16(2704 | 0x2000) + bytes(8) + tids)
    leaf = page(u32(0) * 3 + u16(1) + u16(0), items=lists)
    yield "btree-lists", pair(leaf, record("BTREE", 0x60, u16(1), [(7, 0, 0, u16(1) + u16(2))]))
    map_page = page(content=b"\xFF" * 200)
    main = u32(900) + u16(1) + u8(0) + u8(1)
    yield "heap2-lock-map", pair(map_page, record("HEAP2", 0x60, main, [(7,), (0, 2)]), 1, 0, 2)
    yield "heap-lock-implied", pair(map_page, record("HEAP", 0x60, main, [(7,)]), 255, 0, 2)
    heap = page(items=[heap_tuple()] * 3)
    yield "heap2-lock", pair(heap, record("HEAP2", 0x60, main, [(7,)]))
    yield "multixact-truncate", pair(EMPTY, record("MULTIXACT", 0x30, bytes(20)), 255, 0, 0, 17)
    main = u32(5) + u32(1635) + u32(3) + b"".join(u32(800 + i) + u32(i) for i in range(3))
    for kind, number in ((17, 0), (18, 0), (18, 1)):
        yield f"multixact-{kind}-{number}", pair(EMPTY, record("MULTIXACT", 0x20, main), 255, number, 0, kind)
    main = u64(1) + u32(2 | 16 | 0x80 | 32) + u32(2) + u32(701) + u32(40000) + u32(900) + b"gid\0" + u64(7) + u64(8)
    for kind, number in ((16, 0), (16, 1), (19, 1)):
        yield f"commit-{kind}-{number}", pair(EMPTY, record("XACT", 0xB0, main, origin=3), 255, number, 0, kind)
    yield "fpi-none", pair(heap, record("XLOG", 0xB0, blocks=[(7,)]))
    main = u32(6) + b"".join(map(u32, REL)) + u32(7)
    yield "smgr-truncate", pair(map_page, record("SMGR", 0x20, main), 255, 0, 2)


def redo_seeds():
    for family in (gin_seeds, gist_seeds, hash_seeds, spgist_seeds, other_seeds):
        yield from family()


def decode_seeds():
    rels = u32(2) + b"".join(map(u32, REL)) + u32(1663) + u32(5) + u32(16385)
    subxids = u32(3) + u32(999) + u32(40000) + u32(140000)
    parts = (u32(5) + u32(1663) + subxids + rels + u32(1) + bytes(12) + u32(1) + bytes(16))
    commit = u64(77 << 40) + u32(0x1 | 0x2 | 0x4 | 0x100 | 0x8 | 0x20) + parts + u64(0x5000) + u64(1)
    yield "commit", record("XACT", 0x80, commit, origin=3)
    prepared = u64(77 << 40) + u32(0x2 | 0x4 | 0x10 | 0x80) + subxids + rels + u32(900) + b"gid\0"
    yield "commit-prepared", record("XACT", 0xB0, prepared)
    yield "abort-prepared", record("XACT", 0xC0, prepared)
    yield "abort", record("XACT", 0xA0, u64(1) + u32(2 | 4) + subxids + rels)
    body = b"the gid\0" + u32(999) + u32(998)
    head = u32(0x57F94534) + u32(72 + len(body) + 4) + u32(1000) + u32(5) + u64(1) + u32(10) + u32(2)
    head = head.ljust(54, b"\0") + u16(8) + u64(0x7000) + u64(0)
    yield "prepare", record("XACT", 0x10, head.ljust(72, b"\0") + body, origin=2)
    yield "assignment", record("XACT", 0x50, u32(1000) + u32(2) + u32(1001) + u32(1002))
    yield "drop-database", record("DBASE", 0x20, u32(5) + u32(2) + u32(1663) + u32(1700))
    yield "copy-database", record("DBASE", 0x00, u32(6) + u32(1663) + u32(5) + u32(1663))
    yield "create-database", record("DBASE", 0x10, u32(6) + u32(1663))
    yield "relmap", record("RELMAP", 0x00, u32(5) + u32(1663) + u32(524) + bytes(524))
    yield "truncate", record("SMGR", 0x20, u32(40000) + b"".join(map(u32, REL)) + u32(7))
    multi = u32(2047) + u32(1635) + u32(3) + b"".join(u32(800 + i) + u32(1) for i in range(3))
    zero_page = record("MULTIXACT", 0x00, u64(1))
    yield "multixact", record("MULTIXACT", 0x20, multi) + zero_page + record("MULTIXACT", 0x20, multi)
    yield "multixact-page", zero_page + record("MULTIXACT", 0x20, multi)
    yield "multixact-truncate", record("MULTIXACT", 0x30, u32(5) + u32(1) + u32(9) + u32(1) + u32(90))
    for rmgr in ("CLOG", "COMMIT_TS"):
        yield f"{rmgr}-zero".lower(), record(rmgr, 0x00, u64(2))
        yield f"{rmgr}-truncate".lower(), record(rmgr, 0x10, u64(2) + u32(950) + u32(5))
    parameters = b"".join(map(u32, (100, 8, 10, 0, 64, 1)))
    on, off = (record("XLOG", 0x60, parameters + u8(1) + u8(track)) for track in (1, 0))
    yield "track-commit-ts", off + on + record("COMMIT_TS", 0x10, u64(2) + u32(1200)) + record("XACT", 0x80, commit)
    yield "origin", record("REPLORIGIN", 0x00, u64(0x9000) + u16(3) + u8(0)) + record("REPLORIGIN", 0x10, u16(3))
    special = u64(0) + u32(0xFFFFFFFF) + u16(1) + u16(0xFF81)
    image = page(special, items=[tuple_of(24)])
    yield "gist-image", record("GIST", 0x00, u16(0) + u16(0), [(7,), (8, 0, 0, b"", image)])
    yield "hash-image", record("HASH", 0x60, u16(0) + u16(0), [(7, 0, 0, b"", image), (8, 0, 0, b"", image)])


def reader_seeds():
    """A real record in each, between others; every fourth is followed by one that a crash cut."""
    folder = ROOT / "tests/data/wal_records"
    for number, path in enumerate(sorted(folder.iterdir())):
        body = path.read_bytes()
        if len(body) > 2000:
            continue
        script = u32(number * 7919 + 1) + u16(number * 131 % 4096) + u8(0)
        script += bytes((0, 20)) + u8(4) + u16(len(body)) + body + bytes((0, 90))
        script += u8(2) + u16(500 + number * 100) + bytes((0, 3)) if number % 4 == 0 else b""
        script += u8(3) if number % 5 == 0 else b""
        yield path.stem, script + u8(1) + u16(9000)


def disk_seeds():
    """A slot of the control file of three members; sidecars with a truncation, a certificate, a hole."""
    members = b"".join(u64(n) + u32(4) + b"host" + u16(6000) + u32(4) + b"http" + u16(80) for n in (1, 2, 3))
    fields = u64(9) + bytes(range(32)) + u64(7) + u32(170011) + u32(1 << 24) + u64(5) + u32(2) + u64(4) + u64(4096)
    fields += u64(8192) + u32(1) + u64(4) + u64(4096) + u32(2) + u32(3) + u32(len(members)) + members
    for version, more in ((1, b""), (2, u64(9000) + u64(3)), (3, u64(0) + u64(0) + u32(3) + u32(6)),
                          (4, u64(0) + u64(0) + u32(0) + u32(0) + u64(4096) + u8(0))):
        yield f"control-{version}", b"\0" + u32(0x43424E41) + u32(version) + u32(0) + u32(0) + fields + more

    def slot(kind, begin, size, step=0):
        return bytes((1, kind, 0, step, begin, size, 0, 0, 7))

    groups = bytes((0,)) + slot(1, 0, 2) + slot(1, 2, 3) + slot(1, 5, 1)
    yield "sidecar-cut", b"\1" + groups + slot(2, 2, 1) + slot(1, 3, 9) + slot(3, 12, 0)
    yield "sidecar-cut-to-nothing", b"\1" + groups + slot(2, 0, 0) + slot(1, 0, 9)
    yield "sidecar-gap", b"\1" + groups + slot(1, 9, 1)
    yield "sidecar-hole", b"\1" + groups + bytes((7,)) + slot(1, 6, 1)
    yield "sidecar-torn", b"\1" + groups + bytes((5, 1, 0, 0, 6, 1, 0, 0, 7))


def gateway_seeds():
    def packet(body):
        return (len(body) + 4).to_bytes(4, "big") + body

    def script(*texts):
        return b"".join(bytes((len(text),)) + text for text in texts)

    yield "startup", b"\0" + packet(b"\0\3\0\0user\0ada\0database\0app\0options\0-c work_mem=1\0\0")
    yield "startup-3.2", b"\0" + packet(b"\0\3\0\2user\0ada\0_pq_.hello\0yes\0\0")
    for name, code in (("tls", 80877103), ("gss", 80877104)):
        yield name, b"\0" + packet(code.to_bytes(4, "big"))
    yield "cancel", b"\0" + packet((80877102).to_bytes(4, "big") + bytes(8))
    yield "cancel-cut", b"\0" + (16).to_bytes(4, "big") + (80877102).to_bytes(4, "big")
    yield "error", b"\1E" + packet(b"SFATAL\0C28P01\0Mwrong password\0\0")
    yield "error-cut", b"\1E" + packet(b"SFATAL\0C28P01\0Mwrong password\0\0")[:-1]
    first = b"n=,r=rOprNGfwEbeRWgbNEkqO"
    nonce = b"r=rOprNGfwEbeRWgbNEkqO" + b"A" * 24
    yield "server", b"\2" + script(b"n,," + first, b"c=biws," + nonce + b",p=" + b"A" * 43 + b"=")
    yield "server-plus", b"\3" + script(b"p=tls-server-end-point,," + first, b"c=cD10bHM=," + nonce + b",p=AAAA")
    yield "client", b"\4" + script(b"r=" + b"A" * 24 + b"server,s=c2FsdA==,i=4096", b"v=" + b"A" * 43 + b"=")
    keys = b"$" + b"A" * 43 + b"=:" + b"B" * 43 + b"="
    yield "verifier", b"\5SCRAM-SHA-256$4096:c2FsdHNhbHQ=" + keys
    yield "host", b"\5ep-calm-sea-1a2b3c4d-pooler.db.example -c work_mem=1 endpoint=ep-x-y-1"
    yield "token", b"\5eyJhbGciOiJIUzI1NiJ9.eyJzY29wZSI6InBhZ2VzIn0." + b"A" * 43


def exchange_seeds():
    """Steps of fuzz_exchange.c: prepare, bind and run, close, describe, query, sync; of the first client."""
    def script(*steps, who=0):
        kinds = "PBCDQS"
        return b"".join(bytes((who + 2 * kinds.index(step[0]), int(step[1:2] or 0) + 4 * int(step[2:] or 0))) for step in steps)

    yield "prepared", script("P10", "S", "B1", "S", "D1", "S", "C1", "S", "B1", "S")
    yield "closed-in-a-batch-that-failed", script("P20", "S", "B0", "C2", "S", "B2", "S")
    yield "made-and-closed-in-a-batch-that-failed", script("B0", "P10", "C1", "S", "B1", "S", "P10", "B1", "S")
    yield "asked-after-a-batch-that-failed", script("P10", "S", "P34", "B3", "P00", "S", "P01", "B0", "B1", "S", "B0", "S")
    evicting = ("P00", "P11", "P22", "S", "P33", "S", "B0", "B1", "S")
    yield "evicted", script(*evicting)
    yield "evicted-and-back-in-a-batch-that-failed", script("P00", "S", "P11", "S", "P22", "S", "P34", "B3", "S", "B3", "B0", "S",
                                                            "C3", "P33", "B7", "B0", "S", "B0", "B1", "S")
    yield "two-clients", script(*evicting) + script(*evicting, who=1) + script("Q02", "B0", "S", "Q03") + script("B1", "S", who=1)


def objects_seeds():
    """What a store and a user may hand in; two files of the index in the wrong order."""
    index = (ROOT / "tests/data/remote_index_2.bin").read_bytes()[:-4]
    yield "index", b"\0" + index
    names = sorted(set(re.findall(rb"\d+\.sst", index)))
    yield "index-order", b"\0" + index.replace(names[0], b"x" * len(names[0])).replace(names[1], names[0]).replace(
        b"x" * len(names[0]), names[1])
    control = bytearray(296)
    for at, value in ((8, 1700), (12, 202406281), (200, 8), (216, PAGE), (224, PAGE), (228, 1 << 24)):
        control[at:at + 4] = u32(value)
    control[208:216], control[248] = struct.pack("<d", 1234567.0), 1
    yield "control", b"\2" + bytes(control) + bytes(9)
    member = bytearray(512)
    member[:8] = b"./global"
    member[100:108], member[124:136], member[156] = b"0000600\0", b"00000000003\0", ord("0")
    member[257:263] = b"ustar\0"
    member[148:156] = b" " * 8
    member[148:156] = f"{sum(member):06o}\0 ".encode()
    yield "archive", b"\1" + bytes(member) + b"abc".ljust(512, b"\0") + bytes(1024)
    yield "settings", b"\3# where\nlisten = 0.0.0.0\ncount=7\nquick = true\nroom = 64MB\ndelay = 10s\n"


def main():
    seeds = {"disk": disk_seeds, "exchange": exchange_seeds, "gateway": gateway_seeds, "objects": objects_seeds, "redo": redo_seeds, "wal_decode": decode_seeds, "wal_record": decode_seeds, "wal_reader": reader_seeds}
    if len(sys.argv) != 3 or sys.argv[1] not in seeds:
        sys.exit(__doc__)
    to = pathlib.Path(sys.argv[2])
    to.mkdir(parents=True, exist_ok=True)
    for name, content in seeds[sys.argv[1]]():
        (to / f"seed-{name}").write_bytes(content)


if __name__ == "__main__":
    main()
