"""Folders in our layout, MVTec's and BMAD's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gan_ray.config import DataConfig
from gan_ray.data.sources import load_test, load_training
from gan_ray.errors import ConfigError, DataError
from tests.data.trees import COUNTS, folders, noise, png, write_folder, write_zip

MASK = png(np.eye(12, dtype=np.uint8) * 255)


def made(names: dict[str, int]) -> dict[str, bytes]:
    paths = [f"{folder}/{n:03d}.png" for folder, count in names.items() for n in range(count)]
    return {path: png(noise(number)) for number, path in enumerate(paths)}


MVTEC = made({"train/good": 20, "test/good": 4, "test/crack": 3, "test/cut": 2})
MVTEC |= {f"ground_truth/crack/{n:03d}_mask.png": MASK for n in range(3)}
MVTEC |= {f"ground_truth/cut/{n:03d}_mask.png": MASK for n in range(2)}
MVTEC |= {"license.txt": b"text"}

BMAD = made({"train/good": 9, "valid/good/img": 8, "valid/Ungood/img": 5, "test/good/img": 4,
             "test/Ungood/img": 3})  # fmt: skip
BMAD |= {f"{part}/Ungood/label/{n:03d}.png": MASK for part in ("valid", "test") for n in range(5)}
BMAD |= {f"test/good/label/{n:03d}.png": png(np.zeros((12, 12), np.uint8)) for n in range(4)}


def load(root: str, **settings: object) -> DataConfig:
    return DataConfig(root=root, image_size=12, **settings)


def test_our_layout_gives_every_part(tmp_path: Path):
    data = load(write_zip(tmp_path / "a.zip", folders(masks=True), top="set"))
    trained, test = load_training(data), load_test(data)
    held = len(trained.select) + len(trained.calibrate)
    assert len(trained.normal) + held == COUNTS["train/normal"]
    assert trained.unlabeled is not None
    assert len(trained.unlabeled) == COUNTS["train/unlabeled"]
    assert trained.labelled is None
    assert test.labels.tolist() == [1] * 4 + [0] * 5
    assert test.sublabels.tolist() == ["abnormal"] * 4 + ["normal"] * 5
    assert test.masks is not None
    np.testing.assert_array_equal(test.masks, [np.eye(12)] * 4 + [np.zeros((12, 12))] * 5)


def test_mvtec_gives_its_defects_as_kinds_with_their_masks(tmp_path: Path):
    data = load(write_folder(tmp_path, MVTEC))
    trained, test = load_training(data), load_test(data)
    assert trained.unlabeled is None
    assert test.sublabels.tolist() == ["crack"] * 3 + ["cut"] * 2 + ["normal"] * 4
    assert test.labels.tolist() == [1] * 5 + [0] * 4
    assert test.masks is not None
    assert test.masks.any(axis=(1, 2)).tolist() == [True] * 5 + [False] * 4


def test_bmad_validates_on_its_own_folder_with_labels(tmp_path: Path):
    data = load(write_folder(tmp_path, BMAD))
    trained, test = load_training(data), load_test(data)
    assert len(trained.normal) == 9
    assert len(trained.select) + len(trained.calibrate) == 8
    assert trained.labelled is not None
    labelled, labels = trained.labelled
    assert labels.tolist() == [0] * len(trained.select) + [1] * 5
    assert labelled.ids[: len(trained.select)].tolist() == trained.select.ids.tolist()
    assert test.sublabels.tolist() == ["abnormal"] * 3 + ["normal"] * 4
    assert test.masks is not None
    assert test.masks.sum() == 3 * 12


def test_a_missing_mask_is_refused_unless_there_are_none(tmp_path: Path):
    files = {name: data for name, data in MVTEC.items() if name != "ground_truth/cut/001_mask.png"}
    with pytest.raises(DataError, match=r"4 masks .* none for the abnormal image 'test/cut/001"):
        load_test(load(write_folder(tmp_path / "some", files)))
    files = {name: data for name, data in MVTEC.items() if "ground_truth" not in name}
    assert load_test(load(write_folder(tmp_path / "none", files))).masks is None


def test_a_file_without_a_meaning_is_refused_with_the_folders_that_have_one(tmp_path: Path):
    root = write_folder(tmp_path, {**MVTEC, "train/bad/a.png": b""})
    with pytest.raises(DataError, match=r"'train/bad/a.png'.*train/unlabeled"):
        load_training(load(root))


def test_settings_of_other_sources_are_refused(tmp_path: Path):
    root = write_folder(tmp_path, MVTEC)
    with pytest.raises(ConfigError, match="no effect on source 'folder'"):
        load_training(load(root, normal_class=1))


def test_the_kind_of_a_test_image_may_come_from_the_manifest(tmp_path: Path):
    files = folders({**COUNTS, "test/abnormal": 6})
    manifest = "file,group,sublabel\n" + "".join(
        f"{name},{number},kind {number % 2}\n" for number, name in enumerate(files)
    )
    root = write_folder(tmp_path, {**files, "manifest.csv": manifest.encode()})
    kinds = load_test(load(root, manifest="manifest.csv")).sublabels.tolist()
    assert sorted(set(kinds)) == ["kind 0", "kind 1", "normal"]
    assert load_test(load(root)).sublabels.tolist() == ["abnormal"] * 6 + ["normal"] * 5


def test_remarks_in_the_manifest_are_no_kinds(tmp_path: Path):
    files = folders()
    manifest = "file,group,sublabel\n" + "".join(
        f"{name},{number},pixels={number}\n" for number, name in enumerate(files)
    )
    root = write_folder(tmp_path, {**files, "manifest.csv": manifest.encode()})
    kinds = load_test(load(root, manifest="manifest.csv")).sublabels
    assert set(kinds) == {"normal", "abnormal"}
