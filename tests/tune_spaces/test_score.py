"""The study `score`: heads and score weights of a finished training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gan_ray.__main__ import main
from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.export import export
from gan_ray.errors import ConfigError
from gan_ray.experiment import make
from gan_ray.scoring.heads import head_name, parse_head
from gan_ray.training.launch import train
from gan_ray.training.run import RunFolder
from tests.data.trees import folders, write_folder
from tests.scoring.test_heads import counted
from tune_spaces.objectives import OBJECTIVES
from tune_spaces.score import open_trained, score_study
from tune_spaces.select import select

DIGITS = {"source": "digits", "normal_class": 1, "image_size": 16, "holdout": 0.7}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    short = {"images": 160, "report_every": 32, "samples": 0}
    experiment = make("f-anogan", preset="tiny", changes={"data": DIGITS, "train": short})
    return train(experiment, tmp_path_factory.mktemp("score") / "run", local=True)


@pytest.fixture(scope="module")
def studied(run, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("score") / "study"
    return out, score_study(open_trained(run.uri), samples=60, out=str(out))


def test_the_first_trial_is_the_score_of_the_run_itself(run, studied) -> None:
    first = studied[1]["trials"][0]
    (chosen,) = (row for row in run.metrics() if row["images"] == run.best())
    seen = {key: value for key, value in chosen.items() if key.startswith("val/")}
    assert first["figures"] == seen
    assert first["head"] == "residual_features"


def test_every_trial_is_worth_what_its_head_is_worth_as_a_bundle(run, studied, tmp_path) -> None:
    from gan_ray.heads import rank

    content = studied[1]
    best = content["trials"][content["best"]]
    assert best["value"] >= content["trials"][0]["value"]
    assert max(row["value"] for row in content["trials"]) == best["value"]
    bundle = export(run.uri, tmp_path / "bundle")
    heads = {row["head"]: row["value"] for row in content["trials"]}
    found = {row["head"]: row["aucp"] for row in rank(str(bundle), list(heads))}
    assert len(heads) > 20
    assert {head: found[head] for head in heads} == pytest.approx(heads)


def test_a_setting_is_drawn_only_where_it_changes_the_score(studied) -> None:
    for row in studied[1]["trials"]:
        drawn = row["params"]
        reads = drawn["score.name"] == "residual_features"
        assert ("score.feature_weight" in drawn) == reads
        assert ("score.smooth" in drawn) == (drawn["score.top"] > 0)


def test_the_networks_look_once_however_many_trials_there_are(run, tmp_path) -> None:
    seen = []
    for samples in (1, 8):
        with counted() as (_, rows):
            score_study(open_trained(run.uri), samples=samples, out=str(tmp_path / str(samples)))
        seen.append(list(rows))
    assert seen[0] == seen[1]


def test_a_study_goes_on_with_more_samples_as_if_it_had_not_stopped(run, studied, tmp_path) -> None:
    trained = open_trained(run.uri)
    score_study(trained, samples=10, out=str(tmp_path))
    content = score_study(trained, samples=25, out=str(tmp_path))
    heads = [row["head"] for row in content["trials"]]
    assert heads == [row["head"] for row in studied[1]["trials"][:25]]
    assert [row["number"] for row in content["trials"]] == list(range(25))
    assert score_study(trained, samples=25, out=str(tmp_path)) == content


def test_the_winner_is_published_with_its_head(run, studied, tmp_path) -> None:
    out, content = studied
    chosen = select(str(out), publish=str(tmp_path))
    best = content["trials"][content["best"]]
    assert (chosen["winner"], chosen["head"]) == (best["number"], best["head"])
    bundle = load_bundle(tmp_path / "f-anogan/1")
    assert head_name(bundle.score, bundle.detector) == best["head"]
    assert parse_head(best["head"], bundle.score, bundle.detector).name == bundle.score.name


def test_what_is_fixed_is_not_searched_and_a_range_narrows(run, tmp_path) -> None:
    content = score_study(
        open_trained(run.uri), samples=12, out=str(tmp_path),
        fixes={"score.name": "residual_features", "score.top": 0.0},
        ranges={"score.feature_weight": (0.5, 2.0)},
    )  # fmt: skip
    drawn = [row["params"] for row in content["trials"]]
    assert {key for row in drawn for key in row} == {"score.feature_weight"}
    assert all(0.5 <= row["score.feature_weight"] <= 2.0 for row in drawn)


def test_scales_follow_each_head(tmp_path) -> None:
    short = {"images": 64, "report_every": 32, "samples": 0}
    experiment = make("f-unetgan", preset="tiny", changes={"data": DIGITS, "train": short})
    run = train(experiment, tmp_path / "run", local=True)
    content = score_study(open_trained(run.uri), samples=4, out=str(tmp_path / "study"))
    (chosen,) = (row for row in run.metrics() if row["images"] == run.best())
    assert content["trials"][0]["head"].startswith("scaled_features")
    assert content["trials"][0]["value"] == chosen["val/aucp"]


@pytest.mark.parametrize(
    ("parts", "figure"),
    [
        ({"train/normal": 24}, "val/pseudo_auroc"),
        ({"train/normal": 24, "val/normal": 6, "val/abnormal": 6}, "val/image_auroc"),
        ({"train/normal": 24, "train/unlabeled": 24}, "val/aucp"),
    ],
)
def test_what_the_data_offer_is_the_objective_and_worth_what_a_training_says(
    parts, figure, tmp_path
) -> None:
    root = write_folder(tmp_path / "images", folders({**parts, "test/normal": 1}))
    held_out = 0.5 if "train/unlabeled" in parts else 0.0
    data = {"root": root, "image_size": 16, "mix_held_out": held_out}
    short = {"images": 64, "report_every": 32, "samples": 0, "select": OBJECTIVES[figure]}
    run = train(make("f-anogan", preset="tiny", changes={"data": data, "train": short}),
                tmp_path / "run", local=True)  # fmt: skip
    told: list[str] = []
    content = score_study(open_trained(run.uri), samples=2, out=str(tmp_path / "study"),
                          say=told.append)  # fmt: skip
    assert told[0].startswith(f"objective: {figure}, the data have ")
    assert (content["objective"], content["selection"]["by"]) == (figure, OBJECTIVES[figure])
    (chosen,) = (row for row in run.metrics() if row["images"] == run.best())
    assert content["trials"][0]["value"] == chosen[figure]
    assert content["trials"][1]["value"] is not None


def test_a_cost_that_no_head_changes_is_refused(run, tmp_path) -> None:
    with pytest.raises(ConfigError, match="the study score has one objective"):
        score_study(open_trained(run.uri), samples=2, out=str(tmp_path), objective="auto,latency")


@pytest.mark.parametrize(
    ("fixes", "ranges", "message"),
    [
        ({"model.width": 8}, {}, "key of the study score"),
        ({"score.name": "sim"}, {}, "Did you mean 'ssim'"),
        ({}, {"score.pixel_weight": (1.0, 2.0)}, "key of the study score"),
        ({"score.name": "l1", "score.top": 0.0, "score.smooth": 0.0}, {}, "nothing to search"),
    ],
)
def test_what_the_study_cannot_do_is_refused(run, fixes, ranges, message, tmp_path) -> None:
    with pytest.raises(ConfigError, match=message):
        score_study(open_trained(run.uri), samples=2, out=str(tmp_path), fixes=fixes, ranges=ranges)


def test_other_images_than_those_of_the_training_are_refused(run, tmp_path) -> None:
    trained = open_trained(run.uri)
    other = make("f-anogan", preset="tiny", changes={"data": {**DIGITS, "normal_class": 2}}).data
    with pytest.raises(ConfigError, match="trained on other data"):
        score_study(trained, samples=2, out=str(tmp_path / "out"), data=other)
    assert not (tmp_path / "out").exists()


def test_the_command_scores_a_run_or_a_bundle_and_no_system(run, tmp_path, capsys) -> None:
    words = ["--study", "score", "--samples", "5", "--out", str(tmp_path / "study")]
    assert main(["sweep", "f-anogan", *words]) == 2
    assert "name a run folder or a bundle" in capsys.readouterr().err
    assert main(["sweep", run.uri, *words, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert len(content["trials"]) == 5
    bundle = export(run.uri, tmp_path / "bundle")
    assert main(["sweep", str(bundle), *words]) == 2
    assert "choose another --out" in capsys.readouterr().err
    words[-1] = str(tmp_path / "of_bundle")
    assert main(["sweep", str(bundle), *words, "--json"]) == 0
    of_bundle = json.loads(capsys.readouterr().out)
    assert of_bundle["trials"][0]["value"] == pytest.approx(content["trials"][0]["value"])
