#include "control/model/model.h"

#include "common/base/mem.h"
#include "control/model/members.h"

void model_init(struct model *model)
{
    *model = (struct model){0};
    list_init(&model->project_list);
    list_init(&model->key_list);
    list_init(&model->reply_list);
    list_init(&model->host_list);
}

static bool operation_has_ended(const struct operation *operation)
{
    return operation->row.status != STATUS_RUNNING;
}

/* ---- one kind after the other: insert, update, free ---- */

static err_t apply_project(
    struct model *model, const struct project_row *row, void **ret, struct errmsg *msg)
{
    struct project *project = model_project(model, row->id);
    if (project == NULL) {
        struct id_text tenant = tenant_id_text(row->tenant);
        if (index_find(&model->tenants, tenant.text) != NULL) {
            return err_set(msg, ERR_CORRUPT, "project %s: tenant %s twice", row->id, tenant.text);
        }
        project = MEM_NEW(struct project);
        list_init(&project->branches);
        list_init(&project->endpoints);
        list_init(&project->operations);
        list_init(&project->usages);
        list_init(&project->running);
        project->row = *row;
        index_insert(&model->projects, &project->by_id, project->row.id);
        project->tenant_text = tenant;
        index_insert(&model->tenants, &project->by_tenant, project->tenant_text.text);
        list_push_back(&model->project_list, &project->in_model);
    } else {
        if (project->row.generation != row->generation) {
            FOR_EACH_ENDPOINT(project, endpoint)
            {
                endpoint->wish++;
            }
        }
        row_unref(ROW_PROJECT, &project->row);
        project->row = *row;
    }
    row_ref(ROW_PROJECT, &project->row);
    *ret = project;
    return ERR_OK;
}

static void free_project(struct model *model, struct project *project)
{
    ASSERT(list_is_empty(&project->branches));
    ASSERT(list_is_empty(&project->endpoints));
    ASSERT(list_is_empty(&project->operations));
    ASSERT(list_is_empty(&project->usages));
    ASSERT(!project->attempt.running); /* the step would come back to it */
    index_remove(&model->tenants, &project->by_tenant);
    index_remove(&model->projects, &project->by_id);
    list_remove(&project->in_model);
    list_remove(&project->in_work);
    list_remove(&project->in_retry);
    list_remove(&project->in_commit);
    list_remove(&project->in_purge);
    index_deinit(&project->names);
    row_unref(ROW_PROJECT, &project->row);
    mem_free(project);
}

static err_t insert_branch(
    struct model *model, const struct branch_row *row, struct branch **ret, struct errmsg *msg)
{
    struct project *project = model_project(model, row->project_id);
    struct id_text timeline = timeline_id_text(row->timeline);
    if (project == NULL) {
        return err_set(msg, ERR_CORRUPT, "branch %s: no project %s", row->id, row->project_id);
    }
    if (index_find(&model->timelines, timeline.text) != NULL) {
        return err_set(msg, ERR_CORRUPT, "branch %s: timeline %s twice", row->id, timeline.text);
    }
    struct branch *branch = MEM_NEW(struct branch);
    list_init(&branch->children);
    list_init(&branch->endpoints);
    list_init(&branch->running);
    list_init(&branch->usages);
    branch->project = project;
    branch->row = *row;
    branch->is_timeline_new = row->state == BRANCH_INIT && !row->is_found;
    index_insert(&model->branches, &branch->by_id, branch->row.id);
    branch->timeline_text = timeline;
    index_insert(&model->timelines, &branch->by_timeline, branch->timeline_text.text);
    list_push_back(&project->branches, &branch->in_project);
    project->branch_count++;
    *ret = branch;
    return ERR_OK;
}

