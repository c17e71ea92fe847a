from __future__ import annotations

import json

import pytest

from gan_ray.report.table import show_evaluation

from .made import add_heads


@pytest.fixture
def content(evaluation):
    return json.loads((evaluation / "evaluation.json").read_text())


def test_verdicts_stand_with_their_p_values(content, capsys):
    show_evaluation(content)
    said = capsys.readouterr().out
    assert "pca@2 - mean@1, image_auroc: " in said
    assert "pca@2 is better  (p 0.004, corrected 0.008)" in said
    assert "patient" not in said


def test_subjects_are_told_where_there_are_some(content, capsys):
    figure = {"value": 0.8765, "low": 0.7, "high": 0.95}
    content["models"][0]["by_group"] = {
        "groups": 17, "abnormal": 6, "image_auroc": figure, "image_ap": figure,
    }  # fmt: skip
    show_evaluation(content)
    said = capsys.readouterr().out
    assert said.count("by patient or group (17): image_auroc 0.876 (0.700-0.950)") == 1


def test_heads_stand_below_with_the_warning_that_they_are_no_choice(content, capsys):
    show_evaluation(content)
    assert "heads" not in capsys.readouterr().out
    add_heads(content["models"][0])
    show_evaluation(content)
    said = capsys.readouterr().out
    assert "heads of mean@1" in said
    assert "residual (its own)" in said
    assert "residual - ssim,top=0.01, image_auroc: +0.0200" in said
    assert "To take the best of them is to tune to these test images" in " ".join(said.split())
