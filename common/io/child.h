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

/* 0 and NULL: none. */
struct child_limits {
    uint64_t data_size_max;      /* bytes of private memory of each process */
    uint64_t file_size_max;      /* bytes of each file that it writes */
    const char *cgroup_procs[3]; /* files of cgroups that it joins: taken from the front */
};

struct child_options {
    const char *const *argv; /* argv[0] is the path of the program */
    const char *const *env;  /* "NAME=value" added to ours; may be NULL */
    const char *working_dir; /* may be NULL */
    const char *output_path; /* stdout and stderr are appended here; NULL: ours */
    const char *stdout_path; /* stdout alone goes here (truncated); NULL: as output_path */
    const char *user_name;   /* run as this user when we are root; NULL: as we are */
    bool dies_with_us;
    struct child_limits limits;
};

NODISCARD err_t child_start(
    struct loop *loop,
    const struct child_options *options,
    struct child_user *user,
    struct errmsg *msg);
int child_pid(const struct child *child);
void child_signal(struct child *child, int signal); /* the child itself */
void child_signal_group(struct child *child, int signal);
