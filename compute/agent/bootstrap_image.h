/*
 * bootstrap_image.h - the empty cluster from which roots begin: initdb once, then an object.
 *
 * The image is the data directory without WAL and settings, as a tar with sorted names and no
 * times; its start_lsn is the end of initdb's shutdown checkpoint. What was made is remembered in
 * DATA_DIR/bootstrap.json, so that asking again gives the same image.
 */
#pragma once

#include "compute/agent/compute.h"

struct bootstrap_maker;

struct bootstrap_maker *bootstrap_maker_create(
    const struct compute_host *host, const char *data_dir);
/*
 * Ends initdb and what waits for the object store; who waits gets an error. It may be destroyed
 * once it is not busy any more: `on_stopped` says when that is, unless it is so already.
 */
void bootstrap_maker_stop(struct bootstrap_maker *maker, void (*on_stopped)(void));
bool bootstrap_maker_is_busy(const struct bootstrap_maker *maker);
void bootstrap_maker_destroy(struct bootstrap_maker *maker); /* NULL is fine */

/* POST /v1/bootstrap_images: answers, now or later. */
void bootstrap_maker_handle(struct bootstrap_maker *maker, struct http_request *request);

/* Where the record ends that begins at `begin` and has `size` bytes (segments of 16 MiB). Pure. */
lsn_t bootstrap_record_end(lsn_t begin, uint64_t size);
