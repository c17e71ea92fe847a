"""CPU milliseconds of one full training cycle (all steps, as often as they run) per system.

Published widths, 64 px, grey, one thread. The public implementations' figures, measured the same
way on one core of the same kind, stand beside them where there are any (batch 32).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from benchmarks.core import conv_gflops, cpu_ms
from gan_ray import experiment
from gan_ray.training.loop import fit

PUBLIC_MS = {
    "ganomaly": 1622,
    "f-anogan": 5717,
    "brainomaly": 24384,
    "healthygan": 28424,
    "sagan": 55507,
}
"""CPU-ms at batch 32: D+G; 5 D + 1 G (another, smaller network); 2 D + 1 G (the next two with 3
channels)."""
BATCH = {"ganomaly": 32, "f-anogan": 32, "brainomaly": 16, "healthygan": 16, "sagan": 16}


class Constant:
    """The same random rows at every call: no data loading in the figure."""

    def __init__(self, streams: tuple[str, ...], size: int) -> None:
        self._rows = {
            name: torch.zeros(size, dtype=torch.int64)
            if name == "class"
            else torch.rand(size, 1, 64, 64) * 2 - 1
            for name in streams
        }

    def batch(self, **_: Any) -> dict[str, torch.Tensor]:
        """Give the rows."""
        return self._rows


def cycles(name: str) -> Iterator[Any]:
    """Give an iterator each `next` of which is one full cycle at the published width."""
    size = BATCH[name]
    fixed = {"data": {"image_size": 64, "channels": 1}, "train": {"batch_size": size}}
    settings = experiment.make(name, preset="reference", changes=fixed)
    detector = experiment.build_detector(settings)
    rows = size * math.lcm(*(step.every for step in detector.stages()[0].steps))
    train = replace(settings.train, images=1000 * rows, report_every=rows)
    return fit(detector, Constant(detector.streams, size), train, seed=0)


def run() -> dict[str, Any]:
    torch.set_num_threads(1)
    table = {}
    for name, size in BATCH.items():
        trained, probe = cycles(name), conv_gflops()
        ms = cpu_ms(lambda trained=trained: next(trained), 2)
        table[name] = {
            "cpu_ms_per_cycle": round(ms),
            "batch": size,
            "cpu_ms_per_image": round(ms / size, 1),
            "public_cpu_ms_per_image": round(PUBLIC_MS[name] / 32, 1),
            "conv_gflops": [round(probe, 1), round(conv_gflops(), 1)],
        }
        print(f"{name:12} {table[name]}", flush=True)
    return table