/* The branch stays, its history is another one: nothing that was seen of the old one counts. */
static err_t change_timeline(
    struct model *model, struct branch *branch, struct timeline_id timeline, struct errmsg *msg)
{
    struct id_text text = timeline_id_text(timeline);
    if (index_find(&model->timelines, text.text) != NULL) {
        return err_set(msg, ERR_CORRUPT, "branch %s: timeline %s twice", branch->row.id, text.text);
    }
    index_remove(&model->timelines, &branch->by_timeline);
    branch->timeline_text = text;
    index_insert(&model->timelines, &branch->by_timeline, branch->timeline_text.text);
    branch->last_lsn = branch->metered_lsn = LSN_NONE;
    branch->is_timeline_new = true;
    branch->on_pageserver = SEEN_UNKNOWN;
    branch->pageserver_generation = 0;
    memset(branch->reports, 0, sizeof(branch->reports));
    for (size_t i = 0; i < SAFEKEEPERS_MAX; i++) {
        branch->on_safekeeper[i] = SEEN_UNKNOWN;
        branch->missed[i] = 0;
        branch->held[i] = false;
    }
    return ERR_OK;
}

/* A step that is under way stays under way: it refers to its attempt. */
static void try_at_once(struct attempt *attempts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        attempts[i].next = 0;
        attempts[i].failures = 0;
    }
}

/* Under another membership the old answers count for nothing, and indexes mean others. */
static void change_members(struct branch *branch, const struct branch_row *row)
{
    if (branch_generation(&branch->row) == branch_generation(row)) {
        return;
    }
    memset(branch->reports, 0, sizeof(branch->reports));
    try_at_once(branch->member_attempts, MEMBERS_MAX);
    for (size_t i = 0; i < SAFEKEEPERS_MAX; i++) {
        branch->on_safekeeper[i] = SEEN_UNKNOWN;
        branch->missed[i] = 0;
        branch->held[i] = false;
    }
}

static bool same_set(const struct node_set *a, const struct node_set *b)
{
    return a->count == b->count && memcmp(a->ids, b->ids, a->count * sizeof(a->ids[0])) == 0;
}

static err_t apply_branch(
    struct model *model, const struct branch_row *row, void **ret, struct errmsg *msg)
{
    struct branch *branch = model_branch(model, row->id);
    if (branch == NULL) {
        TRY(insert_branch(model, row, &branch, msg));
    } else {
        if (!timeline_id_equal(branch->row.timeline, row->timeline)) {
            TRY(change_timeline(model, branch, row->timeline, msg));
        }
        /* Rows share what did not change. */
        if (branch->row.roles != row->roles || branch->row.databases != row->databases ||
            branch->row.dropped != row->dropped) {
            FOR_EACH_ENDPOINT_OF(branch, endpoint)
            {
                endpoint->wish++;
            }
        }
        change_members(branch, row);
        if (!same_set(&branch->row.left_safekeepers, &row->left_safekeepers)) {
            memset(branch->on_left, 0, sizeof(branch->on_left));
            try_at_once(branch->left_attempts, LEFT_MAX);
        }
        index_remove(&branch->project->names, &branch->by_name);
        branch->project->recoverable_count -= branch_is_recoverable(branch);
        row_unref(ROW_BRANCH, &branch->row);
        branch->row = *row;
    }
    row_ref(ROW_BRANCH, &branch->row);
    branch->project->recoverable_count += branch_is_recoverable(branch);
    if (branch_is_live(branch) && !row->is_retired && !branch_is_recoverable(branch) &&
        project_branch_named(branch->project, row->name) == NULL) {
        index_insert(&branch->project->names, &branch->by_name, branch->row.name);
    }
    *ret = branch;
    return ERR_OK;
}

err_t model_link(struct model *model, struct branch *branch, struct errmsg *msg)
{
    struct branch *parent = model_branch(model, branch->row.parent_id);
    if (parent == NULL && branch->row.parent_id[0] != '\0') {
        return err_set(
            msg, ERR_CORRUPT, "branch %s: no parent %s", branch->row.id, branch->row.parent_id);
    }
    if (parent != branch->parent) {
        list_remove(&branch->in_parent);
        branch->parent = parent;
        if (parent != NULL) {
            list_push_back(&parent->children, &branch->in_parent);
        }
    }
    return ERR_OK;
}

