/*
 * branch_list.c - the branches of a project: all of them or page by page, in any order.
 *
 * Without an order they come in that of their creation, straight from the model: clients look up
 * names in the whole list, which may be long. With one they are sorted first, and a cursor is the
 * place of the last branch in that order ("SEQ-TIME", "SEQ-HEX OF NAME"), so that a page goes on
 * where the one before ended whatever was deleted meanwhile.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "control/api/api_private.h"

#define BRANCHES_MAX 10000

enum sort { SORT_SEQ, SORT_NAME, SORT_CREATED, SORT_UPDATED };

/* Where a branch stands in an order. */
struct place {
    const struct branch *branch;
    enum sort sort;
    bool descends;
    uint64_t seq;
    wall_us_t time;
    const char *name;
};

struct listing {
    const struct api *api;
    const char *search;
    bool with_deleted, more;
    enum sort sort;
    bool descends;
    uint64_t limit, count;
    struct place after; /* sort is SORT_SEQ: by seq only */
    row_text_t after_name;
    struct place last;
    struct buf text;
};

static struct place place_of(const struct listing *listing, const struct branch *branch)
{
    const struct branch_row *row = &branch->row;
    return (struct place){
        .branch = branch,
        .sort = listing->sort,
        .descends = listing->descends,
        .seq = row->seq,
        .time = listing->sort == SORT_CREATED ? row->created_at : row->updated_at,
        .name = row->name,
    };
}

static int compare(const void *left, const void *right)
{
    const struct place *a = left, *b = right;
    int order = 0;
    if (a->sort == SORT_NAME) {
        order = strcmp(a->name, b->name);
    } else if (a->sort != SORT_SEQ) {
        order = (a->time > b->time) - (a->time < b->time);
    }
    order = order != 0 ? order : (a->seq > b->seq) - (a->seq < b->seq);
    return a->descends ? -order : order;
}

static bool fits(const struct listing *listing, const struct branch *branch)
{
    const struct branch_row *row = &branch->row;
    bool is_there =
        branch_is_shown(branch) || (listing->with_deleted && branch_is_recoverable(branch));
    return is_there && (listing->search == NULL || strstr(row->name, listing->search) != NULL ||
                        strstr(row->id, listing->search) != NULL);
}

/* ---- the question ---- */

static err_t read_sort(struct http_request *request, struct listing *listing)
{
    static const char *const names[] = {
        [SORT_NAME] = "name", [SORT_CREATED] = "created_at", [SORT_UPDATED] = "updated_at"};
    const char *by = request_query(request, "sort_by");
    const char *order = request_query(request, "sort_order");
    for (enum sort sort = SORT_NAME; by != NULL && sort <= SORT_UPDATED; sort++) {
        listing->sort = strcmp(by, names[sort]) == 0 ? sort : listing->sort;
    }
    if (by == NULL && order != NULL) {
        listing->sort = SORT_UPDATED;
    }
    listing->descends = listing->sort != SORT_SEQ && (order == NULL || strcmp(order, "desc") == 0);
    return ERR_OK;
}

static err_t read_cursor(struct listing *listing, const char *cursor)
{
    const char *dash = strchr(cursor, '-');
    char seq[24];
    uint64_t time = 0;
    bool has_key = dash != NULL && (size_t)(dash - cursor) < sizeof seq;
    if (has_key != (listing->sort != SORT_SEQ)) {
        return ERR_INVALID;
    }
    snprintf(seq, sizeof seq, "%.*s", (int)strcspn(cursor, "-"), cursor);
    TRY(parse_u64(seq, 1, UINT64_MAX, &listing->after.seq, NULL));
    if (listing->sort == SORT_NAME) {
        size_t size = strlen(dash + 1) / 2;
        if (size >= sizeof listing->after_name) {
            return ERR_INVALID;
        }
        TRY(parse_hex(dash + 1, (uint8_t *)listing->after_name, size, NULL));
        listing->after.name = listing->after_name;
    } else if (listing->sort != SORT_SEQ) {
        TRY(parse_u64(dash + 1, 0, INT64_MAX, &time, NULL));
        listing->after.time = (wall_us_t)time;
    }
    listing->after.sort = listing->sort;
    listing->after.descends = listing->descends;
    return ERR_OK;
}

