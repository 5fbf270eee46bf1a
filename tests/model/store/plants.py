#!/usr/bin/env python3
"""Plant each known bug in the store and in history, and see whether the model test finds it.

    tests/model/store/plants.py [--build build] [--steps 300000] [--jobs 2] [WORD ...]

A plant is a replacement of text in one source file: it is compiled alone, linked in front of the
libraries, and the program that must notice runs until it does. Text that is not there exactly once
is a failure too: the plant has to follow the code (`--texts` looks for that alone, with the lint suite). Old and new may be
lists of texts. WORDs choose plants whose text contains them.
Numbers are those of the list of planted bugs that the whole project is measured by.
"""
import argparse, concurrent.futures, json, os, pathlib, re, shlex, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
MODEL = "tests/model/store/store_model"
CHURN = "tests/model/store/store_churn"

# (what it breaks, file, old text, new text, program that must notice)
PLANTS = [
    ("39: the position is durable before the versions", "pageserver/store/layer_writer.c",
     "            files, layers->timeline, position, msg)); /* the smallest key of a timeline */",
     "            files, layers->timeline, position, msg));\n"
     "        TRY(layer_files_end_file(files, msg));\n"
     "        TRY(layer_files_ingest(files, msg));", MODEL),
    ("41: GC ignores where children branch off", "pageserver/timeline/gc_horizon.c",
     "            add_point(tree, list, is_needed, parent, timeline->start_lsn);", "", MODEL),
    ("41: GC ignores leases", "pageserver/timeline/history.c",
     "    for (; count < history->lease_count; count++) {",
     "    for (hold_count -= history->lease_count; false; count++) {", MODEL),
    ("41: GC works with a younger cutoff than was promised", "pageserver/timeline/gc_horizon.c",
     "        return timeline->cutoff;", "        return timeline->cutoff + 64;", MODEL),
    ("41: a cutoff runs ahead of what is durable", "pageserver/timeline/gc_horizon.c",
     "    lsn_t possible = MIN_OF(wanted, timeline->durable_lsn);", "    lsn_t possible = wanted;",
     MODEL),
    ("42: a branch is validated, but not held until it is there", "pageserver/timeline/history.c",
     "        list_push_back(&history->holds, &hold->link);", "", MODEL),
    ("42: a lease is validated before it is registered", "pageserver/timeline/history_leases.c",
     "    history_append_lease(history, lease);\n    return ERR_OK;", "    return ERR_OK;", MODEL),
    ("a lease is registered below the cutoff", "pageserver/timeline/history_leases.c",
     "    TRY(history_check_locked(history, tl, lease->lsn, msg));\n", "", MODEL),
    ("a lease is not durable", "pageserver/timeline/history_leases.c",
     "    err = history_write_lease(store, &lease, msg);", "    err = ERR_OK;", MODEL),
    ("a lease is dropped from memory only", "pageserver/timeline/history_leases.c",
     "    err_t err = history_write_settled(store, changes, count, msg);\n"
     "    for (size_t i = 0; i < count",
     "    err_t err = ERR_OK;\n    for (size_t i = 0; i < count", MODEL),
    ("a cutoff is published and not durable", "pageserver/timeline/history.c",
     "    err_t err = history_write_settled(store, changes, count, msg);\n"
     "    if (err", "    err_t err = ERR_OK;\n    if (err", MODEL),
    ("reads below the cutoff are answered", "pageserver/timeline/history.c",
     "    return lsn >= owner->gc.cutoff\n", "    return true\n", MODEL),
    ("a child below its parent's start holds the parent, not the owner",
     "pageserver/timeline/gc_horizon.c",
     "    size_t owner = gc_owner(tree, index, lsn);", "    size_t owner = index;", MODEL),
    ("a deleted parent is dead though children live", "pageserver/timeline/gc_horizon.c",
     "    is_needed[owner] = true;", "    is_needed[owner] |= !tree->timelines[owner].is_tombstone;",
     MODEL),
    ("a deleted parent drops what is on its way to a branch LSN", "pageserver/timeline/gc_horizon.c",
     "    return newest->lsn <= timeline->durable_lsn ? GC_NO_CUTOFF", "    return true ? GC_NO_CUTOFF",
     "tests/unit/timeline/test_gc_horizon"),
    ("47: blocks are judged by the size at the cutoff only", "pageserver/store/gc_filter.c",
     "    return !filter->blocks_known || filter->page.block < filter->blocks[index];",
     "    index = read_count(filter->keep) - 1;\n"
     "    return !filter->blocks_known || filter->page.block < filter->blocks[index];", MODEL),
    ("47: the last block of a relation counts as dead", "pageserver/store/gc_filter.c",
     "filter->page.block < filter->blocks[index];", "filter->page.block + 1 < filter->blocks[index];",
     MODEL),
    ("47: a fork whose size lies in the parent counts as dead", "pageserver/store/gc_pass.c",
     "            return true;\n        }\n        lsn = MIN_OF(lsn, keep->start_lsn);",
     "            return true;\n        }\n        *ret_blocks = 0;\n        return true;", MODEL),
    ("47: sizes of the fork before are used", "pageserver/store/gc_filter.c",
     "    if (filter->has_blocks && same_fork(filter->fork, fork)) {",
     "    if (filter->has_blocks) {", MODEL),
    ("48: a read at L does not see the version at L", "pageserver/store/page_reader.c",
     "        .limit = MIN_OF(lsn, span->max_lsn),", "        .limit = MIN_OF(lsn, span->max_lsn) - 1,", MODEL),
    ("48: GC takes a point as exclusive", "pageserver/store/gc_filter.c",
     "        if (read_lsn(keep, middle) < lsn) {", "        if (read_lsn(keep, middle) <= lsn) {", MODEL),
    ("49: numbers in keys are little-endian", "common/pg/page_key.c",
     "    value = __builtin_bswap32(value);\n    memcpy(to, &value, sizeof(value));",
     "    memcpy(to, &value, sizeof(value));", "tests/unit/pg/test_page_key"),
    ("50: an image at the LSN of the newest version hides it from GC", "pageserver/store/gc_filter.c",
     "        drops = !is_needed(filter, lsn, value);\n        if (ends_a_read(value)) {\n"
     "            filter->image_lsn = lsn;\n        }",
     "        if (ends_a_read(value)) {\n            filter->image_lsn = lsn;\n        }\n"
     "        drops = !is_needed(filter, lsn, value);", MODEL),
    ("GC goes by the newest image only", "pageserver/store/gc_filter.c",
     "        if (ends_a_read(value)) {", "        if (ends_a_read(value) && filter->image_lsn == NO_IMAGE) {",
     "tests/unit/store/test_gc_filter"),
    ("a record counts as an image", "pageserver/store/gc_filter.c",
     "    return tag == VALUE_IMAGE ||", "    return tag == VALUE_DELTA || tag == VALUE_IMAGE ||", MODEL),
    ("51: a branch sees its parent beyond the branch LSN", "pageserver/store/page_reader.c",
     "        .limit = MIN_OF(lsn, span->max_lsn),", "        .limit = lsn,", MODEL),
    ("a commit time goes with the one after it", "pageserver/store/gc_filter.c",
     "    return is_read_within(keep, lsn, next);", "    return is_read_within(keep, lsn + 1, next);",
     "tests/unit/store/test_gc_filter"),
    ("commit times below the cutoff all go", "pageserver/store/gc_filter.c",
     "    return is_read_within(keep, lsn, next);", "    return false;", MODEL),
    ("the ingest position follows the rule of states", "pageserver/store/gc_filter.c",
     "        return lsn == 0 || filter->image_lsn == NO_IMAGE;",
     "        return version_is_needed(filter, lsn);", "tests/unit/store/test_gc_filter"),
    ("a reader from before a flush does not look whether there was one", "pageserver/store/page_reader.c",
     "    return path_view_has_kv(reader->store, reader->view) ? ERR_OK : ERR_STALE;", "    return ERR_OK;",
     "tests/unit/store/test_gc_pass"),
    ("a branch may be made below the cutoff", "pageserver/timeline/tenant_timelines.c",
     "    return history_hold(tenant->history, timeline_history(parent), info->start_lsn, hold, msg);",
     "    (void)hold;\n    return ERR_OK;", "tests/unit/timeline/test_history"),
    ("a deleted parent stops before the branch LSN is in the object store", "pageserver/timeline/tenant_delete.c",
     "        if (child->parent == tl && child->info.start_lsn > tl->remote_lsn) {",
     "        if (child->parent == tl && child->info.start_lsn > tl->durable_lsn) {",
     "tests/unit/timeline/test_history"),
    ("a deleted parent is still found", "pageserver/timeline/tenant.c",
     "    return tl == NULL || tl->info.state == TIMELINE_TOMBSTONE ? NULL : tl;", "    return tl;",
     "tests/unit/timeline/test_history"),
    ("the window begins with the commit before its time", "pageserver/timeline/gc_round.c",
     "        begin = MIN_OF(begin, commit);", "        begin = MIN_OF(begin, commit - 100);",
     "tests/unit/timeline/test_history"),
    ("46: a size that changed stays in the cache", "pageserver/ingest/wal_ingest.c",
     "        timeline_size_changed(tl, batch->size_changes[i].rel, batch->size_changes[i].size);",
     "        (void)tl;", "tests/unit/ingest/test_wal_ingest"),
    ("52: a branch's pages are cached under its parent", "pageserver/read/page_read.c",
     "            read->service->cache, timeline_uid(read->timeline), key, read->versions[i],",
     "            read->service->cache, timeline_uid(timeline_parent(read->timeline) != NULL ?"
     " timeline_parent(read->timeline) : read->timeline), key, read->versions[i],",
     "tests/unit/read/test_page_read"),
    ("40: an image with a hole leaves what was in it", "common/pg/wal_image.c",
     "    memset(to + hole_begin, 0, hole_size);", "", "tests/unit/pg/test_wal_image"),
    ("43: the index is up before the files that it names", "pageserver/remote/uploader.c",
     ["struct gathering {",
      "    if (!found) {\n        TRY(FAULT(",
      "    TRY(dir_list(uploader->checkpoint, gather_entry, gathering, msg));",
      "    TRY(index_put(uploader->objects, index, msg));"],
     ["static bool is_early;\nstruct gathering {",
      "    if (!found && !is_early) {\n        TRY(FAULT(",
      "    is_early = true;\n    TRY(dir_list(uploader->checkpoint, gather_entry, gathering, msg));\n"
      "    is_early = false;",
      "    TRY(index_put(uploader->objects, index, msg));\n"
      "    index->file_count = index->small_file_count = 0;\n"
      "    TRY(dir_list(uploader->checkpoint, gather_entry, gathering, msg));"],
     "tests/unit/remote/test_uploader"),
    ("44: objects are deleted, and control is not asked", "pageserver/remote/mirror.c",
     "            ask_control(mirror, MIRROR_CONFIRM);\n", "            submit(mirror, MIRROR_DELETE, run_delete);\n",
     "tests/unit/remote/test_mirror"),
    ("44: objects are deleted before control is asked", "pageserver/remote/mirror.c",
     "            ask_control(mirror, MIRROR_CONFIRM);\n",
     "            err_ignore(uploader_delete(mirror->uploader, NULL), \"\");\n"
     "            ask_control(mirror, MIRROR_CONFIRM);\n", "tests/unit/remote/test_mirror"),
    ("44: what control answers does not matter", "pageserver/remote/mirror.c",
     "    if (err == ERR_OK && !valid) {", "    if (err == ERR_OK && !valid && false) {",
     "tests/unit/remote/test_mirror"),
    ("positions of deleted parents are not known to be up there", "pageserver/remote/mirror.c",
     "        if (state == TIMELINE_ACTIVE || state == TIMELINE_TOMBSTONE) {",
     "        if (state == TIMELINE_ACTIVE) {", "tests/unit/remote/test_mirror"),
    ("what says not there goes though it hides an older version", "pageserver/store/gc_pass.c",
     "        err = has_version(pass, keep->timeline, key, lsn, &hides);",
     "        hides = false;", "tests/unit/store/test_gc_pass"),
    ("what says not there goes though it hides what the parent has", "pageserver/store/gc_pass.c",
     "         keep = gc_horizon_find(pass->horizon, keep->parent)) {\n        err = has_version(",
     "         keep = NULL) {\n        err = has_version(", MODEL),
    ("a size goes though blocks of its fork are left", "pageserver/store/gc_pass.c",
     "        err = has_blocks(pass, timeline, key, &hides);", "", "tests/unit/store/test_gc_pass"),
    ("space: what says not there stays for ever", "pageserver/store/gc_filter.c",
     "    return !known || hides;", "    return true;", CHURN),
    ("space: versions stay for a read that stops above them", "pageserver/store/gc_filter.c",
     "        if (read_lsn(keep, i) >= filter->image_lsn) {",
     "        if (read_lsn(keep, i) > filter->image_lsn) {", CHURN),
    ("space: replaced files stay in the object store", "pageserver/remote/mirror.c",
     "    mirror->rounds_wanted = 2;", "    mirror->rounds_wanted = 1;", "tests/unit/remote/test_mirror"),
    ("space: what another compaction is writing is passed over", "common/kv/kv.c",
     "    if (!is_alone) {", "    if (false) {", "tests/unit/kv/test_kv"),
    ("space: an index is deleted before its files", "pageserver/remote/uploader.c",
     "    while (doomed->count > 0) {\n",
     "    while (doomed->count > 0) {\n"
     "        struct remote_name first = doomed->items[0];\n"
     "        memmove(doomed->items, doomed->items + 1, (doomed->count - 1) * sizeof(first));\n"
     "        doomed->items[doomed->count - 1] = first;\n", "tests/unit/remote/test_uploader"),
    ("space: dead blocks stay", "pageserver/store/gc_filter.c",
     "    return !filter->blocks_known || filter->page.block < filter->blocks[index];",
     "    return true;", CHURN),
    ("space: an ended lease keeps its LSN", "pageserver/timeline/history_leases.c",
     "        settle_lease(history, &leases[i], false);", "        (void)history;", CHURN),
    ("meta records are collected", "pageserver/store/gc_filter.c",
     "    filter->is_foreign = timeline == 0 || timeline", "    filter->is_foreign = timeline", MODEL),
]


