/* Syncs by the kernel: told to the loop once a request. (One that fails: tests/powerloss.) */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/io/file.h"
#include "common/io/sync_queue.h"
#include "tests/unit/unit.h"

#define REQUESTS 8

static struct errmsg msg;
static struct loop *loop;
static struct sync_queue *queue;
static char folder[UNIT_FOLDER_SIZE];
static char path[PATH_SIZE];
static struct sync_request requests[REQUESTS];
static err_t results[REQUESTS];
static unsigned done_count, done_wanted;

static void on_synced(struct sync_request *request, err_t result, const struct errmsg *why)
{
    (void)why;
    results[request - requests] = result;
    if (++done_count == done_wanted) {
        loop_stop(loop);
    }
}

static void open_queue(unsigned requests_max)
{
    done_count = 0;
    unit_folder(folder, sizeof(folder), "anabranch-sync");
    ck_assert_ok(str_format(path, sizeof(path), &msg, "%s/a", folder), &msg);
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    ck_assert_ok(sync_queue_create(loop, requests_max, &queue, &msg), &msg);
}

static void close_queue(void)
{
    sync_queue_destroy(queue);
    loop_destroy(loop);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}

static bool start(unsigned i, int first, int second)
{
    requests[i] = (struct sync_request){
        .fds = {first, second}, .paths = {path, "the second"}, .count = 2, .done = on_synced};
    results[i] = ERR_COUNT;
    return sync_queue_start(queue, &requests[i]);
}

START_TEST(test_both_files_are_synced_before_it_is_done)
{
    int fd = -1;
    open_queue(REQUESTS);
    ck_assert_ok(file_open(&fd, path, FILE_CREATE, &msg), &msg);
    for (unsigned i = 0; i < REQUESTS; i++) {
        ck_assert_ok(file_write_at(fd, path, bytes_of_str("some bytes"), i * 10, &msg), &msg);
        ck_assert(start(i, fd, fd));
        ck_assert_uint_eq(done_count, 0); /* never from inside */
    }
    file_close(&fd); /* the kernel keeps it open */
    done_wanted = REQUESTS;
    loop_run(loop);
    for (unsigned i = 0; i < REQUESTS; i++) {
        ck_assert_int_eq(results[i], ERR_OK);
    }
    close_queue();
}
END_TEST

START_TEST(test_no_more_than_its_limit_is_begun)
{
    int fd = -1;
    open_queue(2);
    ck_assert_ok(file_open(&fd, path, FILE_CREATE, &msg), &msg);
    ck_assert(start(0, fd, fd));
    ck_assert(start(1, fd, fd));
    ck_assert(!start(2, fd, fd));
    done_wanted = 2;
    loop_run(loop);
    ck_assert_int_eq(results[2], ERR_COUNT);
    done_count = 0;
    ck_assert(start(2, fd, fd)); /* there is room again */
    ck_assert(start(3, fd, fd));
    loop_run(loop);
    ck_assert_int_eq(results[2], ERR_OK);
    file_close(&fd);
    close_queue();
}
END_TEST

START_TEST(test_what_the_kernel_takes_only_in_part_is_busy)
{
    int fd = -1;
    int pipe_fds[2];
    open_queue(REQUESTS);
    ck_assert_ok(file_open(&fd, path, FILE_CREATE, &msg), &msg);
    ck_assert_int_eq(pipe(pipe_fds), 0);
    ck_assert(start(0, fd, pipe_fds[0])); /* a pipe has no sync: the first one alone is begun */
    done_wanted = 1;
    loop_run(loop);
    ck_assert_int_eq(results[0], ERR_BUSY);
    ck_assert(!start(1, pipe_fds[0], fd)); /* nothing was begun */
    (void)close(pipe_fds[0]);
    (void)close(pipe_fds[1]);
    file_close(&fd);
    close_queue();
}
END_TEST

UNIT_MAIN(
    "sync_queue",
    test_both_files_are_synced_before_it_is_done,
    test_no_more_than_its_limit_is_begun,
    test_what_the_kernel_takes_only_in_part_is_busy);
