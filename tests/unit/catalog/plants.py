#!/usr/bin/env python3
"""Plant each known bug in the catalog, its log and its rebuilding, and see whether the unit tests find it.

    tests/unit/catalog/plants.py [--build build] [--jobs 2] [WORD ...]

How a plant is made: tests/model/store/plants.py. 45 is that of the list of planted bugs that the whole project is
measured by: a generation that is issued twice, here because an older copy of a disk or of a bucket is believed.
"""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/model/store"))
import plants # noqa: E402

CATALOG = "tests/unit/catalog/test_catalog"
CHANGELOG = "tests/unit/catalog/test_changelog"
PLAN = "tests/unit/plan/test_plan"

JOIN = "control/catalog/join.c"
COMMIT = "control/catalog/catalog.c"
REBUILD = "control/catalog/rebuild.c"
ADOPT = "control/catalog/adopt.c"

# (what it breaks, file, old text, new text, program that must notice)
PLANTS = [
    ("45: an older copy of the object store is taken for the catalog", JOIN,
     "    if (position->seq > newest) {", "    if (position->seq > newest + 1000) {", CHANGELOG),
    ("45: a log that went its own way after a copy was put back is followed", JOIN,
     "    if (err == ERR_OK && !hash128_equal(hash, position->hash)) {", "    if (err == ERR_OK && catalog == NULL) {", CHANGELOG),
    ("45: an old copy of the disk goes on as it is", JOIN,
     "    if (catalog->position.seq < newest) {\n        TRY(replace_disk(catalog, msg));\n    }", "", CHANGELOG),
    ("45: a disk without a log takes over that of another cluster", JOIN,
     '    return err_set(\n        msg, ERR_FAILED,\n        "this disk\'s catalog was never',
     '    return begin_log(catalog, msg);\n    return err_set(\n        msg, ERR_FAILED,\n        "this disk\'s catalog was never', CHANGELOG),
    ("45: a control whose log was taken over goes on", COMMIT,
     "        err = check_owner(catalog, &attempt, msg);", "", CHANGELOG),
    ("45: a rebuilt catalog issues a generation that has written", REBUILD,
     "        return used > row->project.generation ? renew(rebuilding, row, used, msg) : ERR_OK;",
     "        return used == UINT64_MAX ? renew(rebuilding, row, used, msg) : ERR_OK;", CHANGELOG),
    ("45: it issues the very one that has written", REBUILD,
     "    newer.project.generation = used + 1;", "    newer.project.generation = used;", CHANGELOG),
    ("a row is written whatever became of the one that was read", COMMIT,
     "        if (version != entries[i].replaces_version) {", "        if (version > entries[i].replaces_version + 9) {", CATALOG),
    ("what a rebuild finds is made where it is not", "control/plan/plan.c",
     "    if (view->is_found && !ready) {", "    if (view->is_found && ready) {", PLAN),
    ("what was deleted is a branch again after a rebuild", ADOPT,
     "    return timeline->has_lineage && !timeline->is_deleted &&", "    return timeline->has_lineage &&", CHANGELOG),
    ("a found timeline may be created on a safekeeper that lost it", ADOPT,
     "    row.confirmed = row.safekeepers;\n", "", CHANGELOG),
    ("a found child has no parent", ADOPT,
     '        (void)snprintf(row.parent_id, sizeof row.parent_id, "%s", parent->id);\n', "", CHANGELOG),
    ("a lost host's compute is stopped before it moves", "control/plan/plan.c",
     "        add(plan, PLAN_MOVE_COMPUTE);", "        add(plan, PLAN_STOP_COMPUTE);", PLAN),
    ("leases run out while control is away", "control/model/lease.c",
     "    bool was_away = now - clock->looked_at > LEASE_AWAY_MS * NS_PER_MS;",
     "    bool was_away = now < clock->looked_at;", "tests/unit/plan/test_lease"),
]

plants.__doc__, plants.PLANTS = __doc__, PLANTS
if __name__ == "__main__":
    sys.exit(plants.main())
