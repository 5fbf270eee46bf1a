/*
 * store_space - what the store in a folder keeps, against the least that it must keep: least.h,
 * worked out from what lies there.
 *
 *   store_space FOLDER CUTOFF       of a tenant with one timeline, a root; nobody has it open
 *
 * CUTOFF is an LSN, "0/16B3748". Prints one line; exit code 0 unless the store cannot be read.
 */
#include <stdio.h>

#include "common/base/log.h"
#include "common/base/parse.h"
#include "tests/model/store/space.h"

int main(int argc, char **argv)
{
    struct errmsg msg;
    struct space space;
    struct least_timeline root = {.number = 1};
    if (argc != 3 || parse_lsn(argv[2], &root.cutoff, &msg) != ERR_OK) {
        (void)fputs("usage: store_space FOLDER CUTOFF\n", stderr);
        return 2;
    }
    log_init("store_space", LOG_LEVEL_ERROR);
    struct least_world world = {.timelines = &root, .timeline_count = 1};
    space_read(argv[1], &world.versions, &world.version_count);
    least_mark(&world);
    space_measure(argv[1], world.versions, world.version_count, &space);
    space_print(&space);
    return 0;
}
