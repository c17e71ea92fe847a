"""One session from its experiment to its run folder."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gan_ray import experiment
from gan_ray.errors import OutOfMemoryError
from gan_ray.training.run import RunFolder
from gan_ray.training.session import run_session
from tests.artifacts.conftest import make_bundle


def test_a_kill_between_the_last_checkpoint_and_its_row_loses_nothing(tmp_path):
    settings = experiment.make(
        "ganomaly",
        preset="tiny",
        changes={
            "data": {"source": "digits", "normal_class": 1, "image_size": 16},
            "train": {"images": 96, "report_every": 32, "batch_size": 8, "samples": 0},
        },
    )
    run = RunFolder(tmp_path)
    run.claim(settings)
    run_session(settings, run)
    rows, selection = run.metrics(), run.get_json("selection.json")
    assert [row["images"] for row in rows] == [32, 64, 96]
    assert all(row["detector/resets"] == 0.0 for row in rows), "every reset is told"
    # As it is when the process dies after the checkpoint and before the rest.
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    for lost in ("selection.json", "curves.png"):
        (tmp_path / lost).unlink()
    run_session(settings, run)
    assert run.metrics() == rows
    assert run.get_json("selection.json") == selection
    assert (tmp_path / "curves.png").exists()


def test_a_training_can_choose_its_checkpoint_by_fid_and_tells_what_its_looks_cost(tmp_path):
    settings = experiment.make(
        "brainomaly",
        preset="tiny",
        changes={
            "data": {"source": "digits", "normal_class": 1, "image_size": 8},
            "train": {
                "images": 96, "report_every": 32, "batch_size": 8, "look": 20, "samples": 0,
                "select": "fid", "features": str(make_bundle(tmp_path / "bundle", "f-anogan")),
            },
        },
    )  # fmt: skip
    run = RunFolder(tmp_path / "run")
    run.claim(settings)
    run_session(settings, run)
    rows = run.metrics()
    values = [row["val/fid"] for row in rows]
    assert len(set(values)) == 3
    assert min(values) > 0
    chosen = run.get_json("selection.json")
    assert (chosen["by"], chosen["value"]) == ("fid", min(values))
    assert run.best() == rows[values.index(min(values))]["images"]
    assert all(row["look_seconds"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("changes", "doing", "remedy"),
    [
        ({"train": {"batch_size": 2**50}}, "gathering a batch of 1,125,899,906,842,624 images",
         "--train.batch-size"),
        ({"model": {"latent_size": 2**50}}, "building the networks", "--model"),
    ],
)  # fmt: skip
def test_what_no_machine_has_room_for_is_refused_in_one_line(
    changes: dict[str, Any], doing: str, remedy: str, tmp_path
):
    """Beyond every address space: the allocator refuses at once, and no memory is filled."""
    digits = {"source": "digits", "normal_class": 1, "image_size": 16}
    settings = experiment.make("ganomaly", preset="tiny", changes={"data": digits, **changes})
    run = RunFolder(tmp_path)
    run.claim(settings)
    with pytest.raises(OutOfMemoryError, match=doing) as told:
        run_session(settings, run)
    assert remedy in str(told.value)
    assert "\n" not in str(told.value)
