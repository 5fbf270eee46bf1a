"""A root that has been in use for long, without the years: the empty cluster that roots begin from, rewritten.

Its pg_control says that so many transactions and multixacts have been, its SLRUs that all of them committed, and nothing
was frozen since. Projects that are created afterwards begin there.
"""
import array
import io
import struct
import subprocess
import tarfile
import tempfile

IMAGE_BYTES_MAX = 512 << 20 # BOOTSTRAP_BYTES_MAX of pageserver/remote/bootstrap.h
PAGE = 8192
SEGMENT = 32 * PAGE
XIDS_PER_SEGMENT = SEGMENT * 4
MULTIS_PER_SEGMENT = SEGMENT // 4
MEMBERS_PER_SEGMENT = 32 * 1636
GROUP = struct.pack("<I4I", 0, 3, 3, 3, 3) # of members: key share lockers, all of one transaction
MEMBERS_PAGE = (GROUP * 409).ljust(PAGE, b"\0")
# In pg_control: common/pg/pg_control.h
NEXT_XID_AT, NEXT_MULTI_AT, NEXT_MEMBER_AT, CRC_AT = 64, 76, 80, 288


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _control(data, xids, multis, members):
    head = bytearray(data[:CRC_AT])
    struct.pack_into("<Q", head, NEXT_XID_AT, xids)
    if multis:
        struct.pack_into("<II", head, NEXT_MULTI_AT, multis, members)
    return bytes(head) + struct.pack("<I", crc32c(head)) + data[CRC_AT + 4:]


def _xact_segments(xids):
    for segment in range(xids // XIDS_PER_SEGMENT + 1):
        left = min(xids - segment * XIDS_PER_SEGMENT, XIDS_PER_SEGMENT)
        yield f"pg_xact/{segment:04X}", (b"\x55" * (left // 4)).ljust(SEGMENT, b"\0")


def _multixact_segments(multis, members):
    """Each multixact has as many members as there are for each, the last one also the rest."""
    each = members // multis
    for segment in range(multis // MULTIS_PER_SEGMENT + 1):
        begin = segment * MULTIS_PER_SEGMENT
        end = min(begin + MULTIS_PER_SEGMENT, multis)
        offsets = array.array("I", (1 + (i - 1) * each if i else 0 for i in range(begin, end)))
        if end == multis:
            offsets.append(members) # where the next one begins
        yield f"pg_multixact/offsets/{segment:04X}", offsets.tobytes()[:SEGMENT].ljust(SEGMENT, b"\0")
    for segment in range(members // MEMBERS_PER_SEGMENT + 1):
        pages = min((members - segment * MEMBERS_PER_SEGMENT) // 1636 + 1, 32)
        yield f"pg_multixact/members/{segment:04X}", MEMBERS_PAGE * pages


def aged(image, xids, multis=0, members=0):
    """The tar `image` with so many transactions; with multixacts if `multis` is not 0."""
    old, out = tarfile.open(fileobj=io.BytesIO(image)), io.BytesIO()
    new = tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT)
    made = ["pg_xact/"] + ["pg_multixact/"] * bool(multis)

    def add(name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        new.addfile(info, io.BytesIO(data))
    for member in old:
        data = old.extractfile(member).read() if member.isfile() else b""
        if member.name.endswith("pg_control"):
            data = _control(data, xids, multis, members)
        if member.isfile() and not any(folder in member.name for folder in made):
            add(member.name, data)
        elif member.isdir():
            new.addfile(member)
    prefix = next(m.name for m in old.getmembers() if "pg_xact" in m.name).split("pg_xact")[0]
    for name, data in _xact_segments(xids):
        add(prefix + name, data)
    for name, data in _multixact_segments(multis, members) if multis else ():
        add(prefix + name, data)
    new.close()
    return out.getvalue()


class OldCluster:
    """The bootstrap image of `cluster`, which some project has made, to be put back in other ages."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.path = next(p for p in cluster.data.rglob("*.tar") if "bootstrap" in str(p.parent))
        self.image = self.path.read_bytes() # and a trailer, which ends no tar

    def put(self, xids, multis=0, members=0):
        """In place of the object that is there."""
        image = aged(self.image, xids, multis, members)
        assert len(image) < IMAGE_BYTES_MAX, f"the pageserver takes no image of {len(image)} bytes"
        self.put_object(image)

    def put_object(self, data):
        self.path.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            store = self.cluster.data / "objects"
            subprocess.run([f"{self.cluster.build}/tests/objstore/objtool", str(store), "put",
                            str(self.path.relative_to(store)), file.name], check=True, stdout=subprocess.DEVNULL)
