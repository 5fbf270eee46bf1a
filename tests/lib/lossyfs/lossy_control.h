/*
 * lossy_control.h - what a test tells the file system by writing a line to its file ".lossyfs":
 *
 *   cut SEED [PERCENT]     the power is cut: nobody may have a file open, or finds it changed.
 *                          PERCENT of what was not synced is kept; without it chance decides,
 *                          often that all is lost
 *   kill COUNT PID         PID gets SIGKILL in place of the COUNT-th change from now on; 0: nobody
 *   names strict|linux     what a sync of a file does for its name, from now on (lossy_tree.h)
 *   lie on|off             syncs succeed and do nothing, as on a disk that lies
 *   fail OP ERRNO COUNT PATTERN   the next COUNT calls of OP (read, write, sync) on a path that
 *                          fnmatch() matches fail so. A failed sync loses what it was to sync
 *   capacity BYTES         the disk is full beyond; 0: never
 *   flip PATH OFFSET BIT   one bit changes
 *   heal                   no lie, no failures, no limit, nobody to kill
 *
 * Reading the file answers one JSON object: counts of what is not synced, and of all cuts.
 */
#pragma once

#include <sys/types.h>

#include "tests/lib/lossyfs/lossy_tree.h"

enum lossy_op { LOSSY_READ, LOSSY_WRITE, LOSSY_SYNC };

#define LOSSY_FAILURES_MAX 8

struct lossy_failure {
    enum lossy_op op;
    int error;
    uint64_t count; /* left; 0: free */
    char pattern[LOSSY_NAME_SIZE];
};

struct lossy_control {
    struct lossy_tree *tree;
    struct lossy_cut cut; /* counts over all cuts */
    uint64_t cuts, changes, syncs;
    bool is_lying;
    uint64_t changes_left; /* until somebody is killed; 0: nobody */
    pid_t victim;
    struct lossy_failure failures[LOSSY_FAILURES_MAX];
};

NODISCARD err_t
lossy_control_run(struct lossy_control *control, const char *line, struct errmsg *msg);
void lossy_control_status(struct lossy_control *control, struct buf *to);

/* Before each change: EIO when it must not happen because its process was just killed. */
int lossy_control_on_change(struct lossy_control *control);
/* Before each call that can be made to fail: 0 or the error. */
int lossy_control_on_call(
    struct lossy_control *control, enum lossy_op op, const struct lossy_inode *inode);
/* What a sync does, be it true, a lie or a failure: 0 or the error. */
int lossy_control_sync(struct lossy_control *control, struct lossy_inode *inode);
