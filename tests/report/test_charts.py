from __future__ import annotations

import copy
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, roc_curve

from gan_ray.report import charts, operating
from gan_ray.report.operating import BANDED, corners, recall_and_precision

from .made import metrics

HOSTILE = "_<script>alert('1')</script> $x & \"y\""


@pytest.fixture(scope="module")
def content(evaluation):
    return json.loads((evaluation / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def figures(content):
    return drawn(content)


def drawn(content):
    models, baselines = content["models"], content["baselines"]
    return {
        "forest": charts.forest(models, baselines),
        "roc": operating.roc(models, baselines),
        "precision_recall": operating.precision_recall(models, baselines),
        "scores": charts.scores_by_kind(models[0]),
    }


def words_of(svg):
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_every_chart_is_well_formed_and_says_what_it_shows(figures):
    for name, svg in figures.items():
        root = ElementTree.fromstring(svg)
        assert root.tag == "svg", name
        assert root.get("aria-label")
        assert root.get("viewBox")
        assert root.get("width") is None
        assert "http" not in svg


@pytest.mark.parametrize(
    ("chart", "metric"), [("roc", "image_auroc"), ("precision_recall", "image_ap")]
)
def test_labels_of_curves_carry_the_interval(content, figures, chart, metric):
    found = content["models"][0]["metrics"][metric]
    expected = f"mean@1: {found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"
    assert expected in words_of(figures[chart])


@pytest.mark.parametrize("chart", [operating.roc, operating.precision_recall])
def test_bands_are_drawn_of_models_that_have_them_and_are_few(content, chart):
    def bands(models):
        return chart(models, content["baselines"]).count("opacity: 0.15")

    models = content["models"]
    older = {key: value for key, value in models[0].items() if key != "bands"}
    assert bands(models) == 2
    assert bands([older, models[1]]) == 1
    assert bands([older]) == 0
    assert bands([models[0]] * BANDED) == BANDED
    assert bands([models[0]] * (BANDED + 1)) == 0


def test_charts_follow_the_theme_of_the_page(figures):
    for name, svg in figures.items():
        assert not set(re.findall(r"#[0-9a-f]{6}\b", svg)), name
        assert "var(--ink)" in svg


def test_scores_of_every_kind_stand_with_the_share_flagged_hardest_first(content):
    model = content["models"][0]
    model = model | {"threshold": {"value": float(np.median(model["scores"]["values"]))}}
    labels, values, kinds = (
        np.array(model["scores"][key]) for key in ("labels", "values", "sublabels")
    )
    flagged = values > model["threshold"]["value"]
    order = sorted(set(kinds[labels == 1]), key=lambda kind: np.median(values[kinds == kind]))
    rows = [("normal", labels == 0), *((kind, kinds == kind) for kind in order)]
    text = words_of(charts.scores_by_kind(model))
    names = [text.index(f"{name} ({mine.sum()})") for name, mine in rows]
    assert names == sorted(names)
    shares = [f"{round(100 * flagged[mine].mean(), 1):g}\u00a0%" for _, mine in rows]
    assert re.findall(r"[\d.]+\u00a0%", text) == shares
    assert len(set(shares)) > 2


def test_scores_without_a_threshold_say_nothing_of_flags(content):
    text = words_of(charts.scores_by_kind(content["models"][0] | {"threshold": None}))
    assert "flagged" not in text
    assert "%" not in text


def test_a_score_far_out_does_not_press_the_others_together(content):
    model = copy.deepcopy(content["models"][0])
    model["scores"]["values"][-1] = 1e6
    ticks = re.findall(r"0\.\d\d", words_of(charts.scores_by_kind(model)))
    assert len(ticks) > 3


def test_what_is_flagged_stands_right_of_a_threshold_that_few_reach(content):
    model = copy.deepcopy(content["models"][0])
    model["threshold"]["value"] = float(np.sort(model["scores"]["values"])[-2])
    model["scores"]["values"][-1] = 1e6
    root = ElementTree.fromstring(charts.scores_by_kind(model))
    paths = [path for path in root.iter("path") if path.get("style")]
    places = {
        name: max(float(x) for path in paths if f"var(--{name})" in path.get("style")
                  for x in re.findall(r"[ML] ([\d.]+) ", path.get("d")))
        for name in ("mark", "abnormal")
    }  # fmt: skip
    assert places["mark"] + 5 < places["abnormal"]


def test_a_hostile_name_is_text_in_every_chart(content):
    content = copy.deepcopy(content)
    for model in content["models"] + content["baselines"]:
        model["name"] = HOSTILE
    hostile = drawn(content)
    for svg in hostile.values():
        assert "<script" not in svg
        ElementTree.fromstring(svg)
    assert "_<script>alert('1')" in words_of(hostile["roc"])


def test_the_same_figures_give_the_same_bytes(content, figures):
    assert drawn(content) == figures


def test_one_curve_for_each_term():
    svgs = charts.curves(metrics())
    assert len(svgs) == 8
    assert "critic · gradient penalty" in words_of(svgs[3])


def curve(labels, scores, **settings):
    fpr, tpr, _ = roc_curve(labels, scores, **settings)
    return {"roc": {"fpr": fpr.tolist(), "tpr": tpr.tolist()}, "scores": {"labels": labels}}


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=60))
def test_the_corners_of_a_curve_keep_its_area(pairs):
    labels = [True, False] + [label for _, label in pairs]
    model = curve(labels, [3, 4] + [s for s, _ in pairs], drop_intermediate=False)
    x, y = corners(model)
    assert auc(x, y) == pytest.approx(auc(model["roc"]["fpr"], model["roc"]["tpr"]))
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_points_on_a_straight_line_are_no_corners():
    x = np.linspace(0, 1, 5).tolist()
    assert [each.tolist() for each in corners({"roc": {"fpr": x, "tpr": x}})] == [[0, 1], [0, 1]]


