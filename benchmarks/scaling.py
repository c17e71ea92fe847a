"""What 8, 64 and 512 GPUs would give each system, by the model of `scaling_model`.

`python -m benchmarks.scaling [SYSTEM ...]` counts the published size of each and prints the tables
of docs/scaling.md and one JSON line. No GPU is used: the constants below are assumptions.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from benchmarks.request_rate import GETS_PER_SECOND, most_trials, read_all, writes_at_report
from benchmarks.scaling_model import (
    Link,
    Machine,
    first_to_break,
    mended,
    most_ranks,
    strong,
    tick_seconds,
    weak,
)
from benchmarks.workload import Workload, count
from gan_ray import architectures, experiment

SLOW = Machine(
    flops=50e12,  # a tenth of the 495 TFLOP/s that an H100's data sheet gives for dense TF32
    launch=6e-6,  # PyTorch's eager mode, one operator after the other
    memory=2e12,  # of the data sheet's 3.35 TB/s
    node_size=8,
    inside=Link(bandwidth=300e9, latency=5e-6),  # NVLink 4: 450 GB/s each way
    between=Link(bandwidth=10e9, latency=20e-6),  # 100 Gbit/s for each node, four fifths of it
    feed=1e9,  # one CPU core gathers the rows; PCIe is faster
    draw=50e9,  # Philox on the device
    encode=1e9,  # one CPU core serialises and hashes
    store=300e6,  # one stream of puts into an object store
)
FAST = replace(SLOW, between=Link(bandwidth=40e9, latency=20e-6))  # 400 Gbit/s
NETWORKS = {"100 Gbit/s": SLOW, "400 Gbit/s": FAST}
RANKS = (8, 64, 512)
HELD_OUT = 11_000
"""Images that a report scores: a tenth of 10,000 normals, and 10,000 of an unlabeled mix."""
IMAGES = 20_000
"""Objects of a training set in a bucket."""
MENDS = {
    "averaging": "averaging beside the backward pass",
    "bf16": "gradients sent in bf16",
    "look": "held-out images shared by the ranks",
    "reports": "rarer reports",
    "draws": "draws of own rows only",
    "all": "all but bf16",
}


def say(text: str) -> None:
    print("\n" + textwrap.fill(text, 135, break_on_hyphens=False) + "\n", flush=True)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def table(work: Workload) -> dict[str, Any]:
    """Print a system's table; give its figures."""
    alone = tick_seconds(work, 1, work.batch, SLOW, HELD_OUT)
    sent = sum(size * times for size, times in work.messages().items())
    say(f"**{work.name}**, batch {work.batch}: per tick "
          f"{work.per_tick('flops') * work.batch / 1e12:.2f} TFLOP, "
          f"{work.per_tick('launches'):,.0f} launches, {sent / 1e6:.0f} MB of gradients in "
          f"{sum(work.messages().values()):.1f} messages; checkpoint {work.state_bytes / 1e6:.0f} "
          f"MB; {alone.tick * 1000:.1f} ms on one GPU.")  # fmt: skip
    print("| GPUs | as set, 100 / 400 | rarer reports, 100 / 400 | paper's batch, 400 | ms as set, "
          "400: compute, averaging, input, draws, look, checkpoint |\n"
          "|---|---|---|---|---|")  # fmt: skip
    figures: dict[str, Any] = {}
    for ranks in RANKS:
        found: dict[str, list[float | None]] = {
            "as set": [weak(work, ranks, net, HELD_OUT) for net in (SLOW, FAST)],
            "rarer": [weak(work, ranks, net, HELD_OUT, rarer=True) for net in (SLOW, FAST)],
            "paper's batch": [strong(work, ranks, FAST, HELD_OUT)],
        }
        parts = asdict(tick_seconds(work, ranks, work.batch * ranks, FAST, HELD_OUT)).values()
        cells = [" / ".join(map(percent, values)) for values in found.values()]
        print(f"| {ranks} | {' | '.join(cells)} | {', '.join(f'{1e3 * s:.1f}' for s in parts)} |",
              flush=True)  # fmt: skip
        figures[str(ranks)] = {
            key: [value and round(value, 3) for value in values] for key, values in found.items()
        }
    most, last = most_ranks(work), RANKS[-1]
    say(f"First below 90 % at 100 Gbit/s: {breaks(work, rarer=False)}; with rarer reports "
          f"{breaks(work, rarer=True)}. The paper's batch reaches {most} GPUs at most, there with "
          f"{percent(strong(work, most, FAST, HELD_OUT))}: {breaks_strong(work)}. With equal "
          f"batches on {last} the published training would be "
          f"{work.images / work.batch / last:,.0f} ticks long.")  # fmt: skip
    return figures


def breaks(work: Workload, *, rarer: bool) -> str:
    """Say what takes efficiency below 90 % first, and where."""
    found = first_to_break(work, SLOW, HELD_OUT, rarer=rarer)
    return "nothing up to 512" if found is None else f"**{found[1]}** at {found[0]} GPUs"


def breaks_strong(work: Workload) -> str:
    """Say what holds the paper's batch back when it is spread as far as it goes."""
    most = most_ranks(work)
    now = asdict(tick_seconds(work, most, work.batch, FAST, HELD_OUT))
    ideal = tick_seconds(work, 1, work.batch, FAST, HELD_OUT)
    now["compute"] -= ideal.compute / most  # what is left are launches that rows do not shorten
    now["launching"] = now.pop("compute")
    return f"{max(now, key=lambda part: now[part])} takes the most"


def gains(works: Sequence[Workload], ranks: int, name: str) -> None:
    """Print what changes to the product would give."""
    print(f"\n| {ranks} GPUs, {name} | as it is | {' | '.join(MENDS.values())} |")
    print(f"|---|---|{'---|' * len(MENDS)}")
    for work in works:
        found = mended(work, ranks, NETWORKS[name], HELD_OUT)
        cells = [percent(found[key]) for key in ("as it is", *MENDS)]
        print(f"| {work.name} | {' | '.join(cells)} |")


def requests() -> dict[str, Any]:
    """Print how a bucket is read at the start, and written at reports."""
    print("\n| readers | requests needed | seconds at S3's limit | peak requests/s | refused | "
          "readers that give up |\n|---|---|---|---|---|---|")  # fmt: skip
    figures: dict[str, Any] = {}
    for readers in (1, *RANKS):
        patient = read_all(readers, IMAGES, persistent=True)
        real = read_all(readers, IMAGES)
        figures[str(readers)] = asdict(real)
        print(f"| {readers} | {readers * IMAGES:,} | {patient.seconds:,.0f} | {real.peak:,.0f} | "
              f"{real.refused:.0%} | {real.failed} |", flush=True)  # fmt: skip
    say(f"A report makes {writes_at_report()} writing requests, however many GPUs; "
          f"{most_trials(60):,} trainings that report every minute below one prefix reach S3's "
          f"limit. Bare, {IMAGES:,} images take {IMAGES / GETS_PER_SECOND:.1f} s.")  # fmt: skip
    return figures


def run(chosen: Sequence[str] = ()) -> dict[str, Any]:
    works = [
        count(experiment.make(name, preset="reference")) for name in chosen or architectures.names()
    ]
    found: dict[str, Any] = {work.name: table(work) for work in works}
    gains(works, 64, "100 Gbit/s")
    return {"efficiency": found, "requests": requests()}


if __name__ == "__main__":
    print(json.dumps({"scaling": run(sys.argv[1:])}))
