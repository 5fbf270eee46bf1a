"""Many tenants that do nothing: memory and threads of each."""


def figures(storage, emit, count=1000):
    storage.root(storage.tenant(0xF00000)) # what the first one costs once
    memory, threads = storage.memory(), storage.threads()
    for n in range(1, count + 1):
        storage.tenant(0xF00000 + n)
    per_tenant = (storage.memory() - memory) / count
    more = storage.threads() - threads
    emit("idle_tenant_memory", per_tenant / 1024, "KB", "limit, KB", 200, per_tenant / 1024 / 200, "<= 200 KB",
         per_tenant <= 200 * 1024)
    emit("idle_tenant_threads", more, "threads", "limit", 0, more, "none", more <= 0)
