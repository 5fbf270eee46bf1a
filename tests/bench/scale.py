"""How the page store grows: branches, depth of ancestry, tenants beside each other, relations. Slopes, each against its own small end.

The parts are in tests/bench/parts. A pageserver of its own serves each; the cluster beside it makes the bootstrap image.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "parts"))

import ancestry # noqa: E402
import branches # noqa: E402
import neighbours # noqa: E402
import relations # noqa: E402
import tenants # noqa: E402
from cluster import running # noqa: E402
from storage import serving # noqa: E402


def run(build, emit):
    with running(build, local_cache_mb=1024) as cluster:
        with serving(cluster, page_cache="0") as storage:
            ancestry.figures(storage, emit)
        with serving(cluster) as storage:
            branches.figures(storage, emit)
        with serving(cluster) as storage:
            tenants.figures(storage, emit)
        with serving(cluster) as storage:
            neighbours.figures(storage, emit)
    ancestry.with_data(build, emit)
    relations.figures(build, emit)
