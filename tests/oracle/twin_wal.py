"""Where to compare: LSNs of all kinds in the WAL that a primary has left."""
import re
import subprocess

from twin_server import Failure, lsn_number, lsn_text

SEGMENT_SIZE = 16 << 20
LINE = re.compile(r"(\S+) (\S+) +\d+ xid \d+ prev \S+ ([^ ,]+)")
SPLIT = re.compile(r"Btree/SPLIT|Gin/.*SPLIT|Gist/.*SPLIT|Hash/SPLIT|SPGist/.*SPLIT", re.I)
REMOVAL = re.compile(r"Storage/TRUNCATE|Database/DROP|Heap/TRUNCATE|RelMap|Tablespace/DROP|CLOG/TRUNCATE", re.I)
KINDS = ("record end", "inside a record", "inside a split", "behind a removal", "one byte behind")


class Place:
    """An LSN to read at; the twin stops before stop_lsn, the first record that is not complete at lsn."""

    def __init__(self, lsn, stop_lsn, kind, aligned):
        self.lsn, self.stop_lsn, self.kind, self.aligned = lsn, stop_lsn, kind, aligned


class Wal:
    def __init__(self, build, folder, start_lsn):
        self.waldump = build / "tools/waldump/waldump"
        self.folder, self.start_lsn = folder, start_lsn
        self.segments = sorted(path for path in folder.iterdir() if re.fullmatch("[0-9A-F]{24}", path.name))
        if not self.segments:
            raise Failure("the primary left no WAL")

    def path(self, number):
        return self.folder / f"{1:08X}{number // 256:08X}{number % 256:08X}"

    def records(self, number):
        """[(begin, end, name)] of the records that begin in segment `number`; the next segment completes the last."""
        files = [path for path in (self.path(number), self.path(number + 1)) if path.exists()]
        first = number * SEGMENT_SIZE
        flags = ["--end", lsn_text(first + SEGMENT_SIZE)]
        if first < self.start_lsn:
            flags += ["--start", lsn_text(self.start_lsn)]
        done = subprocess.run([self.waldump, *flags, *files], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        rows = []
        for line in done.stdout.split("\n"):
            match = LINE.match(line)
            if match:
                rows.append((lsn_number(match[1]), lsn_number(match[2]), match[3]))
        return rows

    def last_number(self):
        return next(n for n in range(len(self.segments) + self.start_lsn // SEGMENT_SIZE, -1, -1)
                    if self.path(n).exists() and self.records(n))

    def bounds(self):
        """Behind the first checkpoint that was made at work, so that a twin has one; before the last record."""
        number = self.start_lsn // SEGMENT_SIZE
        begin = None
        while begin is None:
            rows = [row for row in self.records(number) if "CHECKPOINT_ONLINE" in row[2]]
            begin = rows[0][1] if rows else None
            number += 1
        return begin, self.records(self.last_number())[-1][0]

    def place(self, rows, index, kind, lsn=None):
        begin, end, name = rows[index]
        lsn = end if lsn is None else lsn
        stop = next(row[0] for row in rows[index:] if row[1] > lsn)
        return Place(lsn, stop, f"{kind} {name}", lsn == end)

    def at(self, lsn):
        rows = self.records(lsn // SEGMENT_SIZE) + self.records(lsn // SEGMENT_SIZE + 1)
        index = max(i for i, row in enumerate(rows) if row[0] < lsn)
        return self.place(rows, index, "given", lsn)

    def search(self, at, end, pattern):
        """Records from `at` on, and the index of the first that matches; None if none does nearby."""
        rows = []
        for number in range(at // SEGMENT_SIZE, at // SEGMENT_SIZE + 6):
            if not self.path(number).exists():
                break
            rows += [row for row in self.records(number) if row[0] >= at]
            found = [i for i, row in enumerate(rows[:-1]) if re.search(pattern, row[2]) and row[1] < end]
            if found:
                return rows, found[0]
        return rows, None

    def find(self, kind, at, bounds):
        """(rows, index, kind): a record of the kind behind `at`, or anywhere; else any record."""
        pattern = {"inside a split": SPLIT, "behind a removal": REMOVAL}.get(kind, "")
        for begin, end, wanted, name in ((at, bounds[1], pattern, kind), (bounds[0], at, pattern, kind),
                                         (at, bounds[1], "", "record end"), (bounds[0], at, "", "record end")):
            rows, index = self.search(begin, end, wanted)
            if index is not None:
                return rows, index, name
        raise Failure("there is no record between the first checkpoint and the end")

    def choose(self, random, count):
        """One LSN in each of `count` parts of the history, of each kind in turn, in order."""
        bounds = self.bounds()
        width = (bounds[1] - bounds[0]) // count
        places = []
        for i in range(count):
            at = bounds[0] + width * i + random.randrange(width)
            rows, index, kind = self.find(KINDS[i % len(KINDS)], at, bounds)
            lsn = rows[index][1]
            if kind == "inside a record":
                lsn = random.randrange(rows[index][0] + 1, rows[index][1])
            elif kind == "one byte behind":
                lsn += 1
            places.append(self.place(rows, index, kind, lsn))
        return sorted(places, key=lambda place: place.lsn)

    def figures(self):
        done = subprocess.run([self.waldump, "--stats", "--start", lsn_text(self.start_lsn), *self.segments],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        rows = [line.split() for line in done.stdout.strip().split("\n")]
        return {"records": sum(int(row[-4]) for row in rows), "wal_mb": sum(int(row[-2]) for row in rows) >> 20}
