"""Classes that the source tells: whose they are, their numbers, and what never tells one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gan_ray.config import DataConfig
from gan_ray.data.check import check
from gan_ray.data.sources import list_training, load_test, load_training
from gan_ray.errors import ConfigError, DataError
from tests.data.trees import folders, write_folder

DIGITS = DataConfig(source="digits", abnormal_class=3, image_size=8)
NINE = dataclasses.replace(DIGITS, classes="source", class_count=9)


def write(tmp_path: Path, kind_of=lambda number: ("screw", "nut")[number % 2]) -> DataConfig:
    """A folder of products whose manifest tells the type of each image; odd ones are nuts."""
    counts = {
        "train/normal": 40,
        "train/unlabeled": 9,
        "val/abnormal": 2,
        "test/normal": 5,
        "test/abnormal": 4,
    }
    files = folders(counts)
    rows = [f"{name},{name},{kind_of(number)}" for number, name in enumerate(files)]
    root = write_folder(tmp_path / "set", files)
    (tmp_path / "types.csv").write_text("\n".join(["file,group,class", *rows]))
    return DataConfig(
        root=root, image_size=12, holdout=0.4, manifest="types.csv", classes="source", class_count=2
    )


def test_training_without_classes_has_the_fingerprint_it_always_had():
    plain = dataclasses.replace(DIGITS, normal_class=0, abnormal_class=None)
    assert load_training(plain).fingerprint == "ae725da1c9827816"
    assert not load_training(plain).normal.classes.any()
    wide = dataclasses.replace(DIGITS, abnormal_class=0, image_size=16)
    assert load_training(wide).fingerprint == "f08971639f92c2f8"


def test_the_fingerprint_knows_the_classes(tmp_path: Path):
    kmeans = dataclasses.replace(DIGITS, classes="kmeans", class_count=9)
    fewer = dataclasses.replace(kmeans, class_count=3)
    assert len({load_training(data).fingerprint for data in (DIGITS, NINE, kmeans, fewer)}) == 4
    first = load_training(write(tmp_path / "a")).fingerprint
    assert load_training(write(tmp_path / "b")).fingerprint == first
    other = write(tmp_path / "c", lambda number: "nut" if number % 3 else "screw")
    assert load_training(other).fingerprint != first


def test_one_abnormal_digit_leaves_nine_classes_of_normals_in_sorted_order():
    data = load_training(NINE)
    assert set(data.normal.classes) == set(range(9))
    np.testing.assert_array_equal(data.normal.images, load_training(DIGITS).normal.images)
    kinds = [item.kind for item in list_training(NINE).normal]
    sorted_digits = [digit for digit in "0123456789" if digit != "3"]
    assert kinds == [sorted_digits[number] for number in data.normal.classes]
    assert set(data.select.classes) | set(data.calibrate.classes) <= set(range(9))


def test_the_class_of_an_image_that_could_be_abnormal_is_never_told_by_a_digit():
    unlabeled = load_training(NINE).unlabeled
    assert unlabeled is not None
    assert set(unlabeled.classes) == {-1}
    test = load_test(NINE)
    assert set(test.split.classes) == {-1}
    assert set(test.labels) == {0, 1}
    assert not any(item.kind for item in list_training(NINE).unlabeled)


def test_the_manifest_tells_the_type_of_every_image_of_a_folder(tmp_path: Path):
    data = write(tmp_path)
    trained, test = load_training(data), load_test(data)
    assert trained.unlabeled is not None
    assert trained.labelled is not None
    for items, split in (
        (list_training(data).normal, trained.normal),
        (list_training(data).select, trained.select),
        (list_training(data).unlabeled, trained.unlabeled),
        ([*list_training(data).select, *list_training(data).abnormal], trained.labelled[0]),
    ):
        assert split.classes.tolist() == [("nut", "screw").index(item.kind) for item in items]
    assert set(test.split.classes) == {0, 1}
    for kind in (0, 1):  # types do not follow normal and abnormal
        assert set(test.labels[test.split.classes == kind]) == {0, 1}


def test_a_type_that_only_abnormal_images_have_is_no_class(tmp_path: Path):
    data = write(tmp_path, lambda number: "broken" if number >= 56 else "ab"[number % 2])
    test = load_test(data)
    assert test.split.classes[test.labels == 1].tolist() == [-1] * 4
    assert (test.split.classes[test.labels == 0] >= 0).all()


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_classes_is_refused_with_both_numbers(tmp_path: Path, count: int):
    data = dataclasses.replace(write(tmp_path), class_count=count)
    with pytest.raises(
        ConfigError, match=rf"class_count is {count}.*2 classes \(nut, screw\).*t 2"
    ):
        load_training(data)
    assert any("class_count" in text for text in check(data)["errors"])


def test_classes_without_their_source_are_refused(tmp_path: Path):
    data = write(tmp_path)
    with pytest.raises(ConfigError, match="no manifest is named"):
        load_training(dataclasses.replace(data, manifest=""))
    (tmp_path / "types.csv").write_text("file,group\ntrain/normal/p0-tr000.png,a\n")
    with pytest.raises(ConfigError, match=r"types\.csv' has none\. Add the column"):
        load_training(data)
    with pytest.raises(ConfigError, match=r"class_count is 2, but data\.classes is one"):
        load_training(dataclasses.replace(data, classes="one"))


def test_a_normal_without_class_or_of_a_class_that_is_not_trained_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"1 of \d+ training normals have no class.*tr000\.png"):
        load_training(write(tmp_path / "a", lambda number: "ab"[number % 2] if number else ""))
    held_out = list_training(write(tmp_path / "b")).calibrate[0].name
    number = list(folders({"train/normal": 40})).index(held_out)
    strange = write(tmp_path / "c", lambda n: "new" if n == number else "ab"[n % 2])
    with pytest.raises(DataError, match=rf"{held_out}' \(class 'new'\).*Classes are a, b"):
        load_training(strange)
    assert any("(class 'new')" in text for text in check(strange)["errors"])


def test_a_check_counts_the_training_normals_of_each_class(tmp_path: Path):
    data = write(tmp_path)
    found = check(data)["classes"]
    assert set(found) == {"nut", "screw"}
    assert sum(found.values()) == len(list_training(data).normal)
    assert check(DIGITS)["classes"] == {}
