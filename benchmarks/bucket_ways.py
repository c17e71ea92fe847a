"""Two ways to score a prefix: the project's actors, and Ray Data with the same Scorer.

`python -m benchmarks.bucket_ways BUNDLE [--objects 2048] [--workers 2] [--repeats 2]`, in turns on
one cluster. Both read from a real S3-compatible server and write Parquet. The pipeline keeps no
ledger, reads no images in threads of its own, and loses all when it is killed: it is the least that
can be written.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.serving import films
from gan_ray.artifacts.bundle import load_bundle
from gan_ray.cluster import connect
from gan_ray.scoring.batch import score_prefix
from gan_ray.scoring.scorer import Scorer
from gan_ray.storage.arrow import arrow_filesystem

BATCH = 128
"""Images of a shard, and of a block that an actor of the pipeline gets."""


class Pipeline:
    """An actor of the pipeline."""

    def __init__(self, bundle: str) -> None:
        """Load the bundle."""
        import torch

        torch.set_num_threads(1)
        self._scorer = Scorer.from_bundle(load_bundle(Path(bundle)), batch_size=32)

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Score the files of a block."""
        files = list(zip(block["path"], block["bytes"], strict=True))
        found = list(self._scorer.score_files(files))
        scores = [np.nan if one.score is None else one.score for one in found]
        return {"path": block["path"], "score": np.array(scores, np.float32)}


def actors(bundle: Path, source: str, sink: str, workers: int) -> int:
    """Score as `gan-ray score` does."""
    done = score_prefix(bundle, source, sink, workers=workers, shard_size=BATCH)
    return int(done["scored"])


def pipeline(bundle: Path, source: str, sink: str, workers: int) -> int:
    """Score with Ray Data."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    reading, root = arrow_filesystem(source)
    writing, target = arrow_filesystem(sink)
    data = ray.data.read_binary_files(root, filesystem=reading, include_paths=True)
    scored = data.map_batches(
        Pipeline,
        fn_constructor_args=(str(bundle),),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    scored.write_parquet(target, filesystem=writing)
    return int(ray.data.read_parquet(target, filesystem=writing).count())


WAYS: dict[str, Callable[[Path, str, str, int], int]] = {"actors": actors, "Ray Data": pipeline}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--objects", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with TemporaryDirectory() as folder, films(options.objects, Path(folder)) as (bucket, *_):
        connect(num_cpus=options.workers + 2)
        for repeat in range(options.repeats):
            for way, score in list(WAYS.items())[:: 1 if repeat % 2 == 0 else -1]:
                sink = f"{bucket}/{way.replace(' ', '-').lower()}-{repeat}"
                began = time.perf_counter()
                count = score(options.bundle, f"{bucket}/in", sink, options.workers)
                assert count == options.objects, f"{way}: {count}"
                rates[way].append(options.objects / (time.perf_counter() - began))
                print(way, round(rates[way][-1], 1), "images/s, start-up included", flush=True)
    result: dict[str, Any] = {way: [round(one, 1) for one in some] for way, some in rates.items()}
    print(json.dumps({"bucket_ways": result}))


if __name__ == "__main__":
    main()
