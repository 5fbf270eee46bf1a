/*
 * What an S3 server answers (XML) and what a user sets as the store's URL.
 */
#include "common/base/assert.h"
#include "common/objstore/s3_settings.h"
#include "common/objstore/s3_xml.h"
#include "tests/fuzz/fuzz.h"

static err_t check_element(const char *path, const char *text, void *context, struct errmsg *msg)
{
    (void)msg;
    unsigned *count = context;
    ASSERT(path[0] != '\0' && strlen(path) < S3_XML_PATH_SIZE);
    ASSERT(strlen(text) <= S3_XML_TEXT_MAX);
    ++*count;
    return ERR_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct errmsg msg;
    struct s3_place place;
    struct buf url = {0};
    unsigned count = 0;
    err_t err = s3_xml_read(bytes_of(data, size), check_element, &count, &msg);
    ASSERT(IMPLIES(err == ERR_OK, count > 0));
    buf_printf(&url, "s3://bucket/");
    buf_append(&url, data, size);
    if (s3_place_parse(buf_cstr(&url), &place, &msg) == ERR_OK) {
        ASSERT(place.prefix[0] != '/' && place.settings.attempts_max > 0);
    }
    buf_deinit(&url);
    return 0;
}
