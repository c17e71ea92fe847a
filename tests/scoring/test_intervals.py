from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from gan_ray.errors import ConfigError
from gan_ray.scoring.delong import delong
from gan_ray.scoring.intervals import interval, intervals, paired, pixel_intervals
from gan_ray.scoring.metrics import (
    DECISIONS,
    auroc,
    average_precision,
    pixel_auroc,
    pixel_average_precision,
    pixel_best_dice,
)
from gan_ray.scoring.regions import aupro
from gan_ray.scoring.reliability import calibration_error

PIXEL_METRICS = {
    "pixel_auroc": pixel_auroc,
    "pixel_ap": pixel_average_precision,
    "pixel_best_dice": pixel_best_dice,
    "pixel_aupro_30": partial(aupro, limit=0.30),
    "pixel_aupro_05": partial(aupro, limit=0.05),
}


def images(count=400, shift=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return labels, rng.normal(size=count) + shift * labels, rng


def test_interval_holds_the_value_and_repeats_with_the_seed():
    labels, scores, _ = images()
    first = interval(auroc, labels, scores, seed=3)
    assert first.low < first.value < first.high
    assert first.value == auroc(labels, scores)
    assert first == interval(auroc, labels, scores, seed=3)
    assert first != interval(auroc, labels, scores, seed=4)


def test_many_metrics_together_have_the_intervals_they_have_alone():
    labels, scores, _ = images()
    groups = np.char.add("patient ", (np.arange(400) // 3).astype(str))
    judged = [((auroc, average_precision), scores), (DECISIONS, scores > 0.5)]
    together = intervals(judged, labels, groups, resamples=100, seed=3)
    assert len(together) == 2 + len(DECISIONS)
    for metrics, values in judged:
        for metric in metrics:
            assert together[metric.name] == interval(metric, labels, values, groups, 100, 3)


def test_interval_of_a_figure_that_chance_pushes_up_holds_its_value():
    labels = np.repeat([0, 1], 100)
    forecasts = np.append((np.arange(100) + 0.5) / 100, np.ones(100))  # as even as can be
    found = interval(calibration_error, labels, forecasts)
    assert found.low == found.value < 0.01 < found.high


def test_interval_width_agrees_with_the_formula_of_hanley_and_mcneil():
    labels, scores, _ = images(2000)
    found = interval(auroc, labels, scores, resamples=2000)
    a, count = found.value, 1000
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = a * (1 - a) + (count - 1) * (q1 - a * a) + (count - 1) * (q2 - a * a)
    width = 2 * 1.96 * np.sqrt(variance / count**2)
    assert found.high - found.low == pytest.approx(width, rel=0.1)


def test_interval_covers_the_true_value_as_often_as_it_says():
    truth = 0.7602  # Phi(1 / sqrt 2), two normals one standard deviation apart
    found = [interval(auroc, *images(120, seed=s)[:2], resamples=200) for s in range(300)]
    covered = np.mean([i.low <= truth <= i.high for i in found])
    assert 0.90 <= covered <= 0.985


def test_images_of_one_patient_are_drawn_together():
    labels, scores, _ = images(100)
    labels, scores = np.repeat(labels, 4), np.repeat(scores, 4)
    groups = np.repeat(np.arange(100).astype(str), 4)
    alone = interval(auroc, labels, scores)
    together = interval(auroc, labels, scores, groups)
    once = interval(auroc, labels[::4], scores[::4])
    assert together.high - together.low == pytest.approx(once.high - once.low, rel=0.1)
    assert (together.high - together.low) > 1.7 * (alone.high - alone.low)  # sqrt(4) in theory


def test_image_without_a_group_stands_alone():
    labels, scores, _ = images(100)
    unnamed = interval(auroc, labels, scores, np.full(100, ""))
    assert unnamed == interval(auroc, labels, scores)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), min_size=2, max_size=12))
def test_every_resample_has_both_classes(rows):
    labels = np.array([label for label, _ in rows])
    labels[:2] = 0, 1
    groups = np.array([str(group) for _, group in rows])
    found = interval(auroc, labels, np.arange(len(labels)), groups, resamples=50)
    assert np.isfinite([found.low, found.high]).all()


def test_blocks_of_resamples_hold_the_stated_number(monkeypatch):
    labels, scores, _ = images(50)
    whole = interval(auroc, labels, scores, resamples=101)
    monkeypatch.setattr("gan_ray.scoring.intervals._BLOCK", 50 * 7)
    cut = interval(auroc, labels, scores, resamples=101)
    assert cut.value == whole.value
    assert cut.low == pytest.approx(whole.low, abs=0.05)


def test_same_scores_show_no_measurable_difference():
    labels, scores, _ = images()
    same = paired(auroc, labels, scores, scores)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert same.verdict == "no measurable difference"


def test_better_model_is_named_and_the_order_turns_the_verdict():
    labels, scores, rng = images()
    worse = scores + rng.normal(size=len(scores))
    found, turned = paired(auroc, labels, scores, worse), paired(auroc, labels, worse, scores)
    assert found.verdict == "a is better"
    assert turned.verdict == "b is better"
    assert found.p_value < 0.05
    assert found.difference == pytest.approx(-turned.difference)


