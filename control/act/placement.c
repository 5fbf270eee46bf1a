#include "control/act/placement.h"

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

const struct node *place_on(
    const struct model *model, const struct nodes *nodes, enum node_kind kind)
{
    const struct node *best = NULL;
    size_t best_load = 0;
    for (size_t i = 0; i < nodes_count(nodes); i++) {
        const struct node *node = nodes_at(nodes, i);
        if (node->kind != kind || node->gone) {
            continue;
        }
        size_t load = load_of(model, node);
        bool better = best == NULL || (node->reachable && !best->reachable) ||
                      (node->reachable == best->reachable && load < best_load);
        if (better) {
            best = node;
            best_load = load;
        }
    }
    return best;
}
