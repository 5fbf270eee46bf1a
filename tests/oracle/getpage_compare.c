/*
 * getpage_compare - every page and size that a pageserver serves at an LSN against the data
 * directory that stock Postgres has at that LSN.
 *
 *   getpage_compare --port N --tenant T --timeline TL --lsn L|head --twin DIR --relations FILE
 *                   [--host H] [--gone FILE] [--forks FILE]
 *
 * --relations is what the pageserver lists at L (GET .../relations), lines "SPC DB REL FORK
 * BLOCKS": nothing may be there that the twin does not have, and nothing missing. --gone lists
 * forks of other LSNs: those that the twin does not have must not exist by REL_SIZE either.
 * --forks writes the twin's forks as such a list. Byte for byte but pd_checksum; many requests are
 * in flight over the framed protocol, as from a compute.
 *
 * Prints differences and at the end one line of JSON. Exit code: 0 equal, 1 different, 2 trouble.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/parse.h"
#include "tests/oracle/page_link.h"
#include "tests/oracle/twin_files.h"

#define IN_FLIGHT 32
#define SHOWN_MAX 20

/* What one request in flight asked for. */
struct asked {
    bool busy;
    enum { ASKED_PAGES, ASKED_SIZE, ASKED_GONE } what;
    struct fork_item fork;
    uint32_t first, count; /* blocks of ASKED_PAGES; the last may lie behind the end */
};

struct compare {
    const char *host, *tenant, *timeline, *twin_dir, *relations_path, *gone_path, *forks_path;
    uint16_t port;
    lsn_t lsn;
    struct page_link link;
    struct fork_list twin, listed, gone;
    struct asked asked[IN_FLIGHT];
    size_t busy_count;
    size_t next_fork, next_gone; /* what is asked next: a cursor over twin, then over gone */
    uint32_t next_block;
    bool size_asked;
    uint64_t pages, different, sizes, missing, extra, undead, refused, shown;
};

static bool may_show(struct compare *compare)
{
    return compare->shown++ < SHOWN_MAX;
}

/* -- asking -- */

static void ask(struct compare *compare, uint64_t id)
{
    const struct asked *asked = &compare->asked[id];
    struct page_key key = asked->fork.key;
    if (asked->what == ASKED_PAGES) {
        key.block = asked->first;
        page_link_ask_pages(&compare->link, id, key, asked->count, compare->lsn);
    } else {
        page_link_ask_size(&compare->link, id, key, compare->lsn);
    }
}

/*
 * The next question, false when all are asked: the size of each fork, its pages, and one block
 * behind its end where the last request has room for it.
 */
static bool next_question(struct compare *compare, struct asked *ret_asked)
{
    while (compare->next_fork < compare->twin.count) {
        struct fork_item fork = compare->twin.items[compare->next_fork];
        if (!compare->size_asked) {
            compare->size_asked = true;
            *ret_asked = (struct asked){.busy = true, .what = ASKED_SIZE, .fork = fork};
            return true;
        }
        uint32_t first = compare->next_block;
        uint32_t count = MIN_OF(fork.blocks + 1 - first, (uint32_t)GET_PAGE_COUNT_MAX);
        compare->next_block += count;
        if (compare->next_block >= fork.blocks) {
            compare->next_fork++;
            compare->next_block = 0;
            compare->size_asked = false;
        }
        *ret_asked = (struct asked){
            .busy = true, .what = ASKED_PAGES, .fork = fork, .first = first, .count = count};
        return true;
    }
    while (compare->next_gone < compare->gone.count) {
        struct fork_item fork = compare->gone.items[compare->next_gone++];
        if (fork_list_find(&compare->twin, fork.key) == NULL) {
            *ret_asked = (struct asked){.busy = true, .what = ASKED_GONE, .fork = fork};
            return true;
        }
    }
    return false;
}

static void ask_more(struct compare *compare)
{
    for (uint64_t id = 0; id < IN_FLIGHT; id++) {
        if (!compare->asked[id].busy && next_question(compare, &compare->asked[id])) {
            compare->busy_count++;
            ask(compare, id);
        }
    }
    page_link_send(&compare->link);
}

/* -- judging -- */

