"""What a training costs before it is begun: a few cycles of it on noise, timed on this machine.

On a CPU it is processor time, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gan_ray.config import Experiment
from gan_ray.detector import ImageSpec
from gan_ray.errors import GanRayError
from gan_ray.experiment import build_detector, image_spec
from gan_ray.training.loop import PRECISIONS, budgets, fit

ROWS = 8
"""Images of a timed batch on a CPU, where time grows with them evenly; a GPU gets whole batches."""
_LONG = 5.0
"""Seconds beside which it does not matter what is loaded and compiled the first time."""


@dataclass(frozen=True)
class Rate:
    """Seconds of one processor or GPU for one image."""

    training: float
    """Of a training image, over all stages in their proportion."""
    look: float
    """Of a held-out image, each time it is looked at."""


@dataclass(frozen=True)
class TrialCost:
    """What makes up the seconds of a whole trial."""

    images: int
    looks: int
    looked: int
    """Held-out images of one look."""
    rate: Rate | str
    """What an image costs, or why that is not known here."""

    @property
    def seconds(self) -> float | None:
        """Seconds of one processor or GPU, without start-up, reading and checkpoints."""
        if isinstance(self.rate, str):
            return None
        return self.images * self.rate.training + self.looks * self.looked * self.rate.look


def trial_cost(experiment: Experiment[Any], looked: int) -> TrialCost:
    """Estimate a trial that looks at `looked` held-out images in each report.

    A look of a stage that cannot score yet counts as well. Leaves torch's global state as it was.
    """
    train = experiment.train
    images = sum(budgets(build_detector(experiment).stages(), train))
    interval = max(train.batch_size, train.report_every or math.ceil(images / 20))
    rate: Rate | str
    if train.use_gpu and not torch.cuda.is_available():
        rate = "this machine has no GPU to time it on"
    else:
        try:
            rate = _timed(experiment)
        except GanRayError as error:
            rate = f"timing it failed ({error})"
    return TrialCost(images, math.ceil(images / interval), looked, rate)


def _timed(experiment: Experiment[Any]) -> Rate:
    """Time the shortest training in which each step of each stage takes its turn, and one look.

    The first of two times pays for what is loaded and compiled.
    """
    cuda = experiment.train.use_gpu
    device = torch.device("cuda" if cuda else "cpu")
    rows = experiment.train.batch_size if cuda else min(experiment.train.batch_size, ROWS)
    detector = build_detector(experiment)
    cycles = [(math.lcm(*(step.every for step in stage.steps)), stage.share)
              for stage in detector.stages()]  # fmt: skip
    images = rows * max(math.ceil(ticks / share) for ticks, share in cycles)
    train = dataclasses.replace(
        experiment.train,
        images=images,
        batch_size=rows,
        accumulate=1,
        report_every=images,
        compile=False,
    )
    shown = max(1, rows // detector.passes_per_image)
    source = _Noise(detector.streams, image_spec(experiment), device, PRECISIONS[train.precision])

    def training() -> None:
        for _ in fit(detector, source, train, seed=0, device=device):
            pass

    def look() -> None:
        with torch.no_grad():
            detector.eval().evidence(source.rows("normal", shown), source.rows("class", shown))

    threads = torch.get_num_threads()
    torch.set_num_threads(train.threads)
    try:
        with torch.random.fork_rng(devices=[0] if cuda else []):
            trained, looked = (_seconds(work, device) for work in (training, look))
    finally:
        torch.set_num_threads(threads)
    return Rate(trained / sum(budgets(detector.stages(), train)), looked / shown)


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Time the second of two times, or the first if it was long."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds = 0.0
    for _ in range(2):
        started = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = clock() - started
        if seconds > _LONG:
            break
    return seconds


class _Noise:
    """Streams of noise, of the size and the type that a training would read."""

    def __init__(
        self, streams: tuple[str, ...], image: ImageSpec, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._streams, self._image, self._device, self._dtype = streams, image, device, dtype

    def rows(self, stream: str, count: int) -> Tensor:
        if stream == "class":
            return torch.randint(self._image.classes, (count,), device=self._device)
        size = self._image.size
        noise = torch.rand(count, self._image.channels, size, size, device=self._device)
        return noise.to(self._dtype) * 2 - 1

    def batch(
        self, *, stage: str, images: int, size: int, rank: int, world: int
    ) -> Mapping[str, Tensor]:
        return {name: self.rows(name, size // world) for name in self._streams}
