"""The demonstration of the realised false-positive rate passes what is right, and nothing else."""

from __future__ import annotations

import numpy as np

from benchmarks.false_positive_rate import over_splits
from gan_ray.scoring.calibration import calibrate


def test_exchangeable_scores_keep_the_rate_in_at_least_95_of_100_splits():
    found = over_splits(np.random.default_rng(0).gumbel(size=1000), 0.05)
    assert found.inside >= 95
    assert abs(found.rates.mean() - 0.05) < 0.005


def test_a_wrong_quantile_leaves_the_band():
    def too_low(scores, fpr, groups):
        return calibrate(scores, 2 * fpr)

    found = over_splits(np.random.default_rng(0).gumbel(size=1000), 0.05, calibrator=too_low)
    assert found.inside < 50


def test_images_of_few_patients_leave_the_band_of_images_and_not_that_of_patients():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(120), 10)
    scores = rng.normal(size=120)[groups] + 0.2 * rng.normal(size=1200)
    found = over_splits(scores, 0.05, groups=groups.astype(str))
    assert found.inside < 90
    assert found.inside_by_group >= 95
