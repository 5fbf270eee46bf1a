/*
 * ingest_bench FOLDER BASE TAR WAL END IMAGES - what it costs to take in the WAL that a
 * Postgres wrote, all the way to compacted files.
 *
 * A root is made of TAR, which has the data directory BASE as its shutdown left it.
 * From the end of that shutdown's checkpoint up to the LSN END the segments in the folder WAL go
 * through wal_ingest as in the pageserver: read, check, decode, layers, an image of a page after
 * IMAGES records, flushes, compaction. Reading the segments and the root are not counted.
 *
 * Prints one JSON object; CPU time is that of the whole process until nothing runs any more.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/pg/wal_page.h"
#include "pageserver/remote/bootstrap.h"
#include "tests/bench/ingest_lab.h"
#include "tests/bench/redo_trace.h"

static struct {
    lsn_t start_lsn;
    uint64_t records;
    bool has_start;
} found;

static struct {
    struct ingest_lab_root root;
    char objects[PATH_SIZE];
    const char *tar;
} base;

/* The first record is the checkpoint: behind it begins what is ingested. */
static err_t count(struct wal_visitor *visitor, const struct wal_record *record, struct errmsg *msg)
{
    (void)visitor;
    (void)msg;
    if (!found.has_start) {
        found.has_start = true;
        found.start_lsn = record->end_lsn;
    } else {
        found.records++;
    }
    return ERR_OK;
}

static void fill(
    const struct ingest_lab_root *root,
    struct page_store *store,
    uint32_t timeline,
    struct ingest_position *ret_position)
{
    struct errmsg msg;
    struct objstore *objects = NULL;
    must(objstore_open(base.objects, &objects, &msg), &msg);
    must(objstore_put_file(objects, "base.tar", base.tar, &msg), &msg);
    struct bootstrap_options options = {
        .objects = objects,
        .object = "base.tar",
        .store = store,
        .timeline = timeline,
        .start_lsn = root->start_lsn,
        .system_id = root->system_id,
    };
    must(bootstrap_import(&options, ret_position, &msg), &msg);
    objstore_close(objects);
}

/* The bytes [begin, end) of the segments. */
static void read_wal(const char *folder, lsn_t begin, lsn_t end, struct buf *to)
{
    while (begin < end) {
        char path[PATH_SIZE];
        (void)snprintf(
            path, sizeof(path), "%s/%s", folder, wal_segment_name(begin, LAB_SEGMENT_SIZE).text);
        size_t at = (size_t)(begin % LAB_SEGMENT_SIZE);
        size_t size = (size_t)MIN_OF(end - begin, (lsn_t)(LAB_SEGMENT_SIZE - at));
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || pread(fd, buf_extend(to, size), size, (off_t)at) != (ssize_t)size) {
            (void)fprintf(stderr, "ingest_bench: %s: %m\n", path);
            exit(1);
        }
        (void)close(fd);
        begin += size;
    }
}

int main(int argc, char **argv)
{
    struct errmsg msg;
    uint64_t images = 0;
    if (argc != 7) {
        (void)fprintf(stderr, "usage: ingest_bench FOLDER BASE TAR WAL END IMAGES\n");
        return 2;
    }
    struct wal_source source = {.base_dir = argv[2], .wal_dir = argv[4]};
    must(parse_lsn(argv[5], &source.end_lsn, &msg), &msg);
    must(parse_u64(argv[6], 0, 254, &images, &msg), &msg);
    (void)snprintf(base.objects, sizeof(base.objects), "dir:%s/objects", argv[1]);
    base.tar = argv[3];
    struct wal_visitor visitor = {.visit = count};
    must(wal_walk(&source, &visitor, &msg), &msg);
    base.root.start_lsn = found.start_lsn;
    must(wal_source_system_id(&source, &base.root.system_id, &msg), &msg);
    base.root.fill = fill;
    struct buf wal = {0};
    read_wal(source.wal_dir, found.start_lsn, source.end_lsn, &wal);
    const struct ingest_lab *lab = ingest_lab_open(argv[1], &base.root, (unsigned)images);
    struct cost begin = cost_now();
    ingest_lab_run(buf_view(&wal), source.end_lsn);
    ingest_lab_flush();
    struct cost used = cost_since(begin);
    printf(
        "{\"records\": %" PRIu64 ", \"bytes\": %zu, \"ingest_s\": %.3f, \"compaction_s\": %.3f, "
        "\"written\": %" PRIu64 ", \"flushes\": %u}\n",
        found.records, wal.size, used.cpu, used.compaction, used.written, lab->flushes);
    ingest_lab_close();
    buf_deinit(&wal);
    return 0;
}
