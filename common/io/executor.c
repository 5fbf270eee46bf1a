/*
 * executor.c - a fixed pool of threads, one queue, one list of finished jobs.
 *
 * The hand-off is two short critical sections: finished jobs wake the loop only when the list of
 * finished jobs was empty, so a busy pool costs the loop one wakeup for many jobs.
 */
#include "common/io/executor.h"

#include <pthread.h>
#include <signal.h>

#include "common/base/mem.h"
#include "common/io/loop_private.h"

struct executor {
    struct loop *loop;
    struct loop_task deliver; /* runs the done() of finished jobs */
    pthread_t *threads;
    unsigned thread_count;
    size_t outstanding; /* submitted, done() not yet called; loop only */
    bool delivering;    /* calls done() of jobs that it has taken off `finished`; loop only */

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t work_arrived;
    pthread_cond_t job_finished; /* executor_destroy() waits here */
    struct list queue;
    size_t queued;
    unsigned idle;
    struct list finished;
    bool stopping;
};

/* The first one of a pair waits for the other. */
static void finish(struct executor *executor, struct job *job)
{
    struct job *partner = job->partner;
    if (partner != NULL && !partner->is_run) {
        job->is_run = true;
        return;
    }
    bool was_empty = list_is_empty(&executor->finished);
    if (partner != NULL && !job->is_second) {
        list_push_back(&executor->finished, &job->link);
        list_push_back(&executor->finished, &partner->link);
    } else {
        if (partner != NULL) {
            list_push_back(&executor->finished, &partner->link);
        }
        list_push_back(&executor->finished, &job->link);
    }
    if (was_empty) {
        (void)pthread_cond_signal(&executor->job_finished);
        loop_post(executor->loop, &executor->deliver);
    }
}

static void *worker(void *argument)
{
    struct executor *executor = argument;
    (void)pthread_mutex_lock(&executor->lock);
    for (;;) {
        struct list_link *link = list_pop_front(&executor->queue);
        if (link == NULL) {
            if (executor->stopping) {
                break;
            }
            executor->idle++;
            (void)pthread_cond_wait(&executor->work_arrived, &executor->lock);
            executor->idle--;
            continue;
        }
        executor->queued--;
        (void)pthread_mutex_unlock(&executor->lock);

        struct job *job = CONTAINER_OF(link, struct job, link);
        job->result = job->run(job);

        (void)pthread_mutex_lock(&executor->lock);
        finish(executor, job);
    }
    (void)pthread_mutex_unlock(&executor->lock);
    return NULL;
}

static void enqueue(struct executor *executor, struct job *job)
{
    executor->outstanding++;
    (void)pthread_mutex_lock(&executor->lock);
    list_push_back(&executor->queue, &job->link);
    executor->queued++;
    bool wake = executor->idle > 0;
    (void)pthread_mutex_unlock(&executor->lock);
    if (wake) {
        (void)pthread_cond_signal(&executor->work_arrived);
    }
}

/* The next job of the lane starts before done() of this one, so that a worker is not kept idle. */
static void lane_go_on(struct lane *lane)
{
    struct list_link *link = list_pop_front(&lane->waiting);
    lane->running = link == NULL ? NULL : CONTAINER_OF(link, struct job, link);
    if (lane->running != NULL) {
        enqueue(lane->executor, lane->running);
    }
}

static void deliver(struct executor *executor)
{
    struct list jobs;
    list_init(&jobs);
    (void)pthread_mutex_lock(&executor->lock);
    /* Posted whenever `finished` is not empty: taken back when executor_destroy() came first. */
    loop_unpost(executor->loop, &executor->deliver);
    for (struct list_link *link = list_pop_front(&executor->finished); link != NULL;
         link = list_pop_front(&executor->finished)) {
        list_push_back(&jobs, link);
    }
    (void)pthread_mutex_unlock(&executor->lock);
    executor->delivering = true;
    for (struct list_link *link = list_pop_front(&jobs); link != NULL;
         link = list_pop_front(&jobs)) {
        struct job *job = CONTAINER_OF(link, struct job, link);
        executor->outstanding--;
        struct lane *lane = job->lane;
        job->lane = NULL;
        if (lane != NULL) {
            lane_go_on(lane);
        }
        job->done(job); /* may free the job, or submit it again */
    }
    executor->delivering = false;
}

static void on_deliver(struct loop_task *task)
{
    deliver(CONTAINER_OF(task, struct executor, deliver));
}

