"""Which settings moved a study's objective: the share of its variance that each explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

FEWEST = 10
"""Trials with a value below which nothing is said: a forest fits anything to so few."""


def importance(studies: Sequence[tuple[str, Sequence[FrozenTrial]]]) -> dict[str, Any]:
    """Give for each study the trials that count and the `shares` of its settings, highest first.

    By functional ANOVA (Hutter et al. 2014) over every trial that has a value, those stopped early
    with the one they had, and over the settings that all of them have. Fewer than `FEWEST`, or all
    of one value, and the shares are empty.
    """
    return {name: _of_one(trials) for name, trials in studies}


def _of_one(trials: Sequence[FrozenTrial]) -> Mapping[str, Any]:
    scored = [trial for trial in trials if trial.user_attrs.get("value") is not None]
    told: dict[str, Any] = {"method": "fANOVA", "trials": len(scored), "fewest": FEWEST}
    if len(scored) < FEWEST or len({trial.user_attrs["value"] for trial in scored}) == 1:
        return {**told, "shares": {}}
    study = optuna.create_study(direction="maximize")
    for trial in scored:
        params, ranges, value = trial.params, trial.distributions, trial.user_attrs["value"]
        study.add_trial(create_trial(params=params, distributions=ranges, value=value))
    shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {**told, "shares": {key: round(float(share), 4) for key, share in shares.items()}}
