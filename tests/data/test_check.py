"""`data check` counts what is there, and finds the leaks that were planted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_ray.config import DataConfig
from gan_ray.data.check import check
from tests.data.trees import folders, noise, png, write_folder

TEST = "test/abnormal/p0-te000.png"


def report(
    tmp_path: Path,
    changes: dict[str, bytes] | None = None,
    labels: bool = False,
    **settings: object,
) -> dict[str, Any]:
    root = write_folder(tmp_path, {**folders(masks=True), **(changes or {})})
    found = check(DataConfig(root=root, **settings), with_labels=labels)
    json.dumps(found)
    return found


def test_a_sound_set_is_counted_without_its_labels(tmp_path: Path):
    found = report(tmp_path, {"readme.txt": b""})
    assert found["ok"]
    assert found["errors"] == found["warnings"] == []
    assert {part: split["images"] for part, split in found["splits"].items()} == {
        "train/normal": 24, "train/unlabeled": 9, "test": 9,
    }  # fmt: skip
    assert "sublabels" not in json.dumps(found)
    assert found["splits"]["test"]["dtypes"] == {"uint8": 9}
    assert found["splits"]["test"]["sizes"] == {"12x12 grey": 9}
    assert found["streams"] == ["normal", "unlabeled"]
    assert found["ignored"] == ["readme.txt"]
    assert all(found["held_out"].values())


def test_labels_are_counted_when_asked(tmp_path: Path):
    splits = report(tmp_path, labels=True)["splits"]
    assert splits["test/normal"]["images"] == 5
    assert splits["test/abnormal"]["images"] == splits["test/abnormal"]["masks"] == 4
    assert splits["test/abnormal"]["sublabels"] == {"abnormal": 4}


def test_a_patient_in_training_and_test_is_an_error_that_names_him(tmp_path: Path):
    found = report(tmp_path, group_pattern=r"^(p0|.*)-")
    assert not found["ok"]
    assert any("both in train/normal and in test: 'p0', 'p1'" in text for text in found["errors"])


def test_a_patient_in_the_mix_too_is_a_warning_that_names_him(tmp_path: Path):
    found = report(tmp_path, group_pattern=r"^(p\d+-tr|p\d+-te\d+)")
    assert found["ok"]
    (warning,) = found["warnings"]
    assert "both in train/normal and in train/unlabeled: 'p0-tr', 'p1-tr'" in warning


def test_an_image_in_training_and_test_is_an_error_even_in_another_format(tmp_path: Path):
    found = report(tmp_path, {TEST: png(noise(3), "BMP")})
    assert not found["ok"]
    (error,) = found["errors"]
    assert "1 image(s) are both in training and in test" in error
    assert f"'train/normal/p3-tr003.png' = '{TEST}'" in error


def test_an_image_that_exists_twice_in_training_is_a_warning(tmp_path: Path):
    found = report(tmp_path, {"train/unlabeled/twin.png": png(noise(3))})
    assert found["ok"]
    assert "exist more than once: 'train/normal/p3-tr003.png'" in found["warnings"][0]


def test_every_unusable_file_is_listed(tmp_path: Path):
    bad = {f"train/normal/bad{n}.png": b"" for n in range(12)}
    found = report(tmp_path, {**bad, TEST: b"text"})
    assert not found["ok"]
    assert len(found["errors"]) == 13


def test_constant_images_and_mixed_depths_are_warnings(tmp_path: Path):
    flat = png(np.full((12, 12), 7, np.uint8))
    found = report(tmp_path, {TEST: flat, "train/normal/z.png": png(noise(1, 12, np.uint16))})
    assert found["ok"]
    assert any("1 image(s) have only one value" in text for text in found["warnings"])
    assert any("8 and of 16 bits are mixed" in text for text in found["warnings"])


def test_masks_that_do_not_fit_are_found_with_labels_only(tmp_path: Path):
    masks = {
        "test/masks/p0-te000.png": png(np.eye(9, dtype=np.uint8)),
        "test/masks/p1-te001.png": png(np.zeros((12, 12), np.uint8)),
    }
    assert report(tmp_path, masks)["ok"]
    found = report(tmp_path, masks, labels=True)
    assert any(
        "another size than their image: 'test/masks/p0-te000.png'" in e for e in found["errors"]
    )
    assert any("mark nothing: 'test/masks/p1-te001.png'" in text for text in found["warnings"])


def test_a_set_without_test_or_normals_says_so(tmp_path: Path):
    root = write_folder(tmp_path, folders({"train/unlabeled": 2}))
    for labels in (False, True):
        found = check(DataConfig(root=root), with_labels=labels)
        assert "no normal training images" in found["errors"][0]
        assert "no test images" in found["warnings"][0]


def test_embedded_digits_are_sound():
    found = check(DataConfig(source="digits", abnormal_class=0), with_labels=True)
    assert (found["ok"], found["warnings"]) == (True, [])


@pytest.mark.parametrize("name", ["cxr_pediatric", "brain_lgg_flair"])
def test_real_sets_leak_nothing_into_their_test_split(data_dir: Path, name: str):
    path = data_dir / name / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"no {name}")
    found = check(DataConfig(root=str(path), manifest="manifest.csv"))
    assert found["ok"], found["errors"]
    warned = any("both in train/normal and in train/unlabeled" in w for w in found["warnings"])
    assert warned == (name == "brain_lgg_flair")
