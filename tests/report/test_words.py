from __future__ import annotations

import pytest

from gan_ray.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-0.5, "−0.5"), (12345.6, "12\u202f346"), (200_000, "200\u202f000"),
     (True, "True"), ("adam", "adam"), (None, "–"), (float("nan"), "–"), (7, "7")],
)  # fmt: skip
def test_numbers_read_easily(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.05, "5"), (0.1394, "13.9"), (1.0, "100"), (0.0005, "0.05"), (0.0, "0")]
)
def test_shares_are_percentages(value, text):
    assert words.share(value) == f"{text}\u00a0%"


def judged(labels, values, threshold, specificity=None):
    return {
        "metrics": {"specificity": specificity} if specificity else {},
        "threshold": threshold,
        "scores": {"labels": labels, "values": values},
    }


def test_a_score_equal_to_the_threshold_passes():
    model = judged([0, 0, 1, 1], [0.5, 0.6, 0.5, 0.7], {"value": 0.5, "fpr": 0.05, "images": 9})
    assert words.counts(model) == {"miss": 1, "false_alarm": 1, "hit": 1, "correct_pass": 1}


def test_without_a_threshold_there_are_no_outcomes():
    assert words.counts(judged([0, 1], [0.1, 0.2], None)) is None


def test_promise_says_rate_images_and_certainty():
    text = words.threshold_promise(0.31, fpr=0.05, images=42, upper=0.108)
    assert "above 0.31" in text
    assert "42 normal images held out from training" in text
    assert "at most 5\u00a0% of normal images like them are flagged" in text
    assert text.endswith("with 95\u00a0% certainty at most 10.8\u00a0%.")


@pytest.mark.parametrize(("high", "broken"), [(0.94, True), (0.96, False)])
def test_a_broken_promise_is_said_when_even_the_interval_is_above_it(high, broken):
    model = judged(
        [0] * 10 + [1], [1.0] * 2 + [0.0] * 8 + [1.0],
        {"value": 0.5, "fpr": 0.05, "images": 20}, {"value": 0.8, "low": 0.5, "high": high},
    )  # fmt: skip
    text = words.threshold_outcome(model, words.counts(model))
    assert "flags 2 of 10 normal images (20\u00a0%, 95\u00a0% interval " in text
    assert "finds 1 of 1 abnormal ones" in text
    assert ("more false alarms than promised" in text) is broken


@pytest.mark.parametrize(
    ("verdict", "text"),
    [("a is better", "pca is better"), ("b is better", "mean is better"),
     ("no measurable difference", "no measurable difference")],
)  # fmt: skip
def test_verdict_names_the_winner(verdict, text):
    assert words.verdict({"a": "pca", "b": "mean", "verdict": verdict}) == text


def test_a_winner_that_the_correction_does_not_let_stand_is_doubted():
    pair = {"a": "pca", "b": "mean", "verdict": "a is better", "p_value": 0.01}
    assert words.verdict(pair | {"p_holm": 0.04}) == "pca is better"
    assert (
        words.verdict(pair | {"p_holm": 0.06}) == "pca is better, but not among so many comparisons"
    )
    even = {"verdict": "no measurable difference", "p_holm": 0.5}
    assert words.verdict(pair | even) == "no measurable difference"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "0.0123"),
        (0.001, "0.001"),
        (2e-22, "<\u00a00.001"),
        (0, "<\u00a00.001"),
        (None, "–"),
    ],
)
def test_p_values_are_not_told_more_finely_than_they_are_known(value, text):
    assert words.p_value(value) == text


def test_folded_metrics_are_known_ones():
    assert set(words.FURTHER) < set(words.METRICS)


def test_metrics_keep_the_order_of_the_table_and_none_is_lost():
    models = [{"metrics": {"ours": 1, "f1": 1, "image_auroc": 1}}, {"metrics": {"pixel_ap": 1}}]
    assert words.metric_keys(models) == ["image_auroc", "pixel_ap", "f1", "ours"]