static void show_page(struct page_key key, const uint8_t *ours, const uint8_t *theirs)
{
    size_t first = PAGE_SIZE;
    size_t last = 0;
    size_t count = 0;
    for (size_t i = 0; i < PAGE_SIZE; i++) {
        if (ours[i] != theirs[i]) {
            first = MIN_OF(first, i);
            last = i;
            count++;
        }
    }
    printf(
        "different: %s, %zu bytes in %zu..%zu; lsn ours " LSN_FMT " twin " LSN_FMT
        ", lower %u/%u upper %u/%u special %u/%u\n ",
        page_key_text(key).text, count, first, last, LSN_ARGS(page_lsn(ours)),
        LSN_ARGS(page_lsn(theirs)), page_u16(ours, PAGE_LOWER), page_u16(theirs, PAGE_LOWER),
        page_u16(ours, PAGE_UPPER), page_u16(theirs, PAGE_UPPER), page_u16(ours, PAGE_SPECIAL),
        page_u16(theirs, PAGE_SPECIAL));
    for (size_t i = first; i <= last && i < first + 16; i++) {
        printf(" %zu:%02x/%02x", i, ours[i], theirs[i]);
    }
    printf("\n");
}

static void judge_page(struct compare *compare, struct page_key key, const uint8_t *got)
{
    uint8_t ours[PAGE_SIZE];
    uint8_t theirs[PAGE_SIZE] = {0};
    memcpy(ours, got, PAGE_SIZE);
    (void)twin_files_read(compare->twin_dir, key, theirs); /* behind the end: zeros */
    page_set_u16(ours, PAGE_CHECKSUM, 0);
    page_set_u16(theirs, PAGE_CHECKSUM, 0);
    compare->pages++;
    if (memcmp(ours, theirs, PAGE_SIZE) == 0) {
        return;
    }
    compare->different++;
    if (may_show(compare)) {
        show_page(key, ours, theirs);
    }
}

static void judge_pages(
    struct compare *compare, const struct asked *asked, const struct get_page_reply *reply)
{
    struct page_key key = asked->fork.key;
    uint32_t existing = MIN_OF(asked->fork.blocks - asked->first, asked->count);
    if (reply->pages.size != (size_t)asked->count * PAGE_SIZE ||
        (compare->lsn != LSN_HEAD && reply->lsn != compare->lsn)) {
        page_link_fail("a reply for other blocks or another LSN");
    }
    if (reply->existing != existing) {
        compare->sizes++;
        if (may_show(compare)) {
            printf(
                "size: %s: %" PRIu32 " of blocks %" PRIu32 "+%" PRIu32 " exist, twin %" PRIu32 "\n",
                page_key_text(key).text, reply->existing, asked->first, asked->count, existing);
        }
    }
    for (uint32_t i = 0; i < asked->count; i++) {
        key.block = asked->first + i;
        judge_page(compare, key, reply->pages.data + (size_t)i * PAGE_SIZE);
    }
}

static void judge_size(
    struct compare *compare, const struct asked *asked, const struct rel_size_reply *reply)
{
    bool wanted = asked->what == ASKED_SIZE;
    if (wanted == (reply->exists != 0) && (!wanted || reply->blocks == asked->fork.blocks)) {
        return;
    }
    *(wanted ? &compare->sizes : &compare->undead) += 1;
    if (may_show(compare)) {
        printf(
            "size: %s: %s with %" PRIu32 " blocks, twin %s with %" PRIu32 "\n",
            page_key_text(asked->fork.key).text, reply->exists ? "exists" : "gone", reply->blocks,
            wanted ? "exists" : "gone", wanted ? asked->fork.blocks : 0);
    }
}

static void judge_error(struct compare *compare, const struct asked *asked, struct reader *reader)
{
    struct error_reply reply = {0};
    if (error_reply_decode(&reply, reader) != ERR_OK) {
        page_link_fail("an error that cannot be read");
    }
    compare->refused++;
    if (may_show(compare)) {
        printf(
            "refused: %s blocks %" PRIu32 "+%" PRIu32 ": code %" PRIu32 " %.*s\n",
            page_key_text(asked->fork.key).text, asked->first, asked->count, reply.code,
            (int)reply.message.size, (const char *)reply.message.data);
    }
}

static void judge_reply(struct compare *compare)
{
    struct frame frame = page_link_receive(&compare->link);
    struct reader reader = reader_of(frame.payload);
    if (frame.request_id >= IN_FLIGHT || !compare->asked[frame.request_id].busy) {
        page_link_fail("a reply to nothing that was asked");
    }
    struct asked *asked = &compare->asked[frame.request_id];
    struct get_page_reply pages = {0};
    struct rel_size_reply rel_size = {0};
    if (frame.type == FRAME_ERROR) {
        judge_error(compare, asked, &reader);
    } else if (
        frame.type == FRAME_GET_PAGE_REPLY && asked->what == ASKED_PAGES &&
        get_page_reply_decode(&pages, &reader) == ERR_OK) {
        judge_pages(compare, asked, &pages);
    } else if (
        frame.type == FRAME_REL_SIZE_REPLY && asked->what != ASKED_PAGES &&
        rel_size_reply_decode(&rel_size, &reader) == ERR_OK) {
        judge_size(compare, asked, &rel_size);
    } else {
        page_link_fail("a reply of the wrong type");
    }
    asked->busy = false;
    compare->busy_count--;
}

