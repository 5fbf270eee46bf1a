/*
 * ingest_lab.h - for benchmarks: one timeline with loop, executor and tenants as in the pageserver,
 * fed with WAL from memory. Any failure ends the program with a message.
 */
#pragma once

#include "common/pg/page_key.h"
#include "pageserver/ingest/wal_ingest.h"
#include "tests/lib/wal_builder.h"

#define LAB_START_LSN    ((lsn_t)0x1000000)
#define LAB_SEGMENT_SIZE (16 * (uint32_t)MIB)
#define LAB_FLUSH_BYTES  (64 * MIB) /* the default of the pageserver */

struct ingest_lab {
    struct timeline *timeline;
    size_t layers_max; /* most memory that all layers took */
    unsigned flushes;
};

void must(err_t err, const struct errmsg *msg);
double cpu_seconds(void); /* of the whole process */
void pause_ms(unsigned ms);

struct cost {
    double cpu,
        compaction;   /* seconds; the second, of the threads of RocksDB, is part of the first */
    uint64_t written; /* bytes that were given to write() */
};

struct cost cost_now(void); /* since the process began */
struct cost cost_since(struct cost begin);

/* What the timeline begins with. */
struct ingest_lab_root {
    lsn_t start_lsn;
    uint64_t system_id;
    /* Put it into the store, and say where ingest begins. */
    void (*fill)(
        const struct ingest_lab_root *root,
        struct page_store *store,
        uint32_t timeline,
        struct ingest_position *ret_position);
};

/* `images`: as image_after_records. */
const struct ingest_lab *ingest_lab_open(
    const char *folder, const struct ingest_lab_root *root, unsigned images);
/* The same with a root at LAB_START_LSN that has `relation` of `blocks` and nothing else. */
const struct ingest_lab *ingest_lab_open_empty(
    const char *folder, struct page_key relation, uint32_t blocks, unsigned images);
/* WAL from root.start_lsn on; returns when everything up to `end` was ingested. */
void ingest_lab_run(struct bytes wal, lsn_t end);
void ingest_lab_flush(void); /* everything is in files, and no compaction is left to do */
void ingest_lab_close(void);