err_t model_link_all(struct model *model, struct errmsg *msg)
{
    FOR_EACH_PROJECT(model, project)
    {
        FOR_EACH_BRANCH(project, branch)
        {
            TRY(model_link(model, branch, msg));
        }
    }
    return ERR_OK;
}

static void free_branch(struct model *model, struct branch *branch)
{
    ASSERT(list_is_empty(&branch->children));
    ASSERT(list_is_empty(&branch->endpoints));
    ASSERT(!branch->pageserver_attempt.running); /* the step would come back to it */
    for (size_t i = 0; i < SAFEKEEPERS_MAX; i++) {
        ASSERT(!branch->safekeeper_attempts[i].running);
    }
    ASSERT(list_is_empty(&branch->usages));
    LIST_FOR_EACH(&branch->running, item)
    {
        list_remove(item);
    }
    index_remove(&model->branches, &branch->by_id);
    index_remove(&model->timelines, &branch->by_timeline);
    index_remove(&branch->project->names, &branch->by_name);
    list_remove(&branch->in_project);
    list_remove(&branch->in_parent);
    list_remove(&branch->in_work);
    list_remove(&branch->in_retry);
    list_remove(&branch->in_commit);
    list_remove(&branch->in_purge);
    list_remove(&branch->in_ending);
    branch->project->branch_count--;
    branch->project->recoverable_count -= branch_is_recoverable(branch);
    row_unref(ROW_BRANCH, &branch->row);
    mem_free(branch->schedule_error);
    mem_free(branch);
}

/* To the branch that takes the place of its own. */
static void move_endpoint(struct endpoint *endpoint, struct branch *branch)
{
    if (branch != NULL && branch != endpoint->branch) {
        list_remove(&endpoint->in_branch);
        endpoint->branch = branch;
        list_push_back(&branch->endpoints, &endpoint->in_branch);
        endpoint->wish++;
    }
}

static err_t apply_endpoint(
    struct model *model, const struct endpoint_row *row, void **ret, struct errmsg *msg)
{
    struct endpoint *endpoint = model_endpoint(model, row->id);
    if (endpoint == NULL) {
        struct branch *branch = model_branch(model, row->branch_id);
        if (branch == NULL) {
            return err_set(msg, ERR_CORRUPT, "endpoint %s: no branch %s", row->id, row->branch_id);
        }
        endpoint = MEM_NEW(struct endpoint);
        endpoint->wish = 1; /* nobody has been told in this process */
        list_init(&endpoint->running);
        list_init(&endpoint->waiters);
        endpoint->branch = branch;
        endpoint->project = branch->project;
        endpoint->row = *row;
        index_insert(&model->endpoints, &endpoint->by_id, endpoint->row.id);
        list_push_back(&branch->project->endpoints, &endpoint->in_project);
        list_push_back(&branch->endpoints, &endpoint->in_branch);
        branch->project->endpoint_count++;
    } else {
        move_endpoint(endpoint, model_branch(model, row->branch_id));
        bool is_retry =
            endpoint->row.wanted != ENDPOINT_ACTIVE || endpoint->seen == COMPUTE_REFUSED;
        endpoint->wish += row->wanted == ENDPOINT_ACTIVE && is_retry;
        if (endpoint->row.agent != row->agent) { /* what the host that is gone said is of no use */
            endpoint->wish++;
            endpoint->seen = COMPUTE_UNKNOWN;
            endpoint->seen_error[0] = endpoint->seen_step[0] = '\0';
            endpoint->seen_timeline = (struct timeline_id){0};
            endpoint->recreate = false;
            endpoint->idle_ms = 0;
        }
        row_unref(ROW_ENDPOINT, &endpoint->row);
        endpoint->row = *row;
    }
    row_ref(ROW_ENDPOINT, &endpoint->row);
    *ret = endpoint;
    return ERR_OK;
}

