from __future__ import annotations

import json
import math

import pytest

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.store import resolve
from gan_ray.config import to_dict
from gan_ray.errors import ConfigError, DataError
from gan_ray.experiment import make
from gan_ray.training.launch import train
from gan_ray.training.run import RunFolder
from tune_spaces.record import SWEEP
from tune_spaces.select import SELECTION, select


def trained(folder, number: int, value: float, error: float, key: str = "val/aucp") -> dict:
    """The row of a run that chose its first checkpoint, of two."""
    run = RunFolder(folder)
    run.put_json("experiment.json", to_dict(make("ganomaly", preset="tiny")))
    last = {"stage": "gan", "images": 32, key: 0.1, f"{key}_error": 0.5}
    chosen = {"stage": "gan", "images": 16, key: value, f"{key}_error": error}
    run.put_metrics([chosen, last])
    run.put_json("selection.json", {"images": 16})
    return {"number": number, "architecture": "ganomaly", "variant": "",
            "state": "complete", "value": value, "cost": None, "run": run.uri}  # fmt: skip


def sweep_of(tmp_path, figures: list[tuple[float, float]], **content) -> str:
    trials = [trained(tmp_path / f"trials/{n}", n, *figure) for n, figure in enumerate(figures)]
    for row, cost in zip(trials, content.pop("costs", []), strict=False):
        row["cost"] = cost
    (tmp_path / SWEEP).write_text(json.dumps({"trials": trials, "selection": None, **content}))
    return str(tmp_path)


def finalists_of(tmp_path, values: dict[int, list[float]], error: float = 0.01) -> list[dict]:
    """The rows of further runs, by trial and seed; None for one that failed."""
    return [
        {**trained(tmp_path / f"trials/{number}-seed{seed}", number, value or 0.0, error),
         "seed": seed, "state": "complete" if value else "failed"}
        for number, some in values.items() for seed, value in enumerate(some, 1)
    ]  # fmt: skip


def test_a_lead_beyond_chance_is_told_as_one(tmp_path) -> None:
    chosen = select(sweep_of(tmp_path, [(0.70, 0.01), (0.90, 0.01), (0.80, 0.01)]))
    assert (chosen["winner"], chosen["runner_up"]["number"]) == (1, 2)
    assert chosen["runner_up"]["difference"] == pytest.approx(0.10)
    assert chosen["distinguishable"] is True
    assert "more than chance" in chosen["reason"]
    assert json.loads((tmp_path / SELECTION).read_text()) == chosen
    assert json.loads((tmp_path / SWEEP).read_text())["selection"] == chosen


def test_a_lead_within_chance_is_told_as_one(tmp_path) -> None:
    # sqrt(0.04^2 + 0.03^2) = 0.05; 1.96 of them are 0.098.
    chosen = select(sweep_of(tmp_path, [(0.897, 0.04), (0.80, 0.03)]))
    assert chosen["runner_up"]["standard_error"] == pytest.approx(0.05)
    assert chosen["distinguishable"] is False
    assert "not distinguishable" in chosen["reason"]


def test_the_median_over_seeds_decides_and_not_the_lucky_trial(tmp_path) -> None:
    again = finalists_of(tmp_path, {0: [0.70, 0.72], 1: [0.84, 0.80]})
    chosen = select(sweep_of(tmp_path, [(0.95, 0.01), (0.82, 0.01), (0.90, 0.01)], finalists=again))
    assert (chosen["winner"], chosen["runner_up"]["number"]) == (1, 0)
    assert chosen["value"] == pytest.approx(0.82)
    assert chosen["seeds"] == [0.82, 0.84, 0.80]
    assert chosen["run"].endswith("trials/1-seed1"), "its best run is what is shipped"
    assert "median val/aucp of 3 seeds" in chosen["reason"]
    assert "1-seed1" in chosen["reason"]
    assert "left out" not in chosen["reason"]


def test_a_better_trial_that_was_not_trained_again_is_named(tmp_path) -> None:
    again = finalists_of(tmp_path, {0: [0.70, 0.72]})
    chosen = select(sweep_of(tmp_path, [(0.75, 0.01), (0.82, 0.01)], finalists=again))
    assert chosen["winner"] == 0
    assert "Trial 1 (0.8200) was left out" in chosen["reason"]


