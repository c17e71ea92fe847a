"""What a sweep leaves behind: its studies in Optuna's storage, and `sweep.json` drawn from them.

The studies alone say which trials there are. They are a journal in the sweep's folder, which
`optuna-dashboard` opens (for a bucket it is kept beside the process and uploaded as it grows), or
in a database, which other sweeps may share.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from gan_ray.errors import ConfigError, DataError, StorageError
from gan_ray.storage.store import open_store
from tune_spaces.objectives import pareto
from tune_spaces.plan import Search, settings_of
from tune_spaces.storage import answering, described, open_storage
from tune_spaces.warm_start import earlier_row, is_earlier

SWEEP = "sweep.json"
_FINALIST = "finalist/"

_STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class Record:
    """A sweep's folder: studies, `sweep.json`, and `trials/<key>/`, each a run folder."""

    def __init__(self, out: str, storage: str = "") -> None:
        """Name the folder, a directory or s3://bucket/prefix, and the database of the studies."""
        self.store = open_store(out)
        self.uri = self.store.uri
        self._address = storage
        self._about: dict[str, Any] = {}
        self.selection: dict[str, Any] | None = None
        self.budget: dict[str, Any] | None = None
        """What the checkpoints take and which were removed, where there is a limit."""
        self.importance: dict[str, Any] = {}
        self.failure: StorageError | None = None
        """Why the studies could not be read or written, for those who hear of it through Tune."""

    def claim(
        self,
        study: str,
        objective: str,
        seed: int,
        samples: int | Mapping[str, int],
        plans: Sequence[Search],
        *,
        method: str = "tpe",
        cost: str = "",
    ) -> None:
        """Make the folder this sweep's: new, or the one that is in it already.

        More samples or further architectures go on with a sweep.

        Raises:
            ConfigError: it holds another sweep.
        """
        known = json.loads(self.store.get(SWEEP)) if self.store.exists(SWEEP) else {}
        about = {"study": study, "search": method, "objective": objective, "seed": seed}
        about["cost"] = cost
        about["storage"] = described(self._address)
        searches = {
            plan.name: {
                "samples": samples if isinstance(samples, int) else samples[plan.name],
                "space": plan.space.said(),
                "experiment": plan.identity(),
            }
            for plan in plans
        }
        old = known.get("searches", {})
        changed = [
            f"{key} ({known[key]} -> {value})"
            for key, value in about.items()
            if known.get(key, value) != value
        ]
        for name in searches.keys() & old.keys():
            for part in ("space", "experiment"):
                before, now = old[name][part], json.loads(json.dumps(searches[name][part]))
                changed += [
                    f"{name}: {key} ({before.get(key)} -> {now.get(key)})"
                    for key in sorted(before.keys() | now.keys())
                    if before.get(key) != now.get(key)
                ]
        if changed:
            raise ConfigError(
                f"{self.uri} holds another sweep; what differs: {', '.join(changed)}. Choose "
                "another --out, or repeat that sweep's command to go on with it."
            )
        self.selection, self.budget = known.get("selection"), known.get("budget")
        self.importance = known.get("importance", {})
        # Other sweeps may have studies in the same database.
        self._prefix: str = known.get(
            "study_prefix", f"{secrets.token_hex(4)}/" if self._address else ""
        )
        about["study_prefix"] = self._prefix
        self._about = {"schema": 1, **about, "searches": {**old, **searches}}
        self.storage = open_storage(self._address, self.store)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn what the studies' database fails with into a StorageError, and remember it."""
        try:
            with answering(self._address):
                yield
        except StorageError as error:
            self.failure = error
            raise

    def study_name(self, plan: str) -> str:
        """Give the name of a plan's study in the storage."""
        return self._prefix + plan

    def run_uri(self, number: int, name: str) -> str:
        """Where a trial's run folder is."""
        return f"{self.uri}/trials/{number:04d}-{name}"

    def studies(self) -> list[tuple[str, list[FrozenTrial]]]:
        """Give the trials of each architecture's study."""
        return [
            (
                name.removeprefix(self._prefix),
                optuna.load_study(study_name=name, storage=self.storage).trials,
            )
            for name in optuna.study.get_all_study_names(self.storage)
            if name.startswith(self._prefix)
        ]

    def finalists(self) -> list[dict[str, Any]]:
        """Give what became of the finalists' further runs, by the trial's number and the seed.

        They are no trials: each is an attribute of the study of its trial.
        """
        studies = [self._study(name) for name, _ in self.studies()]
        rows = [row for study in studies for key, row in study.user_attrs.items()
                if key.startswith(_FINALIST)]  # fmt: skip
        return sorted(rows, key=lambda row: (row["number"], row["seed"]))

    def put_finalist(self, row: Mapping[str, Any]) -> None:
        """Put a finalist's further run on record."""
        for name, trials in self.studies():
            if any(trial.user_attrs.get("number") == row["number"] for trial in trials):
                key = f"{_FINALIST}{row['number']}/{row['seed']}"
                self._study(name).set_user_attr(key, dict(row))

    def _study(self, name: str) -> optuna.Study:
        return optuna.load_study(study_name=self.study_name(name), storage=self.storage)

    def next_number(self) -> int:
        """Give the number of the next trial: over all architectures, in the order of starting."""
        return sum("number" in trial.user_attrs for _, trials in self.studies() for trial in trials)

    def content(self) -> dict[str, Any]:
        """Give what `sweep.json` holds."""
        studies = self.studies()
        by_study = {
            name: [self._row(trial) for trial in trials if "number" in trial.user_attrs]
            for name, trials in studies
        }
        rows = sorted(
            (row for each in by_study.values() for row in each), key=lambda row: int(row["number"])
        )
        winner = best(rows)
        return {
            **self._about,
            "queue": self._queue(by_study),
            "trials": rows,
            "best": None if winner is None else winner["number"],
            "pareto": pareto(rows),
            "finalists": self.finalists(),
            "selection": self.selection,
            "warm_start": [
                earlier_row(trial) for _, trials in studies for trial in trials if is_earlier(trial)
            ],
            "budget": self.budget,
            "importance": self.importance,
        }

    def write(self) -> dict[str, Any]:
        """Write `sweep.json` and give its content."""
        content = self.content()
        self.store.put(SWEEP, json.dumps(content, indent=1).encode())
        return content

    def _queue(self, by_study: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        """Give how many trials are over, which run and how many wait, in their order."""
        rows = [row for each in by_study.values() for row in each]
        running = sorted(row["number"] for row in rows if row["state"] == "running")
        waiting = {
            name: max(0, search["samples"] - len(by_study.get(name, ())))
            for name, search in self._about["searches"].items()
        }
        return {"done": len(rows) - len(running), "running": running, "waiting": waiting}

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        known = trial.user_attrs
        return {
            "number": known["number"],
            "architecture": known["architecture"],
            "variant": known["variant"],
            "state": _STATES[trial.state],
            "value": known.get("value"),
            "cost": known.get("cost"),
            "images": known.get("images", 0),
            "seconds": known.get("seconds", 0.0),
            "look_seconds": known.get("look_seconds", 0.0),
            "reused_images": known.get("reused_images", 0),
            "reused_seconds": known.get("reused_seconds", 0.0),
            "run": known["run"],
            "params": settings_of(trial.params),
            "reason": known.get("reason", ""),
            "stopped": known.get("stopped"),
            "removed": str(known["number"]) in (self.budget or {}).get("removed", {}),
            # Of the study `score`, whose trials are other scores of one run.
            **{key: known[key] for key in ("head", "figures") if key in known},
        }


def best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Give the finished trial of the highest value, the earliest of equals; None without any.

    A pruned trial competes with the checkpoint it has.
    """
    able = [
        row for row in rows if row["state"] in ("complete", "pruned") and row["value"] is not None
    ]
    return max(able, key=lambda row: float(row["value"]), default=None)


def read(uri: str) -> dict[str, Any]:
    """Read the `sweep.json` of a sweep's folder.

    Raises:
        DataError: there is none.
    """
    store = open_store(uri)
    if not store.exists(SWEEP):
        raise DataError(
            f"no sweep in {store.uri}: {SWEEP} is missing. Name the folder that was given to "
            "`gan-ray sweep --out`."
        )
    content: dict[str, Any] = json.loads(store.get(SWEEP))
    return content