static void free_endpoint(struct model *model, struct endpoint *endpoint)
{
    ASSERT(!endpoint->attempt.running); /* the step would come back to it */
    LIST_FOR_EACH(&endpoint->running, item)
    {
        list_remove(item);
    }
    LIST_FOR_EACH(&endpoint->waiters, waiter) /* they have a time limit, too */
    {
        list_remove(waiter);
    }
    index_remove(&model->endpoints, &endpoint->by_id);
    list_remove(&endpoint->in_project);
    list_remove(&endpoint->in_branch);
    list_remove(&endpoint->in_work);
    list_remove(&endpoint->in_retry);
    list_remove(&endpoint->in_homeless);
    list_remove(&endpoint->in_commit);
    list_remove(&endpoint->in_purge);
    endpoint->project->endpoint_count--;
    row_unref(ROW_ENDPOINT, &endpoint->row);
    mem_free(endpoint);
}

/* The list of what the operation is about; its target may be gone already. */
static struct list *target_of(struct model *model, const struct operation *operation)
{
    if (operation->row.endpoint_id[0] != '\0') {
        struct endpoint *endpoint = model_endpoint(model, operation->row.endpoint_id);
        return endpoint == NULL ? NULL : &endpoint->running;
    }
    if (operation->row.branch_id[0] != '\0') {
        struct branch *branch = model_branch(model, operation->row.branch_id);
        return branch == NULL ? NULL : &branch->running;
    }
    return &operation->project->running;
}

static err_t apply_operation(
    struct model *model, const struct operation_row *row, void **ret, struct errmsg *msg)
{
    struct operation *operation = model_operation(model, row->id);
    if (operation == NULL) {
        struct project *project = model_project(model, row->project_id);
        if (project == NULL) {
            return err_set(
                msg, ERR_CORRUPT, "operation %s: no project %s", row->id, row->project_id);
        }
        operation = MEM_NEW(struct operation);
        list_init(&operation->waiters);
        operation->project = project;
        operation->row = *row;
        index_insert(&model->operations, &operation->by_id, operation->row.id);
        list_push_back(&project->operations, &operation->in_project);
        project->operation_count++;
    } else {
        operation->row = *row;
    }
    list_remove(&operation->in_target);
    struct list *target = operation_has_ended(operation) ? NULL : target_of(model, operation);
    if (target != NULL) {
        list_push_back(target, &operation->in_target);
    }
    *ret = operation;
    return ERR_OK;
}

static void free_operation(struct model *model, struct operation *operation)
{
    ASSERT(list_is_empty(&operation->waiters));
    index_remove(&model->operations, &operation->by_id);
    list_remove(&operation->in_project);
    list_remove(&operation->in_target);
    operation->project->operation_count--;
    mem_free(operation);
}

/* Its hash never changes. */
static err_t apply_key(
    struct model *model, const struct key_row *row, void **ret, struct errmsg *msg)
{
    struct api_key *key = model_key(model, row->id);
    if (key == NULL) {
        if (model_key_of_hash(model, row->hash) != NULL) {
            return err_set(msg, ERR_CORRUPT, "key %s: its hash is there twice", row->id);
        }
        key = MEM_NEW(struct api_key);
        key->row = *row;
        index_insert(&model->keys, &key->by_id, key->row.id);
        index_insert(&model->hashes, &key->by_hash, key->row.hash);
        list_push_back(&model->key_list, &key->in_model);
    } else {
        key->row = *row;
    }
    *ret = key;
    return ERR_OK;
}

static void free_key(struct model *model, struct api_key *key)
{
    index_remove(&model->keys, &key->by_id);
    index_remove(&model->hashes, &key->by_hash);
    list_remove(&key->in_model);
    mem_free(key);
}