static err_t read_question(
    struct http_request *request, struct listing *listing, struct errmsg *msg)
{
    const char *limit = request_query(request, "limit");
    const char *cursor = request_query(request, "cursor");
    listing->search = request_query(request, "search");
    listing->with_deleted = request_says(request, "include_deleted");
    listing->limit = UINT64_MAX; /* all of them: clients look up names in this list */
    TRY(read_sort(request, listing));
    if (limit != NULL) {
        TRY(parse_u64(limit, 1, BRANCHES_MAX, &listing->limit, msg));
    }
    if (cursor != NULL && read_cursor(listing, cursor) != ERR_OK) {
        return err_set(
            msg, ERR_INVALID,
            "cursor: expected the one that a page before has given, in the same order");
    }
    return ERR_OK;
}

/* ---- the answer ---- */

/* One at a time: a document of thousands is built from memory that no cache holds. */
static void append(struct listing *listing, const struct place *place)
{
    listing->more = listing->count >= listing->limit;
    if (listing->more) {
        return;
    }
    struct doc *doc = view_branch_doc(listing->api, place->branch);
    buf_append(&listing->text, ",", listing->count > 0 ? 1 : 0);
    doc_print(doc, false, &listing->text);
    doc_unref(doc);
    listing->last = *place;
    listing->count++;
}

static void append_as_created(struct listing *listing, const struct project *project)
{
    FOR_EACH_BRANCH(project, branch)
    {
        if (branch->row.seq > listing->after.seq && fits(listing, branch) && !listing->more) {
            struct place place = place_of(listing, branch);
            append(listing, &place);
        }
    }
}

static void append_sorted(struct listing *listing, const struct project *project)
{
    struct place *places = MEM_ARRAY(struct place, project->branch_count + 1);
    size_t count = 0;
    FOR_EACH_BRANCH(project, branch)
    {
        struct place place = place_of(listing, branch);
        if (fits(listing, branch) &&
            (listing->after.seq == 0 || compare(&place, &listing->after) > 0)) {
            places[count++] = place;
        }
    }
    qsort(places, count, sizeof places[0], compare);
    for (size_t i = 0; i < count && !listing->more; i++) {
        append(listing, &places[i]);
    }
    mem_free(places);
}

static void append_cursor(struct listing *listing)
{
    const struct place *last = &listing->last;
    buf_printf(&listing->text, ",\"pagination\":{\"next\":\"%" PRIu64, last->seq);
    if (listing->sort == SORT_NAME) {
        char hex[2 * sizeof(row_text_t)];
        format_hex((const uint8_t *)last->name, strlen(last->name), hex);
        buf_printf(&listing->text, "-%s", hex);
    } else if (listing->sort != SORT_SEQ) {
        buf_printf(&listing->text, "-%" PRId64, last->time);
    }
    buf_printf(&listing->text, "\"}");
}

static void list_branches(struct http_context *context, struct http_request *request)
{
    struct listing listing = {.api = api_of(context)};
    const struct project *project = request_project(api_of(context), request);
    struct errmsg msg = {0};
    if (project == NULL) {
        return;
    }
    if (read_question(request, &listing, &msg) != ERR_OK) {
        http_respond_problem(request, 400, "BAD_REQUEST", msg.text);
        return;
    }
    buf_printf(&listing.text, "{\"branches\":[");
    if (listing.sort == SORT_SEQ) {
        append_as_created(&listing, project);
    } else {
        append_sorted(&listing, project);
    }
    buf_printf(&listing.text, "],\"annotations\":{}");
    if (listing.more) {
        append_cursor(&listing);
    }
    buf_printf(&listing.text, "}\n");
    http_respond_buf(request, 200, "application/json", &listing.text);
}

static void count_branches(struct http_context *context, struct http_request *request)
{
    const struct project *project = request_project(api_of(context), request);
    int64_t count = 0;
    if (project == NULL) {
        return;
    }
    struct listing listing = {.search = request_query(request, "search")};
    FOR_EACH_BRANCH(project, branch)
    {
        count += fits(&listing, branch);
    }
    http_respond_json(request, 200, doc_set_int(doc_object(), "count", count));
}

#define P "/api/v2/projects/{project}"
const struct http_route branch_list_routes[] = {
    ROUTE("GET", P "/branches", list_branches, "branches, as they were made unless sorted"),
    ROUTE("GET", P "/branches/count", count_branches, "how many"),
};
const size_t branch_list_route_count = ARRAY_LEN(branch_list_routes);
