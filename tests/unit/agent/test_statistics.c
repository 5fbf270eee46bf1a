/* Statistics of a clean stop: brought back where they fit, and nowhere else. */
#include "compute/agent/statistics.h"

#include <stdio.h>
#include <sys/stat.h>

#include "common/io/file.h"
#include "common/pg/page.h"
#include "common/pg/pg_control.h"
#include "common/pg/pg_version.h"
#include "common/pg/wal_page.h"
#include "tests/unit/unit.h"

#define CHECKPOINT_LSN 0x2000100
#define END_LSN        (CHECKPOINT_LSN + 120)

static struct errmsg msg;
static char dir[UNIT_FOLDER_SIZE];
static const struct timeline_id timeline = {{7}};
static const struct timeline_id other_timeline = {{8}};

static void put(const char *name, struct bytes data)
{
    char path[PATH_SIZE];
    ck_assert_ok(str_format(path, sizeof(path), &msg, "%s/%s", dir, name), &msg);
    ck_assert_ok(file_write_atomically(path, data, &msg), &msg);
}

static bool is_there(const char *name)
{
    char path[PATH_SIZE];
    ck_assert_ok(str_format(path, sizeof(path), &msg, "%s/%s", dir, name), &msg);
    return file_exists(path);
}

static void make_folders(void)
{
    static const char *const names[] = {
        "pgdata.old", "pgdata.old/pg_stat", "pgdata.old/global", "pgdata", "pgdata/pg_stat"};
    unit_folder(dir, sizeof(dir), "anabranch-stats");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[PATH_SIZE];
        ck_assert_ok(str_format(path, sizeof(path), &msg, "%s/%s", dir, names[i]), &msg);
        ck_assert_int_eq(mkdir(path, 0700), 0);
    }
}

/* An old data directory, and what comes of it at a start from `start_lsn`. */
static bool comes_back(
    enum pg_control_state state, struct timeline_id of, lsn_t start_lsn, bool with_statistics)
{
    struct pg_control control = {
        .control_version = PG_CONTROL_VERSION,
        .catalog_version = PG_CATALOG_VERSION,
        .state = state,
        .checkpoint_lsn = CHECKPOINT_LSN,
        .max_align = 8,
        .float_format = 1234567.0,
        .page_size = PAGE_SIZE,
        .wal_page_size = WAL_PAGE_SIZE,
        .float8_by_value = 1,
        .wal_segment_size = 16 * MIB,
    };
    uint8_t file[PG_CONTROL_FILE_SIZE];
    char line[100];
    make_folders();
    pg_control_write(&control, file);
    put("pgdata.old/global/pg_control", bytes_of(file, sizeof(file)));
    (void)snprintf(line, sizeof(line), "anabranch.timeline_id = '%s'\n", timeline_id_text(of).text);
    put("pgdata.old/postgresql.conf", bytes_of_str(line));
    put("pgdata.old/pg_stat/pg_stat_statements.stat", bytes_of_str("statements"));
    if (with_statistics) {
        put("pgdata.old/pg_stat/pgstat.stat", bytes_of_str("counts"));
    }
    statistics_set_aside(dir, timeline);
    statistics_bring_back(dir, start_lsn);
    bool back = is_there("pgdata/pg_stat/pgstat.stat");
    ck_assert(is_there("pgdata/pg_stat/pg_stat_statements.stat") == back);
    ck_assert(!is_there("pgstat.kept") && !is_there("pg_control.kept"));
    ck_assert(!is_there("pg_stat_statements.kept") && !is_there("autoprewarm.kept"));
    ck_assert_ok(dir_remove(dir, &msg), &msg);
    return back;
}

START_TEST(test_statistics_of_a_clean_stop_come_back)
{
    ck_assert(comes_back(PG_CONTROL_SHUT_DOWN, timeline, END_LSN, true));
}
END_TEST

START_TEST(test_statistics_of_a_running_server_do_not)
{
    ck_assert(!comes_back(PG_CONTROL_IN_PRODUCTION, timeline, END_LSN, true));
}
END_TEST

START_TEST(test_statistics_of_another_timeline_do_not)
{
    ck_assert(!comes_back(PG_CONTROL_SHUT_DOWN, other_timeline, END_LSN, true));
}
END_TEST

/* Another compute ran in between: it began with a checkpoint of its own. */
START_TEST(test_statistics_of_before_another_writer_do_not)
{
    ck_assert(!comes_back(PG_CONTROL_SHUT_DOWN, timeline, END_LSN + 120, true));
}
END_TEST

/* The shutdown checkpoint did not reach the quorum, and perhaps more did not. */
START_TEST(test_statistics_of_more_than_was_shipped_do_not)
{
    ck_assert(!comes_back(PG_CONTROL_SHUT_DOWN, timeline, CHECKPOINT_LSN, true));
}
END_TEST

START_TEST(test_without_statistics_nothing_is_kept)
{
    ck_assert(!comes_back(PG_CONTROL_SHUT_DOWN, timeline, END_LSN, false));
}
END_TEST

UNIT_MAIN(
    "statistics",
    test_statistics_of_a_clean_stop_come_back,
    test_statistics_of_a_running_server_do_not,
    test_statistics_of_another_timeline_do_not,
    test_statistics_of_before_another_writer_do_not,
    test_statistics_of_more_than_was_shipped_do_not,
    test_without_statistics_nothing_is_kept);
