/*
 * placement.h - which node gets a new project or compute, or one whose host is gone: the one with
 * the fewest so far, one that answers before one that does not.
 */
#pragma once

#include "control/act/nodes.h"
#include "control/model/model.h"

/* NULL: there is none of this kind. */
const struct node *place_on(
    const struct model *model, const struct nodes *nodes, enum node_kind kind);
