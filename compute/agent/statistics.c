#include "compute/agent/statistics.h"

#include <stdio.h>

#include "common/base/log.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "common/pg/pg_control.h"

#define STATISTICS    "pg_stat/pgstat.stat"
#define CONTROL       "global/pg_control"
#define SETTINGS_MAX  (1 * MIB)
#define PATH_TAIL_MAX 64

/*
 * From the begin of the shutdown checkpoint to its end, with page headers: 120 to 160 bytes. A
 * compute that started in between has written one of its own, so that it is 240 at least.
 */
#define CHECKPOINT_SIZE_MAX 200

struct places {
    char from[PATH_SIZE], to[PATH_SIZE];
};

static bool find(const char *dir, const char *from, const char *to, struct places *ret)
{
    return str_format(ret->from, PATH_SIZE, NULL, "%s/%s", dir, from) == ERR_OK &&
           str_format(ret->to, PATH_SIZE, NULL, "%s/%s", dir, to) == ERR_OK;
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

static void forget(const char *dir)
{
    struct places places;
    if (find(dir, "pgstat.kept", "pg_control.kept", &places)) {
        err_ignore(file_remove(places.from, NULL), "it is looked at again before it is used");
        err_ignore(file_remove(places.to, NULL), "it is looked at again before it is used");
    }
}

void statistics_set_aside(const char *dir, struct timeline_id timeline)
{
    struct places statistics, control;
    forget(dir);
    if (!find(dir, "pgdata.old/" STATISTICS, "pgstat.kept", &statistics) ||
        !find(dir, "pgdata.old/" CONTROL, "pg_control.kept", &control) ||
        !is_of_timeline(dir, timeline)) {
        return;
    }
    if (rename(control.from, control.to) != 0 || rename(statistics.from, statistics.to) != 0) {
        forget(dir); /* it was not shut down cleanly */
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
    struct places statistics, control;
    if (find(dir, "pgstat.kept", "pgdata/" STATISTICS, &statistics) &&
        find(dir, "pg_control.kept", "pg_control.kept", &control) && file_exists(statistics.from) &&
        fit(control.from, start_lsn) && rename(statistics.from, statistics.to) != 0) {
        log_warn(NULL, "%s: its statistics begin at zero: %m", statistics.to);
    }
    forget(dir);
}
