"""MedMNIST's arrays, and files that only look like them."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gan_ray.config import DataConfig
from gan_ray.data import npz as module
from gan_ray.data.npz import read_npy
from gan_ray.data.sources import list_training, load_test, load_training
from gan_ray.errors import ConfigError, DataError
from gan_ray.storage import open_store
from tests.data.trees import write_folder, write_zip

CLASSES = 4


def arrays(
    *,
    colour: bool = False,
    parts: tuple[str, ...] = ("train", "val", "test"),
    **changes: np.ndarray,
) -> dict[str, np.ndarray]:
    """120, 40 and 40 images of four classes in MedMNIST's names."""
    random = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for part, count in (("train", 120), ("val", 40), ("test", 40)):
        if part in parts:
            shape = (count, 8, 8, 3) if colour else (count, 8, 8)
            made[f"{part}_images"] = random.integers(0, 256, shape, np.uint8)
            made[f"{part}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % CLASSES
    return {**made, **changes}


def packed(content: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **content)
    return file.getvalue()


def data(root: str, **settings: object) -> DataConfig:
    return DataConfig(
        **{"root": root, "source": "npz", "image_size": 8, "normal_class": 1} | settings
    )


@pytest.fixture(params=["file", "directory", "zip", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    content = packed(arrays())
    write_folder(tmp_path / "set", {"some.npz": content, "readme.txt": b"x"})
    if request.param == "file":
        return str(tmp_path / "set" / "some.npz")
    if request.param == "zip":
        return write_zip(tmp_path / "set.zip", {"some.npz": content}, top="set")
    if request.param == "bucket":
        uri = request.getfixturevalue("s3").uri + "/set"
        open_store(uri).put("some.npz", content)
        return str(uri)
    return str(tmp_path / "set")


def test_the_arrays_are_found_everywhere(root: str):
    trained, test = load_training(data(root)), load_test(data(root))
    assert len(trained.normal) == 20  # of 30 normals a third is in the mix, and none held out
    assert trained.unlabeled is not None
    assert len(trained.select) + len(trained.calibrate) == 10  # the validation normals
    assert trained.labelled is not None
    assert trained.labelled[1].sum() == 30
    assert test.labels.tolist() == [int(n % CLASSES != 1) for n in range(40)]
    np.testing.assert_array_equal(test.split.images[:, 0], arrays()["test_images"])


def test_without_validation_arrays_training_normals_are_held_out(tmp_path: Path):
    root = write_folder(tmp_path, {"a.npz": packed(arrays(parts=("train", "test")))})
    trained = load_training(data(root))
    assert trained.labelled is None
    assert len(trained.normal) + len(trained.select) + len(trained.calibrate) == 20


def test_colour_stays_colour(tmp_path: Path):
    root = write_folder(tmp_path, {"a.npz": packed(arrays(colour=True))})
    test = load_test(data(root, channels=3, normal_class=None, abnormal_class=2))
    expected = arrays(colour=True)["test_images"].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(test.split.images, expected)
    assert test.labels.sum() == 10
    assert set(test.sublabels) == {"normal", "class 2"}


def test_training_does_without_the_test_arrays(tmp_path: Path):
    poison = {"test_images": np.array([{}]), "test_labels": np.array([{}])}
    root = write_folder(tmp_path, {"a.npz": packed(arrays(**poison))})
    assert len(load_training(data(root)).normal) == 20
    with pytest.raises(DataError, match=r"'test_images.npy' holds object instead of numbers"):
        load_test(data(root))


def test_only_normals_tell_their_class(tmp_path: Path):
    root = write_folder(tmp_path, {"a.npz": packed(arrays())})
    items = list_training(
        data(root, normal_class=None, abnormal_class=2, classes="source", class_count=3)
    )
    assert {item.kind for item in [*items.normal, *items.select]} == {"0", "1", "3"}
    assert {item.kind for item in [*items.unlabeled, *items.abnormal]} == {""}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train_labels": np.zeros((120, 14), np.uint8)}, r"14 labels per image \(multi-label\)"),
        ({"train_labels": np.zeros(120)}, "integers .* are needed"),
        ({"train_labels": np.arange(119, dtype=np.uint8) % 4}, "120 images but 119 classes"),
        ({"train_images": np.zeros((120, 8, 8, 8), np.uint8)}, "Volumes .* are not supported"),
        ({"train_images": np.zeros((120, 8, 8))}, "uint8 or uint16 can be used"),
        ({"train_images": np.zeros((120, 8, 0), np.uint8)}, "uint8 or uint16 can be used"),
        ({"train_images": np.array(["a"] * 120)}, "instead of numbers"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused_by_name(
    tmp_path: Path, changes: dict[str, np.ndarray], reason: str
):
    root = write_folder(tmp_path, {"a.npz": packed(arrays(**changes))})
    with pytest.raises(DataError, match=reason):
        load_training(data(root))


def test_test_labels_of_another_number_are_refused(tmp_path: Path):
    changed = arrays(test_labels=np.arange(39, dtype=np.uint8) % 4)
    root = write_folder(tmp_path, {"a.npz": packed(changed)})
    with pytest.raises(DataError, match="40 test images but labels for 39"):
        load_test(data(root))


def test_a_class_that_is_not_there_is_refused(tmp_path: Path):
    root = write_folder(tmp_path, {"a.npz": packed(arrays())})
    with pytest.raises(ConfigError, match="no class 7: its classes are 0, 1, 2, 3"):
        load_training(data(root, normal_class=7))


def test_none_and_many_files_are_refused(tmp_path: Path):
    write_folder(tmp_path, {"a.npz": b"", "b.npz": b""})
    with pytest.raises(DataError, match=r"2 npz files .*\(a.npz, b.npz\)"):
        load_training(data(str(tmp_path)))
    write_folder(tmp_path / "none", {"a.txt": b""})
    with pytest.raises(DataError, match="0 npz files"):
        load_training(data(str(tmp_path / "none")))
    with pytest.raises(DataError, match="is no npz file"):
        load_training(data(write_folder(tmp_path / "bad", {"a.npz": b"nothing"})))


def test_a_missing_array_is_named(tmp_path: Path):
    root = write_folder(tmp_path, {"a.npz": packed({"images": np.zeros((3, 8, 8), np.uint8)})})
    with pytest.raises(DataError, match="no array 'train_labels' among images"):
        load_training(data(root))


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MAX_BYTES", 5000)
    root = write_folder(tmp_path, {"a.npz": packed(arrays())})
    with pytest.raises(DataError, match=r"'train_images.npy' unpacks to 7,808 bytes"):
        load_training(data(root))


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


GOOD = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3)}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no npy array"),
        (b"PK" + bytes(40), "is no npy array"),
        (header("{'descr': ")[:-3], "is no npy array"),
        (header(GOOD.replace("(2, 3)", "(2,)")) + bytes(6), "not hold the 2 values"),
        (header(GOOD.replace("(2, 3)", "(9999999999999, 9999999999999)")) + bytes(6), "announces"),
        (header(GOOD) + bytes(5), "does not hold the 6 values it announces"),
        (header(GOOD.replace("|u1", "|O")) + bytes(48), "instead of numbers"),
        (header("__import__('os').system('touch owned')"), "is no npy array"),
    ],
)
def test_a_damaged_array_is_refused(content: bytes, reason: str):
    with pytest.raises(DataError, match=reason) as caught:
        read_npy(content, "x.npy")
    assert "'x.npy'" in str(caught.value)
    assert not Path("owned").exists()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.int64, np.float32])
