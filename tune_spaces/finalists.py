"""The best trials once more with other seeds, so that luck does not pick the winner.

Their further runs are no trials: no search learns from them, and none of them is stopped early.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.search import Searcher

from gan_ray.training.run import RunFolder, identity
from tune_spaces.plan import Plan, system_name
from tune_spaces.record import Record
from tune_spaces.trial import outcome

_ENDED = ("complete", "failed")
_RUNNING = {"state": "running", "reason": "", "value": None, "images": 0, "seconds": 0.0}


@dataclass(frozen=True)
class FurtherRun:
    """A trial's settings with another seed, in a run folder beside the trial's own."""

    trial: Mapping[str, Any]
    """The row of `sweep.json`."""
    seed: int

    @property
    def uri(self) -> str:
        """Its run folder."""
        return f"{self.trial['run']}-seed{self.seed}"

    def row(self, found: Mapping[str, Any] = _RUNNING) -> dict[str, Any]:
        """Give its row of `sweep.json`: like that of its trial, with what was `found` of it."""
        same = {key: self.trial[key] for key in ("number", "architecture", "variant", "params")}
        return {**same, "seed": self.seed, "run": self.uri, **found}


def further_runs(
    record: Record, plans: Sequence[Plan], count: int, seeds: int
) -> list[tuple[Plan, list[FurtherRun]]]:
    """Give the runs that the `count` best complete trials of the plans still lack.

    The seeds are the `seeds` that follow the experiment's own. Of equal trials the earliest count.
    """
    by_name = {plan.name: plan for plan in plans}
    content = record.content()
    ended = {(row["number"], row["seed"]) for row in content["finalists"]
             if row["state"] in _ENDED}  # fmt: skip
    named = [(system_name(row["architecture"], row["variant"]), row) for row in content["trials"]]
    able = [(name, row) for name, row in named if row["state"] == "complete" and name in by_name]
    best = sorted(able, key=lambda pair: (-pair[1]["value"], pair[1]["number"]))[:count]
    left: dict[str, list[FurtherRun]] = {}
    for name, row in best:
        first = by_name[name].experiment.seed + 1
        runs = [FurtherRun(row, seed) for seed in range(first, first + seeds)]
        left.setdefault(name, []).extend(
            run for run in runs if (row["number"], run.seed) not in ended
        )
    return [(by_name[name], runs) for name, runs in left.items() if runs]


class FinalistSearch(Searcher):  # type: ignore[misc]
    """Hands out further runs of one system; `ended` sees the row of each, once it is on record."""

    def __init__(
        self,
        record: Record,
        runs: Sequence[FurtherRun],
        *,
        objective: str,
        ended: Callable[[dict[str, Any]], None],
    ) -> None:
        """Take the runs in their order."""
        super().__init__()
        self._record, self._left = record, list(runs)
        self._objective, self._ended = objective, ended
        self._running: dict[str, FurtherRun] = {}

    @property
    def unended(self) -> int:
        """Runs that have no end on record."""
        return len(self._left) + len(self._running)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Give the next run: the settings of its trial, and its seed."""
        if not self._left:
            return str(Searcher.FINISHED)
        run = self._running[trial_id] = self._left.pop(0)
        self._record.put_finalist(run.row())
        settings = identity(RunFolder(run.trial["run"]).experiment())
        system = system_name(run.trial["architecture"], run.trial["variant"])
        return {"run": run.uri, "system": system, "settings": {**settings, "seed": run.seed}}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Put a run's end on record."""
        run = self._running[trial_id]
        folder = RunFolder(run.uri)
        found = outcome(folder, folder.metrics(), self._objective, result, error)
        if found["state"] not in _ENDED:  # no scheduler stops it: the sweep itself was
            return
        del self._running[trial_id]
        row = run.row(found)
        self._record.put_finalist(row)
        self._ended(row)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: its run folder has it all."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the journal has it all."""

    def __getstate__(self) -> dict[str, Any]:
        """Give nothing for Tune's own snapshots, for the same reason."""
        return {}
