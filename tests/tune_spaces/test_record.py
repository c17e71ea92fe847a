from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from optuna.trial import TrialState

from gan_ray.errors import ConfigError, DataError
from gan_ray.experiment import make
from gan_ray.training.run import RunFolder
from tests.s3_server import Bucket
from tune_spaces.record import Record, best, read
from tune_spaces.search import StudySearch, history
from tune_spaces.storage import JOURNAL
from tune_spaces.studies import plans


def claimed(out: str, *, samples: int = 3, fixes=None, root: str = "", storage: str = "") -> Record:
    experiment = make("ganomaly", preset="tiny", changes={"data": {"root": root}})
    record = Record(out, storage)
    wanted = plans([experiment], "weights", fixes or {}, {})
    record.claim("weights", "val/aucp", 0, samples, wanted)
    return record


def searching(
    record: Record,
    *,
    ended: Callable[[int], None] = lambda number: None,
    rungs: Sequence[int] = (),
) -> StudySearch:
    plan = plans([make("ganomaly", preset="tiny")], "weights", {}, {})[0]
    return StudySearch(plan, record, objective="val/aucp", seed=0, ended=ended, rungs=rungs)


@pytest.fixture(params=["directory", "bucket"])
def out(request, tmp_path) -> str:
    if request.param == "directory":
        return str(tmp_path / "sweep")
    bucket: Bucket = request.getfixturevalue("s3")
    return f"{bucket.uri}/sweep"


def test_a_killed_sweep_hands_out_its_unfinished_trials_again_before_new_ones(out) -> None:
    first = searching(claimed(out))
    drawn = [first.suggest(f"a{i}") for i in range(3)]
    first.on_trial_complete("a1", {"failed": "for the test"})
    del first  # killed: nothing is closed

    second = searching(claimed(out, samples=4))
    assert second.remaining(4) == 3
    again = [second.suggest(f"b{i}") for i in range(3)]
    assert again[:2] == [drawn[0], drawn[2]]
    assert again[2]["run"].endswith("0003-ganomaly")
    content = claimed(out).content()
    assert [row["number"] for row in content["trials"]] == [0, 1, 2, 3]
    assert [row["state"] for row in content["trials"]] == [
        "running",
        "failed",
        "running",
        "running",
    ]
    assert content["trials"][1]["reason"] == "for the test"


def test_the_first_trial_has_the_defaults_and_the_seed_draws_the_others(tmp_path) -> None:
    def drawn(name: str, restart_after: int) -> list[dict[str, float]]:
        search, settings = searching(claimed(str(tmp_path / name))), []
        for index in range(4):
            if index == restart_after:
                search = searching(claimed(str(tmp_path / name)))
            settings.append(search.suggest(str(index))["settings"])
            search.on_trial_complete(str(index), {"failed": "for the test"})
        return settings

    unbroken = drawn("unbroken", restart_after=9)
    assert unbroken[0]["model.weights.contextual"] == 50.0
    assert len({row["model.weights.contextual"] for row in unbroken}) == 4
    assert drawn("broken", restart_after=2) == unbroken


def test_a_trial_that_was_killed_while_it_was_drawn_is_drawn_again(tmp_path) -> None:
    def begun(name: str) -> StudySearch:
        search = searching(claimed(str(tmp_path / name)))
        search.suggest("a")
        return search

    unbroken = begun("unbroken").suggest("b")["settings"]
    begun("broken")._ot_study.ask().suggest_float("model.weights.latent", 0.1, 50.0, log=True)
    again = searching(claimed(str(tmp_path / "broken")))
    assert again.suggest("c")["run"].endswith("0000-ganomaly")
    assert again.suggest("d")["settings"] == unbroken
    assert [row["number"] for row in claimed(str(tmp_path / "broken")).content()["trials"]] == [
        0,
        1,
    ]
    assert len(again._ot_study.get_trials(False, (TrialState.RUNNING,))) == 2


