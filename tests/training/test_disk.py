"""A disk that runs full in the middle of a training, and one that damages what it holds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gan_ray import experiment
from gan_ray.errors import ClusterError, StorageError
from gan_ray.training import launch
from gan_ray.training.run import RunFolder

DATA = {"source": "digits", "normal_class": 1, "image_size": 16}
TRAIN = {"batch_size": 16, "images": 160, "report_every": 32, "samples": 0, "keep_checkpoints": 2}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def train(out: Path, *, local: bool = True, **changes: int) -> RunFolder:
    settings = {"data": DATA, "train": {**TRAIN, **changes}}
    return launch.train(
        experiment.make("brainomaly", preset="tiny", changes=settings), out, local=local
    )


def last(run: RunFolder) -> bytes:
    return run.store.get(f"checkpoints/{run.checkpoints()[-1]:012d}/tensors.safetensors")


def test_a_full_disk_is_said_and_the_training_goes_on_when_there_is_room(disk, tmp_path):
    unbroken = train(tmp_path / "unbroken")
    run, size = RunFolder(disk / "run"), len(last(unbroken))
    # Room for one checkpoint and a half.
    (disk / "ballast").write_bytes(bytes(4 * 2**20 - size * 3 // 2))
    with pytest.raises(StorageError, match=r"No space left on device.*that the disk has room"):
        train(disk / "run")
    assert len(run.checkpoints()) == 1
    assert run.newest() is not None
    (disk / "ballast").unlink()
    train(disk / "run")
    assert last(run) == last(unbroken)
    assert sum("images=" in line for line in run.log()) == 5, "no report came twice"


@pytest.mark.ray
def test_under_ray_a_full_disk_is_told_in_one_line(ray_cluster, disk):
    (disk / "ballast").write_bytes(bytes(4 * 2**20 - 100_000))
    with pytest.raises(ClusterError, match=r"No space left on device.*the same command") as caught:
        train(disk / "run", local=False, max_failures=0)
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_passed_over_and_written_again(tmp_path):
    run = train(tmp_path / "run")
    whole = last(run)
    torn = tmp_path / f"run/checkpoints/{run.checkpoints()[-1]:012d}/tensors.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1] + b"?")
    newest = run.newest()
    assert newest is not None
    assert newest.images == run.checkpoints()[-2]
    train(tmp_path / "run")
    assert last(run) == whole
