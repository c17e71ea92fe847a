"""Workers of one node prepare the training data once and share one copy of it."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest

from gan_ray.config import DataConfig
from gan_ray.data.sources import TrainingData, load_training
from gan_ray.errors import DataError
from gan_ray.training import distributed
from gan_ray.training.node_data import once_per_node
from tests.training.ranks import on_two_ranks

DIGITS = DataConfig(source="digits", normal_class=1, image_size=8, mix_held_out=0.2)


def _share(rank: int, folder: str) -> None:
    tempfile.tempdir = folder

    def load() -> TrainingData:
        (Path(folder) / f"read-by-{rank}").touch()
        return load_training(DIGITS)

    shared, own = once_per_node(load), load_training(DIGITS)
    for field in dataclasses.fields(TrainingData):
        ours, theirs = getattr(shared, field.name), getattr(own, field.name)
        if dataclasses.is_dataclass(theirs):
            for column in dataclasses.fields(theirs):
                found, wanted = (getattr(part, column.name) for part in (ours, theirs))
                assert found.dtype == wanted.dtype
                np.testing.assert_array_equal(found, wanted)
        else:
            assert ours == theirs
    mapped = Path("/proc/self/maps").read_text()
    assert "normal.images.npy (deleted)" in mapped  # one file, open in both, gone with them


def test_ranks_of_one_node_read_once_and_share_what_was_read(tmp_path):
    on_two_ranks(_share, tmp_path, str(tmp_path))
    assert [path.name for path in tmp_path.glob("read-by-*")] == ["read-by-0"]
    assert not list(tmp_path.glob("gan-ray-data-*"))


def _apart(rank: int, folder: str) -> None:
    own = Path(folder) / f"node-{rank}"
    own.mkdir()
    tempfile.tempdir = str(own)
    once_per_node(lambda: (Path(folder) / f"read-by-{rank}").touch() or load_training(DIGITS))


def test_each_node_reads_for_itself(tmp_path):
    on_two_ranks(_apart, tmp_path, str(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("read-by-*")) == ["read-by-0", "read-by-1"]


def _refused(rank: int) -> None:
    def load() -> TrainingData:
        assert rank == 0
        raise DataError("no images there")

    with pytest.raises(DataError, match="no images there"):
        once_per_node(load)
    distributed.gather("both are still together")


def test_what_is_wrong_with_the_data_is_raised_on_every_rank(tmp_path):
    on_two_ranks(_refused, tmp_path)


def test_one_process_alone_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = once_per_node(lambda: load_training(DIGITS))
    assert len(data.normal) > 50
    assert not list(tmp_path.iterdir())
