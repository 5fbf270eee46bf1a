"""Many relations in one database: CPU time to make, to ask for the size of, to list and to drop one, among few and many.

tests/bench/store_relations.c, at the store's own door."""
import json
import statistics
import subprocess
import tempfile

ROUNDS = 3


def measure(build, count):
    rounds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="anabranch-relations-") as folder:
            done = subprocess.run([f"{build}/tests/bench/store_relations", folder, str(count)], stdout=subprocess.PIPE,
                                  text=True, check=True)
            rounds.append(json.loads(done.stdout))
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}


def figures(build, emit, few=10_000, many=100_000):
    base, grown = measure(build, few), measure(build, many)
    for name in ("create_us", "size_us", "list_us", "drop_us"):
        ratio = grown[name] / base[name]
        # Ten times as many keys: a level more in the trees, and less of them in the processor's caches.
        emit(f"relations_{name[:-3]}_of_{many}", grown[name], "us of CPU", f"among {few}, us", base[name], ratio,
             "O(log n): <= 2 x", ratio <= 2)
