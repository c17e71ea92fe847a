"""Trials of an earlier sweep in a new study: its sampler learns from them, and they count as none.

They carry a mark instead of a number: they are no trials of this sweep, and none can win it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from gan_ray.errors import ConfigError
from tune_spaces.derive import contains
from tune_spaces.plan import Search, settings_of, system_name
from tune_spaces.space import Point, Space

_MARK = "warm_start"


def fitting(search: Search, uri: str, content: Mapping[str, Any]) -> list[FrozenTrial]:
    """Give the ended trials of the sweep at `uri` that are points of a search; see `record.read`.

    A trial fits that searched the same keys of the same system, at values within the ranges.
    """
    ended = [row for row in content["trials"]
             if row["state"] in ("complete", "pruned") and row["value"] is not None]  # fmt: skip
    points = [search.point(system_name(row["architecture"], row["variant"]), row["params"])
              for row in ended]  # fmt: skip
    return [
        _trial(search.space, point, row, uri)
        for row, point in zip(ended, points, strict=True)
        if point is not None and _is_point(search.space, point)
    ]


def _is_point(space: Space, point: Point) -> bool:
    drawn = space.draw(lambda key, values: point.get(key))
    return drawn.keys() == point.keys() and all(contains(space[key], point[key]) for key in point)


def _trial(space: Space, point: Point, row: Mapping[str, Any], uri: str) -> FrozenTrial:
    """Give a trial as Optuna knows one; of a stopped one it goes by the images and the value."""
    fixed, value = FixedTrial(point), row["value"]
    space.suggest(fixed)
    complete = row["state"] == "complete"
    return create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        value=value if complete else None,
        intermediate_values={row["images"]: value},
        params=point,
        distributions=fixed.distributions,
        user_attrs={
            _MARK: {"sweep": uri, "number": row["number"]},
            **{key: row[key] for key in ("architecture", "variant", "value")},
        },
    )


def check_earlier(uri: str, content: Mapping[str, Any], objective: str) -> None:
    """Refuse a sweep whose values are of another figure; raises ConfigError."""
    if content["objective"] != objective:
        raise ConfigError(
            f"--warm-start {uri} searched for {content['objective']}, this sweep for {objective}: "
            "their values cannot be compared. Name a sweep of the same objective."
        )


def add_earlier(study: optuna.Study, earlier: Iterable[FrozenTrial]) -> None:
    """Put earlier trials into a study, but for those it has already."""
    known = [trial.user_attrs[_MARK] for trial in study.trials if is_earlier(trial)]
    study.add_trials([trial for trial in earlier if trial.user_attrs[_MARK] not in known])


def is_earlier(trial: FrozenTrial) -> bool:
    """Tell whether a trial came from an earlier sweep."""
    return _MARK in trial.user_attrs


def earlier_row(trial: FrozenTrial) -> dict[str, Any]:
    """Give what `sweep.json` says of an earlier trial: whose it was, its settings and its value."""
    known = trial.user_attrs
    named = {key: known[key] for key in ("architecture", "variant", "value")}
    return {**known[_MARK], **named, "params": settings_of(trial.params)}