/* The pageserver's list against the twin's files. */
static void judge_lists(struct compare *compare)
{
    for (size_t i = 0; i < compare->twin.count; i++) {
        const struct fork_item *item = &compare->twin.items[i];
        const struct fork_item *listed = fork_list_find(&compare->listed, item->key);
        if (listed == NULL || listed->blocks != item->blocks) {
            *(listed == NULL ? &compare->missing : &compare->sizes) += 1;
            if (may_show(compare)) {
                printf(
                    "list: %s: %s, twin has %" PRIu32 " blocks, listed %" PRIu32 "\n",
                    page_key_text(item->key).text, listed == NULL ? "missing" : "other size",
                    item->blocks, listed == NULL ? 0 : listed->blocks);
            }
        }
    }
    for (size_t i = 0; i < compare->listed.count; i++) {
        const struct fork_item *item = &compare->listed.items[i];
        if (fork_list_find(&compare->twin, item->key) == NULL) {
            compare->extra++;
            if (may_show(compare)) {
                printf(
                    "list: %s: extra, %" PRIu32 " blocks, twin has none\n",
                    page_key_text(item->key).text, item->blocks);
            }
        }
    }
}

static bool parse_arguments(struct compare *compare, int argc, char **argv)
{
    static const struct option options[] = {
        {"host", required_argument, NULL, 'h'},      {"port", required_argument, NULL, 'p'},
        {"tenant", required_argument, NULL, 't'},    {"timeline", required_argument, NULL, 'l'},
        {"lsn", required_argument, NULL, 'n'},       {"twin", required_argument, NULL, 'w'},
        {"relations", required_argument, NULL, 'r'}, {"gone", required_argument, NULL, 'g'},
        {"forks", required_argument, NULL, 'f'},     {0},
    };
    struct errmsg msg = {0};
    int option;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread. */
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'h': compare->host = optarg; break;
        case 'p': compare->port = (uint16_t)strtoul(optarg, NULL, 10); break;
        case 't': compare->tenant = optarg; break;
        case 'l': compare->timeline = optarg; break;
        case 'n':
            compare->lsn = LSN_HEAD;
            if (strcmp(optarg, "head") != 0) {
                page_link_check(parse_lsn(optarg, &compare->lsn, &msg), &msg);
            }
            break;
        case 'w': compare->twin_dir = optarg; break;
        case 'r': compare->relations_path = optarg; break;
        case 'g': compare->gone_path = optarg; break;
        case 'f': compare->forks_path = optarg; break;
        default: return false;
        }
    }
    return compare->port != 0 && compare->tenant != NULL && compare->timeline != NULL &&
           compare->lsn != 0 && compare->twin_dir != NULL && compare->relations_path != NULL;
}

static void load_lists(struct compare *compare)
{
    twin_files_list(compare->twin_dir, &compare->twin);
    fork_list_read(&compare->listed, compare->relations_path);
    fork_list_sort(&compare->listed);
    if (compare->gone_path != NULL) {
        fork_list_read(&compare->gone, compare->gone_path);
    }
    if (compare->forks_path != NULL) {
        fork_list_write(&compare->twin, compare->forks_path);
    }
}

int main(int argc, char **argv)
{
    static struct compare compare = {.host = "127.0.0.1"};
    if (!parse_arguments(&compare, argc, argv)) {
        page_link_fail("--port, --tenant, --timeline, --lsn, --twin and --relations are required");
    }
    load_lists(&compare);
    judge_lists(&compare);
    page_link_open(&compare.link, compare.host, compare.port, compare.tenant, compare.timeline);
    ask_more(&compare);
    while (compare.busy_count > 0) {
        judge_reply(&compare);
        ask_more(&compare);
    }
    printf(
        "{\"forks\":%zu,\"pages\":%" PRIu64 ",\"different\":%" PRIu64 ",\"sizes\":%" PRIu64
        ",\"missing\":%" PRIu64 ",\"extra\":%" PRIu64 ",\"undead\":%" PRIu64 ",\"refused\":%" PRIu64
        "}\n",
        compare.twin.count, compare.pages, compare.different, compare.sizes, compare.missing,
        compare.extra, compare.undead, compare.refused);
    page_link_close(&compare.link);
    bool equal = compare.different + compare.sizes + compare.missing + compare.extra +
                     compare.undead + compare.refused ==
                 0;
    fork_list_deinit(&compare.twin);
    fork_list_deinit(&compare.listed);
    fork_list_deinit(&compare.gone);
    return equal ? 0 : 1;
}
