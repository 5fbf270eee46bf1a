#include "compute/agent/backup_fetch.h"

#include "common/base/mem.h"
#include "common/json/doc.h"
#include "common/rpc/rpc.h"

static void finish(struct backup_fetch *fetch, err_t result, const struct errmsg *msg)
{
    fetch->is_running = false;
    fetch->done(fetch, result, msg);
}

static err_t run_unpack(struct job *job)
{
    struct backup_fetch *fetch = CONTAINER_OF(job, struct backup_fetch, job);
    return compute_files_unpack(&fetch->files, &fetch->lsn, &fetch->need, &job->msg);
}

static void done_unpack(struct job *job)
{
    struct backup_fetch *fetch = CONTAINER_OF(job, struct backup_fetch, job);
    struct errmsg msg = job->msg;
    err_t err = job->result;
    if (err == ERR_OK && fetch->is_canceled) {
        err = err_set(&msg, ERR_CANCELED, "canceled");
    }
    if (err != ERR_OK) {
        fetch->lsn = LSN_NONE;
    }
    finish(fetch, err, &msg);
}

static void on_downloaded(struct http_call *call)
{
    struct backup_fetch *fetch = CONTAINER_OF(call, struct backup_fetch, call);
    struct errmsg msg = call->msg;
    struct doc *unused = NULL;
    err_t err = call->result;
    if (err == ERR_OK && (call->status < 200 || call->status > 299)) {
        err = http_call_json(call, &unused, &msg);
        doc_unref(unused);
    }
    if (err == ERR_OK && fetch->is_canceled) {
        err = err_set(&msg, ERR_CANCELED, "canceled");
    }
    if (err != ERR_OK) {
        err_ignore(err_wrap(&msg, err, "base backup"), "only the text is wanted");
        finish(fetch, err, &msg);
        return;
    }
    fetch->job.run = run_unpack;
    fetch->job.done = done_unpack;
    executor_submit(fetch->executor, &fetch->job);
}

static void make_names(struct backup_fetch *fetch)
{
    const struct compute_spec *spec = fetch->files.spec;
    struct buf url = {0};
    char path[PATH_SIZE];
    struct errmsg msg;
    buf_printf(&url, "%s", spec->pageserver_url);
    rpc_path(
        &url, RPC_PAGESERVER_BASE_BACKUP, tenant_id_text(spec->tenant).text,
        timeline_id_text(spec->timeline).text);
    buf_printf(&url, "?slrus=on_demand");
    if (fetch->files.start_lsn != LSN_NONE) {
        buf_printf(&url, "&lsn=" LSN_FMT, LSN_ARGS(fetch->files.start_lsn));
    }
    if (compute_files_tar_path(fetch->files.dir, path, &msg) != ERR_OK) {
        fatal("%s", msg.text); /* the folder's name was checked to leave room */
    }
    mem_free(fetch->url);
    mem_free(fetch->path);
    fetch->url = mem_strdup(buf_cstr(&url));
    fetch->path = mem_strdup(path);
    buf_deinit(&url);
}

void backup_fetch_start(struct backup_fetch *fetch)
{
    ASSERT(!fetch->is_running);
    make_names(fetch);
    fetch->is_running = true;
    fetch->is_canceled = false;
    fetch->lsn = LSN_NONE;
    fetch->need = (struct compute_wal_need){.from_lsn = LSN_NONE};
    http_call_deinit(&fetch->call);
    fetch->call = (struct http_call){
        .method = rpc_method(RPC_PAGESERVER_BASE_BACKUP)->verb,
        .url = fetch->url,
        .save_path = fetch->path,
        .token = fetch->files.conf->pageserver_token,
        .timeout_ms = fetch->files.conf->base_backup_timeout_ms,
        .done = on_downloaded,
    };
    http_call_start(fetch->http, &fetch->call);
}

void backup_fetch_cancel(struct backup_fetch *fetch)
{
    fetch->is_canceled = true;
    if (fetch->call.client_private != NULL) {
        http_call_cancel(&fetch->call);
    }
}

void backup_fetch_deinit(struct backup_fetch *fetch)
{
    ASSERT(!fetch->is_running);
    http_call_deinit(&fetch->call);
    mem_free(fetch->url);
    mem_free(fetch->path);
}