def commands_of(build, program):
    """The commands that make a program: {source file: compile command}, and the link command."""
    lines = subprocess.run(["ninja", "-C", str(build), "-t", "commands", program], check=True,
                           stdout=subprocess.PIPE, text=True).stdout.splitlines()
    compiles = {}
    for line in lines:
        if found := re.search(r" -c \.\./(\S+\.c)$", line):
            compiles[found.group(1)] = line
    return compiles, lines[-1]


def planted(path, old, new):
    """The source with the plant in it, or what went wrong."""
    text = (ROOT / path).read_text()
    if isinstance(old, str):
        old, new = [old], [new]
    for before, after in zip(old, new, strict=True):
        if text.count(before) != 1:
            return None, f"its text is {text.count(before)} times in {path}"
        text = text.replace(before, after)
    return text, ""


def plant(build, folder, what, path, old, new, program):
    """A program with the plant in it, or what went wrong."""
    text, said = planted(path, old, new)
    if text is None:
        return None, said
    compiles, link = commands_of(build, program)
    if path not in compiles:
        return None, f"{path} is no part of {program}"
    source, made, binary = folder / "planted.c", folder / "planted.o", folder / "program"
    source.write_text(text)
    words = shlex.split(compiles[path])
    words[words.index("-o") + 1] = str(made)
    words[-1] = str(source)
    words = [w for w in words if w not in ("-MD", "-Werror")] + ["-Wno-error", "-w"]
    for flag in ("-MQ", "-MF"):
        at = words.index(flag)
        del words[at:at + 2]
    result = subprocess.run(words, cwd=build, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode != 0:
        return None, "does not compile: " + result.stdout[-600:]
    words = shlex.split(link)
    at = words.index("-o")
    words[at + 1] = str(binary)
    words.insert(at + 2, str(made))
    original = re.search(r" -o (\S+\.o) ", compiles[path]).group(1)
    words = [w for w in words if w != original]
    result = subprocess.run(words, cwd=build, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return (binary, "") if result.returncode == 0 else (None, "does not link: " + result.stdout[-600:])


# Programs with real threads notice some plants only when a race goes the common way.
TRIES = 3


def try_plant(args, entry):
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temp:
        binary, said = plant(args.build, pathlib.Path(temp), *entry[:5])
        if binary is None:
            return entry[0], "FAILED", time.monotonic() - begin, said
        flags = entry[5] if len(entry) > 5 else ["--steps", str(args.steps)] if entry[4] == MODEL else []
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as memory:
            env = {**os.environ, "TMPDIR": temp, "STORE_MODEL_DIR": memory} # what a plant kills leaves its files
            for _ in range(TRIES):
                result = subprocess.run([str(binary), *flags], cwd=temp, env=env, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, timeout=600)
                if result.returncode != 0:
                    break
    noticed = [line for line in result.stdout.splitlines() if line.strip()]
    said = next((line for line in noticed if "seed" in line or ":E:" in line or ":F:" in line), "")
    return entry[0], "ok" if result.returncode != 0 else "FAILED", time.monotonic() - begin, said


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--steps", type=int, default=300000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--texts", action="store_true", help="only look whether each still has its place in the source")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    args.build = args.build.resolve()
    entries = [e for e in PLANTS if all(w in e[0] for w in args.words)]
    if args.texts:
        lost = [(e[0], said) for e in entries for text, said in [planted(*e[1:4])] if text is None]
        print("".join(f"FAILED {what}: {said}\n" for what, said in lost), end="")
        return 1 if lost else 0
    subprocess.run(["ninja", "-C", str(args.build), "--quiet", *sorted({e[4] for e in entries})], check=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for what, verdict, took, said in pool.map(lambda e: try_plant(args, e), entries):
            print(f"{verdict} {what} ({took:.1f} s)\n       {said[:160]}", flush=True)
            failed += verdict != "ok"
    print(f"{len(entries) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
