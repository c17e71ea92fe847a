"""Where the time of a training goes: a few cycles of each stage under torch's profiler."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from gan_ray.training.run import RunFolder

WARM_UP, CYCLES = 5, 3
"""Cycles of a stage that pass first (allocators, choice of kernels), then those looked at."""
ROWS = 40


class Profile:
    """Writes `profile/<stage>.json.gz` (a Chrome trace) and `profile/<stage>.txt` (operators).

    It looks on, and changes nothing that training computes. The cycles are those of one report's
    interval, so that no look at held-out images is among them: fewer than three where reports are
    that frequent, none in a stage that ends while warming up.
    """

    def __init__(self, run: RunFolder, device: torch.device) -> None:
        """Look at each stage to come, once, on `device` and its CPU."""
        self._run, self._cuda = run, device.type == "cuda"
        self._passed: Counter[str] = Counter()
        self._looked: Counter[str] = Counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[Callable[[], None]]:
        """Surround the cycles of one interval; gives what is called before each of them."""
        running: profile | None = None
        seen_before = self._looked[stage] > 0

        def cycle() -> None:
            nonlocal running
            if running is not None and self._looked[stage] == CYCLES:
                self._write(stage, running)
                running = None
            elif running is None and not self._looked[stage] and self._passed[stage] == WARM_UP:
                kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * self._cuda]
                running = profile(activities=kinds, profile_memory=True)
                running.start()
            self._passed[stage] = min(self._passed[stage] + 1, WARM_UP)
            self._looked[stage] += running is not None

        yield (lambda: None) if seen_before else cycle
        if running is not None:
            self._write(stage, running)

    def _write(self, stage: str, seen: profile) -> None:
        if self._cuda:
            torch.cuda.synchronize()
        seen.stop()
        where = "device" if self._cuda else "cpu"
        table = seen.key_averages().table(sort_by=f"self_{where}_time_total", row_limit=ROWS)
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder, "trace.json.gz")
            seen.export_chrome_trace(str(trace))
            self._run.store.put(f"profile/{stage}.json.gz", trace.read_bytes())
        self._run.store.put(f"profile/{stage}.txt", table.encode())
