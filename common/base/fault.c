#include "common/base/fault.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/base/log.h"

#define FAULTS_MAX 32

enum fault_action { FAULT_ERROR, FAULT_CRASH, FAULT_PAUSE };

struct armed {
    char name[64];
    enum fault_action action;
    err_t err;
    unsigned pause_ms;
    uint64_t left;  /* how many more times; UINT64_MAX: always */
    uint64_t every; /* act on one of `every` hits */
    uint64_t skip;  /* so many hits first */
    uint64_t hits;
};

bool fault_enabled;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct armed armed[FAULTS_MAX];
static size_t armed_count;

void fault_enable(void)
{
    fault_enabled = true;
}

static err_t err_by_name(const char *name, err_t *ret_err)
{
    for (int code = ERR_OK + 1; code < ERR_COUNT; code++) {
        if (strcasecmp(err_code((err_t)code) + strlen("ERR_"), name) == 0) {
            *ret_err = (err_t)code;
            return ERR_OK;
        }
    }
    return ERR_NOT_FOUND;
}

static err_t parse_one(char *spec, struct armed *fault, struct errmsg *msg)
{
    *fault = (struct armed){.left = UINT64_MAX, .every = 1};
    char *action = strchr(spec, '=');
    if (action == NULL || (size_t)(action - spec) >= sizeof(fault->name)) {
        return err_set(msg, ERR_INVALID, "failpoint \"%.60s\" is not name=action", spec);
    }
    *action++ = '\0';
    (void)snprintf(fault->name, sizeof(fault->name), "%s", spec);
    char *times = strchr(action, '*');
    if (times != NULL) {
        *times = '\0';
        fault->left = strtoull(times + 1, NULL, 10);
    }
    char *every = strchr(action, '%');
    if (every != NULL) {
        *every = '\0';
        fault->every = MAX_OF(strtoull(every + 1, NULL, 10), 1);
    }
    char *first = strchr(action, '@');
    if (first != NULL) {
        *first = '\0';
        fault->skip = MAX_OF(strtoull(first + 1, NULL, 10), 1) - 1;
    }
    if (strcmp(action, "crash") == 0) {
        fault->action = FAULT_CRASH;
        return ERR_OK;
    }
    if (strncmp(action, "pause:", 6) == 0) {
        fault->action = FAULT_PAUSE;
        fault->pause_ms = (unsigned)strtoul(action + 6, NULL, 10);
        return ERR_OK;
    }
    if (err_by_name(action, &fault->err) != ERR_OK) {
        return err_set(
            msg, ERR_INVALID, "failpoint %s: \"%.40s\" is not crash, pause:MS or an error name",
            fault->name, action);
    }
    return ERR_OK;
}

err_t fault_arm(const char *spec, struct errmsg *msg)
{
    if (!fault_enabled) {
        return err_set(msg, ERR_DENIED, "failpoints are off: start the process with --faults");
    }
    char copy[1024];
    (void)snprintf(copy, sizeof(copy), "%s", spec);
    struct armed parsed[FAULTS_MAX];
    size_t count = 0;
    char *rest = copy;
    for (char *one = strsep(&rest, ";"); one != NULL; one = strsep(&rest, ";")) {
        if (one[0] == '\0') {
            continue;
        }
        if (count == FAULTS_MAX) {
            return err_set(msg, ERR_INVALID, "more than %d failpoints", FAULTS_MAX);
        }
        TRY(parse_one(one, &parsed[count], msg));
        count++;
    }
    (void)pthread_mutex_lock(&lock);
    memcpy(armed, parsed, sizeof(parsed[0]) * count);
    armed_count = count;
    (void)pthread_mutex_unlock(&lock);
    return ERR_OK;
}

bool fault_is_armed(void)
{
    (void)pthread_mutex_lock(&lock);
    bool is_armed = armed_count > 0;
    (void)pthread_mutex_unlock(&lock);
    return is_armed;
}

err_t fault_check(const char *name)
{
    struct armed hit = {0};
    bool acts = false;
    (void)pthread_mutex_lock(&lock);
    for (size_t i = 0; i < armed_count && !acts; i++) {
        struct armed *fault = &armed[i];
        if (strcmp(fault->name, name) != 0 || fault->left == 0) {
            continue;
        }
        uint64_t before = fault->hits++;
        if (before >= fault->skip && (before - fault->skip) % fault->every == 0) {
            fault->left -= fault->left == UINT64_MAX ? 0 : 1;
            hit = *fault;
            acts = true;
        }
    }
    (void)pthread_mutex_unlock(&lock);
    if (!acts) {
        return ERR_OK;
    }
    log_warn(NULL, "failpoint %s acts", name);
    switch (hit.action) {
    case FAULT_ERROR: return hit.err;
    case FAULT_CRASH: (void)raise(SIGKILL); break;
    case FAULT_PAUSE: {
        struct timespec pause = {hit.pause_ms / 1000, (long)(hit.pause_ms % 1000) * 1000000};
        (void)nanosleep(&pause, NULL);
        break;
    }
    }
    return ERR_OK;
}
