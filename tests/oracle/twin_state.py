"""What is no relation: SLRUs, relation maps, database folders, prepared transactions, origins; base backup against twin."""
import io
import pathlib
import re
import struct
import subprocess
import tarfile

from twin_server import lsn_number, lsn_text

PAGE = 8192
SLRU_PAGES = 32  # of a segment file
SLRUS = {  # entries on a page
    "pg_xact": 32768, "pg_multixact/offsets": 2048, "pg_multixact/members": 1636, "pg_commit_ts": 819,
}
ZEROS = bytes(PAGE)
COUNTERS = ["NextXID", "NextOID", "NextMultiXactId", "NextMultiOffset", "oldestXID", "oldestXID's DB", "oldestMultiXid",
            "oldestMulti's DB", "oldestCommitTsXid", "newestCommitTsXid", "full_page_writes"]


class PreparedTransactions:
    """From the WAL itself, by pg_waldump: which transactions are prepared and not finished at an LSN."""

    LINE = re.compile(r"tx:\s+(\d+), lsn: (\S+), .*desc: (PREPARE|COMMIT_PREPARED|ABORT_PREPARED) (\d+)?")

    def __init__(self, prefix, wal, start_lsn, before=()):
        self.before = set(before)
        # By their names, or pg_waldump takes the segment size from any file of the folder: one of zeros, maybe, that waits.
        first = f"{1:08X}{start_lsn >> 32:08X}{(start_lsn & 0xFFFFFFFF) >> 24:08X}"
        last = max(path.name for path in pathlib.Path(wal.folder).iterdir() if re.fullmatch("[0-9A-F]{24}", path.name))
        done = subprocess.run(
            [prefix / "bin/pg_waldump", "-p", wal.folder, "-s", lsn_text(start_lsn), "-r", "Transaction", first, last],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if "invalid WAL segment size" in done.stderr or "could not" in done.stderr:
            raise RuntimeError(f"pg_waldump: {done.stderr}")
        self.events = []
        for match in map(self.LINE.search, done.stdout.split("\n")):
            if match:
                began = match[3] == "PREPARE"
                self.events.append((lsn_number(match[2].rstrip(",")), began, int(match[1] if began else match[4])))

    def at(self, stop_lsn):
        there = set(self.before)
        for lsn, began, xid in self.events:
            if lsn < stop_lsn:
                (there.add if began else there.discard)(xid)
        return there


def control_data(prefix, content, folder):
    """pg_controldata of a pg_control file, as a dict."""
    (folder / "control/global").mkdir(parents=True, exist_ok=True)
    (folder / "control/global/pg_control").write_bytes(content)
    printed = subprocess.check_output([prefix / "bin/pg_controldata", folder / "control"], text=True)
    return dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", printed, re.M))


def slru_pages(files):
    """{page number: bytes} of segment files {name: content}."""
    pages = {}
    for name, content in files.items():
        for at in range(0, len(content), PAGE):
            pages[int(name, 16) * SLRU_PAGES + at // PAGE] = content[at:at + PAGE].ljust(PAGE, b"\0")
    return pages


def slru_ranges(control, offsets):
    """(first, last) page that must be there, by folder."""
    last = "Latest checkpoint's "
    number = {key[len(last):]: value for key, value in control.items() if key.startswith(last)}
    oldest_multi, next_multi = int(number["oldestMultiXid"]), int(number["NextMultiXactId"])
    next_member = int(number["NextMultiOffset"])
    oldest_member = next_member
    if oldest_multi != next_multi:
        page = offsets.get(oldest_multi // 2048, ZEROS)
        oldest_member = struct.unpack_from("<I", page, oldest_multi % 2048 * 4)[0]
    ranges = {
        "pg_xact": (int(number["oldestXID"]), int(number["NextXID"].split(":")[1])),
        "pg_multixact/offsets": (oldest_multi, next_multi),
        "pg_multixact/members": (oldest_member, next_member),
    }
    if int(number["oldestCommitTsXid"]):
        ranges["pg_commit_ts"] = (int(number["oldestCommitTsXid"]), int(number["newestCommitTsXid"]))
    return {folder: (first // SLRUS[folder], end // SLRUS[folder]) for folder, (first, end) in ranges.items()}


def compare_slrus(files, twin, control):
    ours = {folder: slru_pages({path.rsplit("/", 1)[1]: content for path, content in files.items()
                                if path.rsplit("/", 1)[0] == folder}) for folder in SLRUS}
    theirs = {folder: slru_pages({path.name: path.read_bytes() for path in (twin / folder).iterdir() if path.is_file()})
              for folder in SLRUS}
    problems, count = [], 0
    for folder, (first, last) in slru_ranges(control, theirs["pg_multixact/offsets"]).items():
        for number in range(first, last + 1):
            count += 1
            mine, other = ours[folder].get(number, ZEROS), theirs[folder].get(number, ZEROS)
            if mine != other:
                at = next(i for i in range(PAGE) if mine[i] != other[i])
                problems.append(f"{folder} page {number}: byte {at}: {mine[at:at + 8].hex()} twin {other[at:at + 8].hex()}")
        if last not in ours[folder]:
            problems.append(f"{folder} page {last}: missing, the next entry goes there")
        stray = [number for number, page in ours[folder].items() if not first <= number <= last and page != ZEROS]
        if stray:
            problems.append(f"{folder}: pages {stray[:5]} outside of {first}..{last}")
    return problems, count


def twin_files(twin, pattern):
    return {str(path.relative_to(twin)): path.read_bytes() for path in twin.glob(pattern) if path.is_file()}


def compare_files(files, twin):
    """Relation maps and PG_VERSION: they say which databases there are, in which tablespaces."""
    problems = []
    theirs = {}
    for pattern in ("PG_VERSION", "global/pg_filenode.map", "base/*/PG_VERSION", "base/*/pg_filenode.map",
                    "pg_tblspc/*/*/*/PG_VERSION", "pg_tblspc/*/*/*/pg_filenode.map"):
        theirs |= twin_files(twin, pattern)
    ours = {path: content for path, content in files.items() if path.endswith(("PG_VERSION", "pg_filenode.map"))}
    for path in sorted(ours.keys() | theirs.keys()):
        if path not in ours or path not in theirs:
            problems.append(f"{path}: only in the {'twin' if path in theirs else 'base backup'}")
        elif ours[path] != theirs[path]:
            problems.append(f"{path}: other content")
    return problems, len(theirs)


def compare_prepared(files, twin, expected):
    """The twin has files of what was prepared before its last checkpoint; the WAL knows them all."""
    theirs = {path.rsplit("/", 1)[1]: content for path, content in twin_files(twin, "pg_twophase/*").items()}
    ours = {path.rsplit("/", 1)[1]: content for path, content in files.items() if path.startswith("pg_twophase/")}
    problems = [f"pg_twophase/{name}: other content" for name in sorted(theirs) if name in ours and ours[name] != theirs[name]]
    problems += [f"pg_twophase/{name}: missing" for name in sorted(theirs) if name not in ours]
    if {int(name, 16) for name in ours} != expected:
        problems.append(f"pg_twophase: {sorted(int(name, 16) for name in ours)}, by the WAL {sorted(expected)}")
    return problems, len(theirs)


def origins(content):
    """{origin: remote LSN}: u32 magic, then u16 id, 6 bytes of padding, u64 LSN each, then u32 CRC."""
    if content is None:
        return {}
    rows = [struct.unpack_from("<H6xQ", content, at) for at in range(4, len(content) - 4, 16)]
    return {number: lsn_text(lsn) for number, lsn in rows}


def compare_origins(files, twin):
    path = "pg_logical/replorigin_checkpoint"
    mine = origins(files.get(path))
    theirs = origins((twin / path).read_bytes() if (twin / path).exists() else None)
    return [] if mine == theirs else [f"{path}: {mine} twin {theirs}"]


def compare_counters(control, promoted):
    """What comes next, and what is the oldest: where a compute would go on against where the promoted twin goes on."""
    names = [f"Latest checkpoint's {name}" for name in COUNTERS]
    return [f"{name}: {control[name]} twin {promoted[name]}" for name in names if control[name] != promoted[name]]


def compare_state(backup, twin, promoted, prefix, expected_prepared):
    """(problems, counts) of a base backup against the twin's folder, and the pg_control of the promoted twin."""
    with tarfile.open(fileobj=io.BytesIO(backup)) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
    if "anabranch.json" not in files:
        return ["the base backup was cut short"], {"slru_pages": 0, "state_files": 0}
    control = control_data(prefix, files["global/pg_control"], twin.parent)
    problems, pages = compare_slrus(files, twin, control)
    more, count = compare_files(files, twin)
    prepared, prepared_count = compare_prepared(files, twin, expected_prepared)
    counters = compare_counters(control, control_data(prefix, promoted, twin.parent))
    return (problems + more + prepared + compare_origins(files, twin) + counters,
            {"slru_pages": pages, "state_files": count + prepared_count})
