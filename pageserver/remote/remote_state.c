#include "pageserver/remote/remote_state.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/base/str.h"
#include "common/io/file.h"

#define TEXT_MAX 128

err_t remote_state_read(const char *folder, struct remote_state *ret_state, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    struct remote_state state = {.generation = 0};
    TRY(str_format(path, sizeof(path), msg, "%s/" REMOTE_STATE_FILE, folder));
    err_t err = file_read_all(path, TEXT_MAX, &text, msg);
    if (err == ERR_OK && sscanf(
                             buf_cstr(&text), "index %" SCNx32 "-%" SCNx64 "\n", &state.generation,
                             &state.sequence) != 2) {
        state = (struct remote_state){.generation = 0};
    }
    buf_deinit(&text);
    if (err != ERR_OK && err != ERR_NOT_FOUND && err != ERR_FULL) {
        return err;
    }
    *ret_state = state;
    return ERR_OK;
}

err_t remote_state_write(const char *folder, struct remote_state state, struct errmsg *msg)
{
    char path[PATH_SIZE], text[TEXT_MAX];
    TRY(str_format(path, sizeof(path), msg, "%s/" REMOTE_STATE_FILE, folder));
    (void)snprintf(
        text, sizeof(text), "index %08" PRIx32 "-%016" PRIx64 "\n", state.generation,
        state.sequence);
    return file_write_durably(path, bytes_of_str(text), msg);
}
