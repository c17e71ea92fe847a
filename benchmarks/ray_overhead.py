"""What Ray costs one training: `train --local` against one and two workers, in turns.

`python -m benchmarks.ray_overhead [--repeats 5]`. Each turn is a whole `gan-ray train` in a process
of its own; two workers get twice the global batch, so that each has the same rows. Rates are of
the second half of a run's reports: `training` counts the cycles alone (the run's own `seconds`),
`whole` all between the ends of two checkpoints, reports included. Start-up stands apart. Two
trainings that know nothing of each other show what the machine's second core is worth.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.core import conv_gflops
from gan_ray.training.run import RunFolder
from gan_ray.training.state import DIGEST

KINDS = {"local": (1, 0), "1 worker": (1, 1), "2 workers": (1, 2), "2 local": (2, 0)}
"""Runs at the same time, and workers of each, by kind; 0 workers is `--local`."""
WANTED = {"1 worker / local": 0.97, "2 workers / 1 worker": 1.85, "2 local / local": None}
SYSTEM = ("brainomaly", "--preset=tiny", "--model.width=16", "--model.critic.width=16",
          "--data.source=digits", "--data.normal-class=1", "--data.image-size=64")  # fmt: skip
"""A narrow one at the published image size, so that a turn takes a minute."""


@dataclass(frozen=True)
class Turn:
    """One run, in its steady state."""

    training: float
    """Images per second of the cycles alone."""
    whole: float
    """Images per second with the reports: what a user waits for."""
    startup: float
    """Seconds from the command to the first cycle."""
    interval: float
    """Seconds of training between two reports, median."""
    probe: float
    """GFLOP/s of one core just before."""


def steady(
    rows: Sequence[Mapping[str, Any]], ends: Sequence[float], warm: int
) -> tuple[float, float]:
    """Give images/s of training alone and with reports, of the intervals after the first `warm`.

    `ends` are the moments at which the rows' checkpoints were complete.
    """
    images = rows[-1]["images"] - rows[warm - 1]["images"]
    training = sum(row["seconds"] for row in rows[warm:])
    return images / training, images / (ends[-1] - ends[warm - 1])


def turn(kind: str, batch: int, reports: int, ticks: int, system: Sequence[str] = SYSTEM) -> Turn:
    """Run trainings of `reports` intervals of `ticks` cycles; rates are of all together.

    `batch` is the images per worker and cycle.
    """
    copies, workers = KINDS[kind]
    size = batch * max(workers, 1)
    settings = {
        "train.batch-size": size, "train.report-every": size * ticks,
        "train.images": size * ticks * reports, "train.samples": 0,
        "train.keep-checkpoints": reports, "train.workers": max(workers, 1),
    }  # fmt: skip
    probe = conv_gflops()
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gan_ray", "train", *system]
        command += [f"--{name}={value}" for name, value in settings.items()]
        command += ["--local"] if not workers else []
        began, environment = time.time(), {**os.environ, "OMP_NUM_THREADS": "1"}
        runs = [RunFolder(f"{folder}/{copy}") for copy in range(copies)]
        started = [
            subprocess.Popen([*command, "--out", run.uri], env=environment, text=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for run in runs
        ]  # fmt: skip
        for process in started:
            _, said = process.communicate()
            if process.returncode:
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
        turns = [_seen(run, began, probe) for run in runs]
    first = turns[0]
    together = {rate: sum(getattr(one, rate) for one in turns) for rate in ("training", "whole")}
    return replace(first, **together)


def _seen(run: RunFolder, began: float, probe: float) -> Turn:
    rows = run.metrics()
    assert run.directory is not None
    folder = run.directory / "checkpoints"
    ends = [(folder / f"{row['images']:012d}" / DIGEST).stat().st_mtime for row in rows]
    training, whole = steady(rows, ends, len(rows) // 2)
    first = rows[0]["seconds"] + rows[0].get("look_seconds", 0.0)
    interval = statistics.median(row["seconds"] for row in rows)
    return Turn(training, whole, ends[0] - first - began, interval, probe)


def ratios(turns: Mapping[str, Sequence[Turn]], rate: str) -> dict[str, list[float]]:
    """Give the ratios of the wanted pairs, turn by turn, so that slow drift cancels."""
    found = {}
    for pair in WANTED:
        above, below = pair.split(" / ")
        both = zip(turns[above], turns[below], strict=True)
        found[pair] = [getattr(a, rate) / getattr(b, rate) for a, b in both]
    return found


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Give the median with the smallest and the largest value."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def show(turns: Mapping[str, Sequence[Turn]]) -> None:
    print("| run | images/s, training | images/s, whole | s between reports | start-up s | probe "
          "GFLOP/s |\n|---|---|---|---|---|---|")  # fmt: skip
    for kind, some in turns.items():
        columns = ("training", "whole", "interval", "startup", "probe")
        cells = [spread([getattr(one, column) for one in some]) for column in columns]
        print(f"| {kind} | {' | '.join(cells)} |")
    print("\n| ratio | wanted | training | whole |\n|---|---|---|---|")
    for pair, wanted in WANTED.items():
        cells = [spread(ratios(turns, rate)[pair], 3) for rate in ("training", "whole")]
        print(f"| {pair} | {wanted or '-'} | {' | '.join(cells)} |")


def run(repeats: int = 3, batch: int = 32, reports: int = 6, ticks: int = 15) -> dict[str, Any]:
    torch.set_num_threads(1)
    turns: dict[str, list[Turn]] = {kind: [] for kind in KINDS}
    for repeat in range(repeats):
        order = list(KINDS) if repeat % 2 == 0 else list(KINDS)[::-1]
        for kind in order:
            turns[kind].append(turn(kind, batch, reports, ticks))
            print(f"{repeat + 1}/{repeats} {kind}: {turns[kind][-1]}", file=sys.stderr, flush=True)
    show(turns)
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "repeats": repeats,
        "batch": batch,
        **{
            rate: {pair: round(statistics.median(r), 3) for pair, r in ratios(turns, rate).items()}
            for rate in ("training", "whole")
        },
        "images_per_second": {
            kind: [round(one.whole, 1) for one in some] for kind, some in turns.items()
        },
        "startup_seconds": {
            kind: round(statistics.median(one.startup for one in some), 1)
            for kind, some in turns.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="images per worker and cycle")
    parser.add_argument("--reports", type=int, default=6)
    parser.add_argument("--ticks", type=int, default=15, help="cycles between two reports")
    print(json.dumps({"ray_overhead": run(**vars(parser.parse_args()))}))


if __name__ == "__main__":
    main()
