/*
 * getpage_sample - pages read at the head while WAL is being ingested must be the pages of the LSN
 * that came with them.
 *
 *   getpage_sample --port N --tenant T --timeline TL --samples FILE
 *                  [--relations FILE --count N --seed N] [--host H]
 *
 * With --relations (lines of GET .../relations) it reads --count times among a few random blocks
 * of those, so that caches are asked for what ingest is changing, and appends to --samples what
 * came: key, LSN, whether the block exists, hash. Without, it reads every sample again at its LSN,
 * which takes another path, and compares.
 *
 * Prints one line of JSON. Exit code: 0 equal, 1 different, 2 trouble.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "tests/oracle/page_link.h"
#include "tests/oracle/twin_files.h"

#define IN_FLIGHT 32
#define HOT_COUNT 48 /* blocks that one run reads again and again */
#define SHOWN_MAX 20

struct sample {
    struct page_key key;
    lsn_t lsn;
    uint32_t existing;
    uint64_t hash;
};

struct sampler {
    const char *host, *tenant, *timeline, *relations_path, *samples_path;
    uint16_t port;
    uint64_t count, seed;
    struct page_link link;
    FILE *file;
    struct sample asked[IN_FLIGHT];
    size_t busy_count;
    struct page_key hot[HOT_COUNT];
    struct prng prng;
    uint64_t sent, read, refused, different;
};

static uint64_t page_hash(struct bytes page)
{
    uint8_t copy[PAGE_SIZE];
    if (page.size != PAGE_SIZE) {
        page_link_fail("a reply of another size");
    }
    memcpy(copy, page.data, PAGE_SIZE);
    page_set_u16(copy, PAGE_CHECKSUM, 0);
    return hash64(copy, sizeof(copy), 0);
}

static void ask(struct sampler *sampler, uint64_t id)
{
    const struct sample *asked = &sampler->asked[id];
    sampler->sent++;
    sampler->busy_count++;
    page_link_ask_pages(&sampler->link, id, asked->key, 1, asked->lsn);
}

/* Takes a reply to `*ret_id`; false when the pageserver refused (the relation was dropped). */
static bool take_reply(struct sampler *sampler, uint64_t *ret_id, struct sample *ret_sample)
{
    struct frame frame = page_link_receive(&sampler->link);
    struct reader reader = reader_of(frame.payload);
    struct get_page_reply reply = {0};
    if (frame.request_id >= IN_FLIGHT) {
        page_link_fail("a reply to nothing that was asked");
    }
    sampler->busy_count--;
    *ret_id = frame.request_id;
    if (frame.type == FRAME_ERROR) {
        sampler->refused++;
        return false;
    }
    if (frame.type != FRAME_GET_PAGE_REPLY || get_page_reply_decode(&reply, &reader) != ERR_OK) {
        page_link_fail("a reply of the wrong type");
    }
    sampler->read++;
    *ret_sample = (struct sample){
        .key = sampler->asked[frame.request_id].key,
        .lsn = reply.lsn,
        .existing = reply.existing,
        .hash = page_hash(reply.pages),
    };
    return true;
}

/* -- reading at the head -- */

/* Relations that change: shared ones, and those of databases that are no templates; near the end.
 */
static void choose_hot(struct sampler *sampler)
{
    struct fork_list list = {0};
    fork_list_read(&list, sampler->relations_path);
    if (list.count == 0) {
        page_link_fail("no relations to read");
    }
    for (size_t i = 0; i < HOT_COUNT; i++) {
        struct fork_item item;
        unsigned tries = 0;
        do {
            item = list.items[prng_below(&sampler->prng, list.count)];
        } while ((item.key.db == 1 || item.key.db == 4 || item.blocks == 0) && tries++ < 100);
        uint64_t back = prng_below(&sampler->prng, 4);
        item.key.block = item.blocks > back ? item.blocks - (uint32_t)back : 0;
        sampler->hot[i] = item.key;
    }
    fork_list_deinit(&list);
}

static bool next_hot(struct sampler *sampler, struct sample *ret_asked)
{
    if (sampler->sent == sampler->count) {
        return false;
    }
    *ret_asked = (struct sample){
        .key = sampler->hot[prng_below(&sampler->prng, HOT_COUNT)], .lsn = LSN_HEAD};
    return true;
}

static void write_sample(struct sampler *sampler, const struct sample *sample)
{
    struct page_key key = sample->key;
    fprintf(
        sampler->file,
        "%" PRIu32 " %" PRIu32 " %" PRIu32 " %d %" PRIu32 " %" PRIu64 " %" PRIu32 " %" PRIu64 "\n",
        key.spc, key.db, key.rel, key.fork, key.block, sample->lsn, sample->existing, sample->hash);
}

