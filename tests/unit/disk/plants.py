#!/usr/bin/env python3
"""Plant each known bug in the safekeeper's disk, and see whether its unit tests find it.

    tests/unit/disk/plants.py [--build build] [--jobs 2] [WORD ...]

How a plant is made: tests/model/store/plants.py. Numbers are those of the list of planted bugs that
the whole project is measured by; those of the consensus are in tests/sim/mutants.py.
"""
import pathlib, sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/model/store"))
import plants # noqa: E402

STORE = "tests/unit/disk/test_wal_store"
DAMAGE = "tests/unit/disk/test_wal_damage"
TRUNCATE = "tests/unit/disk/test_wal_truncate"
CRASH = "tests/unit/disk/test_wal_crash"
BEGIN = "tests/unit/disk/test_wal_begin"
REBUILD = "tests/unit/disk/test_wal_rebuild"
CONTROL = "tests/unit/disk/test_control_file"

RECOVERY = "safekeeper/disk/wal_recovery.c"
FILES = "safekeeper/disk/wal_files.c"
WAL_STORE = "safekeeper/disk/wal_store.c"

# (what it breaks, file, old text, new text, program that must notice)
PLANTS = [
    ("20: a promise is on disk once before it is made", "safekeeper/disk/control_file.c",
     "copy < (is_promise ? 2 : 1)", "copy < (is_promise ? 1 : 1)", CONTROL),
    ("21: the older one of two control slots is taken", "safekeeper/disk/control_file.c",
     "slots[1].sequence > slots[0].sequence", "slots[1].sequence < slots[0].sequence", CONTROL),
    ("21: a damaged control slot is believed", "safekeeper/disk/control_file.c",
     "    if (crc32c(crc32c(0, image.data, 12), header.next, size) != crc) {",
     "    if (crc == 1) {", CONTROL),
    ("23: the first bad group is the end of the log, although it was durable", RECOVERY,
     "        if (group->is_certified || i + 1 < log->count) {", "        if (false) {", DAMAGE),
    ("23: a log may be shorter than what was committed", RECOVERY,
     "    if (end_lsn < MAX_OF(recovery->certified_lsn, store->commit_lsn)) {",
     "    if (end_lsn == 0) {", DAMAGE),
    ("23: the log is cut before anybody has noted what may be lost", RECOVERY,
     "    if (suspect_lsn > record_lsn && recovery->witness != NULL) {",
     "    TRY(clean_up(recovery, msg));\n"
     "    if (suspect_lsn > record_lsn && recovery->witness != NULL) {", DAMAGE),
    ("23: nobody hears of a last record that cannot be read", RECOVERY,
     "    if (log.has_trailing_bytes) {\n        suspect_unreadable(recovery, segment);",
     "    if (false) {\n        suspect_unreadable(recovery, segment);", DAMAGE),
    ("24: a failed sync of the segment is a success", WAL_STORE,
     "    TRY(file_sync(store->segment_fd, store->segment_path, msg));",
     "    err_ignore(file_sync(store->segment_fd, store->segment_path, msg), \"planted\");", CRASH),
    ("24: a segment is not synced", WAL_STORE,
     "    TRY(file_sync(store->segment_fd, store->segment_path, msg));", "", CRASH),
    ("24: a sidecar record is not synced", WAL_STORE,
     "    return file_sync(store->sidecar_fd, store->sidecar_path, msg);", "    return ERR_OK;", CRASH),
    ("25: a truncation leaves what lay behind its end", WAL_STORE,
     "    TRY(wal_files_zero_tail(&store->files, store->end_segment, store->flush_lsn, msg));", "", TRUNCATE),
    ("25: a truncation leaves later segments", WAL_STORE,
     "    TRY(wal_files_remove_behind(&store->files, store->end_segment, msg));", "", TRUNCATE),
    ("25: a start leaves what lay behind a torn group", RECOVERY,
     "    TRY(wal_files_zero_tail(files, store->end_segment, recovery->end_lsn, msg));", "", DAMAGE),
    ("26: a recycled segment comes with the sidecar of its old life", FILES,
     "    TRY(wal_files_path(files, segment, SIDECAR_SUFFIX, path, msg));\n    TRY(file_remove(path, msg));\n"
     "    TRY(wal_files_path(files, segment, \"\", path, msg));\n    for",
     "    TRY(wal_files_path(files, segment, SIDECAR_SUFFIX, path, msg));\n"
     "    TRY(wal_files_path(files, segment + 3, SIDECAR_SUFFIX, kept, msg));\n    (void)vfs.rename(path, kept);\n"
     "    TRY(wal_files_path(files, segment, \"\", path, msg));\n    for", BEGIN),
    ("26: a page of this life that was cut off is taken for one of an old life", FILES,
     "magic == WAL_PAGE_MAGIC && address != lsn", "magic == WAL_PAGE_MAGIC && address != 0", BEGIN),
    ("segments before the begin are taken for the log again", RECOVERY,
     "        if (segments[i] < first || options->is_emptied) {", "        if (options->is_emptied) {", BEGIN),
    ("a log that begins anew goes on with what was there", RECOVERY,
     "        if (segments[i] < first || options->is_emptied) {", "        if (segments[i] < first) {", BEGIN),
    ("a segment in which the log begins is removed, too", WAL_STORE,
     "i < count && segments[i] < first && err", "i < count && segments[i] <= first && err", BEGIN),
    ("37: a read from before the start of the timeline is answered", "safekeeper/disk/wal_store_reader.c",
     "    if (begin_lsn < first_lsn || begin_lsn > end_lsn) {",
     "    if (begin_lsn > end_lsn || first_lsn == 0) {",
     STORE),
    ("committed WAL is given up with a damaged tail", RECOVERY,
     "           recovery->damage->items[0].begin_lsn >= committed_lsn &&\n"
     "           recovery->whole_record_lsn >= committed_lsn;", "           committed_lsn > 0;", DAMAGE),
    ("a truncation certifies damage", WAL_STORE,
     "    if (err == ERR_OK && crc != group->wal_crc) {", "    if (false) {", TRUNCATE),
    ("a repair believes whoever sends bytes", "safekeeper/disk/wal_repair.c",
     "           crc32c(0, group->data, group->size) == damage->wal_crc;", "           group->data != NULL;", DAMAGE),
    ("23: many records at the end that cannot be read are one torn group", "safekeeper/disk/wal_sidecar.c",
     "    if (!is_valid && log->has_trailing_bytes && slot > 1) {", "    if (false) {", DAMAGE),
    ("the end of a log whose files are gone is where the last file ends", "safekeeper/disk/wal_rebuild.c",
     "        survey.end_lsn = WAL_END_UNKNOWN;", "        survey.end_lsn = survey.commit_lsn;", REBUILD),
    ("an unreadable last record says that the log ends before it", "safekeeper/disk/wal_sidecar.c",
     "        survey->end_lsn = (survey->segment + 1) * survey->identity->segment_size;", "", REBUILD),
    ("what a damaged log knew to be committed is forgotten", "safekeeper/disk/wal_sidecar.c",
     "        survey->commit_lsn = MAX_OF(survey->commit_lsn, record.commit_lsn);", "", REBUILD),
    ("a log is replaced before its copy is there", "safekeeper/disk/wal_rebuild.c",
     "    TRY(rename_folder(new_dir, dir, msg));\n    TRY(file_sync_dir(parent, msg));",
     "    TRY(dir_create(dir, msg));\n    TRY(file_sync_dir(parent, msg));", REBUILD),
    ("a copy does not say where its last record ends", "safekeeper/disk/wal_rebuild.c",
     "        .record_lsn = is_last ? rebuild->end_lsn : wal_store_record_lsn(store),",
     "        .record_lsn = wal_store_record_lsn(store),", REBUILD),
    ("a quiet write is not proven", WAL_STORE,
     "        .kind = SIDECAR_CERTIFY,", "        .kind = SIDECAR_CERTIFY + 1,", DAMAGE),
    ("a reader believes bytes that do not match", "safekeeper/disk/wal_store_reader.c",
     "        if (crc32c(0, bytes, (size_t)(group->end_lsn - group->begin_lsn)) != group->wal_crc) {",
     "        if (bytes == NULL) {", DAMAGE),
]

plants.__doc__, plants.PLANTS = __doc__, PLANTS
if __name__ == "__main__":
    sys.exit(plants.main())
