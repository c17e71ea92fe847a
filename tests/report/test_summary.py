"""`report --json` says what the page says: every figure, no pixel, no drawing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gan_ray.__main__ import main
from gan_ray.report import words

from .made import add_heads, metrics, write_run
from .test_html import Page


@pytest.fixture
def told(evaluation, run, sweep, tmp_path, capsys):
    page = tmp_path / "r.html"
    paths = [str(each) for each in (sweep, run, evaluation)]
    assert main(["report", *paths, "-o", str(page), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_one_json_object_names_the_page_and_what_it_was_made_of(told, evaluation, run, sweep):
    assert told["paths"] == [str(each) for each in (sweep, run, evaluation)]
    assert [len(told[kind]) for kind in ("evaluations", "runs", "searches")] == [1, 1, 1]
    assert Page(Path(told["report"])).count("svg") > 10


def test_without_json_nothing_is_printed_but_the_path_beside_the_output(run, tmp_path, capsys):
    assert main(["report", str(run), "-o", str(tmp_path / "r.html")]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip() == str(tmp_path / "r.html")


def test_every_figure_of_the_page_is_told(told):
    text = Page(Path(told["report"])).text
    (evaluation,) = told["evaluations"]
    judged = [*evaluation["models"], *evaluation["baselines"]]
    assert len(judged) == 4
    for model in judged:
        assert words.model_name(model) in text
        for figure in model["metrics"].values():
            assert words.fixed(figure["value"]) in text
            assert words.bounds(figure) in text
        assert set(model["bands"]) == {"roc", "precision_recall"}
        for kind in model["by_sublabel"].values():
            assert words.bounds(kind["image_auroc"]) in text
    for model in evaluation["models"]:
        assert sum(model["outcomes"].values()) == evaluation["data"]["images"]
        assert f"finds {model['outcomes']['hit']} of" in text
        for case in model["cases"]:
            assert case["id"] in text
    for pair in evaluation["paired"]:
        assert words.fixed(pair["difference"], sign=True) in text
    (run,), (search,) = told["runs"], told["searches"]
    assert f"in {run['seconds']:g} s, {words.number(run['speed'])} images/s" in text
    assert run["threshold"] == {"value": 0.31, "fpr": 0.05, "images": 42, "upper": 0.108}
    assert run["selection"]["reason"] in text
    assert f"Best {len(search['ranked'])} of {search['trials']} trials" in text
    assert search["ranked"][0]["number"] == search["best"]


def test_scores_of_single_images_and_pixels_are_not_told(told, evaluation, tmp_path, capsys):
    assert all("scores" not in model for model in told["evaluations"][0]["models"])
    assert "base64" not in json.dumps(told)
    content = json.loads((evaluation / "evaluation.json").read_text())
    add_heads(content["models"][0])
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    main(["report", str(tmp_path), "-o", str(tmp_path / "r.html"), "--json"])
    heads = json.loads(capsys.readouterr().out)["evaluations"][0]["models"][0]["heads"]
    assert heads["paired"] == content["models"][0]["heads"]["paired"]
    assert list(heads["figures"]["ssim,top=0.01"]) == ["metrics"]


def test_an_older_evaluation_and_a_run_that_has_just_begun_are_told(
    evaluation, run, tmp_path, capsys
):
    content = json.loads((evaluation / "evaluation.json").read_text())
    for model in content["models"] + content["baselines"]:
        del model["bands"], model["heads"], model["by_group"]
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    shutil.copy(run / "experiment.json", tmp_path)
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "bands" not in told["evaluations"][0]["models"][0]
    assert "of each point" not in Page(Path(told["report"])).text
    (begun,) = told["runs"]
    assert (begun["last"], begun["speed"], begun["threshold"]) == ({}, None, {})


def test_a_figure_that_is_not_finite_is_null(tmp_path, capsys):
    reports = metrics()
    reports[-1]["encoder/image_distance"] = float("nan")
    write_run(tmp_path / "run", reports=reports)
    main(["report", str(tmp_path / "run"), "-o", str(tmp_path / "r.html"), "--json"])
    printed = capsys.readouterr().out
    assert "NaN" not in printed
    assert json.loads(printed)["runs"][0]["last"]["encoder/image_distance"] is None