/* One that is used anew after it has expired is the youngest again. */
static void apply_reply(struct model *model, const struct reply_row *row, void **ret)
{
    struct reply *reply = model_reply(model, row->id);
    if (reply == NULL) {
        reply = MEM_NEW(struct reply);
        reply->row = *row;
        index_insert(&model->replies, &reply->by_id, reply->row.id);
        list_push_back(&model->reply_list, &reply->in_model);
    } else {
        if (reply->row.seq != row->seq) {
            list_remove(&reply->in_model);
            list_push_back(&model->reply_list, &reply->in_model);
        }
        row_unref(ROW_REPLY, &reply->row);
        reply->row = *row;
    }
    row_ref(ROW_REPLY, &reply->row);
    *ret = reply;
}

static void free_reply(struct model *model, struct reply *reply)
{
    index_remove(&model->replies, &reply->by_id);
    list_remove(&reply->in_model);
    row_unref(ROW_REPLY, &reply->row);
    mem_free(reply);
}

static void apply_host(struct model *model, const struct host_row *row, void **ret)
{
    struct host *host = model_host(model, row->id);
    if (host == NULL) {
        host = MEM_NEW(struct host);
        host->row = *row;
        index_insert(&model->hosts, &host->by_id, host->row.id);
        list_push_back(&model->host_list, &host->in_model);
    } else {
        host->row = *row;
    }
    host->lease = (struct lease){0};
    *ret = host;
}

static void free_host(struct model *model, struct host *host)
{
    index_remove(&model->hosts, &host->by_id);
    list_remove(&host->in_model);
    mem_free(host);
}

static err_t apply_usage(
    struct model *model, const struct usage_row *row, void **ret, struct errmsg *msg)
{
    struct usage *usage = model_usage(model, row->id);
    if (usage == NULL) {
        struct project *project = model_project(model, row->project_id);
        if (project == NULL) {
            return err_set(msg, ERR_CORRUPT, "usage %s: no project %s", row->id, row->project_id);
        }
        struct branch *branch =
            row->branch_id[0] == '\0' ? NULL : model_branch(model, row->branch_id);
        if (row->branch_id[0] != '\0' && branch == NULL) {
            return err_set(msg, ERR_CORRUPT, "usage %s: no branch %s", row->id, row->branch_id);
        }
        usage = MEM_NEW(struct usage);
        usage->row = *row;
        index_insert(&model->usages, &usage->by_id, usage->row.id);
        list_push_back(branch == NULL ? &project->usages : &branch->usages, &usage->in_target);
    } else {
        usage->row = *row;
    }
    *ret = usage;
    return ERR_OK;
}

static void free_usage(struct model *model, struct usage *usage)
{
    index_remove(&model->usages, &usage->by_id);
    list_remove(&usage->in_target);
    mem_free(usage);
}

err_t model_apply(
    struct model *model,
    enum row_kind kind,
    const union any_row *row,
    void **ret_object,
    struct errmsg *msg)
{
    model->seq_last = MAX_OF(model->seq_last, row->head.seq);
    switch (kind) {
    case ROW_IMAGE:
        model->image = row->image;
        *ret_object = NULL;
        return ERR_OK;
    case ROW_PROJECT: return apply_project(model, &row->project, ret_object, msg);
    case ROW_BRANCH: return apply_branch(model, &row->branch, ret_object, msg);
    case ROW_ENDPOINT: return apply_endpoint(model, &row->endpoint, ret_object, msg);
    case ROW_OPERATION: return apply_operation(model, &row->operation, ret_object, msg);
    case ROW_KEY: return apply_key(model, &row->key, ret_object, msg);
    case ROW_REPLY: apply_reply(model, &row->reply, ret_object); return ERR_OK;
    case ROW_HOST: apply_host(model, &row->host, ret_object); return ERR_OK;
    case ROW_USAGE: return apply_usage(model, &row->usage, ret_object, msg);
    case ROW_KIND_COUNT: break;
    }
    ASSERT(false);
    return ERR_INVALID;
}

