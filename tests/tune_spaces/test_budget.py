from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gan_ray.artifacts.export import export
from gan_ray.errors import ArtifactError, ConfigError
from gan_ray.experiment import make
from gan_ray.training.launch import train
from gan_ray.training.run import REMOVED, RunFolder
from gan_ray.training.state import DIGEST
from tests.tune_spaces.test_record import claimed, out, searching  # noqa: F401
from tune_spaces.budget import BEST, doomed, parse_bytes, trim
from tune_spaces.record import Record
from tune_spaces.select import select

SIZE = 1000


def trial(number: int, value: float | None, state: str = "complete") -> dict[str, Any]:
    return {"number": number, "value": value, "state": state, "run": f"x/{number}"}


def test_the_worst_go_first_those_without_a_value_before_all_and_the_best_never() -> None:
    rows = [trial(0, 0.5), trial(1, None, "failed"), trial(2, 0.9), trial(3, 0.1, "pruned"),
            trial(4, 0.7), trial(5, None, "running"), trial(6, 0.3)]  # fmt: skip
    assert [row["number"] for row in doomed(rows, best=2)] == [1, 3, 6, 0]
    assert [row["number"] for row in doomed(rows, keep=[3], best=2)] == [1, 6, 0]
    assert doomed(rows[:1], best=2) == []


def test_of_equals_the_latest_goes_first_since_the_earliest_is_the_best() -> None:
    rows = [trial(number, 0.5) for number in range(4)]
    assert [row["number"] for row in doomed(rows, best=1)] == [3, 2, 1]


@pytest.mark.parametrize(
    ("text", "count"),
    [("20GiB", 20 * 2**30), ("1.5 TiB", 3 * 2**39), ("500MB", 500_000_000), ("4096", 4096)],
)
def test_sizes_are_read_with_their_units(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "0", "20 gigs", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="20GiB"):
        parse_bytes(text)


def filled(out: str, values: list[float | None]) -> Record:  # noqa: F811
    """A sweep with a finished trial for each value, and one that runs; `SIZE` bytes each."""
    record = claimed(out, samples=len(values) + 1)
    search = searching(record)
    for number, value in enumerate([*values, None]):
        run = RunFolder(search.suggest(str(number))["run"])
        run.put_checkpoint(16, {"tensors.safetensors": b"x" * (SIZE - 2), "digest.json": b"{}"})
        run.store.put("metrics.jsonl", b"")
        if number == len(values):
            break
        if value is not None:
            run.put_metrics([{"images": 16, "seconds": 0.0, "val/aucp": value}])
            run.put_json("selection.json", {"images": 16})
        search.on_trial_complete(str(number), {"finished": True})
    return record


def kept(record: Record) -> list[int]:
    rows = record.content()["trials"]
    return [row["number"] for row in rows if RunFolder(row["run"]).checkpoints()]


def test_only_as_much_is_removed_as_the_limit_asks_and_all_is_on_record(out) -> None:  # noqa: F811
    record = filled(out, [0.9, 0.2, None, 0.8, 0.7, 0.6, 0.5, 0.4])
    trim(record, 9 * SIZE)
    assert kept(record) == list(range(9))
    trim(record, 7 * SIZE)
    assert kept(record) == [0, 3, 4, 5, 6, 7, 8]
    assert record.budget == {"bytes": 7000, "held": 7000, "removed": {"2": SIZE, "1": SIZE}}
    trim(record, 1)  # the best and the running one stay, whatever the limit
    assert kept(record) == [0, 3, 4, 5, 6, 8]
    assert len(kept(record)) == BEST + 1
    content = record.write()
    assert [row["number"] for row in content["trials"] if row["removed"]] == [1, 2, 7]
    again = claimed(out, samples=9)
    assert again.content()["budget"] == content["budget"]


def test_what_a_killed_process_removed_without_saying_so_is_found(out) -> None:  # noqa: F811
    record = filled(out, [0.9, 0.2, 0.8, 0.7, 0.6, 0.5, 0.4])
    RunFolder(record.content()["trials"][1]["run"]).remove_checkpoints("for the test")
    trim(record, 100 * SIZE)
    assert record.budget is not None
    assert record.budget["removed"] == {"1": SIZE}


def test_the_selected_trial_and_what_others_share_are_counted_and_stay(tmp_path) -> None:
    record = filled(str(tmp_path), [0.9, 0.2, 0.8, 0.7, 0.6, 0.5])
    record.store.put("stages/ab/tensors.safetensors", b"x" * 5 * SIZE)
    record.selection = {"winner": 1}
    trim(record, 6 * SIZE)
    assert record.budget is not None
    assert record.budget["held"] == 12 * SIZE
    assert len(kept(record)) == 7
    assert record.store.exists("stages/ab/tensors.safetensors")


def test_stages_of_the_worst_go_first_when_the_sweep_is_over_and_those_of_the_best_stay(
    out,  # noqa: F811
) -> None:
    record = filled(out, [0.5, 0.9, 0.7, 0.9])
    runs = [RunFolder(row["run"]) for row in record.content()["trials"]]
    for run, stages in zip(runs, ("a", "b", "c", "c", ""), strict=True):
        run.put_json("environment.json", {"stages": stages})
    for stages in ("a", "b", "c", "unused"):
        for name in (f"tensors-{stages}", DIGEST):
            record.store.put(f"stages/{stages}/0000/{name}", b"x" * SIZE)

    def left() -> str:
        return " ".join(sorted({entry.key.split("/")[1] for entry in record.store.list("stages/")}))

    for limit, over, stages in (
        (11, False, "a b c unused"), (13, True, "a b c unused"), (11, True, "a b c"),
        (9, True, "b c"), (8, True, "b"), (1, True, "b"),
    ):  # fmt: skip
        trim(record, limit * SIZE, over=over)
        assert left() == stages
    assert kept(record) == list(range(5)), "the best trials stay, whatever the limit"
    assert record.budget is not None
    assert record.budget["held"] == 7 * SIZE


def test_whoever_wants_a_removed_checkpoint_is_told_why(tmp_path) -> None:
    digits = {"source": "digits", "abnormal_class": 0}
    short = {"images": 16, "report_every": 8, "samples": 0}
    experiment = make("ganomaly", preset="tiny", changes={"data": digits, "train": short})
    run = train(experiment, tmp_path / "trials/0", local=True)
    run.remove_checkpoints("trial 0 was not among the best")
    assert run.get_json(REMOVED)["bytes"] > 10_000
    assert not list(Path(tmp_path / "trials/0/checkpoints").rglob("*.safetensors"))
    with pytest.raises(ArtifactError, match="trial 0 was not among the best"):
        export(run.uri, tmp_path / "bundle")
    row = {"number": 0, "architecture": "ganomaly", "variant": "", "state": "complete",
           "value": 0.5, "run": run.uri, "removed": True}  # fmt: skip
    (tmp_path / "sweep.json").write_text(json.dumps({"trials": [row], "selection": None}))
    assert "checkpoints were removed" in select(str(tmp_path))["reason"]
    with pytest.raises(ArtifactError, match="trial 0 was not among the best"):
        select(str(tmp_path), publish=str(tmp_path / "registry"))
    again = train(experiment, run.uri, local=True)  # the remedy that the message names
    assert again.get_json(REMOVED) is None
    export(run.uri, tmp_path / "bundle")
