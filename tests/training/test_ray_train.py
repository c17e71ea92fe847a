"""Training through Ray Train: equal to training without it, and unmoved by a killed worker."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from gan_ray import experiment
from gan_ray.errors import ClusterError, ConfigError, DataError
from gan_ray.training.launch import train
from gan_ray.training.run import RunFolder, load_detector
from gan_ray.training.session import run_session
from tests.training.ranks import on_two_ranks

pytestmark = pytest.mark.ray


def digits(**changes):
    settings = {"images": 4800, "report_every": 480, "samples": 0, "keep_checkpoints": 2}
    return experiment.make(
        "brainomaly",
        preset="tiny",
        changes={
            "data": {"source": "digits", "normal_class": 1, "image_size": 16},
            "train": {"batch_size": 16, **settings, **changes},
        },
    )


def final(run: RunFolder) -> tuple[int, bytes]:
    images = run.checkpoints()[-1]
    return images, run.store.get(f"checkpoints/{images:012d}/tensors.safetensors")


def figures(run: RunFolder):
    clock = ("seconds", "images_per_second", "look_seconds")
    return [{k: v for k, v in row.items() if k not in clock} for row in run.metrics()]


def worker_pids() -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"RayTrainWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _unbroken(rank: int, out: str) -> None:
    settings = digits(workers=2)
    run = RunFolder(out)
    if rank == 0:
        run.claim(settings)
    dist.barrier()
    run_session(settings, run)


def test_one_worker_on_an_object_store_equals_the_local_loop(ray_cluster, s3, tmp_path):
    local = train(digits(), tmp_path / "local", local=True)
    remote = train(digits(), f"{s3.uri}/run")
    assert final(remote) == final(local)
    assert figures(remote) == figures(local)
    assert remote.checkpoints() == local.checkpoints()
    detector, _, images = load_detector(remote, "last")
    assert images == 4800
    assert not detector.training


def test_a_killed_worker_changes_nothing(ray_cluster, tmp_path):
    settings = digits(workers=2)
    run = RunFolder(tmp_path / "killed")
    killed: list[int] = []

    def kill() -> None:
        while len(run.metrics()) < 3:
            time.sleep(0.05)
        victim = worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    train(settings, run.uri)
    thread.join(1)
    assert killed
    log = run.log()
    assert sum(" images=480 " in line for line in log) == 1, "it went on, it did not start over"
    on_two_ranks(_unbroken, tmp_path, str(tmp_path / "unbroken"))
    unbroken = RunFolder(tmp_path / "unbroken")
    assert final(run) == final(unbroken)
    assert figures(run) == figures(unbroken)


def test_what_cannot_work_is_said_at_once(ray_cluster, tmp_path):
    with pytest.raises(ClusterError, match="64 workers need 64 CPU"):
        train(digits(workers=64, batch_size=64), tmp_path / "many")
    lost = experiment.make(
        "ganomaly", preset="tiny", changes={"data": {"root": str(tmp_path / "nowhere")}}
    )
    began = time.monotonic()
    with pytest.raises(DataError, match="nowhere"):
        train(lost, tmp_path / "lost")
    assert time.monotonic() - began < 60, "an error that comes again must not be retried"


def test_every_number_of_workers_that_may_remain_must_divide_the_batch():
    with pytest.raises(ConfigError, match="cannot be cut into 3 workers"):
        digits(workers=4, min_workers=2)
    with pytest.raises(ConfigError, match=r"lower --train\.min-workers"):
        digits(workers=2, min_workers=4)
    assert digits(workers=2, min_workers=1).train.min_workers == 1


def test_a_folder_with_another_experiment_is_refused(tmp_path):
    train(digits(images=96, report_every=48), tmp_path / "run", local=True)
    with pytest.raises(ConfigError, match=r"train\.images \(96 -> 192\)"):
        train(digits(images=192, report_every=48), tmp_path / "run", local=True)
    again = train(digits(images=192, report_every=48), tmp_path / "run", local=True, fresh=True)
    assert again.metrics()[-1]["images"] == 192
