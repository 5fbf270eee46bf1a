"""Which kinds of WAL records Postgres 17 has, and how often the oracles met each.

The list follows src/backend/access/rmgrdesc of 17: every operation that a resource manager's _identify() names. A kind
has to come up LEAST times over all slices; once is enough where it takes a crash, a promotion or a wraparound; kinds that
nothing can produce are listed with the reason.
"""
import dataclasses

LEAST = 10
INIT = 0x80


@dataclasses.dataclass
class Count:
    records: int = 0
    pages: int = 0
    images: int = 0
    different: int = 0
    refused: int = 0

    def add(self, values):
        for field, value in zip(dataclasses.fields(self), values, strict=True):
            setattr(self, field.name, getattr(self, field.name) + value)


RMGRS = {
    "XLOG": {0x00: "CHECKPOINT_SHUTDOWN", 0x10: "CHECKPOINT_ONLINE", 0x20: "NOOP", 0x30: "NEXTOID", 0x40: "SWITCH",
             0x50: "BACKUP_END", 0x60: "PARAMETER_CHANGE", 0x70: "RESTORE_POINT", 0x80: "FPW_CHANGE",
             0x90: "END_OF_RECOVERY", 0xA0: "FPI_FOR_HINT", 0xB0: "FPI", 0xD0: "OVERWRITE_CONTRECORD",
             0xE0: "CHECKPOINT_REDO"},
    "Transaction": {0x00: "COMMIT", 0x10: "PREPARE", 0x20: "ABORT", 0x30: "COMMIT_PREPARED", 0x40: "ABORT_PREPARED",
                    0x50: "ASSIGNMENT", 0x60: "INVALIDATION"},
    "Storage": {0x10: "CREATE", 0x20: "TRUNCATE"},
    "CLOG": {0x00: "ZEROPAGE", 0x10: "TRUNCATE"},
    "Database": {0x00: "CREATE_FILE_COPY", 0x10: "CREATE_WAL_LOG", 0x20: "DROP"},
    "Tablespace": {0x00: "CREATE", 0x10: "DROP"},
    "MultiXact": {0x00: "ZERO_OFF_PAGE", 0x10: "ZERO_MEM_PAGE", 0x20: "CREATE_ID", 0x30: "TRUNCATE_ID"},
    "RelMap": {0x00: "UPDATE"},
    "Standby": {0x00: "LOCK", 0x10: "RUNNING_XACTS", 0x20: "INVALIDATIONS"},
    "Heap2": {0x00: "REWRITE", 0x10: "PRUNE_ON_ACCESS", 0x20: "PRUNE_VACUUM_SCAN", 0x30: "PRUNE_VACUUM_CLEANUP",
              0x40: "VISIBLE", 0x50: "MULTI_INSERT", 0x50 | INIT: "MULTI_INSERT+INIT", 0x60: "LOCK_UPDATED",
              0x70: "NEW_CID"},
    "Heap": {0x00: "INSERT", INIT: "INSERT+INIT", 0x10: "DELETE", 0x20: "UPDATE", 0x20 | INIT: "UPDATE+INIT",
             0x30: "TRUNCATE", 0x40: "HOT_UPDATE", 0x40 | INIT: "HOT_UPDATE+INIT", 0x50: "HEAP_CONFIRM", 0x60: "LOCK",
             0x70: "INPLACE"},
    "Btree": {0x00: "INSERT_LEAF", 0x10: "INSERT_UPPER", 0x20: "INSERT_META", 0x30: "SPLIT_L", 0x40: "SPLIT_R",
              0x50: "INSERT_POST", 0x60: "DEDUP", 0x70: "DELETE", 0x80: "UNLINK_PAGE", 0x90: "UNLINK_PAGE_META",
              0xA0: "NEWROOT", 0xB0: "MARK_PAGE_HALFDEAD", 0xC0: "VACUUM", 0xD0: "REUSE_PAGE", 0xE0: "META_CLEANUP"},
    "Hash": {0x00: "INIT_META_PAGE", 0x10: "INIT_BITMAP_PAGE", 0x20: "INSERT", 0x30: "ADD_OVFL_PAGE",
             0x40: "SPLIT_ALLOCATE_PAGE", 0x50: "SPLIT_PAGE", 0x60: "SPLIT_COMPLETE", 0x70: "MOVE_PAGE_CONTENTS",
             0x80: "SQUEEZE_PAGE", 0x90: "DELETE", 0xA0: "SPLIT_CLEANUP", 0xB0: "UPDATE_META_PAGE",
             0xC0: "VACUUM_ONE_PAGE"},
    "Gin": {0x10: "CREATE_PTREE", 0x20: "INSERT", 0x30: "SPLIT", 0x40: "VACUUM_PAGE", 0x50: "DELETE_PAGE",
            0x60: "UPDATE_META_PAGE", 0x70: "INSERT_LISTPAGE", 0x80: "DELETE_LISTPAGE", 0x90: "VACUUM_DATA_LEAF_PAGE"},
    "Gist": {0x00: "PAGE_UPDATE", 0x10: "DELETE", 0x20: "PAGE_REUSE", 0x30: "PAGE_SPLIT", 0x60: "PAGE_DELETE",
             0x70: "ASSIGN_LSN"},
    "Sequence": {0x00: "LOG"},
    "SPGist": {0x10: "ADD_LEAF", 0x20: "MOVE_LEAFS", 0x30: "ADD_NODE", 0x40: "SPLIT_TUPLE", 0x50: "PICKSPLIT",
               0x60: "VACUUM_LEAF", 0x70: "VACUUM_ROOT", 0x80: "VACUUM_REDIRECT"},
    "BRIN": {0x00: "CREATE_INDEX", 0x10: "INSERT", 0x10 | INIT: "INSERT+INIT", 0x20: "UPDATE",
             0x20 | INIT: "UPDATE+INIT", 0x30: "SAMEPAGE_UPDATE", 0x40: "REVMAP_EXTEND", 0x50: "DESUMMARIZE"},
    "CommitTs": {0x00: "ZEROPAGE", 0x10: "TRUNCATE"},
    "ReplicationOrigin": {0x00: "SET", 0x10: "DROP"},
    "Generic": {0x00: "Generic"},
    "LogicalMessage": {0x00: "MESSAGE"},
}

