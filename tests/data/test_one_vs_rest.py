"""One class against the rest: disjoint parts, and a mix with the share that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_ray.config import DataConfig
from gan_ray.data.one_vs_rest import OneVsRest
from gan_ray.errors import ConfigError

CLASSES = np.arange(600) % 10


def source(classes: np.ndarray = CLASSES, **settings: object) -> OneVsRest:
    def images(part: str) -> np.ndarray:
        return np.repeat(np.arange(len(classes)), 4).reshape(-1, 2, 2).astype(np.uint16)

    return OneVsRest(DataConfig(source="idx", **settings), images, lambda part: classes)


def classes_of(items: object) -> list[int]:
    return [int(CLASSES[int(item.name.partition("/")[2])]) for item in items]


def test_normals_are_of_the_normal_class_and_the_mix_is_disjoint_from_them():
    parts = source(normal_class=3).training()
    normal, mix = parts["train/normal"], parts["train/unlabeled"]
    assert classes_of(normal) == [3] * 40  # two thirds of 60
    assert sum(kind == 3 for kind in classes_of(mix)) == 20
    assert sum(kind != 3 for kind in classes_of(mix)) == 9  # 30 % of 29
    assert not {item.name for item in normal} & {item.name for item in mix}


def test_an_abnormal_class_makes_all_others_normal():
    parts = source(abnormal_class=3).training()
    assert set(classes_of(parts["train/normal"])) == set(range(10)) - {3}
    planted = sum(kind == 3 for kind in classes_of(parts["train/unlabeled"]))
    assert planted == 60  # all there are, although 180 normals would ask for 77
    assert len(parts["train/unlabeled"]) == 200


@given(st.floats(0, 1), st.booleans(), st.integers(0, 9))
def test_the_mix_keeps_the_share_of_abnormal_images(share: float, one_normal: bool, kind: int):
    which = "normal_class" if one_normal else "abnormal_class"
    mix = source(**{which: kind, "abnormal_share": share}).training()["train/unlabeled"]
    planted = sum((found != kind) == one_normal for found in classes_of(mix))
    assert abs(planted - share * len(mix)) <= 1


def test_the_item_loads_the_image_of_its_number():
    for item in source(normal_class=3).training()["train/unlabeled"]:
        assert (item.load()[1] == int(item.name.partition("/")[2])).all()


def test_labels_follow_the_test_items_with_the_class_as_kind():
    known = source(normal_class=3).labels()
    assert known.labels.tolist() == (CLASSES != 3).astype(int).tolist()
    assert known.sublabels[[2, 3]].tolist() == ["class 2", "normal"]
    assert len(source(normal_class=3).test()) == 600


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, r"exactly one of data.normal_class \(now None\) and data.abnormal_class \(now None\)"),
        ({"normal_class": 1, "abnormal_class": 2}, "exactly one"),
        ({"normal_class": 1, "group_pattern": "(a)"}, "no effect on source 'idx'"),
        ({"normal_class": 1, "manifest": "m.csv"}, "no effect"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], reason: str):
    with pytest.raises(ConfigError, match=reason):
        source(**settings)


def test_a_class_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match="no class 11: its classes are 0, 1, 2"):
        source(normal_class=11).training()