def test_the_error_of_a_finalist_is_of_seeds_and_images_together(tmp_path) -> None:
    again = finalists_of(tmp_path, {0: [0.85, 0.90], 1: [0.70, 0.70]}, error=0.02)
    chosen = select(sweep_of(tmp_path, [(0.80, 0.02), (0.70, 0.02)], finalists=again))
    # Pooled over both: (2 * 0.0025 + 2 * 0) / 4; pi / 2 is what a median's variance is of a mean's.
    of_seeds = math.sqrt(math.pi / 2 * 0.00125 / 3)
    assert chosen["standard_error"] == pytest.approx(math.hypot(of_seeds, 0.02))
    error = math.sqrt(2) * math.hypot(of_seeds, 0.02)
    assert chosen["runner_up"]["standard_error"] == pytest.approx(error)
    assert chosen["distinguishable"] is True
    assert error < 0.15 / 1.96


def test_seeds_that_differ_more_than_trials_leave_the_winner_undecided(tmp_path) -> None:
    figures = [(0.80, 0.001), (0.78, 0.001)]
    alone = select(sweep_of(tmp_path / "alone", figures))
    again = finalists_of(tmp_path / "again", {0: [0.60, 0.90], 1: [0.60, 0.90]}, error=0.001)
    chosen = select(sweep_of(tmp_path / "again", figures, finalists=again))
    assert (alone["distinguishable"], chosen["distinguishable"]) == (True, False)
    assert "not distinguishable" in chosen["reason"]


def test_a_finalist_whose_further_runs_all_failed_cannot_win(tmp_path) -> None:
    again = finalists_of(tmp_path, {0: [0, 0], 1: [0, 0.60]})
    chosen = select(sweep_of(tmp_path, [(0.95, 0.01), (0.70, 0.01)], finalists=again))
    assert (chosen["winner"], chosen["runner_up"]) == (1, None)
    assert chosen["seeds"] == [0.70, 0.60]


def test_the_pareto_front_is_named_and_the_first_objective_decides(tmp_path) -> None:
    figures = [(0.70, 0.01), (0.90, 0.01), (0.60, 0.01)]
    chosen = select(sweep_of(tmp_path, figures, cost="latency", costs=[2.0, 8.0, 4.0]))
    assert (chosen["winner"], chosen["pareto"]) == (1, [0, 1])
    assert "trials 0 (0.7000, 2 ms per image), 1 (0.9000, 8 ms per image)" in chosen["reason"]


def test_the_sweeps_own_objective_is_what_is_chosen_by(tmp_path) -> None:
    rows = [trained(tmp_path / f"trials/{n}", n, value, 0.01, "val/pseudo_auroc")
            for n, value in enumerate((0.7, 0.8))]  # fmt: skip
    content = {"trials": rows, "selection": None, "objective": "val/pseudo_auroc"}
    (tmp_path / SWEEP).write_text(json.dumps(content))
    chosen = select(str(tmp_path))
    assert (chosen["winner"], chosen["by"], chosen["labels_used"]) == (1, "pseudo", False)
    with pytest.raises(DataError, match="val/aucp"):
        select(str(tmp_path), by="aucp")


def test_a_single_trial_has_no_runner_up(tmp_path) -> None:
    assert select(sweep_of(tmp_path, [(0.7, 0.1)]))["runner_up"] is None


@pytest.mark.parametrize("by", ["test/aucp", "test/image_auroc"])
def test_choosing_by_test_labels_is_refused(by: str, tmp_path) -> None:
    with pytest.raises(ConfigError, match="test labels"):
        select(sweep_of(tmp_path, [(0.7, 0.1)]), by=by)


def test_a_figure_that_no_trial_has_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match="val/image_auroc"):
        select(sweep_of(tmp_path, [(0.7, 0.1)]), by="validation")


@pytest.mark.parametrize("place", ["directory", "bucket"])
def test_the_published_bundle_is_the_winners(place: str, tmp_path, request) -> None:
    digits = {"source": "digits", "abnormal_class": 0}
    short = {"images": 16, "report_every": 8, "samples": 0}
    experiment = make("ganomaly", preset="tiny", changes={"data": digits, "train": short})
    run = train(experiment, tmp_path / "trials/0", local=True)
    row = {"number": 0, "architecture": "ganomaly", "variant": "", "state": "complete",
           "value": 0.5, "run": run.uri}  # fmt: skip
    (tmp_path / SWEEP).write_text(json.dumps({"trials": [row], "selection": None}))
    if place == "bucket":
        registry = f"{request.getfixturevalue('s3').uri}/models"
    else:
        registry = str(tmp_path / "registry")
    first = select(str(tmp_path), publish=registry)
    assert (first["bundle"], first["registry"]) == ("ganomaly@1", registry)
    assert f"Published as ganomaly@1 in {registry}" in first["reason"]
    fetched = load_bundle(resolve("ganomaly@1", registry, cache=tmp_path / "cache"))
    assert fetched.experiment == experiment
    assert select(str(tmp_path), publish=registry)["bundle"] == "ganomaly@1"
