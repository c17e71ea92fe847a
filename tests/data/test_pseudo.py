"""Pseudo-anomalies: the same at every look, and different from their image in one square alone."""

from __future__ import annotations

import numpy as np
import pytest

from gan_ray.data.pseudo import pseudo_anomalies
from gan_ray.data.sets import Split
from gan_ray.errors import ConfigError


def levels(count: int, size: int = 20, dtype: type = np.uint8) -> Split:
    """Images of one value each, so that a pixel tells whose it is."""
    step = np.iinfo(dtype).max // count
    values = (np.arange(count) * step).astype(dtype)
    images = np.broadcast_to(values[:, None, None, None], (count, 1, size, size)).copy()
    names = np.array([f"image{row}" for row in range(count)])
    return Split(images, names, names, np.arange(count) % 3)


def test_a_copy_differs_from_its_image_in_one_square_that_holds_another_image():
    normals = levels(100)
    copies = pseudo_anomalies(normals)
    assert copies.images.dtype == normals.images.dtype
    for row, (image, copy) in enumerate(zip(normals.images[:, 0], copies.images[:, 0])):  # noqa: B905
        changed = image != copy
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        if len(rows):
            square = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert square.all(), row
            assert len(np.unique(copy[changed])) == 1, "one donor, one share"
    differing = (normals.images != copies.images).any((1, 2, 3))
    assert differing.sum() > 95, "a share may be too small to change a stored pixel, rarely"
    assert list(copies.ids) == list(normals.ids)
    assert list(copies.classes) == list(normals.classes)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_patch_lies_between_image_and_donor_and_each_image_is_a_donor_once(dtype: type):
    normals = levels(2, dtype=dtype)
    first, second = pseudo_anomalies(normals).images
    assert first.max() > 0 or second.min() < normals.images[1].max()
    assert first.max() <= normals.images[1].max()
    assert (first != normals.images[0]).any() or (second != normals.images[1]).any()


def test_every_look_sees_the_same_copies_whatever_torch_has_drawn_before():
    import torch

    first = pseudo_anomalies(levels(70)).images
    torch.manual_seed(3)
    torch.rand(5)
    assert np.array_equal(pseudo_anomalies(levels(70)).images, first)


def test_a_single_normal_has_no_donor_and_is_refused():
    with pytest.raises(ConfigError, match="2 held-out normals"):
        pseudo_anomalies(levels(1))
