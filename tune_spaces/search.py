"""Optuna's search as Tune asks for it, with the study's journal as its only state.

Three things are other than in Ray's `OptunaSearch`, which this is in all else: trials that a killed
process left unfinished are handed out again before new ones are drawn; a trial that was stopped
early is told as pruned, not as complete; and each draw follows from (seed, number, history) alone,
so that a resumed search draws what an unbroken one would have drawn from the same history.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune.search.optuna import OptunaSearch

from gan_ray.seeds import derive_seed
from gan_ray.training.run import RunFolder
from tune_spaces.derive import Method
from tune_spaces.halving import why_stopped
from tune_spaces.plan import Plan, Search
from tune_spaces.record import Record
from tune_spaces.samplers import STARTUP, make_sampler
from tune_spaces.sharing import REDRAW, Sharing
from tune_spaces.space import Point
from tune_spaces.trial import outcome
from tune_spaces.warm_start import add_earlier, is_earlier

Call = TypeVar("Call", bound=Callable[..., Any])


def _answering(method: Call) -> Call:
    """Let a method fail as the record's storage does."""

    @functools.wraps(method)
    def call(self: StudySearch, *args: Any, **kwargs: Any) -> Any:
        with self._record.answering():
            return method(self, *args, **kwargs)

    return call  # type: ignore[return-value]


