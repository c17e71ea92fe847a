"""The model's constants on this machine, from one and two processes over gloo.

`python -m benchmarks.scaling_fit [--repeats 5]`: messages of many sizes, cycles of training, the
gathering of rows, random numbers, a checkpoint; then what the model says of two processes beside
what was measured. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing

from benchmarks.core import conv_gflops
from benchmarks.scaling_model import Link, Machine, tick_seconds
from benchmarks.workload import count
from gan_ray import experiment
from gan_ray.data.transforms import to_unit
from gan_ray.storage.local import LocalStore
from gan_ray.storage.uris import parse
from gan_ray.training.loop import fit
from gan_ray.training.state import TrainState, encode

SIZES = (2**10, 2**14, 2**18, 2**22, 2**25)
"""Bytes of the messages."""
SYSTEMS = {"ganomaly": {}, "brainomaly": {"model": {"width": 16, "critic": {"width": 16}}}}
"""Systems whose cycles are measured; changes to the size `tiny`."""
TICKS = 8


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Give the median wall seconds of a call, after one warm-up."""
    work()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def line(sizes: list[float], seconds: list[float]) -> tuple[float, float]:
    """Fit seconds = latency + size / rate, with equal relative errors; give latency and rate.

    Neither is negative: the latency is at most what the smallest message took.
    """
    x, y = np.asarray(sizes), np.asarray(seconds)
    rows = np.stack([1 / y, x / y], axis=1)
    latency, slope = np.linalg.lstsq(rows, np.ones(len(y)), rcond=None)[0]
    return float(np.clip(latency, 0.0, y.min())), float(1 / max(slope, 1e-15))


class Rows:
    """The same rows at every call."""

    def __init__(self, streams: tuple[str, ...], rows: int, channels: int, size: int) -> None:
        self._rows = {name: torch.rand(rows, channels, size, size) * 2 - 1 for name in streams}

    def batch(self, **_: Any) -> dict[str, torch.Tensor]:
        """Give the rows."""
        return self._rows


def settings(name: str, ranks: int) -> Any:
    """Give the experiment whose cycles are timed: 32 px, 16 images on each rank."""
    train = {"batch_size": 16 * ranks, "report_every": 16 * ranks * TICKS, "images": 10**6}
    fixed = {"data": {"image_size": 32, "channels": 1}, "train": train, **SYSTEMS[name]}
    return experiment.make(name, preset="tiny", changes=fixed)


def seconds_per_tick(name: str, ranks: int, repeats: int) -> float:
    """Give the seconds of one tick, with 16 images on this rank."""
    one = settings(name, ranks)
    detector = experiment.build_detector(one)
    training = fit(detector, Rows(detector.streams, 16, 1, 32), one.train, seed=0)
    return median_seconds(lambda: next(training), repeats) / TICKS


def of_a_rank(rank: int, meet: str, out: str, repeats: int) -> None:
    """Measure what takes two; rank 0 writes it to `out`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    found: dict[str, Any] = {"messages": {}, "ticks": {}}
    for size in SIZES:
        flat = torch.zeros(size // 4)
        found["messages"][size] = median_seconds(partial(dist.all_reduce, flat), repeats)
    for name in SYSTEMS:
        found["ticks"][name] = seconds_per_tick(name, 2, repeats)
    dist.barrier()
    if rank == 0:
        Path(out).write_text(json.dumps(found))
    os._exit(0)  # gloo's threads abort the interpreter's end now and then


def measure(repeats: int) -> dict[str, Any]:
    """Give the constants and, of each system, the measured and the predicted tick of two ranks."""
    torch.set_num_threads(1)
    probe = conv_gflops()
    with TemporaryDirectory() as folder:
        out = f"{folder}/found"
        torch.multiprocessing.spawn(  # type: ignore[attr-defined, no-untyped-call]
            of_a_rank, (f"file://{folder}/meet", out, repeats), nprocs=2, join=True
        )
        pair = json.loads(Path(out).read_text())
        alone = {name: seconds_per_tick(name, 1, repeats) for name in SYSTEMS}
        work = {name: count(settings(name, 1)) for name in SYSTEMS}
        machine = constants(pair["messages"], alone, work, repeats, folder)
    ticks = {}
    for name, one in work.items():
        said = tick_seconds(one, 2, 32, machine, 0)
        rate = sum(s.flops * 16 / s.every for s in one.steps) / alone[name]
        own = alone[name] + said.averaging  # compute of this system, averaging of the model
        ticks[name] = {
            "one_rank_ms": round(1000 * alone[name], 1),
            "two_ranks_ms": round(1000 * pair["ticks"][name], 1),
            "predicted_ms": round(1000 * own, 1),
            "averaging_ms": round(1000 * said.averaging, 2),
            "gflops": round(rate / 1e9, 1),
            "efficiency": round(alone[name] / pair["ticks"][name], 3),
            "predicted_efficiency": round(alone[name] / own, 3),
        }
    return {
        "constants": asdict(machine),
        "message_ms": {size: round(1000 * s, 3) for size, s in pair["messages"].items()},
        "ticks": ticks,
        "conv_gflops": [round(probe, 1), round(conv_gflops(), 1)],
        "load": round(os.getloadavg()[0], 1),
    }


def constants(
    messages: dict[str, float], alone: dict[str, float], work: Any, repeats: int, folder: str
) -> Machine:
    """Fit the constants; arithmetic from the slowest of the systems' cycles."""
    wait, rate = line([float(size) for size in messages], list(messages.values()))
    link = Link(bandwidth=rate, latency=wait / 2)  # two messages in turn, each half the buffer
    sums = {n: sum(s.flops * 16 / s.every for s in one.steps) for n, one in work.items()}
    tensors = [torch.ones(2**18) for _ in range(16)]
    size = 16 * 2**20

    def flatten() -> None:
        flat = torch.cat(tensors)
        flat /= 2
        for tensor, part in zip(tensors, torch.split(flat, 2**18), strict=True):
            tensor.copy_(part)

    stored = np.zeros((1024, 1, 64, 64), np.uint8)
    chosen = np.random.default_rng(0).permutation(1024)[:256]
    feeding = median_seconds(lambda: to_unit(stored[chosen], "cpu"), repeats)
    drawing = median_seconds(lambda: torch.randn(2**20), repeats)
    state = TrainState(experiment.build_detector(experiment.make("ganomaly")))
    files = encode(state)
    volume = sum(map(len, files.values()))
    encoding = median_seconds(lambda: encode(state), repeats)
    store = LocalStore(parse(folder))
    writing = median_seconds(lambda: [store.put(k, v) for k, v in files.items()], repeats)
    flops = max(sums, key=lambda name: alone[name])
    return Machine(
        flops=sums[flops] / alone[flops],
        launch=min(alone[n] / sum(s.launches / s.every for s in work[n].steps) for n in work),
        memory=6 * size / median_seconds(flatten, repeats),
        node_size=2,
        inside=link,
        between=link,
        feed=256 * 64 * 64 / feeding,
        draw=2**20 / drawing,
        encode=volume / encoding,
        store=volume / writing,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    print(json.dumps({"scaling_fit": measure(parser.parse_args().repeats)}))


if __name__ == "__main__":
    main()
