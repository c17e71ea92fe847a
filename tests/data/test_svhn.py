"""Street View House Numbers as MATLAB files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from gan_ray.config import DataConfig
from gan_ray.data import svhn as module
from gan_ray.data.sources import load_test, load_training
from gan_ray.data.svhn import read_mat
from gan_ray.errors import DataError
from tests.data.trees import write_folder, write_zip

NUMBER = 40


def mat(seed: int = 0, **variables: np.ndarray) -> bytes:
    """One file as they are published: images last, classes 1 to 10, compressed."""
    random = np.random.default_rng(seed)
    content = {
        "X": random.integers(0, 256, (32, 32, 3, NUMBER), np.uint8),
        "y": (np.arange(NUMBER, dtype=np.uint8) % 10 + 1)[:, None],
    }
    file = io.BytesIO()
    savemat(file, {**content, **variables}, do_compression=True)
    return file.getvalue()


def files() -> dict[str, bytes]:
    return {"train_32x32.mat": mat(1), "test_32x32.mat": mat(2)}


def data(root: str, **settings: object) -> DataConfig:
    kept = {"image_size": 32, "channels": 3, "normal_class": 0, **settings}
    return DataConfig(root=root, source="svhn", **kept)


def test_images_come_first_and_ten_is_the_digit_zero(tmp_path: Path):
    root = write_zip(tmp_path / "s.zip", files(), top="svhn")
    trained, test = load_training(data(root, holdout=0.6)), load_test(data(root))
    expected = np.random.default_rng(2).integers(0, 256, (32, 32, 3, NUMBER), np.uint8)
    np.testing.assert_array_equal(test.split.images, expected.transpose(3, 2, 0, 1))
    assert np.flatnonzero(test.labels == 0).tolist() == [9, 19, 29, 39]
    assert len(trained.normal) + len(trained.select) + len(trained.calibrate) == 3


def test_training_does_without_the_test_file(tmp_path: Path):
    root = write_folder(tmp_path, {**files(), "test_32x32.mat": b"poison"})
    assert len(load_training(data(root)).normal)
    with pytest.raises(DataError, match=r"'test_32x32.mat' cannot be read as MATLAB 5 file"):
        load_test(data(root))


def test_a_missing_file_is_named(tmp_path: Path):
    root = write_folder(tmp_path, {"extra_32x32.mat": b""})
    with pytest.raises(DataError, match=r"no file 'train_32x32.mat' among extra_32x32.mat"):
        load_training(data(root))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (mat()[:-3000], "cannot be read"),
        (b"\x80\x04." * 100, "cannot be read"),
        (mat(X=np.zeros((32, 32, NUMBER), np.uint8)), r"no array 'X' of cropped digits"),
        (mat(X=np.zeros((32, 32, 3, NUMBER))), "holds float64 in 'X'"),
    ],
)
def test_a_file_that_is_no_svhn_is_refused(content: bytes, reason: str):
    with pytest.raises(DataError, match=reason):
        read_mat(content, "train_32x32.mat", "X")


def test_what_unpacks_to_too_much_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match=r"no array 'X' .*\(32, 32, 3, 40\)"):
        read_mat(mat(), "train_32x32.mat", "X")
