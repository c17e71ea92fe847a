"""Memory that really runs out, in a process whose address space is limited."""

from __future__ import annotations

import dataclasses
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gan_ray.config import Optimizer, TrainConfig, config
from gan_ray.detector import Batch, Detector, Evidence, ImageSpec, Stage, Step
from gan_ray.errors import OutOfMemoryError
from gan_ray.training import memory
from gan_ray.training.failures import out_of_memory
from gan_ray.training.loop import fit
from tests.conformance import SmoothSource

ROOT = Path(__file__).resolve().parents[2]
BATCH, ROOM = 256, 400 * 2**20


@config
class Weights:
    size: float = 1.0


@config
class WideConfig:
    weights: Weights = Weights()


class Wide(Detector):
    """A step that holds some MiB for each image: what fits is a matter of the batch alone."""

    Config = WideConfig

    def __init__(self, settings: WideConfig, image: ImageSpec) -> None:
        super().__init__(settings, image)
        self.networks["generator"] = nn.Linear(1, 2**18)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("gan", (Step("generator", ("generator",), self._loss, Optimizer()),)),)

    def _loss(self, batch: Batch):
        wide = self.networks["generator"](batch["normal"].mean((1, 2, 3)).unsqueeze(1))
        return {"size": wide.square().sigmoid().mean()}

    def evidence(self, images, classes=None) -> Evidence:
        return Evidence()


def child(accumulate: int) -> None:
    """Train with little address space left; print what went wrong."""
    settings = TrainConfig(images=BATCH, batch_size=BATCH, accumulate=accumulate)
    detector = Wide(WideConfig(), ImageSpec(size=8, channels=1))
    source = SmoothSource(("normal",), 8, 1, torch.float32)
    list(fit(detector, source, dataclasses.replace(settings, batch_size=accumulate), seed=0))
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + ROOM,) * 2)
    try:
        list(fit(detector, source, settings, seed=0))
        print("fits")
    except OutOfMemoryError as error:
        print(error, error.exit_code, sep="\n")


def limited(accumulate: int) -> list[str]:
    script = f"from tests.training.test_memory import child; child({accumulate})"
    # One arena: others reserve address space by the thread, and the limit counts it.
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_batch_that_does_not_fit_is_told_with_one_that_does():
    told, code = limited(1)
    assert code == "5"
    assert re.search(
        r"rank 0 of 1 \(node \S+\) in step 'generator' of stage 'gan' after 0 images: "
        r"peak \d\.\d\d GiB, \d\.\d\d GiB were free", told)  # fmt: skip
    fits = int(re.search(r"--train\.batch-size (\d+)", told)[1])
    parts = int(re.search(r"--train\.accumulate (\d+)", told)[1])
    assert fits * parts == BATCH > fits > 1
    # What it proposes is what works in the same room.
    assert limited(parts) == ["fits"]


def test_only_what_an_allocator_says_counts_as_memory():
    with pytest.raises(RuntimeError, match="allocate memory") as caught:
        torch.empty(2**50)
    assert memory.ran_out(caught.value)
    assert memory.ran_out(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    assert memory.ran_out(MemoryError())
    assert not memory.ran_out(RuntimeError("shape '[2]' is invalid for input of size 3"))
    assert not memory.ran_out(ValueError("out of memory"))


def test_what_fits_is_found_by_halving_and_other_faults_end_the_search():
    def at_most(rows: int, error: Exception):
        def work(count: int) -> None:
            if count > rows:
                raise error

        return work

    cpu, full = torch.device("cpu"), MemoryError()
    assert memory.largest_that_fits(at_most(10, full), 48, cpu) == 6
    assert memory.largest_that_fits(at_most(0, full), 48, cpu) is None
    assert memory.largest_that_fits(at_most(10, ValueError()), 48, cpu) is None


@pytest.mark.parametrize(
    ("fits", "says", "never"),
    [
        (6, ["--train.batch-size 24", "--train.accumulate 16, which keeps the batch of 192"], "-"),
        (5, ["--train.batch-size 20", "--train.accumulate 24"], "-"),  # 48 images are cut into twos
        (None, ["--data.image-size"], "--train.batch-size"),
    ],
)
def test_a_smaller_batch_counts_all_workers_and_parts(fits, says, never):
    # Two workers, two parts, 48 images in each.
    told = memory.smaller_batch(fits, 48, batch=192, accumulate=2, parts=True)
    for words in says:
        assert words in told
    assert never == "-" or never not in told


def test_a_loss_that_wants_the_whole_batch_is_not_told_to_cut_it():
    assert "accumulate" not in memory.smaller_batch(8, 16, batch=16, accumulate=1, parts=False)


NEARLY_FULL = """
import sys, ray
ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=100 * 2**20,
         _node_ip_address="127.0.0.1", logging_level="ERROR", log_to_driver=False,
         _system_config={"memory_usage_threshold": 0.01, "memory_monitor_refresh_ms": 100})
from gan_ray.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_node_that_is_nearly_full_is_named(tmp_path: Path):
    train = [
        "train",
        "ganomaly",
        "--preset",
        "tiny",
        "--data.source",
        "digits",
        "--data.normal-class",
        "1",
        "--train.images",
        "64",
        "--train.max-failures",
        "0",
    ]
    command = [sys.executable, "-c", NEARLY_FULL, *train]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"OutOfMemoryError: Ray ended workers on node \d+\.\d+", done.stderr)
    assert "Lower --train.workers" in done.stderr


def test_a_worker_that_could_not_allocate_speaks_for_the_training():
    failure = RuntimeError("two workers failed")
    assert out_of_memory(failure) is None
    failure.worker_failures = {0: RuntimeError("peer closed"), 1: OutOfMemoryError("on rank 1")}
    assert out_of_memory(failure) is failure.worker_failures[1]
