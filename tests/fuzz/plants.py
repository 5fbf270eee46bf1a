#!/usr/bin/env python3
"""Take a check out of a parser, and see whether the corpus of its fuzz target notices.

    tests/fuzz/plants.py [--build build] [--jobs 2] [WORD ...]

How a plant is made: tests/model/store/plants.py. Each runs the committed inputs and some changed copies, as the unit
suite does, without a sanitizer: what must be noticed there breaks a rule that the target itself states.
"""
import pathlib, sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/model/store"))
import plants # noqa: E402


def corpus(target, rounds):
    return f"tests/fuzz/fuzz_{target}", [f"--rounds={rounds}", str(ROOT / "tests/data/fuzz" / target)]


SIDECAR = "safekeeper/disk/wal_sidecar.c"
PG_WIRE = "control/gateway/pg_wire.c"

# (what it breaks, file, old text, new text, program that must notice, its arguments)
PLANTS = [
    ("disk: a gap between two groups is none", SIDECAR,
     "    if (log->count > 0 && log->groups[log->count - 1].end_lsn != record->begin_lsn) {", "    if (false) {",
     *corpus("disk", 300)),
    ("disk: a group may end in the next segment", SIDECAR,
     "           record->end_lsn - segment * identity->segment_size <= identity->segment_size &&\n", "",
     *corpus("disk", 300)),
    ("disk: more members than there is room for", "safekeeper/disk/control_file.c",
     "    if (slot->member_count > MEMBERS_MAX) {", "    if (slot->member_count == UINT32_MAX) {", *corpus("disk", 300)),
    ("gateway: a message that is one byte short is whole", PG_WIRE,
     "    if (bytes.size - 1 < size) {", "    if (bytes.size < size) {", *corpus("gateway", 300)),
    ("gateway: a start-up packet of which a part is there", PG_WIRE,
     "    if (bytes.size < size) {", "    if (size > PG_STARTUP_MAX) {", *corpus("gateway", 300)),
    ("gateway: parameters behind the end of parameters", PG_WIRE,
     "    if (!good || at + 1 != parameters.size) {", "    if (false) {", *corpus("gateway", 300)),
    ("gateway: any proof is a proof", "common/auth/scram.c",
     "    if (CRYPTO_memcmp(stored_key, verified, SCRAM_KEY_SIZE) != 0) {", "    if (verified == NULL) {",
     *corpus("gateway", 300)),
    ("objects: files of an index in any order", "pageserver/remote/index.c",
     "        if (i > 0 && strcmp(index->files[i - 1].name, file->name) >= 0) {", "        if (false) {",
     *corpus("objects", 300)),
    ("objects: a member of an archive that was cut short", "pageserver/remote/tar_reader.c",
     "        if (size > room || (size + BLOCK - 1) / BLOCK * BLOCK > room) {", "        if (size > room * 64) {",
     *corpus("objects", 300)),
    ("sim: a second vote in a term", "safekeeper/consensus/acceptor.c",
     "    bool newer = acceptor_is_older_term(acceptor->state.term, vote->term) ||",
     "    bool newer = acceptor->state.term <= vote->term ||", *corpus("sim", 30)),
]

plants.__doc__, plants.PLANTS = __doc__, PLANTS
if __name__ == "__main__":
    sys.exit(plants.main())
