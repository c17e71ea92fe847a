import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_ray.errors import ArtifactError, DataError
from gan_ray.scoring.delong import delong
from gan_ray.scoring.intervals import paired
from gan_ray.scoring.metrics import auroc


def by_pairs(labels, a, b):
    """Difference and its variance by all pairs of images, as DeLong et al. 1988 write it."""
    placements = []
    for scores in (a, b):
        pairs = scores[labels == 1][:, None] - scores[labels == 0]
        kernel = (pairs > 0) + (pairs == 0) / 2
        placements.append((kernel.mean(1), kernel.mean(0)))
    s10, s01 = (np.cov([p[k] for p in placements]) for k in range(2))
    covariance = s10 / (labels == 1).sum() + s01 / (labels == 0).sum()
    contrast = np.array([1, -1])
    difference = placements[0][0].mean() - placements[1][0].mean()
    return difference, contrast @ covariance @ contrast


@given(st.integers(0, 2**31), st.integers(2, 15), st.integers(2, 15))
def test_midranks_give_what_all_pairs_give(seed, normal, abnormal):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [normal, abnormal])
    a, b = rng.integers(0, 6, (2, len(labels))) / 4 + labels * 0.3  # ties are common
    found = delong(labels, a, b)
    difference, variance = by_pairs(labels, a, b)
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.difference == pytest.approx(auroc(labels, a) - auroc(labels, b), abs=1e-12)
    assert found.standard_error**2 == pytest.approx(variance, abs=1e-12)


def test_p_value_agrees_with_the_bootstrap_and_is_that_of_two_sides():
    rng = np.random.default_rng(0)
    labels = np.arange(500) % 2
    common = rng.normal(size=500) + labels
    a, b = common + 0.5 * rng.normal(size=500), common + 0.9 * rng.normal(size=500)
    found = delong(labels, a, b)
    resampled = paired(auroc, labels, a, b, resamples=4000)
    assert 0.002 < found.p_value < 0.2
    assert found.p_value == pytest.approx(resampled.p_value, abs=0.02)
    width = resampled.high - resampled.low
    assert 2 * 1.96 * found.standard_error == pytest.approx(width, rel=0.1)
    assert delong(labels, b, a).p_value == found.p_value


def test_models_that_differ_by_chance_are_told_apart_in_about_five_percent():
    labels, p_values = np.arange(100) % 2, []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        common = rng.normal(size=100) + labels
        p_values.append(delong(labels, *(common + rng.normal(size=(2, 100)))).p_value)
    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.09


def test_same_order_is_no_difference_and_opposite_order_a_sure_one():
    labels = np.array([0, 0, 0, 1, 1, 1])
    scores = np.arange(6.0)
    assert delong(labels, scores, np.exp(scores)).p_value == 1
    assert delong(labels, scores, -scores).p_value == 0


def test_one_image_of_a_class_is_too_few():
    with pytest.raises(DataError, match="one class has 1"):
        delong(np.array([0, 0, 1]), np.arange(3.0), np.arange(3.0))


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ArtifactError, match="not finite"):
        delong(np.array([0, 0, 1, 1]), np.arange(4.0), np.array([0, 1, np.nan, 2]))
