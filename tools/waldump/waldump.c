/*
 * waldump - print the records of WAL segment files, as our reader sees them.
 *
 *   waldump [--start LSN] [--end LSN] [--stats] FILE...
 *
 * The files are consecutive segments. Without --start, reading begins at the first record that
 * begins on a page of the first file. Output: one line a record, or with --stats the counts.
 * Exit 0 at the end of the WAL, also when the rest of the last file was never written.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/pg/wal_page.h"
#include "common/pg/wal_reader.h"

#define FEED_SIZE (256 * KIB)

struct dump {
    lsn_t start_lsn, end_lsn;
    bool only_stats;
    struct wal_reader *reader;
    uint32_t segment_size;
    uint64_t counts[256], bytes[256];
};

static void print_record(const struct wal_record *record)
{
    printf(
        LSN_FMT " " LSN_FMT " %6" PRIu32 " xid %" PRIu32 " prev " LSN_FMT " %s",
        LSN_ARGS(record->lsn), LSN_ARGS(record->end_lsn), record->total_size, record->xid,
        LSN_ARGS(record->prev_lsn), wal_record_text(record).text);
    for (size_t i = 0; i < record->block_count; i++) {
        const struct wal_block *block = &record->blocks[i];
        if (block->in_use) {
            printf(
                ", %zu: %s%s%s", i, page_key_text(block->key).text,
                block->has_image ? " image" : "", block->will_init ? " init" : "");
        }
    }
    putchar('\n');
}

static err_t print_fed(struct dump *dump, struct errmsg *msg)
{
    const struct wal_record *record;
    err_t err;
    while ((err = wal_reader_next(dump->reader, &record, msg)) == ERR_OK) {
        if (record->lsn >= dump->end_lsn) {
            return ERR_CANCELED;
        }
        dump->counts[record->rmgr]++;
        dump->bytes[record->rmgr] += record->total_size;
        if (!dump->only_stats) {
            print_record(record);
        }
    }
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

/* Where the first record begins behind the page header at `page`; LSN_NONE: on no page here. */
static lsn_t first_record_on(const struct wal_page_header *page)
{
    lsn_t begin = page->lsn + wal_page_header_size(page->lsn, page->segment_size);
    if ((page->flags & WAL_PAGE_FIRST_IS_CONTRECORD) == 0) {
        return page->lsn;
    }
    lsn_t behind = (begin + page->rest_size + 7) & ~(lsn_t)7;
    return behind < page->lsn + WAL_PAGE_SIZE ? behind : LSN_NONE;
}

static err_t find_start(struct dump *dump, FILE *file, lsn_t segment_lsn, struct errmsg *msg)
{
    uint8_t header_bytes[WAL_PAGE_HEADER_LONG];
    for (lsn_t at = 0; at < dump->segment_size; at += WAL_PAGE_SIZE) {
        struct wal_page_header header;
        if (fseeko(file, (off_t)at, SEEK_SET) != 0 ||
            fread(header_bytes, sizeof(header_bytes), 1, file) != 1) {
            return err_set(msg, ERR_IO, "read: %m");
        }
        TRY(wal_page_header_parse(
            header_bytes, segment_lsn + at, dump->segment_size, 0, &header, msg));
        dump->start_lsn = first_record_on(&header);
        if (dump->start_lsn != LSN_NONE) {
            return ERR_OK;
        }
    }
    return err_set(msg, ERR_NOT_FOUND, "no record begins in the first file");
}

