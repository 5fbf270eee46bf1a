/*
 * objects.h - the commands about projects, branches, endpoints and operations: one API call each,
 * then, unless --no-wait, until its operations have ended.
 */
#pragma once

#include "tools/anabranch/context.h"

/* words[0] is the name of a kind, in either number, or "connection-string". */
NODISCARD err_t objects_command(struct context *context, struct errmsg *msg);
bool objects_knows(const char *word);

#define OBJECTS_ID_SIZE 64
/* --project, ANABRANCH_PROJECT, or the only one there is; as it stands in a path. */
NODISCARD err_t
objects_find_project(struct context *context, char ret_id[OBJECTS_ID_SIZE], struct errmsg *msg);
/* An id, a name, or NULL for the default branch. */
NODISCARD err_t objects_find_branch(
    struct context *context,
    const char *project,
    const char *wanted,
    char ret_id[OBJECTS_ID_SIZE],
    struct errmsg *msg);
/* A call whose answer holds the object and its operations; waits, then prints. Takes over `body`.
 */
NODISCARD err_t objects_mutate(
    struct context *context,
    const char *singular,
    const char *method,
    const char *path,
    struct doc *body,
    struct errmsg *msg);
/* Until all of them have ended; ERR_FAILED: one of them could not be done. */
NODISCARD err_t
objects_wait(struct context *context, const struct doc *operations, struct errmsg *msg);
