/*
 * placement.c - which node gets a new project, branch or compute: the one with the fewest so far,
 * one that answers before one that does not.
 */
#include "control/api/api_private.h"

static size_t load_of(const struct model *model, const struct node *node)
{
    size_t load = 0;
    FOR_EACH_PROJECT(model, project)
    {
        load += node->kind == NODE_PAGESERVER && project->row.state == PROJECT_ACTIVE &&
                project->row.pageserver == node->id;
        FOR_EACH_ENDPOINT(project, endpoint)
        {
            load += node->kind == NODE_AGENT && endpoint->row.agent == node->id;
        }
    }
    return load;
}

const struct node *place_on(const struct api *api, enum node_kind kind)
{
    const struct node *best = NULL;
    size_t best_load = 0;
    for (size_t i = 0; i < nodes_count(api->nodes); i++) {
        const struct node *node = nodes_at(api->nodes, i);
        if (node->kind != kind) {
            continue;
        }
        size_t load = load_of(api->model, node);
        bool better = best == NULL || (node->reachable && !best->reachable) ||
                      (node->reachable == best->reachable && load < best_load);
        if (better) {
            best = node;
            best_load = load;
        }
    }
    return best;
}

/* With more safekeepers than a branch needs, each branch begins at another one. */
err_t choose_safekeepers(struct mutation *mutation, struct node_set *ret_set, struct errmsg *msg)
{
    const struct api *api = mutation->api;
    struct node_set set = {0};
    uint64_t wanted = MIN_OF(api->options.safekeepers_per_branch, SAFEKEEPERS_MAX);
    size_t count = nodes_count(api->nodes);
    for (size_t i = 0; i < count && set.count < wanted; i++) {
        const struct node *node = nodes_at(api->nodes, (api->model->seq_last + i) % count);
        if (node->kind == NODE_SAFEKEEPER) {
            set.ids[set.count++] = node->id;
        }
    }
    if (set.count < wanted) {
        return mutation_refuse(
            mutation, 503, "NOT_ENOUGH_SAFEKEEPERS", msg,
            "a branch needs %" PRIu64 " safekeepers, the cluster has %" PRIu64
            ": set `safekeepers` of control",
            wanted, set.count);
    }
    *ret_set = set;
    return ERR_OK;
}
