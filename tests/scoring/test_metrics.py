import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from gan_ray.errors import ArtifactError, DataError
from gan_ray.scoring.metrics import (
    DECISIONS,
    RANKING,
    at_threshold,
    auroc,
    average_precision,
    best_dice,
    pixel_auroc,
    pixel_average_precision,
    pixel_best_dice,
    pr_auc,
    sensitivity_at_95,
    specificity_at_95,
)
from gan_ray.scoring.reliability import RELIABILITY


@st.composite
def labelled(draw):
    """Labels of both classes with scores on a coarse grid, so that ties are common."""
    size = draw(st.integers(2, 40))
    scores = draw(st.lists(st.integers(-5, 5), min_size=size, max_size=size))
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    labels[0], labels[1] = 0, 1
    return np.array(labels), np.array(scores) / 4


@given(labelled())
def test_image_metrics_agree_with_scikit_learn(case):
    labels, scores = case
    assert auroc(labels, scores) == pytest.approx(reference.roc_auc_score(labels, scores))
    expected = reference.average_precision_score(labels, scores)
    assert average_precision(labels, scores) == pytest.approx(expected)
    precision, recall, _ = reference.precision_recall_curve(labels, scores)
    assert pr_auc(labels, scores) == pytest.approx(reference.auc(recall, precision))


@given(labelled())
def test_operating_points_agree_with_the_roc_curve_of_scikit_learn(case):
    labels, scores = (np.tile(part, 3) for part in case)  # sizes where 95 % is a whole image or not
    false_alarms, hits, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    allowed = false_alarms <= 0.05 + 1e-9
    assert sensitivity_at_95(labels, scores) == pytest.approx(hits[allowed].max())
    enough = hits >= 0.95 - 1e-9
    assert specificity_at_95(labels, scores) == pytest.approx(1 - false_alarms[enough].min())


def test_one_normal_image_of_twenty_may_be_flagged_at_95_percent_specificity():
    labels = np.repeat([0, 1], [20, 4])
    scores = np.append(np.arange(20.0), [18.5, 17.5, 30.0, 18.2])
    assert sensitivity_at_95(labels, scores) == 3 / 4  # above 18, the second highest normal one
    assert sensitivity_at_95(labels[1:], scores[1:]) == 1 / 4  # one of nineteen is too many
    assert specificity_at_95(1 - labels, -scores) == 3 / 4


@given(labelled())
def test_auroc_is_the_share_of_ordered_pairs(case):
    labels, scores = case
    pairs = scores[labels == 1][:, None] - scores[labels == 0]
    assert auroc(labels, scores) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())


@given(labelled(), st.sampled_from([np.exp, np.arctan, lambda s: 3 * s - 7, lambda s: s**3]))
def test_ranking_metrics_ignore_monotone_maps(case, monotone):
    labels, scores = case
    for metric in RANKING:
        assert metric(labels, monotone(scores)) == pytest.approx(metric(labels, scores), abs=1e-12)


@given(labelled())
def test_auroc_of_opposite_scores_is_the_complement(case):
    labels, scores = case
    assert auroc(labels, -scores) == pytest.approx(1 - auroc(labels, scores))


@given(labelled(), st.integers(0, 2**31))
def test_counted_images_weigh_as_repeated_images(case, seed):
    labels, scores = case
    counts = np.random.default_rng(seed).integers(0, 4, size=(5, len(labels)))
    counts[:, :2] += 1  # both classes
    shares = (scores - scores.min()) / max(np.ptp(scores), 1)
    for metric in (*RANKING, *DECISIONS, *RELIABILITY, best_dice):
        values = shares if metric in RELIABILITY else scores
        repeated = [metric(np.repeat(labels, row), np.repeat(values, row)) for row in counts]
        np.testing.assert_allclose(metric.over(labels, values, counts), repeated, atol=1e-12)


@given(labelled(), st.integers(-6, 6))
def test_decisions_agree_with_scikit_learn(case, threshold):
    labels, scores = case
    called = (scores > threshold / 4).astype(int)
    figures = at_threshold(labels, scores, threshold / 4)
    assert figures == pytest.approx(
        {
            "sensitivity": reference.recall_score(labels, called),
            "specificity": reference.recall_score(labels, called, pos_label=0),
            "precision": reference.precision_score(labels, called, zero_division=0),
            "f1": reference.f1_score(labels, called, zero_division=0),
            "accuracy": reference.accuracy_score(labels, called),
            "balanced_accuracy": reference.balanced_accuracy_score(labels, called),
        }
    )


def test_average_precision_of_a_worked_example():
    # Manning et al., chapter 8: relevant at ranks 1, 3 and 4 of 5: (1/1 + 2/3 + 3/4) / 3.
    value = average_precision(np.array([1, 0, 1, 1, 0]), np.array([5.0, 4.0, 3.0, 2.0, 1.0]))
    assert value == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


@pytest.mark.parametrize("levels", [7, 10_000])
def test_pixel_metrics_agree_with_scikit_learn(levels):
    rng = np.random.default_rng(0)
    masks = (rng.random((6, 20, 20)) < 0.1).astype(np.uint8)
    maps = (np.round(levels * (rng.random(masks.shape) + 0.3 * masks)) / levels).astype(np.float32)
    flat = masks.ravel(), maps.ravel()
    assert pixel_auroc(masks, maps) == pytest.approx(reference.roc_auc_score(*flat), abs=1e-12)
    expected = reference.average_precision_score(*flat)
    assert pixel_average_precision(masks, maps) == pytest.approx(expected, abs=1e-12)
    some = [reference.f1_score(flat[0], flat[1] >= t) for t in np.unique(maps)[:: levels // 7]]
    assert pixel_best_dice(masks, maps) >= max(some)  # Dice of pixels is their F1
    precision, recall, _ = reference.precision_recall_curve(*flat)
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert pixel_best_dice(masks, maps) == pytest.approx(dice.max(), abs=1e-12)


def test_one_class_alone_is_refused():
    with pytest.raises(DataError, match="3 normal and 0 abnormal"):
        auroc(np.zeros(3), np.arange(3))
    with pytest.raises(DataError, match="0 of 8 are abnormal"):
        pixel_auroc(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ArtifactError, match="1 of 3 scores are not finite"):
        auroc(np.array([0, 1, 1]), np.array([0.0, np.nan, 1.0]))
    with pytest.raises(ArtifactError, match="not finite"):
        pixel_auroc(np.array([[[0, 1]]]), np.array([[[np.inf, 1.0]]]))
