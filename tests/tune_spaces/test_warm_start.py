from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import TrialState

from gan_ray.errors import ConfigError
from gan_ray.experiment import make
from tune_spaces.plan import Joint, Search
from tune_spaces.record import Record
from tune_spaces.search import StudySearch
from tune_spaces.studies import plans
from tune_spaces.warm_start import check_earlier, fitting

WEIGHTS = {f"model.weights.{name}": 1.5 for name in ("adversarial", "contextual", "latent")}


def searched(*names: str) -> Search:
    made = plans([make(name, preset="tiny") for name in names or ("ganomaly",)], "weights", {}, {})
    return Joint(tuple(made)) if len(made) > 1 else made[0]


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {"number": number, "architecture": "ganomaly", "variant": "", "state": "complete",
            "value": 0.9, "images": 64, "params": WEIGHTS, **changes}  # fmt: skip


def earlier(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"objective": "val/aucp", "trials": list(rows)}


def begun(out: str, content: dict[str, Any], search: Search | None = None) -> StudySearch:
    search = search or searched()
    record = Record(out)
    record.claim("weights", "val/aucp", 0, 4, [search])
    return StudySearch(search, record, objective="val/aucp", seed=0, ended=lambda number: None,
                       earlier=fitting(search, "earlier", content))  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"state": "pruned"}, True),
        ({"state": "failed", "value": None}, False),
        ({"state": "running", "value": None}, False),
        ({"architecture": "f-anogan"}, False),
        ({"variant": "other"}, False),
        ({"params": {**WEIGHTS, "model.width": 32}}, False),
        ({"params": {"model.weights.latent": 1.5}}, False),
        ({"params": {**WEIGHTS, "model.weights.latent": 1000.0}}, False),
        ({"params": {**WEIGHTS, "model.weights.latent": "much"}}, False),
    ],
)
def test_a_trial_fits_that_is_a_point_of_the_space_and_has_a_value(changes, fits: bool) -> None:
    assert len(fitting(searched(), "earlier", earlier(row(**changes)))) == fits


def test_the_sampler_learns_from_a_pruned_trial_by_how_far_it_came() -> None:
    complete, pruned = fitting(searched(), "e", earlier(row(), row(1, state="pruned")))
    assert (complete.state, complete.value) == (TrialState.COMPLETE, 0.9)
    assert (pruned.state, pruned.intermediate_values) == (TrialState.PRUNED, {64: 0.9})


def test_earlier_trials_count_as_none_and_the_given_settings_stay_first(tmp_path) -> None:
    content = earlier(*(row(number) for number in range(3)))
    search = begun(str(tmp_path), content)
    assert search.remaining(4) == 4
    assert search.finished == []
    first, second = search.suggest("a"), search.suggest("b")
    assert first["settings"] == searched().firsts[0]
    assert first["run"].endswith("/trials/0000-ganomaly")
    assert second["settings"] not in (first["settings"], WEIGHTS)
    search.on_trial_complete("a", {"failed": "for the test"})

    # The same command again: none is added twice, and the trial that was begun goes on.
    again = begun(str(tmp_path), content)
    assert again.remaining(4) == 3
    assert again.suggest("c") == second
    content = Record.content(again._record)
    assert [trial["number"] for trial in content["trials"]] == [0, 1]
    assert content["best"] is None
    assert content["warm_start"] == [
        {"sweep": "earlier", "number": number, "architecture": "ganomaly", "variant": "",
         "value": 0.9, "params": WEIGHTS}
        for number in range(3)
    ]  # fmt: skip


def test_a_study_that_knows_enough_earlier_trials_is_past_its_random_draws(tmp_path) -> None:
    def drawn(name: str, latent: float) -> float:
        """Where the third trial lies, after trials that were the better the nearer to `latent`."""
        points = [{**WEIGHTS, "model.weights.latent": latent + n / 9} for n in range(20)]
        near = (row(n, value=1 / (1 + n), params=point) for n, point in enumerate(points))
        search = begun(str(tmp_path / name), earlier(*near))
        return [search.suggest(str(n)) for n in range(3)][2]["settings"]["model.weights.latent"]

    assert drawn("low", 1.0) < drawn("high", 40.0)


def test_trials_of_one_system_enter_a_study_of_several(tmp_path) -> None:
    search = searched("f-anogan", "ganomaly")
    (trial,) = fitting(search, "e", earlier(row()))
    assert trial.params["architecture"] == "ganomaly"
    assert search.read(trial.params)[1] == WEIGHTS
    shown = begun(str(tmp_path), earlier(row()), search)._record.content()["warm_start"]
    assert shown[0]["params"] == WEIGHTS


def test_values_of_another_objective_are_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be compared"):
        check_earlier("e", earlier(), "val/image_auroc")
