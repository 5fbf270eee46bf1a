/* rpcdoc.c - prints docs/protocol/rpc.md: rpcdoc > docs/protocol/rpc.md */
#include <stdio.h>

#include "common/rpc/rpc.h"

int main(void)
{
    struct buf page = {0};
    rpc_print(&page);
    size_t written = fwrite(page.data, 1, page.size, stdout);
    bool good = written == page.size && fflush(stdout) == 0;
    buf_deinit(&page);
    return good ? 0 : 1;
}