/* The first file tells segment size and position; reading begins there. */
static err_t begin(struct dump *dump, FILE *file, struct errmsg *msg)
{
    uint8_t header_bytes[WAL_PAGE_HEADER_LONG];
    if (fread(header_bytes, sizeof(header_bytes), 1, file) != 1) {
        return err_set(msg, ERR_CORRUPT, "too short for a WAL segment");
    }
    uint64_t segment_lsn;
    memcpy(&segment_lsn, header_bytes + 8, sizeof(segment_lsn));
    memcpy(&dump->segment_size, header_bytes + 32, sizeof(dump->segment_size));
    if (dump->segment_size < MIB || (dump->segment_size & (dump->segment_size - 1)) != 0 ||
        segment_lsn % dump->segment_size != 0) {
        return err_set(msg, ERR_CORRUPT, "no long header of a WAL segment");
    }
    if (dump->start_lsn == LSN_NONE) {
        TRY(find_start(dump, file, segment_lsn, msg));
    }
    if (dump->start_lsn < segment_lsn || dump->start_lsn - segment_lsn >= dump->segment_size) {
        return err_set(
            msg, ERR_RANGE, LSN_FMT " is not in the first file", LSN_ARGS(dump->start_lsn));
    }
    struct wal_reader_options options = {
        .start_lsn = dump->start_lsn,
        .segment_size = dump->segment_size,
        .record_size_max = WAL_RECORD_SIZE_MAX,
    };
    dump->reader = wal_reader_create(&options);
    if (fseeko(file, (off_t)(dump->start_lsn - segment_lsn), SEEK_SET) != 0) {
        return err_set(msg, ERR_IO, "seek: %m");
    }
    return ERR_OK;
}

static err_t dump_open_file(struct dump *dump, FILE *file, uint8_t *room, struct errmsg *msg)
{
    if (dump->reader == NULL) {
        TRY(begin(dump, file, msg));
    }
    size_t got;
    while ((got = fread(room, 1, FEED_SIZE, file)) > 0) {
        TRY(wal_reader_feed(dump->reader, bytes_of(room, got), msg));
        TRY(print_fed(dump, msg));
    }
    return ERR_OK;
}

static err_t dump_file(struct dump *dump, const char *path, struct errmsg *msg)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return err_set(msg, ERR_IO, "open %s: %m", path);
    }
    uint8_t *room = mem_alloc(FEED_SIZE);
    err_t err = dump_open_file(dump, file, room, msg);
    mem_free(room);
    fclose(file);
    return err == ERR_OK || err == ERR_CANCELED ? err : err_wrap(msg, err, "%s", path);
}

static void print_stats(const struct dump *dump)
{
    for (unsigned rmgr = 0; rmgr < 256; rmgr++) {
        if (dump->counts[rmgr] > 0) {
            printf(
                "%-18s %10" PRIu64 " records %14" PRIu64 " bytes\n", wal_rmgr_name((uint8_t)rmgr),
                dump->counts[rmgr], dump->bytes[rmgr]);
        }
    }
}

static int usage(void)
{
    fputs("usage: waldump [--start LSN] [--end LSN] [--stats] FILE...\n", stderr);
    return 2;
}

static bool parse_arguments(struct dump *dump, int argc, char **argv)
{
    static const struct option options[] = {
        {"start", required_argument, NULL, 's'},
        {"end", required_argument, NULL, 'e'},
        {"stats", no_argument, NULL, 'z'},
        {0},
    };
    struct errmsg msg;
    int option;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread. */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        lsn_t *lsn = option == 's' ? &dump->start_lsn : &dump->end_lsn;
        if (option == 'z') {
            dump->only_stats = true;
        } else if (option == '?') {
            return false;
        } else if (parse_lsn(optarg, lsn, &msg) != ERR_OK) {
            fprintf(stderr, "waldump: %s\n", msg.text);
            return false;
        }
    }
    return optind < argc;
}

int main(int argc, char **argv)
{
    struct dump dump = {.end_lsn = LSN_HEAD};
    struct errmsg msg = {{0}};
    if (!parse_arguments(&dump, argc, argv)) {
        return usage();
    }
    err_t err = ERR_OK;
    for (int i = optind; i < argc && err == ERR_OK; i++) {
        err = dump_file(&dump, argv[i], &msg);
    }
    if (dump.only_stats) {
        print_stats(&dump);
    }
    lsn_t end = dump.reader != NULL ? wal_reader_record_lsn(dump.reader) : LSN_NONE;
    bool is_end = err == ERR_OK || err == ERR_CANCELED ||
                  (dump.reader != NULL && wal_reader_at_zeros(dump.reader));
    if (!is_end) {
        fprintf(stderr, "waldump: after " LSN_FMT ": %s\n", LSN_ARGS(end), msg.text);
    } else {
        fprintf(stderr, "waldump: last record ends at " LSN_FMT "\n", LSN_ARGS(end));
    }
    wal_reader_destroy(dump.reader);
    return is_end ? 0 : 1;
}