class StudySearch(OptunaSearch):  # type: ignore[misc]
    """The search of one study; `ended` is called when a trial's end is on record."""

    def __init__(
        self,
        plan: Search,
        record: Record,
        *,
        objective: str,
        cost: str = "",
        seed: int,
        ended: Callable[[int], None],
        method: Method = "tpe",
        points: Sequence[Point] | None = None,
        earlier: Sequence[FrozenTrial] = (),
        rungs: Sequence[int] = (),
    ) -> None:
        """Open or continue the study called as the plan.

        Its first trials are at `points`, by default at those that the plan begins with; the sampler
        knows the `earlier` trials, too, which count as none of its own. At the `rungs` trials are
        stopped. A `cost` is a second direction.
        """
        self._cost = cost
        self._plan, self._record, self._rungs = plan, record, rungs
        self._objective, self._base_seed, self._ended = objective, seed, ended
        self._method, self._points = method, plan.firsts if points is None else points
        self._sharing = Sharing(plan)
        super().__init__(
            plan.space.suggest,
            metric=[objective, cost] if cost else objective,
            mode=["max", "min"] if cost else "max",
            study_name=record.study_name(plan.name),
            storage=record.storage,
        )
        add_earlier(self._ot_study, earlier)
        for trial in self._ot_study.get_trials(False, (TrialState.RUNNING,)):
            if "number" not in trial.user_attrs:  # killed while it was drawn: it is drawn again
                self._ot_study.tell(trial.number, state=TrialState.FAIL)
        known = self._own()
        self.finished = [trial for trial in known if trial.state.is_finished()]
        self._unfinished = [trial for trial in known if trial.state == TrialState.RUNNING]

    def remaining(self, samples: int) -> int:
        """Trials that still have to end, so that the study has `samples`."""
        return max(samples - len(self.finished), len(self._unfinished))

    @_answering
    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Give the next trial: an unfinished one, or one drawn anew."""
        study = self._ot_study
        if self._unfinished:
            self._ot_trials[trial_id] = Trial(study, self._unfinished.pop(0)._trial_id)
        else:
            self._ot_trials[trial_id] = self._ask()
        trial = self._ot_trials[trial_id]
        # A setting drawn before keeps its value.
        plan, settings = self._plan.read(super().suggest(trial_id))
        if "number" not in trial.user_attrs:  # set last: a trial that has one has all
            number = self._record.next_number()
            trial.set_user_attr("architecture", plan.experiment.architecture)
            trial.set_user_attr("variant", plan.experiment.variant)
            trial.set_user_attr("run", self._record.run_uri(number, plan.name))
            trial.set_user_attr("number", number)
        given = {"run": trial.user_attrs["run"], "system": plan.name, "settings": settings}
        equal = self._equal_training(plan, trial)
        if equal is not None:
            about = equal.user_attrs
            given["trained"] = about["run"]
            trial.set_user_attr("spared", about["seconds"] + about["reused_seconds"])
        self._record.write()
        return given

    def _equal_training(self, plan: Plan, trial: Trial) -> FrozenTrial | None:
        """Find the trial that was trained to its end with all settings of this one but its score's.

        Ray Train's workers train such a trial again.
        """
        train = plan.experiment.train
        if not train.stages or train.workers > 1:
            return None
        wanted = _of_training(trial.params)
        for other in self._own():
            ended = other.state == TrialState.COMPLETE
            if ended and _of_training(other.params) == wanted:
                return other
        return None

    def _ask(self) -> Trial:
        """Begin a trial: at the next of the given points, or at one that is drawn.

        What is drawn may keep the settings of stages that it then shares with another trial.
        """
        study, index = self._ot_study, len(self._own())
        seed = derive_seed(self._base_seed, self._plan.name, index)
        study.sampler = make_sampler(self._method, seed)
        if not study.get_trials(False, (TrialState.WAITING,)):
            if index < len(self._points):
                study.enqueue_trial(self._points[index])
            elif self._method == "tpe" and self._sharing:
                study.enqueue_trial(self._drawn(seed))
        return study.ask()

    def _drawn(self, seed: int) -> Point:
        """Draw a point that keeps what it shares with another trial, by what it may learn from."""
        kept, known = self._sharing.turn(self._own())
        aside = optuna.create_study(
            directions=self._ot_study.directions,
            sampler=make_sampler(self._method, seed, startup=STARTUP // REDRAW),
        )
        aside.add_trials([*filter(is_earlier, self._ot_study.trials), *known])
        aside.enqueue_trial(kept)
        trial = aside.ask()
        self._plan.space.suggest(trial)
        point: Point = trial.params
        return point

    def _own(self) -> list[FrozenTrial]:
        """Give the trials of this sweep that have begun."""
        return [trial for trial in self._ot_study.trials if "number" in trial.user_attrs]

    @_answering
    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Put a report on record by its images; reports without the objective are passed over.

        Optuna keeps none for a study of two directions.
        """
        value = result.get(self._objective)
        if self._cost or value is None or not math.isfinite(value):
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a worker that was replaced repeats a report
            self._ot_trials[trial_id].report(value, result["images"])

    @_answering
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Put a trial's end on record: complete, pruned, or failed with the reason."""
        trial, result = self._ot_trials[trial_id], result or {}
        if "images" in result:  # the report by which a trial was stopped comes here alone
            self.on_trial_result(trial_id, result)
        run = RunFolder(trial.user_attrs["run"])
        rows = run.metrics()
        found = outcome(run, rows, self._objective, result, error)
        for key in ("reason", "images", "seconds", "look_seconds", "value", "cost"):
            trial.set_user_attr(key, found[key])
        reused = [row for row in rows if "reused_seconds" in row]
        spared = sum(row["reused_seconds"] for row in reused)
        if "spared" in trial.user_attrs:  # all of it was another's training
            reused, spared = rows, trial.user_attrs["spared"]
        trial.set_user_attr("reused_images", reused[-1]["images"] if reused else 0)
        trial.set_user_attr("reused_seconds", round(spared, 3))
        if found["state"] == "failed":
            self._ot_study.tell(trial, state=TrialState.FAIL)
        elif found["state"] == "complete":
            directions = ("value", "cost") if self._cost else ("value",)
            self._ot_study.tell(trial, [found[key] for key in directions])
        else:
            trial.set_user_attr("stopped", self._why_stopped(trial))
            self._ot_study.tell(trial, state=TrialState.PRUNED)
        self._completed_trials.add(trial_id)
        self._ended(trial.user_attrs["number"])

    def _why_stopped(self, stopped: Trial) -> dict[str, Any] | None:
        told = {trial.number: history(trial) for trial in self._own()}
        return why_stopped(told.pop(stopped.number), told.values(), self._rungs)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has it all."""

    def __getstate__(self) -> dict[str, Any]:
        """Give nothing for Tune's own snapshots, for the same reason."""
        return {}


def _of_training(point: Mapping[str, Any]) -> dict[str, Any]:
    """Give a point without the settings of its score."""
    return {k: v for k, v in point.items() if not k.rpartition(":")[2].startswith("score.")}


def history(trial: FrozenTrial) -> list[tuple[int, float]]:
    """Give (images, objective) of a trial's reports, oldest first."""
    return sorted(trial.intermediate_values.items())
