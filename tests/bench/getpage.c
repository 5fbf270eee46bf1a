/*
 * getpage - latency and throughput of GetPage over a socket, one request at a time or many in
 * flight.
 *
 *   getpage HOST PORT TENANT TIMELINE SPC DB REL BLOCKS SECONDS IN_FLIGHT
 *
 * Reads random blocks of one relation at the newest LSN and prints one JSON line
 * {"count":..,"seconds":..,"p50_us":..,"p99_us":..}. Also the physical limit beside it: the same
 * number of bytes bounced over a loopback socket pair, interleaved, as "echo_p50_us" and
 * "echo_p99_us".
 *
 * "arrived_p50_us" and "arrived_p99_us" end when the reply lay in our socket, however late we ran
 * then: what the server and its wait for a CPU cost. The rest of p99_us is our own wait for one.
 * Of many in flight, packets carry several replies: they count for one in flight only.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "tests/bench/page_client.h"

#define SAMPLES_MAX   2000000
#define IN_FLIGHT_MAX 256

struct samples {
    size_t count;
    uint32_t *ns;
};

static void note(struct samples *samples, mono_ns_t duration)
{
    if (samples->count < SAMPLES_MAX) {
        samples->ns[samples->count++] = (uint32_t)MIN_OF(duration, (mono_ns_t)UINT32_MAX);
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

static double percentile_us(struct samples *samples, double share)
{
    if (samples->count == 0) {
        return 0;
    }
    qsort(samples->ns, samples->count, sizeof(samples->ns[0]), by_value);
    return samples->ns[(size_t)((double)(samples->count - 1) * share)] / 1000.0;
}

/* The other end of the echo socket: written once before the thread starts. */
static int echo_fd = -1;

static void *echo(void *unused)
{
    (void)unused;
    uint8_t request[FRAME_HEADER_SIZE + 41];
    static uint8_t reply[FRAME_HEADER_SIZE + 16 + PAGE_BYTES];
    while (recv(echo_fd, request, sizeof(request), MSG_WAITALL) == (ssize_t)sizeof(request)) {
        if (send(echo_fd, reply, sizeof(reply), 0) != (ssize_t)sizeof(reply)) {
            break;
        }
    }
    return NULL;
}

/* A thread that answers as many bytes as a page reply over loopback TCP. */
static int start_echo(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
        fail("echo socket");
    }
    int fd = dial("127.0.0.1", ntohs(address.sin_port));
    echo_fd = accept(listener, NULL, NULL);
    int on = 1;
    pthread_t thread;
    if (setsockopt(echo_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        pthread_create(&thread, NULL, echo, NULL) != 0) {
        fail("echo thread");
    }
    (void)pthread_detach(thread);
    (void)close(listener);
    return fd;
}

static uint64_t real_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void bounce(int fd, struct samples *samples)
{
    static uint8_t request[FRAME_HEADER_SIZE + 41];
    static uint8_t reply[FRAME_HEADER_SIZE + 16 + PAGE_BYTES];
    mono_ns_t begin = clock_mono();
    if (send(fd, request, sizeof(request), 0) != (ssize_t)sizeof(request) ||
        recv(fd, reply, sizeof(reply), MSG_WAITALL) != (ssize_t)sizeof(reply)) {
        fail("echo lost");
    }
    note(samples, clock_mono() - begin);
}

static void print_figures(
    uint64_t count,
    mono_ns_t spent,
    struct samples *pages,
    struct samples *arrivals,
    struct samples *echoes)
{
    printf(
        "{\"count\":%" PRIu64 ",\"seconds\":%.3f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
        "\"arrived_p50_us\":%.1f,\"arrived_p99_us\":%.1f,"
        "\"echo_p50_us\":%.1f,\"echo_p99_us\":%.1f}\n",
        count, (double)spent / 1e9, percentile_us(pages, 0.5), percentile_us(pages, 0.99),
        percentile_us(arrivals, 0.5), percentile_us(arrivals, 0.99), percentile_us(echoes, 0.5),
        percentile_us(echoes, 0.99));
}

int main(int argc, char **argv)
{
    if (argc != 11) {
        fail("usage: getpage HOST PORT TENANT TIMELINE SPC DB REL BLOCKS SECONDS IN_FLIGHT");
    }
    int fd = dial(argv[1], (uint16_t)strtoul(argv[2], NULL, 10));
    struct page_target target = {
        .spc = (uint32_t)strtoul(argv[5], NULL, 10),
        .db = (uint32_t)strtoul(argv[6], NULL, 10),
        .rel = (uint32_t)strtoul(argv[7], NULL, 10),
        .blocks = (uint32_t)strtoul(argv[8], NULL, 10),
        .channel = say_hello(fd, argv[3], argv[4]),
    };
    mono_ns_t deadline = clock_mono() + strtoull(argv[9], NULL, 10) * NS_PER_S;
    uint64_t in_flight = strtoull(argv[10], NULL, 10);
    if (target.blocks == 0 || in_flight == 0 || in_flight > IN_FLIGHT_MAX) {
        fail("BLOCKS and IN_FLIGHT must be positive");
    }
    int echo_client = start_echo();
    struct samples pages = {.ns = MEM_ARRAY(uint32_t, SAMPLES_MAX)};
    struct samples arrivals = {.ns = MEM_ARRAY(uint32_t, SAMPLES_MAX)};
    struct samples echoes = {.ns = MEM_ARRAY(uint32_t, SAMPLES_MAX)};
    mono_ns_t sent_at[IN_FLIGHT_MAX] = {0};
    struct prng prng;
    prng_init(&prng, 1);
    struct buf out = {0};
    struct buf in = {0};
    for (uint64_t id = 0; id < in_flight; id++) {
        ask(&out, &target, &prng, id);
        sent_at[id] = clock_mono();
    }
    stamp_arrivals(fd);
    uint64_t sent_real = real_ns();
    send_all(fd, &out);
    mono_ns_t spent = 0;
    uint64_t count = 0;
    while (clock_mono() < deadline) {
        mono_ns_t turn = clock_mono();
        size_t size = 0;
        uint64_t arrived_real = 0;
        struct frame frame = receive_stamped(fd, &in, &size, &arrived_real);
        if (frame.type != FRAME_GET_PAGE_REPLY || frame.request_id >= in_flight) {
            fail("a request was refused");
        }
        uint64_t id = frame.request_id;
        mono_ns_t now = clock_mono();
        note(&pages, now - sent_at[id]);
        if (in_flight == 1 && arrived_real > sent_real) {
            note(&arrivals, arrived_real - sent_real);
        }
        buf_consume(&in, size);
        count++;
        spent += now - turn;
        if (in_flight == 1 && count % 4 == 0) {
            bounce(echo_client, &echoes);
        }
        turn = clock_mono();
        sent_at[id] = turn;
        ask(&out, &target, &prng, id);
        sent_real = real_ns();
        send_all(fd, &out);
        spent += clock_mono() - turn;
    }
    print_figures(count, spent, &pages, &arrivals, &echoes);
    return 0;
}
