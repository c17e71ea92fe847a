"""Optuna's search as Tune asks for it, with the study's journal as its only state.

Three things are other than in Ray's `OptunaSearch`, which this is in all else: trials that a killed
process left unfinished are handed out again before new ones are drawn; a trial that was stopped
early is told as pruned, not as complete; and each draw follows from (seed, number, history) alone,
so that a resumed search draws what an unbroken one would have drawn from the same history.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune.search.optuna import OptunaSearch

from gan_ray.ranges import Choice, IntRange, LogUniform, Range
from gan_ray.seeds import derive_seed
from gan_ray.training.run import RunFolder
from tune_spaces.record import Record
from tune_spaces.studies import Plan

STARTUP = 10
"""Trials of a study before TPE takes over from random draws."""


class StudySearch(OptunaSearch):  # type: ignore[misc]
    """The search of one architecture; `ended` is called when a trial's end is on record."""

    def __init__(
        self,
        plan: Plan,
        record: Record,
        *,
        objective: str,
        seed: int,
        ended: Callable[[int], None],
    ) -> None:
        """Open or continue the study called as the plan."""
        self._plan, self._record = plan, record
        self._objective, self._base_seed, self._ended = objective, seed, ended
        known = dict(record.studies()).get(plan.name, [])
        super().__init__(
            Space(plan.space),
            metric=objective,
            mode="max",
            study_name=plan.name,
            storage=record.storage,
            points_to_evaluate=None if known else [plan.first],
        )
        self.finished = [trial for trial in known if trial.state.is_finished()]
        self._unfinished = [trial for trial in known if trial.state == TrialState.RUNNING]

    def remaining(self, samples: int) -> int:
        """Trials that still have to end, so that the study has `samples`."""
        return max(samples - len(self.finished), len(self._unfinished))

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Give the next trial: an unfinished one, or one drawn anew."""
        study = self._ot_study
        if self._unfinished:
            self._ot_trials[trial_id] = Trial(study, self._unfinished.pop(0)._trial_id)
        else:
            study.sampler = _sampler(
                derive_seed(self._base_seed, study.study_name, len(study.trials))
            )
            self._ot_trials[trial_id] = study.ask()
        trial, experiment = self._ot_trials[trial_id], self._plan.experiment
        settings = super().suggest(trial_id)  # a setting drawn before keeps its value
        if "number" not in trial.user_attrs:
            number = self._record.next_number()
            trial.set_user_attr("architecture", experiment.architecture)
            trial.set_user_attr("variant", experiment.variant)
            trial.set_user_attr("run", self._record.run_uri(number, self._plan.name))
            trial.set_user_attr("number", number)
        self._record.write()
        return {"run": trial.user_attrs["run"], "settings": settings}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Put a report on record by its images; reports without the objective are passed over."""
        value = result.get(self._objective)
        if value is None or not math.isfinite(value):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a worker that was replaced repeats a report
            self._ot_trials[trial_id].report(value, result["images"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Put a trial's end on record: complete, pruned, or failed with the reason."""
        trial, result = self._ot_trials[trial_id], result or {}
        run = RunFolder(trial.user_attrs["run"])
        rows, chosen = run.metrics(), run.best()
        figures = [row[self._objective] for row in rows
                   if row["images"] == chosen and self._objective in row]  # fmt: skip
        reason = result.get("failed", "")
        if error and not reason:
            reason = "its process died (killed, out of memory, or its node was lost), repeatedly"
        elif not figures and not reason:
            reason = f"no report has a finite {self._objective}"
        trial.set_user_attr("reason", reason)
        trial.set_user_attr("images", rows[-1]["images"] if rows else 0)
        trial.set_user_attr("seconds", round(sum(row["seconds"] for row in rows), 3))
        trial.set_user_attr("value", figures[0] if figures else None)
        if reason:
            self._ot_study.tell(trial, state=TrialState.FAIL)
        elif result.get("finished"):
            self._ot_study.tell(trial, figures[0])
        else:
            self._ot_study.tell(trial, state=TrialState.PRUNED)
        self._completed_trials.add(trial_id)
        self._ended(trial.user_attrs["number"])

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has it all."""

    def __getstate__(self) -> dict[str, Any]:
        """Give nothing for Tune's own snapshots, for the same reason."""
        return {}


class Space:
    """A space as Optuna asks for it: draws every dimension of a trial."""

    def __init__(self, space: Mapping[str, Range]) -> None:
        """Take the ranges by their keys."""
        self._space = dict(space)

    def __call__(self, trial: Trial) -> None:
        """Draw."""
        for key, values in self._space.items():
            if isinstance(values, Choice):
                trial.suggest_categorical(key, values.options)
            elif isinstance(values, IntRange):
                trial.suggest_int(key, values.low, values.high)
            else:
                log = isinstance(values, LogUniform)
                trial.suggest_float(key, values.low, values.high, log=log)


def history(trial: FrozenTrial) -> list[tuple[int, float]]:
    """Give (images, objective) of a trial's reports, oldest first."""
    return sorted(trial.intermediate_values.items())


def _sampler(seed: int) -> TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            n_startup_trials=STARTUP, multivariate=True, constant_liar=True, seed=seed % 2**32
        )