/* -- reading again -- */

static bool next_written(struct sampler *sampler, struct sample *ret_asked)
{
    char line[256];
    if (fgets(line, sizeof(line), sampler->file) == NULL) {
        return false;
    }
    uint64_t field[8];
    char *at = line;
    for (size_t i = 0; i < ARRAY_LEN(field); i++) {
        char *begin = at;
        field[i] = strtoull(begin, &at, 10);
        if (at == begin) {
            page_link_fail("not a line of samples");
        }
    }
    *ret_asked = (struct sample){
        .key =
            {.spc = (uint32_t)field[0],
             .db = (uint32_t)field[1],
             .rel = (uint32_t)field[2],
             .fork = (uint8_t)field[3],
             .block = (uint32_t)field[4]},
        .lsn = field[5],
        .existing = (uint32_t)field[6],
        .hash = field[7],
    };
    return true;
}

static void judge(struct sampler *sampler, const struct sample *was, const struct sample *is)
{
    if (is != NULL && is->lsn == was->lsn && is->existing == was->existing &&
        is->hash == was->hash) {
        return;
    }
    if (++sampler->different <= SHOWN_MAX) {
        printf(
            "different: %s read at the head " LSN_FMT ": %" PRIu32 " exists, hash %016" PRIx64
            "; there now: %s %" PRIu32 " exists, hash %016" PRIx64 "\n",
            page_key_text(was->key).text, LSN_ARGS(was->lsn), was->existing, was->hash,
            is == NULL ? "refused" : "", is == NULL ? 0 : is->existing, is == NULL ? 0 : is->hash);
    }
}

/* -- both -- */

static bool next(struct sampler *sampler, struct sample *ret_asked)
{
    return sampler->relations_path != NULL ? next_hot(sampler, ret_asked)
                                           : next_written(sampler, ret_asked);
}

static void run(struct sampler *sampler)
{
    for (uint64_t id = 0; id < IN_FLIGHT && next(sampler, &sampler->asked[id]); id++) {
        ask(sampler, id);
    }
    page_link_send(&sampler->link);
    while (sampler->busy_count > 0) {
        uint64_t id;
        struct sample got;
        bool good = take_reply(sampler, &id, &got);
        if (sampler->relations_path == NULL) {
            judge(sampler, &sampler->asked[id], good ? &got : NULL);
        } else if (good) {
            write_sample(sampler, &got);
        }
        if (next(sampler, &sampler->asked[id])) {
            ask(sampler, id);
            page_link_send(&sampler->link);
        }
    }
}

static bool parse_arguments(struct sampler *sampler, int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, 'h'},
        {"port", required_argument, NULL, 'p'},
        {"tenant", required_argument, NULL, 't'},
        {"timeline", required_argument, NULL, 'l'},
        {"relations", required_argument, NULL, 'r'},
        {"samples", required_argument, NULL, 's'},
        {"count", required_argument, NULL, 'c'},
        {"seed", required_argument, NULL, 'e'},
        {0},
    };
    int option;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread. */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'h': sampler->host = optarg; break;
        case 'p': sampler->port = (uint16_t)strtoul(optarg, NULL, 10); break;
        case 't': sampler->tenant = optarg; break;
        case 'l': sampler->timeline = optarg; break;
        case 'r': sampler->relations_path = optarg; break;
        case 's': sampler->samples_path = optarg; break;
        case 'c': sampler->count = strtoull(optarg, NULL, 10); break;
        case 'e': sampler->seed = strtoull(optarg, NULL, 10); break;
        default: return false;
        }
    }
    return sampler->port != 0 && sampler->tenant != NULL && sampler->timeline != NULL &&
           sampler->samples_path != NULL;
}

int main(int argc, char **argv)
{
    static struct sampler sampler = {.host = "127.0.0.1", .count = 2000};
    if (!parse_arguments(&sampler, argc, argv)) {
        page_link_fail("--port, --tenant, --timeline and --samples are required");
    }
    prng_init(&sampler.prng, sampler.seed);
    sampler.file = fopen(sampler.samples_path, sampler.relations_path != NULL ? "a" : "r");
    if (sampler.file == NULL) {
        page_link_fail("cannot open the file of samples");
    }
    if (sampler.relations_path != NULL) {
        choose_hot(&sampler);
    }
    page_link_open(&sampler.link, sampler.host, sampler.port, sampler.tenant, sampler.timeline);
    run(&sampler);
    page_link_close(&sampler.link);
    if (fclose(sampler.file) != 0) {
        page_link_fail("cannot write the file of samples");
    }
    printf(
        "{\"read\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"different\":%" PRIu64 "}\n", sampler.read,
        sampler.refused, sampler.different);
    return sampler.different == 0 ? 0 : 1;
}