def test_an_array_comes_back(order: str, dtype: object):
    values = np.asarray(np.arange(24).reshape(2, 3, 4), dtype, order=order)
    file = io.BytesIO()
    np.save(file, values)
    np.testing.assert_array_equal(read_npy(file.getvalue(), "a"), values)


def test_a_damaged_archive_is_refused(tmp_path: Path):
    content = bytearray(packed(arrays()))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        place = archive.getinfo("train_images.npy").header_offset
    content[place + 200 : place + 400] = bytes(200)
    root = write_folder(tmp_path, {"a.npz": bytes(content)})
    with pytest.raises(DataError, match=r"'train_images.npy' cannot be unpacked"):
        load_training(data(root))


def test_pneumonia_mnist_has_its_known_counts(data_dir: Path):
    if not (data_dir / "pneumonia_mnist").is_dir():
        pytest.skip("no pneumonia_mnist")
    pneumonia = data(str(data_dir / "pneumonia_mnist"), image_size=28, normal_class=0)
    trained, test = load_training(pneumonia), load_test(pneumonia)
    assert len(trained.normal) == 1002 - 334
    assert trained.unlabeled is not None
    assert len(trained.unlabeled) == 334 + 143  # 30 % are abnormal
    assert len(trained.select) + len(trained.calibrate) == 108
    assert trained.labelled is not None
    assert trained.labelled[1].sum() == 320
    assert len(test.split) == 624
    assert test.labels.sum() == 390
