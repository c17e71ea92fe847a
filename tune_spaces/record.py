"""What a sweep leaves behind: its studies in an Optuna journal, and `sweep.json` drawn from them.

The journal alone says which trials there are. It is a file of the sweep's folder, which
`optuna-dashboard` opens; for a bucket it is kept beside the process and uploaded as it grows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from gan_ray.errors import ConfigError, DataError
from gan_ray.storage.store import Store, open_store
from gan_ray.storage.uris import parse as parse_uri
from tune_spaces.plan import Search, settings_of
from tune_spaces.warm_start import earlier_row, is_earlier

SWEEP = "sweep.json"
JOURNAL = "studies.journal"

_STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class Record:
    """A sweep's folder: journal, `sweep.json`, and `trials/<key>/`, each a run folder."""

    def __init__(self, out: str) -> None:
        """Open the folder, a directory or s3://bucket/prefix."""
        self.store = open_store(out)
        self.uri = self.store.uri
        self._about: dict[str, Any] = {}
        self.selection: dict[str, Any] | None = None

    def claim(
        self,
        study: str,
        objective: str,
        seed: int,
        samples: int,
        plans: Sequence[Search],
        *,
        method: str = "tpe",
    ) -> None:
        """Make the folder this sweep's: new, or the one that is in it already.

        More samples or further architectures go on with a sweep.

        Raises:
            ConfigError: it holds another sweep.
        """
        known = json.loads(self.store.get(SWEEP)) if self.store.exists(SWEEP) else {}
        about = {"study": study, "search": method, "objective": objective, "seed": seed}
        searches = {
            plan.name: {
                "samples": samples,
                "space": plan.space.said(),
                "experiment": plan.identity(),
            }
            for plan in plans
        }
        old = known.get("searches", {})
        changed = [k for k, v in about.items() if known.get(k, v) != v]
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
        self.selection = known.get("selection")
        self._about = {"schema": 1, **about, "searches": {**old, **searches}}
        self.storage = _journal(self.store)

    def run_uri(self, number: int, name: str) -> str:
        """Where a trial's run folder is."""
        return f"{self.uri}/trials/{number:04d}-{name}"

    def studies(self) -> list[tuple[str, list[FrozenTrial]]]:
        """Give the trials of each architecture's study."""
        names = optuna.study.get_all_study_names(self.storage)
        return [(n, optuna.load_study(study_name=n, storage=self.storage).trials) for n in names]

    def next_number(self) -> int:
        """Give the number of the next trial: over all architectures, in the order of starting."""
        return sum("number" in trial.user_attrs for _, trials in self.studies() for trial in trials)

    def content(self) -> dict[str, Any]:
        """Give what `sweep.json` holds."""
        trials = [trial for _, trials in self.studies() for trial in trials]
        rows = [self._row(trial) for trial in trials if "number" in trial.user_attrs]
        rows.sort(key=lambda row: int(row["number"]))
        winner = best(rows)
        return {
            **self._about,
            "trials": rows,
            "best": None if winner is None else winner["number"],
            "selection": self.selection,
            "warm_start": [earlier_row(trial) for trial in trials if is_earlier(trial)],
        }

    def write(self) -> dict[str, Any]:
        """Write `sweep.json` and give its content."""
        content = self.content()
        self.store.put(SWEEP, json.dumps(content, indent=1).encode())
        return content

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        known = trial.user_attrs
        return {
            "number": known["number"],
            "architecture": known["architecture"],
            "variant": known["variant"],
            "state": _STATES[trial.state],
            "value": known.get("value"),
            "images": known.get("images", 0),
            "seconds": known.get("seconds", 0.0),
            "run": known["run"],
            "params": settings_of(trial.params),
            "reason": known.get("reason", ""),
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


class _Mirrored(JournalFileBackend):  # type: ignore[misc]
    """A journal file that is uploaded after each entry."""

    def __init__(self, path: Path, store: Store) -> None:
        super().__init__(str(path))
        self._path, self._store = path, store

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        super().append_logs(logs)
        self._store.upload(self._path, JOURNAL)


def _journal(store: Store) -> JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = parse_uri(store.uri)
    if place.scheme == "file":
        path = Path(place.path) / JOURNAL
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_entry(path)
        return JournalStorage(JournalFileBackend(str(path)))
    path = Path(tempfile.mkdtemp(prefix="gan-ray-sweep-")) / JOURNAL
    if store.exists(JOURNAL):
        store.download(JOURNAL, path)
    return JournalStorage(_Mirrored(path, store))


def _drop_torn_entry(path: Path) -> None:
    """Cut what follows the last whole line: Optuna would append to it, and never read it again."""
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            path.write_bytes(data[: data.rfind(b"\n") + 1])
