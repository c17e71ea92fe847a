"""Draws that pay off when stages are shared: trials that keep the GAN of the best one so far."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from optuna.trial import FrozenTrial

from gan_ray.detector import matters
from gan_ray.experiment import build_detector
from gan_ray.training.reuse import shared_stages
from tune_spaces.plan import Search
from tune_spaces.space import Point

REDRAW = 3
"""One of so many trials draws the settings of the shared stages anew; the others keep the best's.

Continuous ranges never give the same value twice: without this no two trials of a search over both
a GAN and its encoder would share a GAN.
"""


class Sharing:
    """Which settings of a search belong to stages that trials can share."""

    def __init__(self, search: Search) -> None:
        """Ask the system's stages; without `train.stages`, or among systems, nothing is kept."""
        self.keys: frozenset[str] = frozenset()
        plan = search.plans[0]
        if len(search.plans) > 1 or not plan.experiment.train.stages:
            return
        with torch.device("meta"):
            stages = build_detector(plan.experiment).stages()
        shared = shared_stages(stages)
        later = stages[len(shared) :]
        keys = frozenset(
            key
            for key in plan.space
            if not key.startswith("score.") and matters(key.removeprefix("model."), shared, later)
        )
        if shared and len(keys) < len(plan.space):
            self.keys = keys

    def kept(self, trials: Sequence[FrozenTrial]) -> Point:
        """Give the settings that the trial after `trials` keeps: the best one's, or none."""
        ended = [trial for trial in trials if trial.user_attrs.get("value") is not None]
        if len(trials) % REDRAW == 0 or not ended:
            return {}
        best = max(ended, key=lambda trial: float(trial.user_attrs["value"]))
        return {key: value for key, value in best.params.items() if key in self.keys}
