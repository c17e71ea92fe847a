"""Real sweeps on a real cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from gan_ray.config import flatten, to_dict
from gan_ray.experiment import make
from gan_ray.storage.store import open_store
from gan_ray.training.run import RunFolder
from tune_spaces.storage import open_storage
from tune_spaces.studies import plans
from tune_spaces.sweep import sweep

SCORE = "score.feature_weight"

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def tiny(name: str, images: int = 64, **train: Any):
    digits = {"source": "digits", "normal_class": 0, "image_size": 16}
    train = {"images": images, "report_every": 16, "samples": 0, **train}
    return make(name, preset="tiny", changes={"data": digits, "train": train})


def test_two_systems_are_searched_and_a_failing_trial_stops_nothing(tmp_path) -> None:
    told: list[dict[str, Any]] = []
    bad = {"model.discriminator_optimizer.lr": 1e30}  # only ganomaly has it: its trials diverge
    content = sweep([tiny("ganomaly"), tiny("f-anogan")], samples=2, out=str(tmp_path),
                    fixes=bad, concurrent=2, progress=told.append)  # fmt: skip
    assert json.loads((tmp_path / "sweep.json").read_text()) == content
    rows = content["trials"]
    assert [(row["number"], row["architecture"]) for row in rows] == [
        (0, "ganomaly"), (1, "ganomaly"), (2, "f-anogan"), (3, "f-anogan")]  # fmt: skip
    assert sorted(told, key=lambda row: row["number"]) == rows
    assert [row["state"] for row in rows[:2]] == ["failed", "failed"]
    assert all("DivergedError" in row["reason"] for row in rows[:2])
    assert {row["state"] for row in rows[2:]} <= {"complete", "pruned"}
    assert "complete" in {row["state"] for row in rows[2:]}
    assert rows[2]["params"] == {
        "model.weights.gradient_penalty": 10.0, "model.weights.features": 1.0}  # fmt: skip
    assert content["best"] == content["selection"]["winner"] in (2, 3)
    # What a trial is worth is what the checkpoint it would ship is worth.
    run = Path(tmp_path / "trials/0002-f-anogan")
    assert rows[2]["value"] == json.loads((run / "selection.json").read_text())["value"]


def test_one_study_of_two_systems_trains_each_with_its_own_settings(tmp_path) -> None:
    content = sweep([tiny("ganomaly"), tiny("f-anogan")], study="architecture", samples=3,
                    method="random", out=str(tmp_path), concurrent=2)  # fmt: skip
    rows = content["trials"]
    assert [row["architecture"] for row in rows[:2]] == ["ganomaly", "f-anogan"]
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    assert list(content["searches"]) == ["architecture"]
    for row in rows:
        run = Path(row["run"].removeprefix("file://"))
        trained = json.loads((run / "experiment.json").read_text())
        assert trained["architecture"] == row["architecture"]
        weights = {f"model.weights.{k}": v for k, v in trained["model"]["weights"].items()}
        assert row["params"].items() <= weights.items()
    assert rows[1]["params"] == {
        "model.weights.gradient_penalty": 10.0, "model.weights.features": 1.0}  # fmt: skip

    # Its trials are where another sweep may begin.
    again = sweep([tiny("ganomaly")], samples=1, out=str(tmp_path / "again"),
                  warm_start=[str(tmp_path)])  # fmt: skip
    known = [row["number"] for row in rows if row["architecture"] == "ganomaly"]
    assert [row["number"] for row in again["warm_start"]] == known
    assert [row["number"] for row in again["trials"]] == [0]


def test_a_trial_that_runs_out_of_memory_is_on_record_and_the_next_one_runs(tmp_path) -> None:
    """Its batch is beyond every address space: the allocator refuses at once, nothing is filled."""
    content = sweep([tiny("ganomaly", batch_size=2**50), tiny("f-anogan")], study="architecture",
                    samples=2, out=str(tmp_path), concurrent=1)  # fmt: skip
    first, second = content["trials"]
    assert (first["architecture"], first["state"]) == ("ganomaly", "failed")
    assert first["reason"].startswith("OutOfMemoryError: out of memory on rank 0 of 1 (node ")
    assert "Lower --train.batch-size" in first["reason"]
    assert second["state"] == "complete"
    assert content["best"] == content["selection"]["winner"] == 1


def test_trials_of_one_gan_train_it_once_and_end_as_if_each_had(tmp_path) -> None:
    fixes = {"model.weights.gradient_penalty": 10.0}
    shared, alone = (
        sweep([tiny("f-anogan")], samples=3, out=str(tmp_path / str(reuse)), fixes=fixes,
              concurrent=2, reuse=reuse)["trials"] for reuse in (True, False)
    )  # fmt: skip
    assert [row["reused_images"] for row in alone] == [0, 0, 0]
    assert sorted(row["reused_images"] for row in shared) == [0, 40, 40]
    assert [row["params"] for row in shared] == [row["params"] for row in alone]
    for one, other in zip(shared, alone, strict=True):
        runs = [RunFolder(row["run"]) for row in (one, other)]
        last = min(run.checkpoints()[-1] for run in runs)  # where the earlier one was stopped
        tensors = [run.snapshot(last).tensors for run in runs]
        assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[1])


def test_a_score_for_what_is_trained_already_trains_nothing_and_is_no_measure_for_others(
    tmp_path,
) -> None:
    one = tiny("f-anogan")
    space = plans([one], "full", {}, {})[0].space
    fixes = {k: v for k, v in flatten(to_dict(one)).items() if k in space.keys() - {SCORE}}
    content = sweep([one], study="full", samples=3, out=str(tmp_path), fixes=fixes, concurrent=1)
    rows = content["trials"]
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert [row["reused_images"] for row in rows] == [0, 64, 64]
    assert len({row["params"][SCORE] for row in rows}) == 3
    study = optuna.load_study(
        study_name="f-anogan", storage=open_storage("", open_store(str(tmp_path)))
    )
    assert [bool(trial.intermediate_values) for trial in study.trials] == [True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("study", ["weights", "architecture"])
def test_a_sweep_goes_on_after_kill_9(study: str, tmp_path) -> None:
    script = """
