from __future__ import annotations

import pytest
import torch

from gan_ray.__main__ import main
from gan_ray.experiment import make
from gan_ray.ranges import Choice
from tune_spaces.costs import Rate, TrialCost, trial_cost
from tune_spaces.overview import duration, overview
from tune_spaces.plan import searches
from tune_spaces.studies import plans

DIGITS = ["--data.source", "digits", "--data.normal-class", "0"]


def test_each_dimension_stands_with_its_range_and_where_it_matters() -> None:
    plan = plans([make("sagan", preset="tiny")], "encodings", {}, {})[0]
    text = overview(plan, method="tpe", samples=9, earlier=3, looked={"sagan": 10})
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert text.startswith("sagan: 8 dimensions, 9 trials by tpe, whose sampler knows 3 of earlier")
    assert lines["model.encoding"].endswith("alibi, relative_bias")
    assert lines["model.temperature"].endswith("where model.encoding is sinusoidal or rope")
    assert "10 to 10000, on a log scale" in lines["model.temperature"]
    assert "a trial of sagan: " in text
    assert " 64 images at " in text
    assert "looks at 10 held-out images at " in text


def test_a_study_of_several_systems_has_the_cost_of_each() -> None:
    made = plans([make(name, preset="tiny") for name in ("ganomaly", "f-anogan")],
                 "architecture", {}, {})  # fmt: skip
    text = overview(searches(made, "architecture")[0], method="random", samples=9, earlier=0,
                    looked={"ganomaly": 1, "f-anogan": 1})  # fmt: skip
    assert "a trial of ganomaly: " in text
    assert "a trial of f-anogan: " in text
    assert "where architecture is f-anogan" in text


def test_a_grid_says_how_many_points_it_has() -> None:
    listed = {f"model.weights.{name}": Choice(1, 2) for name in
              ("adversarial", "contextual", "latent")}  # fmt: skip
    plan = plans([make("ganomaly", preset="tiny")], "weights", {}, listed)[0]
    text = overview(plan, method="grid", samples=5, earlier=0, looked={"ganomaly": 1})
    assert "5 trials by grid of 8 points" in text


def test_a_trial_costs_its_images_and_its_looks() -> None:
    assert TrialCost(1000, 20, 50, Rate(0.01, 0.002)).seconds == pytest.approx(10 + 2)


def test_a_wider_network_costs_more() -> None:
    def training(width: int) -> float:
        wide = {"model": {"width": width}, "data": {"image_size": 32}}
        cost = trial_cost(make("ganomaly", preset="tiny", changes=wide), 10)
        assert isinstance(cost.rate, Rate)
        return cost.rate.training

    assert training(64) > training(4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_what_cannot_be_timed_here_has_no_estimate() -> None:
    experiment = make("ganomaly", preset="tiny", changes={"train": {"use_gpu": True}})
    plan = plans([experiment], "weights", {}, {})[0]
    text = overview(plan, method="tpe", samples=9, earlier=0, looked={"ganomaly": 10})
    assert "64 images and 8 looks at 10 held-out images; this machine has no GPU" in text
    assert "all trials: " not in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (600, "10 min"), (9000, "2.5 h"), (864000, "10.0 days")]
)
def test_a_duration_has_its_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_dry_run_says_what_would_be_done_and_leaves_nothing(tmp_path, capsys) -> None:
    out = tmp_path / "sweep"
    words = ["sweep", "ganomaly,f-anogan", "--preset", "tiny", "--study", "architecture",
             "--search", "random", "--samples", "5", "--out", str(out), "--dry-run",
             "--range", "model.weights.latent=1,2,4", *DIGITS]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr()
    assert "6 dimensions, 5 trials by random" in said.err
    assert "ganomaly:model.weights.latent" in said.err
    assert said.out == ""
    assert not out.exists()
