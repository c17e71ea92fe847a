"""Trivial features have the value that they should, and are told where they tell the label."""

from __future__ import annotations

import numpy as np
import pytest

from gan_ray.data.shortcuts import FEATURES, shortcut_aurocs, shortcut_warning, trivial_features


def test_features_of_a_bright_square_on_black():
    grey = np.zeros((32, 64), np.float32)
    grey[8:24, 16:48] = 1
    seen = dict(zip(FEATURES, trivial_features(grey, 99), strict=True))
    assert seen["mean"] == 0.25
    assert seen["spread"] == pytest.approx(np.sqrt(0.25 * 0.75))
    assert seen["brightest 5 %"] == 1
    assert seen["sharpness"] == pytest.approx(2 * (2 * 16 + 2 * 32) / (30 * 62))
    assert (seen["border"], seen["file size"], seen["image size"]) == (0, 99, 2048)
    assert seen["aspect ratio"] == 2


def test_the_border_is_the_outer_sixteenth():
    grey = np.ones((32, 32), np.float32)
    grey[2:-2, 2:-2] = 0
    assert trivial_features(grey, 1)[FEATURES.index("border")] == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2)])
def test_images_of_a_few_pixels_have_features(shape: tuple[int, int]):
    assert np.isfinite(trivial_features(np.full(shape, 0.5, np.float32), 1)).all()


def features(count: int, **changes: float) -> np.ndarray:
    rows = np.random.default_rng(count).normal(size=(count, len(FEATURES)))
    for name, change in changes.items():
        rows[:, FEATURES.index(name)] += change
    return rows


def test_what_tells_the_label_is_ranked_with_its_direction_and_the_rest_is_not_told():
    aurocs = shortcut_aurocs(features(300), features(301, mean=-1, sharpness=5))
    assert aurocs["sharpness"] > 0.99
    assert aurocs["mean"] < 0.3
    text = shortcut_warning("test", aurocs, 300, 301)
    assert "sharpness 1.00 (higher in abnormal), mean 0.7" in text
    assert "(lower in abnormal). Quote these" in text
    assert "border" not in text


def test_few_images_prove_nothing():
    aurocs = dict.fromkeys(FEATURES, 0.8)
    assert shortcut_warning("test", aurocs, 5, 6) == ""
    assert shortcut_warning("test", aurocs, 50, 60)
    assert shortcut_warning("test", dict.fromkeys(FEATURES, 0.36), 5000, 6000) == ""