def test_p_value_goes_below_what_the_number_of_resamples_can_tell():
    labels, scores, rng = images()
    alike, poor = scores + 0.3 * rng.normal(size=400), rng.normal(size=400)
    clear, unclear = (
        paired(auroc, labels, scores, other, resamples=200) for other in (poor, alike)
    )
    assert clear.p_value < 1e-6 < 2 / 201
    assert clear.p_value == pytest.approx(delong(labels, scores, poor).p_value, rel=1, abs=1e-8)
    assert unclear.p_value > 2 / 201


def test_pairing_finds_what_two_intervals_hide():
    labels, scores, rng = images(300)
    worse = scores + 0.4 * rng.normal(size=300)
    a, b = interval(auroc, labels, scores), interval(auroc, labels, worse)
    assert a.low < b.high  # the intervals overlap
    assert paired(auroc, labels, scores, worse).verdict == "a is better"


def test_models_that_differ_by_chance_are_told_apart_in_about_five_percent():
    verdicts = []
    for seed in range(200):
        labels, scores, rng = images(100, seed=seed)
        a, b = scores + rng.normal(size=100), scores + rng.normal(size=100)
        verdicts.append(paired(auroc, labels, a, b, resamples=200).verdict)
    wrong = np.mean([verdict != "no measurable difference" for verdict in verdicts])
    assert wrong <= 0.11


def test_pixel_ends_agree_with_exact_resampling():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    masks = (rng.random((40, 16, 16)) < 0.15) * labels[:, None, None]
    masks[1::4, :8, :8] |= 1  # one region is larger than the others
    shift = rng.random((40, 1, 1)) * 1.5
    maps = (rng.normal(size=masks.shape) + shift * masks).astype(np.float32)
    found = pixel_intervals(masks, maps, labels, resamples=400)
    normal, abnormal = np.flatnonzero(labels == 0), np.flatnonzero(labels)
    drawn = [np.append(rng.choice(normal, 20), rng.choice(abnormal, 20)) for _ in range(400)]
    assert set(found) == set(PIXEL_METRICS)
    for name, metric in PIXEL_METRICS.items():
        exact = np.quantile([metric(masks[rows], maps[rows]) for rows in drawn], [0.025, 0.975])
        np.testing.assert_allclose(found[name], exact, atol=0.012)  # the noise of 400 resamples


def test_binning_moves_a_pixel_figure_by_less_than_a_thousandth():
    rng = np.random.default_rng(1)
    masks = np.zeros((2, 64, 64), np.uint8)
    masks[1, :8, :8] = 1
    maps = (rng.gamma(2.0, size=masks.shape) + 2.0 * masks).astype(np.float32)
    found = pixel_intervals(masks, maps, np.array([0, 1]), resamples=2)  # one image of each class
    for name, metric in PIXEL_METRICS.items():
        assert found[name] == pytest.approx([metric(masks, maps)] * 2, abs=1e-3), name


def test_interval_without_resamples_is_refused():
    labels, scores, _ = images(10)
    with pytest.raises(ConfigError, match="resamples"):
        interval(average_precision, labels, scores, resamples=0)


def test_trainings_of_two_models_are_compared_by_their_mean_and_widen_the_interval():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    good = rng.normal(size=400) + 1.5 * labels
    fair, poor = (rng.normal(size=400) + shift * labels for shift in (1.2, 0.3))
    one = paired(auroc, labels, good, fair)
    two = paired(auroc, labels, np.stack([good, good]), np.stack([fair, poor]))
    values = [auroc(labels, scores) for scores in (good, fair, poor)]
    assert two.difference == pytest.approx(values[0] - (values[1] + values[2]) / 2)
    assert two.high - two.low > 1.5 * (one.high - one.low), "the seeds differ more than the images"
    again = paired(auroc, labels, np.stack([good, good]), np.stack([fair, fair]))
    assert (again.difference, again.low, again.high) == pytest.approx(
        (one.difference, one.low, one.high)
    )


def test_a_share_of_none_or_of_all_has_the_exact_end_that_no_resample_shows():
    sensitivity, specificity = DECISIONS[:2]
    labels = np.repeat([0, 1], 125)
    nobody, everybody = np.zeros(250, bool), np.ones(250, bool)
    judged = interval(specificity, labels, nobody, resamples=50)
    exact = binomtest(125, 125).proportion_ci(0.95, "exact")
    assert (judged.value, judged.high) == (1.0, 1.0)
    assert judged.low == pytest.approx(exact.low, abs=1e-12)
    judged = interval(sensitivity, labels, nobody, resamples=50)
    assert (judged.value, judged.low) == (0.0, 0.0)
    assert judged.high == pytest.approx(1 - exact.low, abs=1e-12)
    # Five patients tell less than 125 images.
    patients = np.char.add("p", np.repeat(np.arange(10), 25).astype(str))
    judged = interval(sensitivity, labels, everybody, patients, resamples=50)
    assert judged.low == pytest.approx(binomtest(5, 5).proportion_ci(0.95, "exact").low, abs=1e-12)
