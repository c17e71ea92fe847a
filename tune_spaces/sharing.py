"""Draws that pay off because trials share: those that keep what the best one so far has trained."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from optuna.trial import FrozenTrial, TrialState

from gan_ray.detector import matters
from gan_ray.experiment import build_detector
from gan_ray.training.reuse import shared_stages
from tune_spaces.plan import Search
from tune_spaces.space import Point

REDRAW = 3
"""Of so many trials one draws all settings anew, one keeps the best's GAN, one all but the score.

Continuous ranges never give the same value twice: without this no two trials of a search over both
a GAN and its encoder would share a GAN, and none would train nothing.
"""


class Sharing:
    """Which settings of a search belong to what trials can share."""

    def __init__(self, search: Search) -> None:
        """Ask the system's stages; without `train.stages`, or among systems, nothing is kept."""
        self.keys: frozenset[str] = frozenset()
        """Settings of the stages that trials can share."""
        self.scored: frozenset[str] = frozenset()
        """Settings of the score, if there are others beside them."""
        plan = search.plans[0]
        if len(search.plans) > 1 or not plan.experiment.train.stages:
            return
        with torch.device("meta"):
            stages = build_detector(plan.experiment).stages()
        shared = shared_stages(stages)
        later = stages[len(shared) :]
        scored = frozenset(key for key in plan.space if key.startswith("score."))
        keys = frozenset(
            key
            for key in plan.space.keys() - scored
            if matters(key.removeprefix("model."), shared, later)
        )
        if shared and len(keys) < len(plan.space):
            self.keys = keys
        if len(scored) < len(plan.space) and plan.experiment.train.workers == 1:
            self.scored = scored

    def __bool__(self) -> bool:
        """Tell whether there is anything to keep."""
        return bool(self.keys or self.scored)

    def turn(self, trials: Sequence[FrozenTrial]) -> tuple[Point, list[FrozenTrial]]:
        """Give the settings that the trial after `trials` keeps, and the trials it may learn from.

        Of trials with one GAN, or one training, the best alone is among those: a search that saw
        all would take how often a GAN was kept for how good it is. Where the score alone is drawn,
        all of that training are. It was trained to its end; see `replay`.
        """
        turn = len(trials) % REDRAW
        judged = [trial for trial in trials if trial.user_attrs.get("value") is not None]
        whole = [trial for trial in judged if trial.state == TrialState.COMPLETE]
        if turn == REDRAW - 1 and whole:
            best = _without(_best(whole).params, self.scored)
            if len(best) < len(_best(whole).params):
                of_it = [t for t in judged if _without(t.params, self.scored) == best]
                others = self._best_of_each(trials, of_gan=False)
                return best, [*of_it, *(trial for trial in others if trial not in of_it)]
        if turn == 0 or not self.keys or not judged:
            return {}, self._best_of_each(trials, of_gan=bool(self.keys))
        kept = {key: v for key, v in _best(judged).params.items() if key in self.keys}
        return kept, self._best_of_each(trials, of_gan=False)

    def _best_of_each(self, trials: Sequence[FrozenTrial], *, of_gan: bool) -> list[FrozenTrial]:
        """Give the best trial of each GAN, or of each training, and those without a value."""
        found: dict[str, FrozenTrial] = {}
        for trial in trials:
            own = {k: v for k, v in trial.params.items()
                   if (k in self.keys if of_gan else k not in self.scored)}  # fmt: skip
            alike = repr(sorted(own.items())) if _value(trial) is not None else str(trial.number)
            other = found.get(alike)
            if other is None or _value(trial) > _value(other):
                found[alike] = trial
        return list(found.values())


def _without(point: Mapping[str, Any], keys: Collection[str]) -> Point:
    return {key: value for key, value in point.items() if key not in keys}


def _value(trial: FrozenTrial) -> Any:
    return trial.user_attrs.get("value")


def _best(trials: Iterable[FrozenTrial]) -> FrozenTrial:
    return max(trials, key=_value)
