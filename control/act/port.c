#include "control/act/port.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "control/plan/plan.h"

err_t port_range_parse(
    const char *text, uint64_t *ret_first, uint64_t *ret_last, struct errmsg *msg)
{
    char copy[64];
    TRY(str_copy(copy, sizeof copy, text, msg));
    char *dash = strchr(copy, '-');
    if (dash == NULL) {
        return err_set(msg, ERR_INVALID, "\"%s\": expected a range like 7500-8499", text);
    }
    *dash = '\0';
    uint64_t first = 0, last = 0;
    TRY(parse_u64(copy, 1, 65535, &first, msg));
    TRY(parse_u64(dash + 1, first, 65535, &last, msg));
    *ret_first = first;
    *ret_last = last;
    return ERR_OK;
}

/* Does nobody listen there? Only a hint: the compute itself finds out when it binds. */
static bool can_bind(const char *host, uint64_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
        (ntohl(address.sin_addr.s_addr) >> 24) != 127) {
        return true; /* another machine, or a name: its agent will tell */
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return true;
    }
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool free_port = bind(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return free_port;
}

static bool comes_back(const struct port_wish *wish, const struct endpoint *endpoint)
{
    if (wish->branch != NULL) {
        return endpoint->branch == wish->branch;
    }
    return endpoint->project == wish->project && !branch_is_recoverable(endpoint->branch);
}

static uint64_t choose(
    const struct model *model, const struct port_wish *wish, bool spares_recoverable)
{
    size_t count = 0, capacity = 64;
    uint64_t *taken = MEM_ARRAY(uint64_t, capacity);
    FOR_EACH_PROJECT(model, project)
    {
        FOR_EACH_ENDPOINT(project, endpoint)
        {
            if (count == capacity) {
                capacity *= 2;
                taken = mem_realloc(taken, capacity * sizeof taken[0]);
            }
            bool is_spared = spares_recoverable || !endpoint_is_recoverable(endpoint) ||
                             comes_back(wish, endpoint);
            if (endpoint->row.agent == wish->agent && is_spared) {
                taken[count++] = endpoint->row.port;
            }
        }
    }
    uint64_t port = plan_port(wish->first, wish->last, taken, count);
    while (port != 0 && wish->host != NULL && !can_bind(wish->host, port)) {
        port = plan_port(port + 1, wish->last, taken, count);
    }
    mem_free(taken);
    return port;
}

err_t port_choose(
    const struct model *model, const struct port_wish *wish, uint64_t *ret_port, struct errmsg *msg)
{
    uint64_t port = choose(model, wish, true);
    port = port != 0 ? port : choose(model, wish, false);
    if (port == 0) {
        return err_set(
            msg, ERR_FULL,
            "no free port for a compute in %" PRIu64 "-%" PRIu64
            ": delete endpoints or widen the setting compute_ports",
            wish->first, wish->last);
    }
    *ret_port = port;
    return ERR_OK;
}
