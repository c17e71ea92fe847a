from __future__ import annotations

import json

import pytest

from gan_ray.config import to_dict
from gan_ray.errors import ConfigError, DataError
from gan_ray.experiment import make
from gan_ray.training.launch import train
from gan_ray.training.run import RunFolder
from tune_spaces.record import SWEEP
from tune_spaces.select import SELECTION, select


def sweep_of(tmp_path, figures: list[tuple[float, float]]) -> str:
    trials = []
    for number, (value, error) in enumerate(figures):
        run = RunFolder(tmp_path / f"trials/{number}")
        run.put_json("experiment.json", to_dict(make("ganomaly", preset="tiny")))
        last = {"stage": "gan", "images": 32, "val/aucp": 0.1, "val/aucp_error": 0.5}
        chosen = {"stage": "gan", "images": 16, "val/aucp": value, "val/aucp_error": error}
        run.put_metrics([chosen, last])
        run.put_json("selection.json", {"images": 16})
        trials.append({"number": number, "architecture": "ganomaly", "variant": "",
                       "state": "complete", "value": value, "run": run.uri})  # fmt: skip
    (tmp_path / SWEEP).write_text(json.dumps({"trials": trials, "selection": None}))
    return str(tmp_path)


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


def test_a_single_trial_has_no_runner_up(tmp_path) -> None:
    assert select(sweep_of(tmp_path, [(0.7, 0.1)]))["runner_up"] is None


@pytest.mark.parametrize("by", ["test/aucp", "test/image_auroc"])
def test_choosing_by_test_labels_is_refused(by: str, tmp_path) -> None:
    with pytest.raises(ConfigError, match="test labels"):
        select(sweep_of(tmp_path, [(0.7, 0.1)]), by=by)


def test_a_figure_that_no_trial_has_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match="val/image_auroc"):
        select(sweep_of(tmp_path, [(0.7, 0.1)]), by="validation")


def test_the_published_bundle_is_the_winners(tmp_path) -> None:
    digits = {"source": "digits", "abnormal_class": 0}
    short = {"images": 16, "report_every": 8, "samples": 0}
    experiment = make("ganomaly", preset="tiny", changes={"data": digits, "train": short})
    run = train(experiment, tmp_path / "trials/0", local=True)
    row = {"number": 0, "architecture": "ganomaly", "variant": "", "state": "complete",
           "value": 0.5, "run": run.uri}  # fmt: skip
    (tmp_path / SWEEP).write_text(json.dumps({"trials": [row], "selection": None}))
    registry = tmp_path / "registry"
    first = select(str(tmp_path), publish=str(registry))
    assert first["bundle"] == "ganomaly@1"
    assert (registry / "ganomaly/1/manifest.json").exists()
    assert select(str(tmp_path), publish=str(registry))["bundle"] == "ganomaly@1"
