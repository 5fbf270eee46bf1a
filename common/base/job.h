/*
 * job.h - a piece of blocking work: run() on a worker thread, done() back on the owning loop.
 *
 * Embed it in the object that waits for it. Between executor_submit() and done() the worker owns
 * what run() touches. See common/io/executor.h.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/list.h"

struct lane;

struct job {
    err_t (*run)(struct job *job); /* worker; may fill `msg` */
    void (*done)(struct job *job); /* loop */
    err_t result;                  /* of run() */
    struct errmsg msg;
    struct list_link link; /* private from here on: the executor's or the lane's queue */
    struct lane *lane;
    struct job *partner; /* of a pair: the done() of both is called when both have run */
    bool is_run, is_second;
};