import sys
from tests.tune_spaces.test_sweep import killed
killed(*sys.argv[1:])
"""
    driver = subprocess.Popen(
        [sys.executable, "-c", script, study, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parents[2], start_new_session=True,
    )  # fmt: skip
    assert driver.stdout is not None
    try:
        assert driver.stdout.readline() == "ended\n"
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    before = json.loads((tmp_path / "sweep.json").read_text())["trials"]
    ended = {row["number"] for row in before if row["state"] != "running"}
    assert ended
    assert len(before) > len(ended), "killed too late to show anything"

    def lines(row: dict[str, Any]) -> list[str]:
        path = Path(row["run"].removeprefix("file://")) / "metrics.jsonl"
        return path.read_text().splitlines() if path.exists() else []

    known = {row["number"]: lines(row) for row in before}
    content = go_on(study, str(tmp_path))
    assert [row["number"] for row in content["trials"]] == [0, 1, 2, 3]
    assert {row["state"] for row in content["trials"]} <= {"complete", "pruned"}
    for row in before:
        now = content["trials"][row["number"]]
        assert now["params"] == row["params"]
        assert lines(now)[: len(known[row["number"]])] == known[row["number"]]
        if row["number"] in ended:
            assert lines(now) == known[row["number"]]
    repeated = go_on(study, str(tmp_path))
    assert repeated["trials"] == content["trials"]
    if study == "architecture":  # each system's own settings come first
        firsts = [row["architecture"] for row in content["trials"][:2]]
        assert firsts == ["ganomaly", "f-anogan"]


def go_on(study: str, out: str, **how: Any) -> dict[str, Any]:
    """Begin or go on with a sweep of four trials, in one study."""
    names = ["ganomaly", "f-anogan"] if study == "architecture" else ["ganomaly"]
    systems = [tiny(name, 4000) for name in names]
    return sweep(systems, study=study, samples=4, out=out, concurrent=2, **how)


def killed(study: str, out: str) -> None:
    """The driver that gets killed: says so when a trial has ended."""
    go_on(study, out, progress=lambda row: print("ended", flush=True))