# Each takes a crash, a promotion or a wraparound; one is enough.
RARE = {("XLOG", 0x90), ("XLOG", 0xD0), ("CLOG", 0x10), ("CommitTs", 0x10), ("MultiXact", 0x30)}

UNREACHABLE = {
    ("XLOG", 0x20): "nothing in 17 writes it",
    ("Heap", 0x40 | INIT): "the older version of the row lies on the same page, so the new one is never its only tuple",
}


def fold(rmgr_name, op):
    """The kind of a record: bits of info that are not part of it are taken away (Transaction: it has more fields)."""
    return op & 0x70 if rmgr_name == "Transaction" else op


def read_counts(path):
    """What walreplay --counts wrote: {(resource manager, operation): Count}."""
    names, counts = list(RMGRS), {}
    for line in path.read_text().splitlines():
        rmgr, op, *values = line.split()
        name = names[int(rmgr)]
        counts.setdefault((name, fold(name, int(op, 16))), Count()).add([int(value) for value in values])
    return counts


def merge(many):
    total = {}
    for counts in many:
        for kind, count in counts.items():
            total.setdefault(kind, Count()).add(dataclasses.astuple(count))
    return total


def least(kind):
    return 0 if kind in UNREACHABLE else 1 if kind in RARE else LEAST


def missing(total):
    """Kinds that came up too seldom, and kinds that nobody knows: one line each."""
    known = {(name, op): text for name, ops in RMGRS.items() for op, text in ops.items()}
    lines = [f"{kind[0]}/{text}: {total.get(kind, Count()).records} records, at least {least(kind)} are wanted"
             for kind, text in known.items() if total.get(kind, Count()).records < least(kind)]
    lines += [f"{kind[0]}/{kind[1]:#04x}: {count.records} records of a kind that the list does not have"
              for kind, count in total.items() if kind not in known]
    lines += [f"{kind[0]}/{known[kind]}: listed as unreachable, but there are {total[kind].records}"
              for kind in UNREACHABLE if kind in total]
    return lines


def table(total, slices):
    """The page docs/redo-coverage.md; `slices` are (name, records, differences, what it is)."""
    records = sum(entry[1] for entry in slices)
    differences = sum(entry[2] for entry in slices)
    lines = [
        "# What the redo oracles cover", "",
        "Written by `tools/redocheck --coverage FILE`, with `--all`, or with `--merge` from slices that ran one by one. Stock",
        "Postgres 17 recovers the same WAL, and every page of every relation and SLRU is compared byte for byte; images that",
        "`wal_consistency_checking` put into the WAL are compared record by record; each slice is replayed a second time",
        "through the pageserver's decoder (not counted here). A slice that fails counts as a difference.", "",
        f"**{records:,} records, {differences:,} differences.**", "", "## Slices", "",
        "| slice | records | differences | |", "|---|---:|---:|---|"]
    lines += [f"| {name} | {count:,} | {different:,} | {text} |" for name, count, different, text in slices]
    lines += ["", "## Kinds of records", "",
              f"All operations of the 22 resource managers of 17. At least {LEAST} of each are wanted, one where it takes a crash,",
              "a promotion or a wraparound (\\*). Pages: redo calls for them; images: check images compared. A record",
              "without pages changes other state, which `walreplay --decode` compares as far as it shows in files.", "",
              "| resource manager | info | operation | records | pages | images |", "|---|---|---|---:|---:|---:|"]
    for name, ops in RMGRS.items():
        for op, text in ops.items():
            count = total.get((name, op), Count())
            shown = f"{count.records:,}"
            if (name, op) in UNREACHABLE:
                shown = f"unreachable: {UNREACHABLE[(name, op)]}"
            star = "\\*" if (name, op) in RARE else ""
            lines.append(f"| {name} | {op:#04x} | {text}{star} | {shown} | {count.pages:,} | {count.images:,} |")
    return "\n".join(lines) + "\n"
