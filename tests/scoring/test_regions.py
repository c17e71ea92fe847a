import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_ray.errors import ArtifactError, ConfigError, DataError
from gan_ray.scoring.regions import aupro, region_weights


def regions(mask):
    """The regions of a mask [S, S] as lists of pixels, by flooding."""
    left, found = {tuple(place) for place in np.argwhere(mask)}, []
    while left:
        region, front = [], [left.pop()]
        while front:
            y, x = front.pop()
            region.append((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            front += near
        found.append(region)
    return found


def threshold_by_threshold(masks, maps, limit):
    """AUPRO as it is defined: the curve point by point, its area by the trapezoidal rule."""
    rates, overlaps = [0.0], [0.0]
    found = [(map_, region) for mask, map_ in zip(masks, maps, strict=True)
             for region in regions(mask)]  # fmt: skip
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        rates.append(np.mean(maps[masks == 0] >= threshold))
        overlaps.append(
            np.mean(
                [np.mean([map_[place] >= threshold for place in region]) for map_, region in found]
            )
        )
    end = np.interp(limit, rates, overlaps)
    kept = [(r, o) for r, o in zip(rates, overlaps, strict=True) if r <= limit] + [(limit, end)]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(kept))
    return area / limit


def spots(count=4, size=12, share=0.15, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((count, size, size)) < share).astype(np.uint8), rng


@pytest.mark.parametrize("levels", [3, 11, 100_000])
@pytest.mark.parametrize("limit", [0.05, 0.3, 0.77, 1.0])
def test_area_is_that_of_the_definition(levels, limit):
    masks, rng = spots()
    maps = np.round(levels * (rng.random(masks.shape) + 0.4 * masks)) / levels
    expected = threshold_by_threshold(masks, maps, limit)
    assert aupro(masks, maps, limit=limit) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0.02, 1.0))
def test_area_is_that_of_the_definition_in_small_cases(seed, levels, limit):
    masks, rng = spots(count=2, size=4, share=0.3, seed=seed)
    masks[0, 0, 0], masks[0, 0, 1] = 0, 1
    maps = rng.integers(0, levels, masks.shape)
    expected = threshold_by_threshold(masks, maps, limit)
    assert aupro(masks, maps, limit=limit) == pytest.approx(expected, abs=1e-12)


def test_map_that_is_the_mask_has_one_and_its_opposite_nothing():
    masks, _ = spots()
    assert aupro(masks, masks.astype(np.float32)) == 1
    assert aupro(masks, 1.0 - masks) == 0


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_map_that_knows_nothing_has_half_the_limit(limit):
    masks, rng = spots(20, 64)
    assert aupro(masks, np.ones(masks.shape), limit=limit) == pytest.approx(limit / 2)
    random = aupro(masks, rng.random(masks.shape), limit=limit)
    assert random == pytest.approx(limit / 2, rel=0.1)


def test_small_region_counts_as_much_as_a_large_one():
    masks = np.zeros((1, 16, 16), np.uint8)
    masks[0, :8, :8], masks[0, 12, 12] = 1, 1
    only_large, only_small = np.zeros((2, 1, 16, 16))
    only_large[0, :8, :8], only_small[0, 12, 12] = 1, 1
    # The found half is complete at rate 0; the other rises with the normal pixels to (1, 1).
    expected = 0.5 + 0.5 * 0.15
    assert aupro(masks, only_large) == pytest.approx(expected)
    assert aupro(masks, only_small) == pytest.approx(expected)


def test_corners_join_a_region_and_images_part_it():
    masks = np.zeros((2, 4, 4), np.uint8)
    masks[0, 0, 0], masks[0, 1, 1] = 1, 1  # touch by a corner
    masks[0, 3, 3], masks[1, 3, 3] = 1, 1  # same place, another image
    assert region_weights(masks).tolist() == [0.5, 0.5, 1, 1]


def test_growing_map_values_change_nothing():
    masks, rng = spots()
    maps = rng.random(masks.shape)
    assert aupro(masks, np.exp(3 * maps)) == aupro(masks, maps)


def test_what_has_no_overlap_is_refused():
    masks, rng = spots()
    with pytest.raises(DataError, match="0 of 576 are abnormal"):
        aupro(np.zeros_like(masks), rng.random(masks.shape))
    with pytest.raises(DataError, match="576 of 576 are abnormal"):
        aupro(np.ones_like(masks), rng.random(masks.shape))
    with pytest.raises(ArtifactError, match="not finite"):
        aupro(masks, np.full(masks.shape, np.nan))
    for limit in (0.0, 1.5):
        with pytest.raises(ConfigError, match="limit"):
            aupro(masks, rng.random(masks.shape), limit=limit)
