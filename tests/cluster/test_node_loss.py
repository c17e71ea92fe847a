"""Training on several machines, unmoved by the loss of one: killed, or cut off for a while."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch.distributed as dist

from gan_ray import experiment
from gan_ray.training.run import RunFolder
from gan_ray.training.session import run_session
from tests.cluster.machines import Machine
from tests.cluster.nodes import Nodes, finish, ray_nodes
from tests.s3_server import Bucket, access
from tests.training.ranks import on_two_ranks

REPORTS = 10
TRAIN = {
    "batch_size": 16, "report_every": 320, "images": 320 * REPORTS, "samples": 0, "workers": 2,
    "placement": "spread",
}  # fmt: skip
DATA = {"source": "digits", "normal_class": 1, "image_size": 16}
COMMAND = (
    "train", "brainomaly", "--preset", "tiny",
    *(f"--{part}.{key.replace('_', '-')}={value}"
      for part, fields in (("data", DATA), ("train", TRAIN)) for key, value in fields.items()),
)  # fmt: skip


@pytest.fixture(scope="module")
def nodes(machines: None) -> Iterator[Nodes]:
    with ray_nodes(2) as running:
        yield running


@pytest.fixture
def reach(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables that lead to it, for drivers and for this process."""
    for name, value in access(bucket.endpoint).items():
        monkeypatch.setenv(name, value)
    return access(bucket.endpoint)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """The end of the run that loses nothing, by two processes without Ray."""
    out = tmp_path_factory.mktemp("unbroken")
    on_two_ranks(_train_unbroken, out, str(out / "run"))
    return final(RunFolder(out / "run"))


def _train_unbroken(rank: int, out: str) -> None:
    settings = experiment.make("brainomaly", preset="tiny", changes={"data": DATA, "train": TRAIN})
    run = RunFolder(out)
    if rank == 0:
        run.claim(settings)
    dist.barrier()
    run_session(settings, run)


def final(run: RunFolder) -> tuple[Any, ...]:
    """Give what must not change: the last weights, optimisers and figures."""
    images = run.checkpoints()[-1]
    clock = ("seconds", "images_per_second", "look_seconds")
    rows = [{k: v for k, v in row.items() if k not in clock} for row in run.metrics()]
    return images, run.store.get(f"checkpoints/{images:012d}/tensors.safetensors"), rows


def wait(
    for_what: Callable[[], object], driver: subprocess.Popen[bytes] | None, nodes: Nodes
) -> None:
    """Wait for something that happens while the driver runs, or after it with None."""
    deadline = time.monotonic() + 240
    while not for_what():
        assert driver is None or driver.poll() is None, nodes.said()
        assert time.monotonic() < deadline, nodes.said()
        time.sleep(0.05)


def a_node_at_work(nodes: Nodes) -> Machine:
    """Give a node that a worker of the training runs on, never the head."""
    return random.choice([m for m in nodes.workers().values() if m is not nodes.head])


@pytest.mark.slow
def test_a_lost_node_changes_nothing(nodes: Nodes, bucket: Bucket, reach, unbroken):
    run = RunFolder(f"{bucket.uri}/killed")
    driver = nodes.run(*COMMAND, "--out", run.uri, **reach)
    wait(lambda: len(run.metrics()) >= 3, driver, nodes)
    assert len(set(nodes.workers().values())) == 2, "the workers are spread"
    time.sleep(random.random())
    victim = a_node_at_work(nodes)
    victim.kill()
    done = len(run.metrics())
    try:
        wait(lambda: len(run.metrics()) > done, driver, nodes)
        assert victim not in nodes.workers().values()
        assert finish(driver, 200) == 0, nodes.said()
    finally:
        nodes.start(victim)
    assert final(run) == unbroken
    assert sum(" images=320 " in line for line in run.log()) == 1, "it did not start over"


@pytest.mark.slow
def test_a_node_that_is_cut_off_and_comes_back_changes_nothing(
    nodes: Nodes, bucket: Bucket, reach, unbroken
):
    run = RunFolder(f"{bucket.uri}/cut")
    driver = nodes.run(*COMMAND, "--out", run.uri, **reach)
    wait(lambda: len(run.metrics()) >= 3, driver, nodes)
    victim = a_node_at_work(nodes)
    old = {pid for pid, machine in nodes.workers().items() if machine is victim}
    victim.cut()
    done = len(run.metrics())
    try:
        # Longer than Ray waits for a sign of life: the others go on without it.
        wait(lambda: len(run.metrics()) > done, driver, nodes)
        victim.heal()
        assert finish(driver, 200) == 0, nodes.said()
        wait(lambda: old.isdisjoint(nodes.workers()), None, nodes)
    finally:
        victim.heal()
        victim.kill()
        nodes.start(victim)
    assert final(run) == unbroken


@pytest.mark.slow
def test_after_the_driver_was_killed_the_same_command_goes_on(
    nodes: Nodes, bucket: Bucket, reach, unbroken
):
    run = RunFolder(f"{bucket.uri}/driver")
    first = nodes.run(*COMMAND, "--out", run.uri, **reach)
    wait(lambda: len(run.metrics()) >= 3, first, nodes)
    os.killpg(first.pid, signal.SIGKILL)
    second = nodes.run(*COMMAND, "--out", run.uri, **reach)
    assert finish(second, 200) == 0, nodes.said()
    assert final(run) == unbroken
    assert sum(" images=320 " in line for line in run.log()) == 1, "it did not start over"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_fewer_workers_allowed_training_goes_on_without_the_lost_node(
    nodes: Nodes, bucket: Bucket, reach
):
    run = RunFolder(f"{bucket.uri}/elastic")
    for machine in nodes.nodes[1:]:
        machine.kill()
    nodes.until_idle(2)  # else it may begin with one worker, as it may
    try:
        driver = nodes.run(
            *COMMAND, "--train.min-workers", "1", "--out", run.uri, **reach,
            RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S="30",
        )  # fmt: skip
        wait(lambda: len(run.metrics()) >= 2, driver, nodes)
        a_node_at_work(nodes).kill()
        assert finish(driver, 400) == 0, nodes.said()
    finally:
        for machine in nodes.nodes:
            machine.kill()
        nodes.start(*nodes.nodes)
    assert [row["images"] for row in run.metrics()] == [320 * n for n in range(1, REPORTS + 1)]
    assert run.get_json("environment.json")["world_size"] == 1
