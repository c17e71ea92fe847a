"""The Fréchet distance against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from gan_ray.errors import ConfigError
from gan_ray.scoring.frechet import frechet_distance


def gaussian(rows: int, size: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated features."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, size)) @ rng.normal(size=(size, size)) + shift


def by_definition(a: np.ndarray, b: np.ndarray) -> float:
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(s_a @ s_b).real
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s_a + s_b - 2 * root))


@pytest.mark.parametrize(("n", "m", "size"), [(50, 50, 4), (40, 90, 12), (200, 31, 30)])
def test_equals_the_definition_where_covariances_have_full_rank(n: int, m: int, size: int):
    a, b = gaussian(n, size, 0), gaussian(m, size, 1, shift=0.5)
    assert frechet_distance(a, b) == pytest.approx(by_definition(a, b), rel=1e-9)


def test_fewer_images_than_features_are_no_special_case():
    # Features that are 0 for every image change no distance, but leave no covariance invertible.
    a, b = gaussian(9, 5, 0), gaussian(8, 5, 1)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(300, 300)))[0]
    wide = [np.pad(x, ((0, 0), (0, 295))) @ turn for x in (a, b)]
    assert frechet_distance(*wide) == pytest.approx(by_definition(a, b), rel=1e-9)


def test_of_one_feature_it_is_the_distance_of_means_and_of_deviations():
    a, b = np.array([[0.0], [2.0]]), np.array([[3.0], [3.0], [9.0]])
    deviations = np.sqrt(2.0) - np.sqrt(12.0)
    assert frechet_distance(a, b) == pytest.approx((1 - 5) ** 2 + deviations**2)


def test_approaches_the_distance_of_the_gaussians_that_were_drawn_from():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(100_000, 3)) * [1.0, 2.0, 3.0]
    b = rng.normal(size=(100_000, 3)) * [1.0, 1.0, 5.0] + [2.0, 0.0, 0.0]
    assert frechet_distance(a, b) == pytest.approx(4 + 0 + 1 + 4, rel=0.02)


def test_is_0_for_equal_sets_symmetric_and_blind_to_order_and_rotation():
    a, b = gaussian(40, 6, 0), gaussian(50, 6, 1, shift=1.0)
    distance = frechet_distance(a, b)
    turn = np.linalg.qr(gaussian(6, 6, 2))[0]
    assert 0 <= frechet_distance(a, a[::-1]) < 1e-9 * distance
    for pair in ((b, a), (a[::-1], b), (a @ turn + 7, b @ turn + 7)):
        assert frechet_distance(*pair) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(a / 2, b / 2) == pytest.approx(distance / 4, rel=1e-9)


def test_single_precision_features_are_computed_in_double():
    # A mean of 1,000 beside a spread of 0.01 leaves float32 nothing of the covariance.
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(60, 4)).astype(np.float32) / 100 + 1000 for _ in range(2))
    expected = by_definition(a.astype(np.float64), b.astype(np.float64))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_one_image_has_no_covariance():
    with pytest.raises(ConfigError, match=r"2 images or more on each side, but has 5 and 1"):
        frechet_distance(np.zeros((5, 2)), np.zeros((1, 2)))
