"""The binary version of CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gan_ray.config import DataConfig
from gan_ray.data.cifar10 import FILES, RECORD
from gan_ray.data.sources import load_test, load_training
from gan_ray.errors import DataError
from tests.data.trees import write_folder, write_zip


def batches(size: int = 20) -> dict[str, bytes]:
    """Six files of that many images of ten classes."""
    random = np.random.default_rng(0)
    files = {}
    for name in [*FILES["train"], *FILES["test"]]:
        records = random.integers(0, 256, (size, RECORD), np.uint8)
        records[:, 0] = np.arange(size) % 10
        files[name] = records.tobytes()
    return {**files, "batches.meta.txt": b"airplane"}


def data(root: str, **settings: object) -> DataConfig:
    kept = {"image_size": 32, "channels": 3, "normal_class": 4, **settings}
    return DataConfig(root=root, source="cifar10", **kept)


def test_images_are_red_green_and_blue_planes_after_their_class(tmp_path: Path):
    content = batches()
    root = write_zip(tmp_path / "c.zip", content, top="cifar-10-batches-bin")
    trained, test = load_training(data(root)), load_test(data(root))
    records = np.frombuffer(content["test_batch.bin"], np.uint8).reshape(20, RECORD)
    np.testing.assert_array_equal(test.split.images, records[:, 1:].reshape(20, 3, 32, 32))
    assert test.labels.tolist() == [int(n % 10 != 4) for n in range(20)]
    assert trained.unlabeled is not None
    held_out = len(trained.select) + len(trained.calibrate)
    assert len(trained.normal) + held_out == 10 - 3  # a third of 10 normals is in the mix


def test_training_does_without_the_test_file(tmp_path: Path):
    root = write_folder(tmp_path, {**batches(), "test_batch.bin": b"poison"})
    assert len(load_training(data(root)).normal)
    with pytest.raises(DataError, match=r"'test_batch.bin' has 6 bytes, no multiple of 3,073"):
        load_test(data(root))


def test_the_pickled_version_is_refused_with_the_other(tmp_path: Path):
    root = write_folder(tmp_path, {"data_batch_1": b"\x80\x02", "test_batch": b"\x80\x02"})
    with pytest.raises(DataError, match=r"could run code.*cifar-10-binary.tar.gz"):
        load_training(data(root))


def test_a_missing_file_is_named(tmp_path: Path):
    content = batches()
    del content["data_batch_3.bin"]
    with pytest.raises(DataError, match=r"no file 'data_batch_3.bin'\. "):
        load_training(data(write_folder(tmp_path, content)))
