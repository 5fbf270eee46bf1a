/*
 * socket.c - addresses and options of TCP sockets.
 */
#include "common/io/socket_private.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/io/loop_private.h"

#define KEEPALIVE_S 10

bool address_parse(const char *host, uint16_t port, struct sockaddr_storage *ret)
{
    struct sockaddr_storage address = {0};
    if (uv_ip4_addr(host, port, (struct sockaddr_in *)&address) < 0 &&
        uv_ip6_addr(host, port, (struct sockaddr_in6 *)&address) < 0) {
        return false;
    }
    *ret = address;
    return true;
}

/*
 * Of a name's addresses the first IPv4 one, else the first: both ends of a connection choose alike,
 * so that "localhost" is the same place for listener and caller whatever /etc/hosts lists first.
 */
static const struct addrinfo *prefer(const struct addrinfo *found)
{
    for (const struct addrinfo *one = found; one != NULL; one = one->ai_next) {
        if (one->ai_family == AF_INET) {
            return one;
        }
    }
    return found;
}

void address_take(const struct addrinfo *found, struct sockaddr_storage *ret)
{
    const struct addrinfo *one = prefer(found);
    memset(ret, 0, sizeof(*ret));
    memcpy(ret, one->ai_addr, MIN_OF(one->ai_addrlen, sizeof(*ret)));
}

err_t address_resolve(
    const char *host, uint16_t port, struct sockaddr_storage *ret, struct errmsg *msg)
{
    if (address_parse(host, port, ret)) {
        return ERR_OK;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char service[8];
    (void)snprintf(service, sizeof(service), "%u", port);
    int rc = getaddrinfo(host, service, &hints, &found);
    if (rc != 0) {
        return err_set(
            msg, ERR_INVALID, "\"%.60s\" is not an address or known host: %s", host,
            gai_strerror(rc));
    }
    address_take(found, ret);
    freeaddrinfo(found);
    return ERR_OK;
}

static void format_address(const struct sockaddr_storage *address, char *to, size_t to_size)
{
    char host[64] = "?";
    uint16_t port = 0;
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        (void)uv_ip4_name(v4, host, sizeof(host));
        port = ntohs(v4->sin_port);
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        (void)uv_ip6_name(v6, host, sizeof(host));
        port = ntohs(v6->sin6_port);
    }
    (void)snprintf(to, to_size, "%s:%u", host, port);
}

void socket_set_options(uv_tcp_t *tcp, unsigned unread_ms)
{
    (void)uv_tcp_nodelay(tcp, 1);
    (void)uv_tcp_keepalive(tcp, 1, KEEPALIVE_S);
    uv_os_fd_t fd = -1;
    if (uv_fileno((const uv_handle_t *)tcp, &fd) == 0) {
        int interval_s = 5;
        int count = 2;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unread_ms, sizeof(unread_ms));
    }
}

enum socket_peer socket_ask_about_peer(const uv_tcp_t *tcp, unsigned limit_ms)
{
    uv_os_fd_t fd = -1;
    int unacknowledged = 0;
    struct tcp_info info = {0};
    socklen_t size = sizeof(info);
    if (uv_fileno((const uv_handle_t *)tcp, &fd) != 0 ||
        ioctl(fd, SIOCOUTQ, &unacknowledged) != 0 || unacknowledged == 0) {
        return SOCKET_PEER_HAS_ALL;
    }
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        info.tcpi_last_ack_recv < limit_ms) {
        return SOCKET_PEER_ANSWERS;
    }
    bool is_data_unanswered = info.tcpi_unacked > 0 && info.tcpi_retransmits >= 2 &&
                              info.tcpi_last_ack_recv > info.tcpi_last_data_sent;
    bool is_probe_unanswered = info.tcpi_probes >= 2; /* an answer sets it to 0 */
    return is_data_unanswered || is_probe_unanswered ? SOCKET_PEER_SILENT : SOCKET_PEER_ANSWERS;
}

void socket_name_peer(const uv_tcp_t *tcp, char peer[SOCKET_PEER_SIZE])
{
    struct sockaddr_storage address = {0};
    int size = sizeof(address);
    if (uv_tcp_getpeername(tcp, (struct sockaddr *)&address, &size) == 0) {
        format_address(&address, peer, SOCKET_PEER_SIZE);
    }
}

err_t socket_own_port(const uv_tcp_t *tcp, uint16_t *ret_port, struct errmsg *msg)
{
    struct sockaddr_storage address = {0};
    int size = sizeof(address);
    int rc = uv_tcp_getsockname(tcp, (struct sockaddr *)&address, &size);
    if (rc < 0) {
        return err_from_uv(msg, rc, "find the port of a socket");
    }
    *ret_port = ntohs(
        address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                      : ((struct sockaddr_in *)&address)->sin_port);
    return ERR_OK;
}
