#include "control/catalog/adopt.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "control/model/name.h"

struct known_project {
    row_id_t id;
    struct tenant_id tenant;
};

struct adopter {
    struct known_project *projects; /* that are not being deleted */
    size_t project_count;
    struct branch_row *branches; /* with references */
    size_t branch_count;
    uint64_t seq_last;
};

struct adopter *adopter_create(void)
{
    return MEM_NEW(struct adopter);
}

void adopter_destroy(struct adopter *adopter)
{
    if (adopter != NULL) {
        for (size_t i = 0; i < adopter->branch_count; i++) {
            row_unref(ROW_BRANCH, &adopter->branches[i]);
        }
        mem_free(adopter->branches);
        mem_free(adopter->projects);
        mem_free(adopter);
    }
}

/* Room for one more, in steps that double. */
static void *grown(void *items, size_t count, size_t size)
{
    bool is_full = (count & (count - 1)) == 0;
    return is_full ? mem_realloc(items, (count == 0 ? 1 : 2 * count) * size) : items;
}

static void note_branch(struct adopter *adopter, const struct branch_row *row)
{
    adopter->branches =
        grown(adopter->branches, adopter->branch_count, sizeof(adopter->branches[0]));
    adopter->branches[adopter->branch_count] = *row;
    row_ref(ROW_BRANCH, &adopter->branches[adopter->branch_count++]);
}

void adopter_note(struct adopter *adopter, enum row_kind kind, const union any_row *row)
{
    adopter->seq_last = MAX_OF(adopter->seq_last, row->head.seq);
    if (kind == ROW_BRANCH) {
        note_branch(adopter, &row->branch);
    } else if (kind == ROW_PROJECT && row->project.state == PROJECT_ACTIVE) {
        adopter->projects =
            grown(adopter->projects, adopter->project_count, sizeof(adopter->projects[0]));
        struct known_project *project = &adopter->projects[adopter->project_count++];
        *project = (struct known_project){.tenant = row->project.tenant};
        (void)snprintf(project->id, sizeof project->id, "%s", row->project.id);
    }
}

static const struct branch_row *branch_of(
    const struct adopter *adopter, struct timeline_id timeline)
{
    for (size_t i = 0; i < adopter->branch_count; i++) {
        if (timeline_id_equal(adopter->branches[i].timeline, timeline)) {
            return &adopter->branches[i];
        }
    }
    return NULL;
}

/* Its index must say enough, and its parent have a branch: children come after their parents. */
static bool may_be_adopted(const struct adopter *adopter, const struct left_timeline *timeline)
{
    return timeline->has_lineage && !timeline->is_deleted && timeline->start_lsn != LSN_NONE &&
           timeline->member_count > 0 && timeline->member_count <= SAFEKEEPERS_MAX &&
           (timeline_id_is_none(timeline->parent) || branch_of(adopter, timeline->parent) != NULL);
}

static struct branch_row row_of(
    struct adopter *adopter,
    const struct known_project *project,
    const struct left_timeline *timeline)
{
    const struct branch_row *parent = branch_of(adopter, timeline->parent);
    wall_us_t now = clock_wall();
    struct branch_row row = {
        .seq = ++adopter->seq_last,
        .created_at = now,
        .updated_at = now,
        .state = BRANCH_INIT,
        .timeline = timeline->id,
        .start_lsn = timeline->start_lsn,
        .is_protected = true,
        .membership_generation = MAX_OF(timeline->membership_generation, 1),
        .state_changed_at = now,
        .is_found = true,
    };
    name_branch(row.id);
    (void)snprintf(row.project_id, sizeof row.project_id, "%s", project->id);
    (void)snprintf(row.name, sizeof row.name, "found-%s", timeline_id_text(timeline->id).text);
    if (parent != NULL) {
        (void)snprintf(row.parent_id, sizeof row.parent_id, "%s", parent->id);
        row.roles = parent->roles; /* borrowed */
        row.databases = parent->databases;
    }
    row.safekeepers.count = timeline->member_count;
    memcpy(
        row.safekeepers.ids, timeline->members,
        timeline->member_count * sizeof(timeline->members[0]));
    row.confirmed = row.safekeepers;
    return row;
}

static err_t adopt(
    struct adopter *adopter,
    const struct known_project *project,
    struct left_timeline *timeline,
    struct catalog *catalog,
    struct buf *report,
    struct errmsg *msg)
{
    union any_row row = {.branch = row_of(adopter, project, timeline)};
    struct catalog_entry entry;
    catalog_entry_put(&entry, ROW_BRANCH, &row);
    err_t err = catalog_commit(catalog, &entry, 1, msg);
    catalog_entry_deinit(&entry);
    if (err != ERR_OK) {
        return err;
    }
    timeline->claimed = true;
    note_branch(adopter, &row.branch);
    buf_printf(
        report,
        "project %s: no branch knew timeline %s (objects up to " LSN_FMT
        "): branch %s, named %s, is protected; if it was deleted it will not become ready\n",
        project->id, timeline_id_text(timeline->id).text, LSN_ARGS(timeline->lsn), row.branch.id,
        row.branch.name);
    return ERR_OK;
}

err_t adopter_run(
    struct adopter *adopter,
    struct catalog *catalog,
    struct leftovers *leftovers,
    struct buf *report,
    struct errmsg *msg)
{
    bool goes_on = true;
    while (goes_on) { /* once for each generation of children */
        goes_on = false;
        for (size_t i = 0; i < adopter->project_count; i++) {
            const struct known_project *project = &adopter->projects[i];
            struct left_timeline *timeline = NULL;
            while ((timeline = leftovers_next_timeline(leftovers, project->tenant, timeline)) !=
                   NULL) {
                if (may_be_adopted(adopter, timeline)) {
                    TRY(adopt(adopter, project, timeline, catalog, report, msg));
                    goes_on = true;
                }
            }
        }
    }
    return ERR_OK;
}
