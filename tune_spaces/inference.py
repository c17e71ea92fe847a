"""What a detector costs where it is used: time for an image, or parameters."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import numpy as np
import torch

from gan_ray.config import Experiment
from gan_ray.experiment import build_detector
from gan_ray.scoring.scorer import Scorer
from gan_ray.scoring.scores import make_score

BATCH = 8
"""Images that are scored at once when time is taken."""
REPEATS = 5
"""Batches of which the median counts, after one that warms up."""


def cost_of(experiment: Experiment[Any], cost: str, device: torch.device) -> float:
    """Give the `cost`, one of `objectives.COSTS`, of the experiment's detector; untrained will do.

    `latency` is the time the scorer takes in milliseconds per image: of all processors together on
    a CPU, where other trials run beside this one, of the clock on a GPU.
    `parameters` counts those of the networks that inference needs.
    """
    detector = build_detector(experiment)
    if cost == "parameters":
        networks = (detector.networks[name] for name in detector.infers)
        return float(sum(p.numel() for network in networks for p in network.parameters()))
    # Scales are means over held-out normals; dividing by them takes no time.
    score = make_score(dataclasses.replace(experiment.score, scales={}), detector)
    scorer = Scorer(detector, score, device=device, batch_size=BATCH)
    torch.set_num_threads(experiment.train.threads)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    spec = detector.image
    noise = np.random.default_rng(0).integers(
        0, 256, (BATCH, spec.channels, spec.size, spec.size), np.uint8
    )
    kinds = np.zeros(BATCH, np.int64)
    seconds = []
    for _ in range(1 + REPEATS):
        began = clock()
        scorer.score_images(noise, classes=kinds)  # its scores come to the host: it waits for a GPU
        seconds.append(clock() - began)
    return 1000 * statistics.median(seconds[1:]) / BATCH
