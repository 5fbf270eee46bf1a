/* placement.c - which safekeepers get a new branch. */
#include "control/api/api_private.h"

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
