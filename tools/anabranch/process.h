/*
 * process.h - starting, watching and ending the daemons of a local cluster.
 *
 * A daemon is detached (own session), so it outlives the command. A pid counts only while its
 * command line still names the settings file: pids are used again.
 */
#pragma once

#include "tools/anabranch/cluster.h"

bool process_is_running(const struct process *process);
/* Started, not yet ready. Its output goes to the end of its log. */
NODISCARD err_t process_start(struct process *process, struct errmsg *msg);
/* Until /readyz says 200. When it ended: the last lines of its log. */
NODISCARD err_t process_wait_ready(
    const struct cluster *cluster,
    const struct process *process,
    uint64_t timeout_ms,
    struct errmsg *msg);
/* SIGTERM, and SIGKILL when it has not ended after a while. Not running is fine. */
void process_stop(const struct process *process);
void process_wait_end(int pid, uint64_t timeout_ms);
/* Everything that still has its working folder or a file name below `data_dir`: computes. */
void process_end_strays(const char *data_dir);
NODISCARD err_t process_signal_parse(const char *text, int *ret_signal, struct errmsg *msg);
