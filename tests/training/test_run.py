"""The run folder: what is kept of its checkpoints, and what killed writers leave behind."""

from __future__ import annotations

import pytest

from gan_ray.storage.local import PARTIAL
from gan_ray.training.run import RunFolder
from gan_ray.training.state import DIGEST, STATE, TENSORS


@pytest.fixture(params=["directory", "bucket"])
def run(request, tmp_path) -> RunFolder:
    if request.param == "directory":
        return RunFolder(tmp_path / "run")
    return RunFolder(f"{request.getfixturevalue('s3').uri}/run")


FILES = {TENSORS: b"tensors", STATE: b"state", DIGEST: b"digest"}


def keys(run: RunFolder) -> list[str]:
    return [entry.key for entry in run.store.list("checkpoints/")]


def test_the_newest_checkpoints_and_the_best_are_kept(run: RunFolder):
    for images in (10, 20, 30, 40):
        run.put_checkpoint(images, FILES)
    run.retain(2, best=10)
    assert run.checkpoints() == [10, 30, 40]
    assert len(keys(run)) == 9


def test_what_killed_writers_left_does_not_pile_up(run: RunFolder):
    for images in (10, 20, 30):
        run.put_checkpoint(images, FILES)
    # Killed while it deleted 10, and while it wrote 25 in an earlier run of other reports.
    run.store.delete(f"checkpoints/{10:012d}/{DIGEST}")
    run.store.put(f"checkpoints/{25:012d}/{TENSORS}", b"half")
    run.retain(2, best=None)
    assert {key.split("/")[1] for key in keys(run)} == {f"{20:012d}", f"{30:012d}"}


def test_a_write_that_was_killed_half_way_is_removed_with_its_folder(tmp_path):
    run = RunFolder(tmp_path)
    for images in (10, 20):
        run.put_checkpoint(images, FILES)
        (tmp_path / f"checkpoints/{images:012d}/{PARTIAL}0123").write_bytes(b"half")
    run.retain(1, best=None)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"{20:012d}"]
    assert sorted(path.name for path in (tmp_path / f"checkpoints/{20:012d}").iterdir()) == sorted(
        FILES
    )
