#include "compute/agent/statistics.h"

#include <stdio.h>

#include "common/base/str.h"
#include "common/io/file.h"
#include "common/pg/pg_control.h"

#define CONTROL       "global/pg_control"
#define CONTROL_KEPT  "pg_control.kept"
#define SETTINGS_MAX  (1 * MIB)
#define PATH_TAIL_MAX 64

/*
 * From the begin of the shutdown checkpoint to its end, with page headers: 120 to 160 bytes. A
 * compute that started in between has written one of its own, so that it is 240 at least.
 */
#define CHECKPOINT_SIZE_MAX 200

/* The first has to be there; the others are those of extensions that were preloaded. */
static const struct {
    const char *name, *kept;
} kept_files[] = {
    {"pg_stat/pgstat.stat", "pgstat.kept"},
    {"pg_stat/pg_stat_statements.stat", "pg_stat_statements.kept"},
    {"autoprewarm.blocks", "autoprewarm.kept"},
};

struct places {
    char from[PATH_SIZE], to[PATH_SIZE];
};

static bool find(const char *dir, const char *from, const char *to, struct places *ret)
{
    return str_format(ret->from, PATH_SIZE, NULL, "%s/%s", dir, from) == ERR_OK &&
           str_format(ret->to, PATH_SIZE, NULL, "%s/%s", dir, to) == ERR_OK;
}

/* Between `data`, a data directory in `dir`, and where it is kept; false: it is not there. */
static bool move(const char *dir, const char *data, size_t index, bool to_data)
{
    char name[PATH_TAIL_MAX];
    struct places places;
    (void)snprintf(name, sizeof(name), "%s/%s", data, kept_files[index].name);
    return find(dir, name, kept_files[index].kept, &places) &&
           (to_data ? rename(places.to, places.from) : rename(places.from, places.to)) == 0;
}

/* The settings that the agent wrote say which timeline it was. */
static bool is_of_timeline(const char *dir, struct timeline_id timeline)
{
    char path[PATH_SIZE];
    char line[PATH_TAIL_MAX + 64];
    struct buf text = {0};
    bool found = false;
    (void)snprintf(
        line, sizeof(line), "anabranch.timeline_id = '%s'\n", timeline_id_text(timeline).text);
    if (str_format(path, sizeof(path), NULL, "%s/pgdata.old/postgresql.conf", dir) == ERR_OK &&
        file_read_all(path, SETTINGS_MAX, &text, NULL) == ERR_OK) {
        found = strstr(buf_cstr(&text), line) != NULL;
    }
    buf_deinit(&text);
    return found;
}

static void remove_kept(const char *dir, const char *name)
{
    char path[PATH_SIZE];
    if (str_format(path, sizeof(path), NULL, "%s/%s", dir, name) == ERR_OK) {
        err_ignore(file_remove(path, NULL), "it is looked at again before it is used");
    }
}

static void forget(const char *dir)
{
    remove_kept(dir, CONTROL_KEPT);
    for (size_t i = 0; i < ARRAY_LEN(kept_files); i++) {
        remove_kept(dir, kept_files[i].kept);
    }
}

void statistics_set_aside(const char *dir, struct timeline_id timeline)
{
    struct places control;
    forget(dir);
    if (!find(dir, "pgdata.old/" CONTROL, CONTROL_KEPT, &control) ||
        !is_of_timeline(dir, timeline)) {
        return;
    }
    if (rename(control.from, control.to) != 0 || !move(dir, "pgdata.old", 0, false)) {
        forget(dir); /* it was not shut down cleanly */
        return;
    }
    for (size_t i = 1; i < ARRAY_LEN(kept_files); i++) {
        (void)move(dir, "pgdata.old", i, false);
    }
}

static bool fit(const char *control_path, lsn_t start_lsn)
{
    struct buf file = {0};
    struct pg_control control;
    bool good = file_read_all(control_path, PG_CONTROL_FILE_SIZE, &file, NULL) == ERR_OK &&
                pg_control_parse(buf_view(&file), &control, NULL) == ERR_OK &&
                control.state == PG_CONTROL_SHUT_DOWN && control.checkpoint_lsn < start_lsn &&
                start_lsn - control.checkpoint_lsn <= CHECKPOINT_SIZE_MAX;
    buf_deinit(&file);
    return good;
}

void statistics_bring_back(const char *dir, lsn_t start_lsn)
{
    struct places control;
    if (find(dir, CONTROL_KEPT, CONTROL_KEPT, &control) && fit(control.from, start_lsn)) {
        for (size_t i = 0; i < ARRAY_LEN(kept_files); i++) {
            (void)move(dir, "pgdata", i, true); /* or they begin at zero */
        }
    }
    forget(dir);
}
