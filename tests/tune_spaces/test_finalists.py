"""The best trials again with other seeds: which, how often, and what is on record of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gan_ray.config import to_dict
from gan_ray.experiment import make
from gan_ray.training.run import RunFolder
from tune_spaces.finalists import FinalistSearch, FurtherRun, further_runs
from tune_spaces.plan import Plan
from tune_spaces.record import Record
from tune_spaces.search import StudySearch
from tune_spaces.studies import plans
from tune_spaces.sweep import sweep


def tiny(name: str, **train: Any):
    digits = {"source": "digits", "normal_class": 0, "image_size": 16}
    train = {"images": 32, "report_every": 16, "samples": 0, **train}
    return make(name, preset="tiny", changes={"data": digits, "train": train})


def searched(out: str, values: dict[str, list[float]]) -> tuple[Record, list[Plan]]:
    """A search on record whose trials ended with these values, -1 for one that failed."""
    wanted = plans([tiny(name) for name in values], "weights", {}, {})
    record = Record(out)
    record.claim("weights", "val/aucp", 0, 3, wanted)
    for plan in wanted:
        search = StudySearch(plan, record, objective="val/aucp", seed=0, ended=lambda number: None)
        for index, value in enumerate(values[plan.experiment.architecture]):
            drawn = search.suggest(str(index))
            train(drawn["run"], plan, value)
            result = {"finished": True} if value >= 0 else {"failed": "for the test"}
            search.on_trial_complete(str(index), result)
    return record, wanted


def train(uri: str, plan: Plan, value: float) -> None:
    run = RunFolder(uri)
    run.put_json("experiment.json", to_dict(plan.experiment))
    run.put_metrics([{"images": 64, "seconds": 1.0, "val/aucp": value}])
    run.put_json("selection.json", {"images": 64})


def left(record: Record, wanted: list[Plan], count: int, seeds: int) -> list[tuple[str, int, int]]:
    further = further_runs(record, wanted, count, seeds)
    return [(plan.name, run.trial["number"], run.seed) for plan, runs in further for run in runs]


def test_the_best_of_all_systems_are_run_again_with_the_seeds_that_follow(tmp_path) -> None:
    values = {"ganomaly": [0.6, 0.9, -1.0], "f-anogan": [0.5, 0.8]}
    record, wanted = searched(str(tmp_path), values)
    assert left(record, wanted, 2, 2) == [
        ("ganomaly", 1, 1), ("ganomaly", 1, 2), ("f-anogan", 4, 1), ("f-anogan", 4, 2)
    ]  # fmt: skip
    assert left(record, wanted, 0, 2) == []
    assert len(left(record, wanted, 9, 1)) == 4, "a failed trial is no finalist"


def test_a_run_that_ended_is_not_repeated_and_one_that_was_killed_is(tmp_path) -> None:
    record, wanted = searched(str(tmp_path), {"ganomaly": [0.6, 0.9]})
    ended: list[dict[str, Any]] = []

    def searching() -> FinalistSearch:
        ((_, runs),) = further_runs(record, wanted, 1, 3)
        return FinalistSearch(record, runs, objective="val/aucp", ended=ended.append)

    first = searching()
    handed = [first.suggest(name) for name in "abc"]
    assert [h["settings"]["seed"] for h in handed] == [1, 2, 3]
    assert [h["run"].rpartition("/")[2] for h in handed] == [
        f"0001-ganomaly-seed{seed}" for seed in (1, 2, 3)
    ]
    train(handed[0]["run"], wanted[0], 0.7)
    first.on_trial_complete("a", {"finished": True})
    first.on_trial_complete("b", {"failed": "for the test"})
    assert first.unended == 1
    del first  # killed

    record = Record(str(tmp_path))
    record.claim("weights", "val/aucp", 0, 3, wanted)
    assert [(row["seed"], row["state"], row["value"], row["reason"]) for row in ended] == [
        (1, "complete", 0.7, ""), (2, "failed", None, "for the test")
    ]  # fmt: skip
    assert record.content()["finalists"][:2] == json.loads(json.dumps(ended))
    assert [row["state"] for row in record.content()["finalists"]][2:] == ["running"]
    second = searching()
    assert second.unended == 1
    assert second.suggest("x") == handed[2]
    assert second.suggest("y") == FinalistSearch.FINISHED


def test_a_further_run_has_the_settings_of_its_trial_and_another_seed(tmp_path) -> None:
    record, _ = searched(str(tmp_path), {"ganomaly": [0.6]})
    own = {"weights": {"contextual": 7.0}}
    run = make("ganomaly", preset="tiny", changes={"model": own})
    trial = {"number": 0, "architecture": "ganomaly", "variant": "", "params": {},
             "run": str(tmp_path / "trials/0000-ganomaly")}  # fmt: skip
    RunFolder(trial["run"]).put_json("experiment.json", to_dict(run))
    search = FinalistSearch(record, [FurtherRun(trial, 5)], objective="val/aucp",
                            ended=lambda row: None)  # fmt: skip
    settings = search.suggest("a")["settings"]
    assert settings["model.weights.contextual"] == 7.0
    assert settings["seed"] == 5
    assert "data.root" not in settings, "data may have moved since"


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_finalists_are_counted_apart_and_the_same_command_adds_what_is_missing(tmp_path) -> None:
    told: list[dict[str, Any]] = []
    heard: list[str] = []

    def run(**more: Any) -> dict[str, Any]:
        return sweep([tiny("ganomaly")], samples=1, out=str(tmp_path), concurrent=1,
                     progress=told.append, say=heard.append, **more)  # fmt: skip

    content = run(finalists=1, finalist_seeds=1)
    assert "objective: val/aucp, the data have an unlabeled mix" in heard
    assert "finalists: ganomaly, runs with other seeds: 1" in heard
    assert [row["number"] for row in content["trials"]] == [0]
    (row,) = content["finalists"]
    assert (row["seed"], row["state"]) == (1, "complete")
    assert row["run"].endswith(f"trials/{row['number']:04d}-ganomaly-seed1")
    assert [r for r in told if "seed" in r] == [row]
    own = json.loads((Path(row["run"].removeprefix("file://")) / "selection.json").read_text())
    assert row["value"] == own["value"]
    first, further = (RunFolder(uri).experiment() for uri in (
        content["trials"][row["number"]]["run"], row["run"]))  # fmt: skip
    assert (first.seed, further.seed) == (0, 1)
    assert first.model == further.model
    assert content["selection"]["winner"] == row["number"]
    assert len(content["selection"]["seeds"]) == 2

    told.clear()
    more = run(finalists=1, finalist_seeds=2)
    assert [r["seed"] for r in told] == [2], "nothing is repeated"
    assert more["finalists"][0] == row
    assert more["trials"] == content["trials"]


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_two_objectives_give_a_front_and_stop_no_trial(tmp_path) -> None:
    heard: list[str] = []
    content = sweep([tiny("ganomaly")], study="full", samples=2, out=str(tmp_path), concurrent=2,
                    objective="val/pseudo_auroc,parameters", say=heard.append,
                    fixes={"model.width": 4})  # fmt: skip
    assert any("no trial is stopped early" in line for line in heard)
    assert (content["objective"], content["cost"]) == ("val/pseudo_auroc", "parameters")
    assert [row["state"] for row in content["trials"]] == ["complete"] * 2
    assert all(row["cost"] > 0 for row in content["trials"])
    assert len({row["cost"] for row in content["trials"]}) > 1, "the size of the code is searched"
    assert content["best"] in content["pareto"] == content["selection"]["pareto"]
    assert content["selection"]["by"] == "pseudo"
    assert "Pareto front" in content["selection"]["reason"]
