from __future__ import annotations

import copy
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_curve

from gan_ray.report import charts
from gan_ray.report.charts import _thinned

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
        "roc": charts.roc(models, baselines),
        "histogram": charts.histogram(models[0]),
        "boxes": charts.boxes(models[0]),
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


def test_roc_labels_carry_the_interval(content, figures):
    metric = content["models"][0]["metrics"]["image_auroc"]
    expected = f"mean@1: {metric['value']:.3f} ({metric['low']:.3f}–{metric['high']:.3f})"
    assert expected in words_of(figures["roc"])


def test_charts_follow_the_theme_of_the_page(figures):
    for name, svg in figures.items():
        assert not set(re.findall(r"#[0-9a-f]{6}\b", svg)), name
        assert "var(--ink)" in svg


def test_boxes_stand_for_normal_images_and_every_kind(figures):
    text = words_of(figures["boxes"])
    for name in ("normal (78)", "digit 1 (", "digit 9 ("):
        assert name in text


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


def test_history_draws_trials_that_have_a_value(sweep):
    search = json.loads((sweep / "sweep.json").read_text())
    svg = charts.search_history(search)
    assert "best so far" in words_of(svg)
    markers = re.findall(r"<use ", svg)
    assert len(markers) >= len(search["trials"]) - 1


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=60))
def test_thinning_a_curve_keeps_its_area(pairs):
    labels = [True, False] + [label for _, label in pairs]
    fpr, tpr, _ = roc_curve(labels, [3, 4] + [s for s, _ in pairs], drop_intermediate=False)
    x, y = _thinned(fpr.tolist(), tpr.tolist())
    assert auc(x, y) == pytest.approx(auc(fpr, tpr))
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_thinning_drops_points_on_a_straight_line():
    x = np.linspace(0, 1, 5).tolist()
    assert _thinned(x, x) == ([0.0, 1.0], [0.0, 1.0])


def test_calibration_is_drawn_where_a_threshold_has_p_values():
    scores = {"values": [0.1, 0.2, 0.3], "labels": [0, 0, 1], "p_values": [0.8, 0.4, 0.1]}
    model = {"name": "m", "version": "1", "scores": scores,
             "threshold": {"value": 0.25, "fpr": 0.1, "images": 19}}  # fmt: skip
    assert "Calibration of p-values, m@1" in charts.calibration(model)
    assert charts.calibration(model | {"threshold": None}) is None
    assert charts.calibration(model | {"scores": scores | {"p_values": None}}) is None
