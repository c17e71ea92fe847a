"""What a plan of many objects costs: memory and time of making it, and of finding its keys again.

The listing is generated, so that the ledger alone is measured; each size runs in a process of its
own. `python -m benchmarks listing`.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from gan_ray.data.suffixes import IMAGE_SUFFIXES
from gan_ray.names import key_name
from gan_ray.scoring.ledger import Job, settle
from gan_ray.storage import Entry, Store, open_store

SIZES = (10_000, 100_000, 1_000_000)


class Generated(Store):
    """A bucket of films, of which every hundredth went away after the first listing."""

    uri = "s3://generated/films"

    def __init__(self, objects: int) -> None:
        """List so many objects."""
        self._objects, self._listed = objects, 0

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Stream them in the order of their keys, as pages of a server would come."""
        self._listed += 1
        for number in range(self._objects):
            if self._listed == 1 or number % 100:
                key = f"site-{number // 100_000:03d}/patient-{number // 50:06d}/{number:08d}.dcm"
                yield Entry(key, 524_288, f"{number:032x}")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(objects: int, told: Any) -> None:
    """Plan and pass through a job of so many objects; put the figures into a queue."""
    source = Generated(objects)
    job = Job(
        source=source.uri, model="m", version="1", manifest_digest="0" * 64, preprocessing="p",
        maps=False, pseudonym_key=key_name(), with_names=False, shard_size=256,
        suffixes=IMAGE_SUFFIXES,
    )  # fmt: skip
    before = _peak()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        plan = settle(source, open_store(folder), job)
        planned, peak = time.perf_counter(), _peak()
        gone = sum(one.key is None for _, shard in plan.left() for one in shard)
        passed = time.perf_counter()
    assert (plan.objects, gone) == (objects, -(-objects // 100))
    told.put(
        {
            "objects": objects,
            "plan_seconds": round(planned - began, 2),
            "pass_seconds": round(passed - planned, 2),
            "plan_mib": round(peak - before, 1),
            "pass_mib": round(_peak() - before, 1),
        }
    )


def run() -> list[dict[str, float]]:
    """Print and give the figures of each size."""
    context, rows = multiprocessing.get_context("spawn"), []
    for objects in SIZES:
        told = context.Queue()
        process = context.Process(target=measure, args=(objects, told))
        process.start()
        rows.append(told.get())
        process.join()
        print("  ".join(f"{name} {value:,}" for name, value in rows[-1].items()), flush=True)
    return rows
