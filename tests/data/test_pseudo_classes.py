"""Pseudo-classes: they find what differs, from training normals alone, and always the same."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from gan_ray.config import DataConfig
from gan_ray.data.pseudo_classes import fit_classes
from gan_ray.data.sources import load_test, load_training
from gan_ray.errors import ConfigError


def corners(count: int, *, channels: int = 1, size: int = 20, dtype: type = np.uint8):
    """Noise with a bright square in one of three places, and which."""
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    images = rng.integers(0, top // 4, (count, channels, size, size), dtype)
    kinds = rng.integers(0, 3, count)
    for image, kind in zip(images, kinds, strict=True):
        row, column = divmod(int(kind), 2)
        image[:, 10 * row : 10 * row + 10, 10 * column : 10 * column + 10] = top
    return images, kinds


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_looks_different_becomes_a_class_each(channels: int, dtype: type):
    images, kinds = corners(90, channels=channels, dtype=dtype)
    nearest = fit_classes(images[:60], 3)
    pairs = set(zip(kinds.tolist(), nearest(images).tolist(), strict=True))
    assert len(pairs) == 3
    assert {found for _, found in pairs} == {0, 1, 2}
    assert nearest(images).dtype == np.int64
    assert nearest(images[:0]).shape == (0,)


def test_an_image_has_the_same_class_in_any_company():
    images, _ = corners(40)
    nearest = fit_classes(images, 4)
    assert [int(nearest(image[None])[0]) for image in images] == nearest(images).tolist()


def test_eight_and_sixteen_bits_of_the_same_brightness_have_the_same_class():
    levels = np.arange(20, 200, 20, dtype=np.uint8)
    images = np.tile(levels[:, None, None, None], (1, 1, 4, 4))
    nearest = fit_classes(images, 9)
    assert nearest(images.astype(np.uint16) * 257).tolist() == nearest(images).tolist()


def test_more_classes_than_different_images_are_refused():
    images, _ = corners(4)
    with pytest.raises(ConfigError, match=r"class_count is 3.* only 2 different .*count 2 or less"):
        fit_classes(np.concatenate([images[:2]] * 5), 3)


def test_the_number_of_threads_changes_no_class():
    data = DataConfig(
        source="digits", abnormal_class=0, image_size=8, classes="kmeans", class_count=9
    )
    prints = set()
    for threads in (1, 2, 3):
        with threadpool_limits(threads):  # of OpenMP and BLAS
            prints.add(load_training(data).fingerprint)
    assert len(prints) == 1


def test_digits_have_pseudo_classes_in_every_part_and_none_in_the_test_split():
    data = DataConfig(
        source="digits", abnormal_class=0, image_size=8, classes="kmeans", class_count=5
    )
    trained = load_training(data)
    assert trained.unlabeled is not None
    assert set(trained.normal.classes) == set(range(5))
    nearest = fit_classes(trained.normal.images, 5)
    for part in (trained.select, trained.calibrate, trained.unlabeled):
        np.testing.assert_array_equal(part.classes, nearest(part.images))
    assert set(load_test(data).split.classes) == {-1}
