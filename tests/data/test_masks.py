"""Masks become 0 and 1 at the size at which they are stored, where that is one size."""

from __future__ import annotations

import numpy as np
import pytest

from gan_ray.data.items import Item, array_item, file_item
from gan_ray.data.masks import binary, load_masks
from gan_ray.errors import DataError


def mask(pixels: list[list[int]]) -> Item:
    return array_item("m", np.array(pixels, dtype=np.uint8))


def test_masks_of_one_square_size_keep_it():
    rows = load_masks([None, mask([[0, 255], [255, 0]])], 4, "resize")
    assert rows.tolist() == [[[0, 0], [0, 0]], [[0, 1], [1, 0]]]
    assert rows.dtype == np.uint8


def test_masks_of_several_sizes_are_brought_to_the_image_size():
    rows = load_masks(
        [mask([[0, 255]]), mask([[255, 0], [255, 0], [255, 0], [255, 0]])], 2, "resize"
    )
    assert rows.tolist() == [[[0, 1], [0, 1]], [[1, 0], [1, 0]]]


def test_a_mask_is_padded_as_its_image_is():
    assert load_masks([mask([[255, 255]])], 4, "pad")[0].tolist() == [
        [0] * 4, [1] * 4, [1] * 4, [0] * 4
    ]  # fmt: skip


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (9, 240)])
def test_a_pixel_is_marked_above_half_of_the_brightest(low: int, high: int):
    assert binary(np.array([[low, high]], dtype=np.uint8)).tolist() == [[0, 1]]


def test_a_coloured_mark_counts_and_black_marks_nothing():
    red = np.zeros((1, 2, 3), dtype=np.uint8)
    red[0, 1, 0] = 255
    assert binary(red).tolist() == [[0, 1]]
    assert not binary(np.zeros((2, 2), dtype=np.uint16)).any()


def test_an_unreadable_mask_is_named():
    with pytest.raises(DataError, match=r"'test/masks/a\.png' is empty"):
        load_masks([file_item("test/masks/a.png", "", lambda name: b"")], 4, "resize")