static void stop_threads(struct executor *executor)
{
    (void)pthread_mutex_lock(&executor->lock);
    executor->stopping = true;
    (void)pthread_cond_broadcast(&executor->work_arrived);
    (void)pthread_mutex_unlock(&executor->lock);
    for (unsigned i = 0; i < executor->thread_count; i++) {
        (void)pthread_join(executor->threads[i], NULL);
    }
    loop_unpost(executor->loop, &executor->deliver);
    (void)pthread_cond_destroy(&executor->work_arrived);
    (void)pthread_cond_destroy(&executor->job_finished);
    (void)pthread_mutex_destroy(&executor->lock);
    mem_free(executor->threads);
    mem_free(executor);
}

err_t executor_create(
    struct loop *loop, unsigned threads, struct executor **ret_executor, struct errmsg *msg)
{
    ASSERT(threads > 0);
    struct executor *executor = MEM_NEW(struct executor);
    executor->loop = loop;
    executor->deliver.run = on_deliver;
    executor->threads = MEM_ARRAY(pthread_t, threads);
    list_init(&executor->queue);
    list_init(&executor->finished);
    (void)pthread_mutex_init(&executor->lock, NULL);
    (void)pthread_cond_init(&executor->work_arrived, NULL);
    (void)pthread_cond_init(&executor->job_finished, NULL);
    /* Signals go to the loop's thread: workers start with all of them blocked. */
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = 0;
    while (rc == 0 && executor->thread_count < threads) {
        rc = pthread_create(&executor->threads[executor->thread_count], NULL, worker, executor);
        executor->thread_count += rc == 0 ? 1 : 0;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        unsigned started = executor->thread_count;
        stop_threads(executor);
        return err_set(
            msg, ERR_BUSY, "the system gave only %u of %u worker threads", started, threads);
    }
    *ret_executor = executor;
    return ERR_OK;
}

void executor_destroy(struct executor *executor)
{
    if (executor == NULL) {
        return;
    }
    ASSERT(!executor->delivering); /* or it would wait for jobs that deliver() has yet to end */
    while (executor->outstanding > 0) {
        (void)pthread_mutex_lock(&executor->lock);
        while (list_is_empty(&executor->finished)) {
            (void)pthread_cond_wait(&executor->job_finished, &executor->lock);
        }
        (void)pthread_mutex_unlock(&executor->lock);
        deliver(executor);
    }
    stop_threads(executor);
}

static void prepare(struct job *job, struct job *partner)
{
    ASSERT(job->run != NULL && job->done != NULL);
    job->lane = NULL;
    job->partner = partner;
    job->is_run = job->is_second = false;
    job->msg.text[0] = '\0';
}

void executor_submit(struct executor *executor, struct job *job)
{
    prepare(job, NULL);
    enqueue(executor, job);
}

void executor_submit_pair(struct executor *executor, struct job *first, struct job *second)
{
    prepare(first, second);
    prepare(second, first);
    second->is_second = true;
    executor->outstanding += 2;
    (void)pthread_mutex_lock(&executor->lock);
    list_push_back(&executor->queue, &first->link);
    list_push_back(&executor->queue, &second->link);
    executor->queued += 2;
    unsigned idle = executor->idle;
    (void)pthread_mutex_unlock(&executor->lock);
    for (unsigned i = 0; i < MIN_OF(idle, 2u); i++) {
        (void)pthread_cond_signal(&executor->work_arrived);
    }
}

size_t executor_queued(const struct executor *executor)
{
    /* Only the loop adds; a worker may take one meanwhile, so this is an upper bound. */
    struct executor *writable = (struct executor *)executor;
    (void)pthread_mutex_lock(&writable->lock);
    size_t queued = executor->queued;
    (void)pthread_mutex_unlock(&writable->lock);
    return queued;
}

unsigned executor_threads(const struct executor *executor)
{
    return executor->thread_count;
}

void lane_init(struct lane *lane, struct executor *executor)
{
    lane->executor = executor;
    list_init(&lane->waiting);
    lane->running = NULL;
}

void lane_submit(struct lane *lane, struct job *job)
{
    prepare(job, NULL);
    job->lane = lane;
    if (lane->running != NULL) {
        list_push_back(&lane->waiting, &job->link);
        return;
    }
    lane->running = job;
    enqueue(lane->executor, job);
}

bool lane_is_idle(const struct lane *lane)
{
    return lane->running == NULL;
}
