/*
 * pagedump - show what is on a page, from a file of Postgres or from a pageserver at any LSN.
 *
 *   pagedump [--block N] [--map] FILE
 *   pagedump [--map] URL
 *
 * FILE is a relation's file, - is standard input. URL is a page of a pageserver's HTTP port:
 * http://HOST:PORT/v1/tenants/T/timelines/TL/page?spc=1663&db=5&rel=1259&block=0&lsn=0/16B3748
 * --map says that the page belongs to a visibility map.
 * Exit code 1: the page cannot be had; the message says why.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/parse.h"
#include "common/io/http_client.h"
#include "common/pg/page.h"
#include "tools/pagedump/page_text.h"

#define TIMEOUT_MS 60000

static err_t read_page(const char *path, uint32_t block, uint8_t *page, struct errmsg *msg)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    if (file == NULL) {
        return err_set(msg, ERR_IO, "open %s: %m", path);
    }
    size_t got = 0;
    for (uint64_t i = 0; i <= block; i++) { /* reads its way there: a pipe cannot be positioned */
        got = fread(page, 1, PAGE_SIZE, file);
        if (got != PAGE_SIZE) {
            break;
        }
    }
    if (!is_stdin) {
        (void)fclose(file);
    }
    return got == PAGE_SIZE
               ? ERR_OK
               : err_set(msg, ERR_NOT_FOUND, "%s: ends before the end of block %u", path, block);
}

static err_t fetch_page(const char *url, uint8_t *page, struct errmsg *msg)
{
    struct http_call call = {
        .method = "GET",
        .url = url,
        .token = getenv("ANABRANCH_API_KEY"), // NOLINT(concurrency-mt-unsafe): one thread
        .timeout_ms = TIMEOUT_MS,
    };
    err_t err = http_call_blocking(&call, msg);
    if (err == ERR_OK && call.status != 200) {
        struct doc *body = NULL;
        err = http_call_json(&call, &body, msg); /* the problem in its body */
        doc_unref(body);
    } else if (err == ERR_OK && call.response.size != PAGE_SIZE) {
        err = err_set(
            msg, ERR_CORRUPT, "%s: answered %zu bytes, which is no page", url, call.response.size);
    } else if (err == ERR_OK) {
        memcpy(page, call.response.data, PAGE_SIZE);
    }
    http_call_deinit(&call);
    return err;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"block", required_argument, NULL, 'b'},
        {"map", no_argument, NULL, 'm'},
        {NULL, 0, NULL, 0},
    };
    struct errmsg msg = {{0}};
    uint32_t block = 0;
    bool is_map = false;
    err_t err = ERR_OK;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread. */
    for (int option; err == ERR_OK && (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (option) {
        case 'b': err = parse_u32(optarg, &block, &msg); break;
        case 'm': is_map = true; break;
        default: err = err_set(&msg, ERR_INVALID, "unknown option"); break;
        }
    }
    if (err == ERR_OK && optind + 1 != argc) {
        err = err_set(&msg, ERR_INVALID, "usage: pagedump [--block N] [--map] FILE|-|URL");
    }
    uint8_t page[PAGE_SIZE];
    if (err == ERR_OK) {
        const char *source = argv[optind];
        err = strncmp(source, "http", 4) == 0 && strstr(source, "://") != NULL
                  ? fetch_page(source, page, &msg)
                  : read_page(source, block, page, &msg);
    }
    if (err != ERR_OK) {
        fprintf(stderr, "pagedump: %s\n", msg.text);
        return err == ERR_INVALID ? 2 : 1;
    }
    struct buf text = {0};
    page_text(page, is_map, &text);
    (void)fwrite(text.data, 1, text.size, stdout);
    buf_deinit(&text);
    return 0;
}
