/*
 * child.h - child processes.
 *
 * A child gets its own process group, stdin /dev/null, stdout and stderr to a file, the given user
 * when we are root, and PR_SET_PDEATHSIG when `dies_with_us`.
 */
#pragma once

#include "common/io/loop.h"

struct child;

struct child_user {
    /* exit_status is -1 when a signal ended it. The child is freed after this. */
    void (*on_exit)(struct child_user *user, int exit_status, int signal);
    struct child *child; /* NULL when it is not running */
};

struct child_options {
    const char *const *argv; /* argv[0] is the path of the program */
    const char *const *env;  /* "NAME=value" added to ours; may be NULL */
    const char *working_dir; /* may be NULL */
    const char *output_path; /* stdout and stderr are appended here; NULL: ours */
    const char *stdout_path; /* stdout alone goes here (truncated); NULL: as output_path */
    const char *user_name;   /* run as this user when we are root; NULL: as we are */
    bool dies_with_us;
};

NODISCARD err_t child_start(
    struct loop *loop,
    const struct child_options *options,
    struct child_user *user,
    struct errmsg *msg);
int child_pid(const struct child *child);
void child_signal(struct child *child, int signal); /* the child itself */
void child_signal_group(struct child *child, int signal);
