from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from gan_ray.scoring.curves import precision_recall, roc
from gan_ray.scoring.intervals import intervals, intervals_and_bands
from gan_ray.scoring.metrics import RANKING, auroc, resampled

CASES = st.lists(
    st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), min_size=0, max_size=30
)


def weighted(rows):
    """Two sure images of each class, then the rows: labels, scores and counts of one resample."""
    rows = [(True, 2, 1), (False, 2, 1), *rows]
    return (np.array(each) for each in zip(*rows, strict=True))


def of(curve, labels, scores, counts):
    return curve.compute(resampled(labels, scores, np.atleast_2d(counts)))


def corners(labels, scores, counts):
    """False alarms and hits as fractions, from nothing called to everything."""
    points = [(Fraction(0), Fraction(0))]
    for value in sorted(set(scores.tolist()), reverse=True):
        called = scores >= value
        points.append(tuple(Fraction(int(counts[called & (labels == k)].sum())) for k in (0, 1)))
    return points


@given(CASES)
def test_precision_between_two_thresholds_follows_the_counts(rows):
    labels, scores, counts = weighted(rows)
    points = corners(labels, scores, counts)
    expected = []
    for percent in range(1, 101):
        asked = Fraction(percent, 100) * points[-1][1]
        for (fp, tp), (next_fp, next_tp) in pairwise(points):
            if tp < asked <= next_tp:  # Davis and Goadrich 2006, section 3.2
                false_alarms = fp + (asked - tp) / (next_tp - tp) * (next_fp - fp)
                expected.append(float(asked / (asked + false_alarms)))
    assert of(precision_recall, labels, scores, counts)[0] == pytest.approx(expected)


@given(CASES)
def test_sensitivity_between_two_thresholds_lies_on_a_straight_line(rows):
    labels, scores, counts = weighted(rows)
    points = corners(labels, scores, counts)
    expected = []
    for percent in range(101):
        allowed = Fraction(percent, 100) * points[-1][0]
        reached = [tp for fp, tp in points if fp <= allowed][-1]
        for (fp, tp), (next_fp, next_tp) in pairwise(points):
            if fp <= allowed < next_fp:
                reached = tp + (allowed - fp) / (next_fp - fp) * (next_tp - tp)
        expected.append(float(reached / points[-1][1]))
    assert of(roc, labels, scores, counts)[0] == pytest.approx(expected)


def images(count=400):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    return labels, rng.normal(size=count) + labels


def test_curves_are_those_of_scikit_learn():
    labels, scores = images()
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    highest = [tpr[fpr <= percent / 100 + 1e-12].max() for percent in range(101)]
    assert of(roc, labels, scores, np.ones(400))[0] == pytest.approx(highest)
    asked = [np.flatnonzero(tpr >= percent / 100 - 1e-12)[0] for percent in range(1, 101)]
    best = [tpr[k] / (tpr[k] + fpr[k]) for k in asked]  # 200 images of each class: whole recalls
    assert of(precision_recall, labels, scores, np.ones(400))[0][1::2] == pytest.approx(best[1::2])


def test_straight_lines_would_promise_a_precision_that_nothing_reaches():
    labels, scores = np.array([1, *[0] * 9, 1]), np.array([2, *[1] * 10])
    found = of(precision_recall, labels, scores, np.ones(11))[0]
    assert found[49] == 1
    assert found[74] == pytest.approx(1.5 / (1.5 + 4.5))  # half of ten images called
    assert found[74] < (1 + 2 / 11) / 2, "the straight line"
    assert found[99] == pytest.approx(2 / 11)


def test_resamples_do_not_see_each_other():
    labels, scores = images(60)
    counts = np.random.default_rng(1).integers(0, 3, (5, 60))
    for curve in (roc, precision_recall):
        together = of(curve, labels, scores, counts)
        alone = [of(curve, labels, scores, row)[0] for row in counts]
        assert np.array_equal(together, alone)


def test_bands_hold_their_curve_and_leave_the_intervals_as_they_were():
    labels, scores = images()
    values, bands = intervals_and_bands([((*RANKING, roc, precision_recall), scores)], labels)
    assert values == intervals([(RANKING, scores)], labels)
    assert set(bands) == {"roc", "precision_recall"}
    for band in bands.values():
        assert len(band.at) == len(band.value) == len(band.low) == len(band.high)
        assert (band.low <= band.value).all()
        assert (band.value <= band.high).all()
        assert (band.high - band.low).max() > 0.1
    area = np.trapezoid(bands["roc"].value, bands["roc"].at)
    assert area == pytest.approx(values[auroc.name].value, abs=0.01)


def test_a_band_covers_the_true_sensitivity_as_often_as_it_says():
    truth = 0.5  # P(N(1.2816, 1) > 90 % quantile of N(0, 1))
    covered = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        labels = np.arange(300) % 2
        scores = rng.normal(size=300) + 1.2816 * labels
        band = intervals_and_bands([((roc,), scores)], labels, resamples=200, seed=seed)[1]["roc"]
        covered.append(band.low[10] <= truth <= band.high[10])
    assert 0.90 <= np.mean(covered) <= 0.99


def test_bands_of_patients_are_wider_than_those_of_images():
    labels, scores = images(100)
    labels, scores = np.repeat(labels, 4), np.repeat(scores, 4)
    groups = np.repeat(np.arange(100).astype(str), 4)
    judged = [((roc, precision_recall), scores)]
    together, alone = (intervals_and_bands(judged, labels, g)[1] for g in (groups, None))
    for name in ("roc", "precision_recall"):
        widths = [(bands[name].high - bands[name].low).mean() for bands in (together, alone)]
        assert widths[0] > 1.5 * widths[1]