void model_remove(struct model *model, enum row_kind kind, const char *id)
{
    struct project *project = kind == ROW_PROJECT ? model_project(model, id) : NULL;
    struct branch *branch = kind == ROW_BRANCH ? model_branch(model, id) : NULL;
    struct endpoint *endpoint = kind == ROW_ENDPOINT ? model_endpoint(model, id) : NULL;
    struct operation *operation = kind == ROW_OPERATION ? model_operation(model, id) : NULL;
    struct api_key *key = kind == ROW_KEY ? model_key(model, id) : NULL;
    struct reply *reply = kind == ROW_REPLY ? model_reply(model, id) : NULL;
    if (reply != NULL) {
        free_reply(model, reply);
    }
    struct usage *usage = kind == ROW_USAGE ? model_usage(model, id) : NULL;
    if (usage != NULL) {
        free_usage(model, usage);
    }
    struct host *host = kind == ROW_HOST ? model_host(model, id) : NULL;
    if (host != NULL) {
        free_host(model, host);
    }
    if (key != NULL) {
        free_key(model, key);
    }
    if (project != NULL) {
        free_project(model, project);
    }
    if (branch != NULL) {
        free_branch(model, branch);
    }
    if (endpoint != NULL) {
        free_endpoint(model, endpoint);
    }
    if (operation != NULL) {
        free_operation(model, operation);
    }
}

void model_deinit(struct model *model)
{
    FOR_EACH_HOST(model, host)
    {
        free_host(model, host);
    }
    FOR_EACH_KEY(model, key)
    {
        free_key(model, key);
    }
    FOR_EACH_REPLY(model, reply)
    {
        free_reply(model, reply);
    }
    FOR_EACH_PROJECT(model, project)
    {
        FOR_EACH_OPERATION(project, operation)
        {
            free_operation(model, operation);
        }
        FOR_EACH_USAGE(project, usage)
        {
            free_usage(model, usage);
        }
        FOR_EACH_ENDPOINT(project, endpoint)
        {
            free_endpoint(model, endpoint);
        }
        FOR_EACH_BRANCH(project, child)
        {
            list_remove(&child->in_parent);
        }
        FOR_EACH_BRANCH(project, branch)
        {
            FOR_EACH_USAGE(branch, usage)
            {
                free_usage(model, usage);
            }
            free_branch(model, branch);
        }
        free_project(model, project);
    }
    index_deinit(&model->projects);
    index_deinit(&model->tenants);
    index_deinit(&model->branches);
    index_deinit(&model->timelines);
    index_deinit(&model->endpoints);
    index_deinit(&model->operations);
    index_deinit(&model->keys);
    index_deinit(&model->hashes);
    index_deinit(&model->replies);
    index_deinit(&model->usages);
    index_deinit(&model->hosts);
}

/* ---- looking things up ---- */

#define FIND(index, key, type, member)                                                             \
    struct index_link *link = index_find(index, key);                                              \
    return link == NULL ? NULL : CONTAINER_OF(link, type, member)

struct project *model_project(const struct model *model, const char *id)
{
    FIND(&model->projects, id, struct project, by_id);
}

struct project *model_project_of_tenant(const struct model *model, const char *tenant_hex)
{
    FIND(&model->tenants, tenant_hex, struct project, by_tenant);
}

struct branch *model_branch(const struct model *model, const char *id)
{
    FIND(&model->branches, id, struct branch, by_id);
}

struct branch *model_branch_of_timeline(const struct model *model, const char *timeline_hex)
{
    FIND(&model->timelines, timeline_hex, struct branch, by_timeline);
}

struct endpoint *model_endpoint(const struct model *model, const char *id)
{
    FIND(&model->endpoints, id, struct endpoint, by_id);
}

struct operation *model_operation(const struct model *model, const char *id)
{
    FIND(&model->operations, id, struct operation, by_id);
}

struct api_key *model_key(const struct model *model, const char *id)
{
    FIND(&model->keys, id, struct api_key, by_id);
}

struct usage *model_usage(const struct model *model, const char *id)
{
    FIND(&model->usages, id, struct usage, by_id);
}

struct reply *model_reply(const struct model *model, const char *id)
{
    FIND(&model->replies, id, struct reply, by_id);
}

