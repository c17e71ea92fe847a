"""Lose whole nodes at random moments of a training, and compare the weights at its end.

`python -m benchmarks.node_loss FILMS.zip` (as root): three network namespaces are three Ray
nodes, a fourth holds the object store. One run loses nothing; the others lose `--losses` nodes in
all, each of which is started again at once. Prints a table of recoveries and the digest of each
run's end.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gan_ray.training.run import RunFolder
from tests.cluster.machines import unavailable
from tests.cluster.nodes import Nodes, ray_nodes
from tests.s3_server import access, make_bucket, serving
from tests.storage.chaos_proxy import ChaosProxy, chaos

RAY_DEFAULTS: dict[str, str] = {}


@dataclass
class Loss:
    """One node lost; seconds from the kill."""

    run: int
    node: str
    images: int
    """Of the last checkpoint before it."""
    since: float
    """Seconds of training since that checkpoint, which are lost."""
    workers: float
    """Until all workers run again."""
    report: float
    """Until the first new report, that is, until there is more than before the loss."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="zip of films, in the layout `folder`")
    parser.add_argument("--losses", type=int, default=10)
    parser.add_argument("--runs", type=int, default=2, help="beside the one that loses nothing")
    parser.add_argument("--images", type=int, default=9600)
    parser.add_argument("--reports", type=int, default=12)
    parser.add_argument("--errors", type=float, default=0.0, help="share of failing requests")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds added to each request")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    reason = unavailable()
    if reason:
        raise SystemExit(reason)
    draw = random.Random(options.seed)
    with ray_nodes(2, environment=RAY_DEFAULTS) as nodes, ExitStack() as stack:
        with nodes.outside.inside():
            folder = Path(stack.enter_context(TemporaryDirectory()))
            host = nodes.outside.address
            server = stack.enter_context(serving(host, folder / "s3.log"))
            bucket = make_bucket(server)
            proxy = stack.enter_context(chaos(server, host, options.errors, options.delay))
        os.environ.update(access(server))
        stack.enter_context(nodes.outside.inside())  # to look at the runs, past the proxy
        ends, losses = [], []
        for number in range(options.runs + 1):
            share = options.losses // options.runs if number else 0
            run = RunFolder(f"{bucket.uri}/run{number}")
            began = time.monotonic()
            with training(nodes, run, proxy, options) as driver:
                for mark in sorted(draw.sample(range(1, options.reports), share)):
                    losses.append(lose(nodes, run, driver, number, mark, draw))
                    print(losses[-1], flush=True)
                code = driver.wait(timeout=1800)
            if code:
                raise SystemExit(nodes.said())
            ends.append(digest(run))
            print(f"run {number}: {share} losses, {time.monotonic() - began:.0f} s, weights "
                  f"{ends[-1]}", flush=True)  # fmt: skip
    show(losses)
    failed = sum(line.endswith((" 503", " reset")) for line in proxy.requests)
    print(f"requests through the proxy: {len(proxy.requests)}, made to fail: {failed}")
    if len(set(ends)) > 1:
        raise SystemExit("the weights differ")
    print("all runs end with the same weights")


@contextmanager
def training(
    nodes: Nodes, run: RunFolder, proxy: ChaosProxy, options: argparse.Namespace
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the training of a run; it does not outlive the block."""
    settings: dict[str, Any] = {
        "data.root": options.data, "data.image-size": 64, "train.batch-size": 16,
        "train.images": options.images, "train.report-every": options.images // options.reports,
        "train.samples": 0, "train.workers": 2, "train.placement": "spread",
        "train.max-failures": max(3, options.losses),
    }  # fmt: skip
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    command = ("train", "brainomaly", "--preset", "tiny", *arguments, "--out", run.uri)
    driver = nodes.run(*command, **access(proxy.url))
    try:
        yield driver
    finally:
        if driver.poll() is None:
            driver.kill()


def lose(
    nodes: Nodes,
    run: RunFolder,
    driver: subprocess.Popen[bytes],
    number: int,
    mark: int,
    draw: random.Random,
) -> Loss:
    """Kill a node at a random moment after report `mark`, and see the training go on."""
    while len(run.metrics()) < mark:
        alive(driver, nodes)
    reported = time.monotonic()
    rows = run.metrics()
    time.sleep(draw.uniform(0, rows[-1]["seconds"]))
    while not (at_work := [m for m in nodes.workers().values() if m is not nodes.head]):
        alive(driver, nodes)
    victim, old = draw.choice(at_work), set(nodes.workers())
    rows, killed = run.metrics(), time.monotonic()
    victim.kill()
    spare = threading.Thread(target=nodes.start, args=(victim,))
    spare.start()
    while len(set(nodes.workers()) - old) < 2:
        alive(driver, nodes)
    workers = time.monotonic() - killed
    while len(run.metrics()) <= len(rows):
        alive(driver, nodes)
    report = time.monotonic() - killed
    spare.join()
    since = killed - reported
    return Loss(number, victim.address, rows[-1]["images"], since, workers, report)


def alive(driver: subprocess.Popen[bytes], nodes: Nodes) -> None:
    if driver.poll() is not None:
        raise SystemExit(f"the training ended with {driver.returncode}: {nodes.said()}")
    time.sleep(0.2)


def digest(run: RunFolder) -> str:
    """Give the sha256 of the last checkpoint's weights and optimisers."""
    images = run.checkpoints()[-1]
    tensors = run.store.get(f"checkpoints/{images:012d}/tensors.safetensors")
    return hashlib.sha256(tensors).hexdigest()


def show(losses: list[Loss]) -> None:
    print("| loss | run | node | checkpoint at | lost s | workers after s | new report after s |")
    print("|---|---|---|---|---|---|---|")
    for number, loss in enumerate(losses, 1):
        print(f"| {number} | {loss.run} | {loss.node} | {loss.images:,} | {loss.since:.1f} | "
              f"{loss.workers:.1f} | {loss.report:.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