def test_precision_between_two_thresholds_is_that_of_calling_a_part_of_the_images_between():
    # One abnormal image on top, then nine normal and one abnormal that score alike.
    recalls, precisions = recall_and_precision(
        curve(np.array([1, *[0] * 9, 1]), np.array([2, *[1] * 10]))
    )
    assert np.diff(recalls).max() < 0.011
    alike = recalls > 0.5
    assert precisions[~alike] == pytest.approx(1)
    found = 2 * recalls[alike]
    assert precisions[alike] == pytest.approx(found / (found + 9 * (found - 1)))


def test_a_normal_image_on_top_brings_precision_down_to_nothing_not_up_to_one():
    _, precisions = recall_and_precision(curve(np.array([0, 1, 1]), np.array([3, 2, 1])))
    assert precisions[0] < 0.03
    assert precisions[-1] == pytest.approx(2 / 3)
    assert (np.diff(precisions) > 0).all()


def test_the_area_under_the_drawn_curve_is_about_the_average_precision():
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 2
    scores = rng.normal(size=2000) + labels
    recalls, precisions = recall_and_precision(curve(labels, scores))
    expected = average_precision_score(labels, scores)
    assert np.trapezoid(precisions, recalls) == pytest.approx(expected, abs=0.01)


def test_calibration_is_drawn_where_a_threshold_has_p_values():
    scores = {"values": [0.1, 0.2, 0.3], "labels": [0, 0, 1], "p_values": [0.8, 0.4, 0.1]}
    model = {"name": "m", "version": "1", "scores": scores,
             "threshold": {"value": 0.25, "fpr": 0.1, "images": 19}}  # fmt: skip
    assert "Calibration of p-values, m@1" in charts.calibration(model)
    assert charts.calibration(model | {"threshold": None}) is None
    assert charts.calibration(model | {"scores": scores | {"p_values": None}}) is None