struct host *model_host(const struct model *model, const char *id)
{
    FIND(&model->hosts, id, struct host, by_id);
}

struct api_key *model_key_of_hash(const struct model *model, const char *hash)
{
    FIND(&model->hashes, hash, struct api_key, by_hash);
}

bool project_is_shown(const struct project *project)
{
    return project->row.state == PROJECT_ACTIVE && project->row.recoverable_until == 0;
}

bool project_is_recoverable(const struct project *project)
{
    return project->row.state == PROJECT_ACTIVE && project->row.recoverable_until != 0;
}

bool branch_is_recoverable(const struct branch *branch)
{
    return branch_is_live(branch) && branch->row.recoverable_until != 0;
}

bool branch_may_be_set_aside(const struct branch *branch)
{
    return branch_is_shown(branch) && branch->project->recoverable_count < RECOVERABLE_BRANCHES_MAX;
}

bool branch_is_live(const struct branch *branch)
{
    return branch->row.state == BRANCH_INIT || branch->row.state == BRANCH_READY;
}

bool branch_is_shown(const struct branch *branch)
{
    return branch_is_live(branch) && !branch->row.is_ephemeral && !branch->row.is_retired &&
           !branch_is_recoverable(branch);
}

bool snapshot_is_shown(const struct branch *branch)
{
    return branch_is_live(branch) && branch->row.is_snapshot && !branch->row.is_retired;
}

const struct branch *branch_shown_parent(const struct branch *branch)
{
    const struct branch *parent = branch->parent;
    while (parent != NULL && !branch_is_shown(parent)) {
        parent = parent->parent;
    }
    return parent;
}

size_t branch_shown_children(const struct branch *branch)
{
    size_t count = 0;
    FOR_EACH_CHILD(branch, child)
    {
        count += branch_is_live(child) && !child->row.is_snapshot && !child->row.is_retired &&
                 !branch_is_recoverable(child);
    }
    return count;
}

void branch_take_leave(const struct branch *branch, struct branch_row *row)
{
    row->is_retired = branch_live_children(branch) > 0;
    row->state = row->is_retired ? row->state : BRANCH_DELETING;
    row->expires_at = 0;
    row->schedule = NULL;
    row->deleted_at = row->recoverable_until = 0;
}

void branch_set_aside(struct branch_row *row, wall_us_t now, wall_us_t until)
{
    row->deleted_at = now;
    row->recoverable_until = until;
    row->expires_at = 0;
}

bool endpoint_is_live(const struct endpoint *endpoint)
{
    return endpoint->row.wanted != ENDPOINT_DELETING;
}

bool endpoint_is_recoverable(const struct endpoint *endpoint)
{
    return endpoint_is_live(endpoint) &&
           (branch_is_recoverable(endpoint->branch) || project_is_recoverable(endpoint->project));
}

bool endpoint_is_shown(const struct endpoint *endpoint)
{
    return endpoint_is_live(endpoint) && !endpoint_is_recoverable(endpoint) &&
           project_is_shown(endpoint->project);
}

struct branch *project_default_branch(const struct project *project)
{
    FOR_EACH_BRANCH(project, branch)
    {
        if (branch->row.is_default && branch_is_live(branch)) {
            return branch;
        }
    }
    return NULL;
}

struct branch *project_branch_named(const struct project *project, const char *name)
{
    FIND(&project->names, name, struct branch, by_name);
}

size_t branch_live_children(const struct branch *branch)
{
    size_t count = 0;
    FOR_EACH_CHILD(branch, child)
    {
        count += branch_is_live(child);
    }
    return count;
}

bool endpoint_lost_port(const struct model *model, const struct endpoint *endpoint)
{
    FOR_EACH_PROJECT(model, project)
    {
        FOR_EACH_ENDPOINT(project, other)
        {
            if (other != endpoint && other->row.agent == endpoint->row.agent &&
                other->row.port == endpoint->row.port && !endpoint_is_recoverable(other)) {
                return true;
            }
        }
    }
    return false;
}
