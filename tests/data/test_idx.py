"""MNIST's four files, and files that only look like them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from gan_ray.config import DataConfig
from gan_ray.data import idx
from gan_ray.data.idx import read_idx
from gan_ray.data.sources import load_test, load_training
from gan_ray.errors import DataError


def encode(values: np.ndarray) -> bytes:
    shape = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes((0, 0, 8, values.ndim)) + shape + values.tobytes()


VALUES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_array_comes_back_plain_or_packed(pack):
    np.testing.assert_array_equal(read_idx(pack(encode(VALUES)), "a", 3), VALUES)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no idx file"),
        (encode(VALUES)[:10], "no idx file"),
        (encode(VALUES[0]), "no idx file of bytes with 3 dimension"),
        (encode(VALUES)[:-1], "announces 2 x 3 x 4 values but holds 23"),
        (bytes((0, 0, 8, 3)) + b"\xff" * 12, "holds 0"),
        (gzip.compress(encode(VALUES))[:-9], "cannot be unpacked"),
        (b"\x1f\x8b" + bytes(40), "cannot be unpacked"),
    ],
)
def test_a_damaged_file_is_refused_by_name(data: bytes, reason: str):
    with pytest.raises(DataError, match=reason) as caught:
        read_idx(data, "train-images.gz", 3)
    assert "'train-images.gz'" in str(caught.value)


def test_a_file_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(idx, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="unpacks to more than 1,000 bytes"):
        read_idx(gzip.compress(bytes(2000)), "a.gz", 3)


def write_set(root: Path) -> str:
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8)
    for prefix, count in (("train", 200), ("t10k", 50)):
        classes = np.arange(count, dtype=np.uint8) % 4
        (root / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(encode(images[:count])))
        (root / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(encode(classes)))
    return str(root)


def test_training_does_without_the_test_files(tmp_path: Path):
    root = write_set(tmp_path)
    for name in ("images-idx3", "labels-idx1"):
        (tmp_path / f"t10k-{name}-ubyte.gz").write_bytes(b"poison")
    data = DataConfig(root=root, source="idx", image_size=8, normal_class=2)
    trained = load_training(data)
    assert len(trained.normal) + len(trained.select) + len(trained.calibrate) == 33
    with pytest.raises(DataError, match="t10k-images"):
        load_test(data)


def test_the_test_split_is_labelled_by_class(tmp_path: Path):
    data = DataConfig(root=write_set(tmp_path), source="idx", image_size=8, abnormal_class=2)
    assert load_test(data).labels.tolist() == [int(n % 4 == 2) for n in range(50)]


def test_a_missing_file_is_named(tmp_path: Path):
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(DataError, match=r"no file 'train-labels-.* among other\.txt"):
        load_training(DataConfig(root=str(tmp_path), source="idx", normal_class=1))


def test_mnist_has_its_known_counts(data_dir: Path):
    if not (data_dir / "mnist").is_dir():
        pytest.skip("no mnist")
    data = DataConfig(root=str(data_dir / "mnist"), source="idx", image_size=28, normal_class=3)
    trained = load_training(data)
    parts = (trained.normal, trained.select, trained.calibrate)
    assert sum(len(part) for part in parts) == 6131 - round(6131 / 3)
    images = gzip.decompress((data_dir / "mnist/t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    test = load_test(data)
    assert test.split.images.tobytes() == images
    assert test.labels.sum() == 10_000 - 1010
