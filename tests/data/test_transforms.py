"""The way from pixels to a network's input, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_ray.data.transforms import mirror, prepare, preprocessing_hash, to_unit, widen
from gan_ray.detector import ImageSpec
from gan_ray.errors import ConfigError, DataError
from tests.data.trees import noise

GREY4 = ImageSpec(size=4, channels=1)


def test_an_image_of_the_right_size_keeps_its_pixels():
    for dtype in (np.uint8, np.uint16):
        pixels = noise(0, 4, dtype)
        prepared = prepare(pixels, GREY4, "resize")
        assert prepared.dtype == dtype
        np.testing.assert_array_equal(prepared, pixels[None])


def test_halving_weighs_neighbours_by_a_triangle():
    # Bilinear with antialiasing at scale 1/2: weights 1 3 3 1, less where the image ends.
    row = np.array([[0, 0, 80, 80, 0, 0, 0, 0]] * 8, dtype=np.uint8)
    weights = np.array([3 * 0 + 3 * 0 + 80, 0 + 3 * 80 + 3 * 80 + 0, 80 + 0 + 0 + 0, 0])
    expected = np.rint(weights / np.array([7, 8, 8, 7]))
    np.testing.assert_array_equal(prepare(row, GREY4, "resize")[0, 0], expected)


def test_sixteen_bits_are_resized_as_finely_as_eight():
    pixels = noise(1, 33)
    small = prepare(pixels, GREY4, "resize").astype(float)
    wide = prepare(widen(pixels), GREY4, "resize").astype(float) / 257
    assert np.abs(small - wide).max() <= 1.0  # eight bits are rounded after either direction
    assert np.abs(wide - np.rint(wide)).max() > 0.05


def test_resizing_sixteen_bits_stays_in_range():
    white = np.full((9, 9), 65535, dtype=np.uint16)
    for size in (4, 31):
        assert (prepare(white, ImageSpec(size=size, channels=1), "resize") == 65535).all()


def test_padding_keeps_the_aspect_ratio_between_black_borders():
    wide = np.full((2, 8), 200, dtype=np.uint8)
    assert prepare(wide, GREY4, "pad")[0].tolist() == [[0] * 4, [200] * 4, [0] * 4, [0] * 4]
    assert prepare(wide, GREY4, "resize")[0].tolist() == [[200] * 4] * 4


def test_padding_a_sliver_needs_no_memory_for_its_square():
    sliver = np.full((1, 5_000_000), 9, dtype=np.uint8)
    assert prepare(sliver, GREY4, "pad").sum() == 4 * 9


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_stored_as_colour_keeps_its_values(dtype: type):
    grey = np.linspace(0, np.iinfo(dtype).max, 16).astype(dtype).reshape(4, 4)
    colour = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(prepare(colour, GREY4, "resize")[0], grey)


def test_colour_becomes_grey_by_its_luma_not_by_its_first_channel():
    pure = np.zeros((1, 3, 3), dtype=np.uint8)
    pure[0, range(3), range(3)] = 255
    grey = prepare(np.repeat(pure, 3, axis=0), ImageSpec(size=3, channels=1), "resize")
    assert grey[0, 0].tolist() == [76, 150, 29]  # 255 * (0.299, 0.587, 0.114)


def test_three_channels_come_first_and_grey_fills_them_all():
    colour = np.stack([np.full((4, 4), value, np.uint16) for value in (1, 2, 3)], axis=2)
    prepared = prepare(colour, ImageSpec(size=2, channels=3), "resize")
    assert prepared[:, 0, 0].tolist() == [1, 2, 3]
    assert prepare(colour[..., 0], ImageSpec(size=2, channels=3), "pad").shape == (3, 2, 2)


def test_what_cannot_be_prepared_is_refused():
    with pytest.raises(ConfigError, match="unknown fit 'crop'"):
        prepare(noise(0), GREY4, "crop")
    for array in (
        np.zeros((2, 2)),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((0, 3), np.uint8),
        noise(0)[0],
    ):
        with pytest.raises(DataError, match="uint8 or uint16"):
            prepare(array, GREY4, "resize")


def test_unit_range_ends_at_minus_one_and_one():
    for top, dtype in ((255, np.uint8), (65535, np.uint16)):
        unit = to_unit(np.array([0, top], dtype=dtype), "cpu")
        assert unit.dtype == torch.float32
        assert unit.tolist() == [-1.0, 1.0]


def test_eight_bits_and_their_widened_twins_are_the_same_floats():
    values = np.arange(256, dtype=np.uint8)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert torch.equal(to_unit(values, "cpu", dtype), to_unit(widen(values), "cpu", dtype))


def test_unit_range_leaves_the_stored_pixels_alone():
    stored = noise(0)
    before = stored.copy()
    to_unit(stored, "cpu").zero_()
    np.testing.assert_array_equal(stored, before)


def test_floats_have_no_unit_range():
    with pytest.raises(DataError, match="float32"):
        to_unit(torch.zeros(2), "cpu")


def test_mirroring_turns_the_chosen_rows_left_right():
    images = torch.arange(8.0).view(2, 1, 2, 2)
    turned = mirror(images, torch.tensor([False, True]))
    assert turned.flatten(1).tolist() == [[0, 1, 2, 3], [5, 4, 7, 6]]


@given(st.sampled_from([8, 16]), st.sampled_from([1, 3]), st.sampled_from(["pad", "resize"]))
def test_each_setting_has_its_own_preprocessing_hash(size: int, channels: int, fit: str):
    ours = preprocessing_hash(ImageSpec(size=size, channels=channels), fit)
    reference = preprocessing_hash(ImageSpec(size=8, channels=1), "pad")
    assert (ours == reference) == ((size, channels, fit) == (8, 1, "pad"))
