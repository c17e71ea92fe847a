"""`Scorer` against the bare forward pass of the same networks, images per second, one thread."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.core import conv_gflops
from gan_ray import architectures, experiment
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score

IMAGES, BATCH = 64, 32


def run() -> dict[str, Any]:
    torch.set_num_threads(1)
    table = {}
    for name in architectures.names():
        settings = experiment.make(name, changes={"data": {"image_size": 64}})
        detector = experiment.build_detector(settings).eval().requires_grad_(False)
        scorer = Scorer(detector, make_score(settings.score, detector), batch_size=BATCH)
        shape = (IMAGES, settings.data.channels, 64, 64)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        rate, ratio = against_bare(scorer, pixels)
        table[name] = {
            "images_per_second": round(rate, 1),
            "of_bare_forward": round(ratio, 3),
            "conv_gflops": round(conv_gflops(), 1),
        }
        print(f"{name:12} {table[name]}", flush=True)
    return table


def against_bare(scorer: Scorer, pixels: np.ndarray, turns: int = 2) -> tuple[float, float]:
    """Give the images a second of a scorer and what they are of the bare forward pass's."""
    images = torch.from_numpy(pixels).float() / 127.5 - 1
    tensors = images.to(scorer.device).split(scorer.batch_size)

    @torch.no_grad()
    def bare() -> None:
        for some in tensors:
            scorer.detector.evidence(some)

    works = {"bare": bare, "scorer": partial(scorer.score_images, pixels)}
    works["scorer"]()  # also sets eval mode
    bare()
    times: dict[str, list[float]] = {"bare": [], "scorer": []}
    for _ in range(turns):  # in turns: the machine's mood changes
        for key, work in works.items():
            began = time.perf_counter()
            work()
            times[key].append(time.perf_counter() - began)
    bare_s, scorer_s = (min(times[key]) for key in ("bare", "scorer"))
    return len(pixels) / scorer_s, bare_s / scorer_s