@pytest.mark.parametrize(("samples", "last"), [(3, 45), (12, 30)])
def test_a_journal_that_ends_after_any_entry_goes_on_to_the_same_study(
    samples, last, tmp_path
) -> None:
    """Three trials are drawn at random, the twelfth by TPE from those before."""

    def finished(out: str) -> list[dict[str, Any]]:
        search = searching(claimed(out))
        for number in map(str, range(search.remaining(samples))):
            given = search.suggest(number)
            value = 1.0 / (1.0 + given["settings"]["model.weights.latent"])
            run = RunFolder(given["run"])
            run.put_metrics([{"images": 16, "seconds": 0.0, "val/aucp": value}])
            run.put_json("selection.json", {"images": 16})
            search.on_trial_result(number, {"images": 16, "val/aucp": value})
            search.on_trial_complete(number, {"finished": True})
        rows = claimed(out).content()["trials"]
        return [{key: row[key] for key in ("number", "state", "value", "params")} for row in rows]

    unbroken = finished(str(tmp_path / "unbroken"))
    assert len(unbroken) == samples
    entries = (tmp_path / "unbroken" / JOURNAL).read_bytes().splitlines(keepends=True)
    for count in range(len(entries) - last, len(entries), 3):
        folder = tmp_path / f"{count:04d}"
        folder.mkdir()
        (folder / JOURNAL).write_bytes(b"".join(entries[:count]))
        assert finished(str(folder)) == unbroken, entries[count - 1]


def test_the_report_that_stops_a_trial_is_on_record_with_the_reason(tmp_path) -> None:
    record = claimed(str(tmp_path))
    search = searching(record, rungs=[16, 32])
    for number, values in (("a", (0.5, 0.9)), ("b", (0.8, 0.2))):
        run = RunFolder(search.suggest(number)["run"])
        run.put_metrics([{"images": 16, "seconds": 0.0, "val/aucp": values[0]}])
        run.put_json("selection.json", {"images": 16})
        search.on_trial_result(number, {"images": 16, "val/aucp": values[0]})
        search.on_trial_complete(number, {"images": 32, "val/aucp": values[1]})
    (_, trials), *_ = record.studies()
    assert [history(trial) for trial in trials] == [[(16, 0.5), (32, 0.9)], [(16, 0.8), (32, 0.2)]]
    first, second = record.content()["trials"]
    assert first["stopped"] is None
    assert second["stopped"] == {"rung": 32, "value": 0.2, "threshold": 0.9, "compared": 1}


def test_a_torn_entry_of_the_journal_is_cut(tmp_path) -> None:
    search = searching(claimed(str(tmp_path)))
    search.suggest("a")
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code": 4, "tor')
    again = searching(claimed(str(tmp_path)))
    again.suggest("b")
    again.suggest("c")
    assert [row["number"] for row in claimed(str(tmp_path)).content()["trials"]] == [0, 1]


def test_another_sweep_in_the_same_place_is_refused_with_what_differs(tmp_path) -> None:
    out = str(tmp_path)
    claimed(out).write()
    claimed(out, samples=9, root="/data/that/moved").write()
    with pytest.raises(ConfigError, match=r"model\.width \(4 -> 8\)"):
        claimed(out, fixes={"model.width": 8})


def test_a_folder_without_a_sweep_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match="no sweep in"):
        read(str(tmp_path))


def test_the_best_is_the_highest_that_ended_and_the_earliest_of_equals() -> None:
    states = ["failed", "running", "pruned", "complete", "complete"]
    values = [0.9, 0.9, 0.8, 0.8, None]
    rows = [{"number": i, "state": s, "value": v} for i, (s, v) in enumerate(zip(states, values))]  # noqa: B905
    winner = best(rows)
    assert winner is not None
    assert winner["number"] == 2
    assert best(rows[:2]) is None
    assert json.dumps(winner)
