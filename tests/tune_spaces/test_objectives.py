"""What a search is for: which figure suits the data, which cost goes along, what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gan_ray.config import DataConfig
from gan_ray.errors import ConfigError
from gan_ray.experiment import make
from tests.data.trees import folders, write_folder
from tune_spaces.objectives import (
    OBJECTIVES,
    Objective,
    pareto,
    prepared,
    read_objective,
    settled,
)
from tune_spaces.sweep import sweep


def tiny(**changes: Any):
    return make("ganomaly", preset="tiny", changes=changes)


@pytest.mark.parametrize(
    ("parts", "figure"),
    [
        (("train/unlabeled",), "val/aucp"),
        (("train/unlabeled", "val/normal", "val/abnormal"), "val/aucp"),
        (("val/normal", "val/abnormal"), "val/image_auroc"),
        (("val/normal",), "val/pseudo_auroc"),
        ((), "val/pseudo_auroc"),
    ],
)
def test_auto_is_the_mix_then_the_users_labels_then_the_proxy(parts, figure, tmp_path) -> None:
    files = folders({"train/normal": 24, "test/normal": 2} | dict.fromkeys(parts, 6))
    data = DataConfig(root=write_folder(tmp_path, files), image_size=12)
    found, why = settled(Objective("auto", "latency"), [data])
    assert found == Objective(figure, "latency")
    assert ("mix" in why, "labels" in why) == (True, figure != "val/aucp")


def test_auto_is_a_figure_that_all_of_the_data_offer(tmp_path) -> None:
    with_mix, without = (
        DataConfig(root=write_folder(tmp_path / name, folders(counts)), image_size=12)
        for name, counts in {
            "mix": {"train/normal": 24, "train/unlabeled": 6},
            "none": {"train/normal": 24},
        }.items()
    )
    assert settled(Objective("auto"), [with_mix, without])[0].figure == "val/pseudo_auroc"


def test_a_named_figure_stays_and_no_data_are_listed_for_it() -> None:
    nowhere = DataConfig(root="/nowhere")
    assert settled(Objective("val/aucp"), [nowhere])[0] == Objective("val/aucp")


@pytest.mark.parametrize("text", ["auto", *OBJECTIVES, "auto,latency", "val/aucp,parameters"])
def test_an_objective_reads_as_it_is_written(text) -> None:
    assert str(read_objective(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test/aucp", "test labels"),
        ("test/image_auroc,latency", "test labels"),
        ("val/normal_score", "unknown objective"),
        ("val/aucp,latancy", "Did you mean 'latency'"),
        ("auto,", "unknown second objective"),
    ],
)
def test_an_objective_that_compares_nothing_or_reads_test_labels_is_refused(
    text, message, tmp_path
) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep([tiny()], samples=1, out=str(tmp_path / "out"), objective=text)
    assert not (tmp_path / "out").exists()


def test_what_an_objective_is_made_of_is_needed_before_anything_starts(tmp_path) -> None:
    digits = {"source": "digits", "normal_class": 0, "abnormal_share": 0.0}
    with pytest.raises(ConfigError, match=r"labelled validation images"):
        sweep([tiny(data=digits)], samples=1, out=str(tmp_path / "out"),
              objective="val/image_auroc")  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_checkpoints_are_chosen_by_the_objective_unless_the_user_says_otherwise() -> None:
    for figure, selector in OBJECTIVES.items():
        assert prepared(tiny(), Objective(figure)).train.select == selector
    own = tiny(train={"select": "last"})
    assert prepared(own, Objective("val/aucp")).train.select == "last"
    with pytest.raises(ConfigError, match=r"train\.select is last"):
        prepared(own, Objective("val/pseudo_auroc"))


def test_latency_with_several_workers_is_refused() -> None:
    several = tiny(train={"workers": 2})
    with pytest.raises(ConfigError, match=r"train\.workers 1"):
        prepared(several, Objective("val/aucp", "latency"))
    assert prepared(several, Objective("val/aucp", "parameters")).train.workers == 2


def test_the_front_has_whom_no_other_beats_the_cheapest_first() -> None:
    points = [(0.9, 5), (0.8, 5), (0.7, 1), (0.9, 5), (0.8, 2), (0.6, 1), (0.95, None), (None, 1)]
    rows = [{"number": n, "state": "complete", "value": value, "cost": cost}
            for n, (value, cost) in enumerate(points)]  # fmt: skip
    assert pareto(rows) == [2, 4, 0, 3]
    failed = [dict(row, state="failed") for row in rows]
    assert pareto([*failed[:1], *rows[1:]]) == [2, 4, 3]
    assert pareto([]) == []


def test_an_objective_cannot_be_changed_by_accident() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Objective("val/aucp").figure = "test/aucp"  # type: ignore[misc]
