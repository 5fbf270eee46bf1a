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
#define LAB_FLUSH_BYTES  (32 * MIB)

struct ingest_lab {
    struct timeline *timeline;
    size_t layers_max; /* most memory that all layers took */
    unsigned flushes;
};

void must(err_t err, const struct errmsg *msg);
double cpu_seconds(void);  /* of the whole process */
void settle(void);         /* until compaction has nothing to do: the process uses no CPU */
uint64_t io_written(void); /* bytes that the process gave to write() so far */

/* A root at LAB_START_LSN with `relation` of `blocks`; `images`: as image_after_records. */
const struct ingest_lab *ingest_lab_open(
    const char *folder, struct page_key relation, uint32_t blocks, unsigned images);
void ingest_lab_run(const struct wal_builder *builder); /* returns when it was ingested */
void ingest_lab_flush(void);                            /* everything is in files */
void ingest_lab_close(void);
