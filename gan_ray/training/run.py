"""A run folder: everything one training leaves behind, in a directory or a bucket."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from gan_ray.config import Experiment, flatten, to_dict
from gan_ray.detector import Detector
from gan_ray.errors import ArtifactError, ConfigError, DataError
from gan_ray.experiment import build_detector, parse
from gan_ray.storage import uris
from gan_ray.storage.local import PARTIAL
from gan_ray.storage.store import open_store
from gan_ray.training.state import DIGEST, Snapshot, TrainState, decode

Checkpoint = Literal["best", "last"]

EXECUTION = ("workers", "min_workers", "placement", "use_gpu", "gpus_per_worker", "threads",
             "max_failures", "keep_checkpoints", "samples", "stages", "profile")  # fmt: skip
"""Fields of `train` that say how a training is carried out, not which one it is."""

_LEFT_BEHIND = ("checkpoints/", "samples/", "latent/", "scores/", "tb/", "profile/",
                "experiment.json", "environment.json", "metrics.jsonl", "selection.json",
                "threshold.json", "curves.png", "log.txt", "removed.json",
                "checkpoint_manager_snapshot.json")  # fmt: skip

REMOVED = "removed.json"
"""Stands in a run folder whose checkpoints were removed to save room: the reason, and the bytes."""


class RunFolder:
    """A training's folder: `experiment.json`, `metrics.jsonl`, `checkpoints/`, `samples/`, ..."""

    def __init__(self, uri: str | Path) -> None:
        """Name the folder (a directory or s3://bucket/prefix); nothing is read or written yet."""
        self.store = open_store(str(uri))
        self.uri = self.store.uri

    def claim(self, experiment: Experiment[Any], *, fresh: bool = False) -> None:
        """Make the folder this experiment's: new, or the one that is already in it.

        `fresh` removes what a run leaves behind, and nothing else.

        Raises:
            ConfigError: it holds another experiment and `fresh` is not set, or it holds files but
                no run and `fresh` is.
        """
        begun = self.store.exists("experiment.json")
        if fresh:
            if not begun and next(self.store.list(), None) is not None:
                raise ConfigError(
                    f"{self.uri} holds files, but no run: --fresh starts a run over and removes "
                    "nothing else. Choose another --out."
                )
            for entry in list(self.store.list()):
                if entry.key.startswith(_LEFT_BEHIND):
                    self.store.delete(entry.key)
        elif begun and self.checkpoints():
            here, there = identity(self.experiment()), identity(experiment)
            differing = sorted(key for key in here | there if here.get(key) != there.get(key))
            if differing:
                changes = ", ".join(f"{k} ({here.get(k)} -> {there.get(k)})" for k in differing)
                raise ConfigError(
                    f"{self.uri} holds another experiment: {changes}. Choose another --out, or "
                    "start over in this one with --fresh."
                )
        self.store.delete(REMOVED)
        self.put_json("experiment.json", to_dict(experiment))

    def experiment(self) -> Experiment[Any]:
        """Read the experiment.

        Raises:
            DataError: there is no run here.
        """
        if not self.store.exists("experiment.json"):
            raise DataError(
                f"no run in {self.uri}: experiment.json is missing. Name the folder that was "
                "given to `gan-ray train --out`."
            )
        return parse(json.loads(self.store.get("experiment.json")))

    def put_json(self, key: str, value: Any) -> None:
        """Write a JSON file."""
        self.store.put(key, json.dumps(value, indent=1).encode())

    def get_json(self, key: str) -> Any:
        """Read a JSON file, None when it is not there."""
        return json.loads(self.store.get(key)) if self.store.exists(key) else None

    def metrics(self) -> list[dict[str, Any]]:
        """Give the rows of `metrics.jsonl`, one per report, oldest first."""
        if not self.store.exists("metrics.jsonl"):
            return []
        return [json.loads(line) for line in self.store.get("metrics.jsonl").splitlines()]

    def reports(
        self, newest: Snapshot | None, earlier: Sequence[dict[str, Any]] = ()
    ) -> list[dict[str, Any]]:
        """Give the rows up to the checkpoint `newest`, the last of which it knows by itself.

        A process that is killed between a checkpoint and its row leaves one without the other.
        `earlier` are the rows of stages that were taken over, where the run has none of its own.
        """
        if newest is None:
            return []
        rows = [row for row in self.metrics() if row["images"] <= newest.images]
        own = {row["images"] for row in rows}
        rows += [row for row in earlier if row["images"] not in own]
        rows.sort(key=lambda row: int(row["images"]))
        if not any(row["images"] == newest.images for row in rows):
            rows.append({"stage": newest.stage, **newest.figures})
        return rows

    def put_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write `metrics.jsonl`; object stores cannot append, and the rows are few."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        self.store.put("metrics.jsonl", lines.encode())

    @property
    def directory(self) -> Path | None:
        """The run folder as a local directory; None in a bucket."""
        place = uris.parse(self.uri)
        return Path(place.path) if place.scheme == "file" else None

    def log(self) -> list[str]:
        """Give the lines of `log.txt`."""
        if not self.store.exists("log.txt"):
            return []
        return self.store.get("log.txt").decode().splitlines(keepends=True)

    def put_checkpoint(self, images: int, files: Mapping[str, bytes]) -> str:
        """Write a checkpoint's files in their order, the digest last; give its key."""
        key = f"checkpoints/{images:012d}"
        self.store.delete(f"{key}/{DIGEST}")
        for name, data in files.items():
            self.store.put(f"{key}/{name}", data)
        return key

    def checkpoints(self) -> list[int]:
        """Give the images of the checkpoints that are complete, oldest first; none is read."""
        return _complete(entry.key for entry in self.store.list("checkpoints/"))

    def snapshot(self, images: int) -> Snapshot:
        """Read a checkpoint.

        Raises:
            ArtifactError: it is torn.
        """
        prefix = f"checkpoints/{images:012d}/"
        names = [entry.key for entry in self.store.list(prefix)]
        return decode({key.removeprefix(prefix): self.store.get(key) for key in names})

    def newest(self) -> Snapshot | None:
        """Read the newest checkpoint whose digests match; torn ones are as if they were not."""
        for images in reversed(self.checkpoints()):
            try:
                return self.snapshot(images)
            except ArtifactError:
                continue
        return None

    def retain(self, newest: int, best: int | None) -> None:
        """Delete all but the `newest` complete checkpoints and the one at `best` images.

        What killed writers left goes too: for the one process that writes, between its writes.
        """
        keys = [entry.key for entry in self.store.list("checkpoints/")]
        stays = [*_complete(keys)[-newest:], *([] if best is None else [best])]
        kept = {f"{images:012d}" for images in stays}
        self._delete([key for key in keys if key.split("/")[1] not in kept])
        if self.directory is not None:
            for folder in (self.directory / "checkpoints").iterdir():
                if folder.name not in kept:
                    shutil.rmtree(folder, ignore_errors=True)
                for partial in folder.glob(f"{PARTIAL}*"):
                    partial.unlink()

    def remove_checkpoints(self, reason: str) -> None:
        """Delete all checkpoints; whoever asks for one is told the `reason` from then on."""
        entries = list(self.store.list("checkpoints/"))
        self.put_json(REMOVED, {"reason": reason, "bytes": sum(entry.size for entry in entries)})
        self._delete([entry.key for entry in entries])

    def _delete(self, keys: Iterable[str]) -> None:
        # The digests go first: what is left of a folder is then torn, not wrong.
        for key in sorted(keys, key=lambda key: not key.endswith(DIGEST)):
            self.store.delete(key)

    def best(self) -> int | None:
        """Give the images of the checkpoint that selection chose, None when it chose none."""
        selection = self.get_json("selection.json")
        return None if selection is None else int(selection["images"])


def load_detector(
    run: RunFolder | str | Path, checkpoint: Checkpoint = "best"
) -> tuple[Detector, Experiment[Any], int]:
    """Give the trained detector as it is scored, its experiment, and its images of training.

    `best` is the checkpoint that selection chose, or the last one where nothing could be selected.
    On the CPU in float32, eval mode, averaged weights where the stage has them.

    Raises:
        ArtifactError: the run has no usable checkpoint.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    experiment = folder.experiment()
    if removed := folder.get_json(REMOVED):
        raise ArtifactError(
            f"{folder.uri} has no checkpoint any more: {removed['reason']}. Take another run, or "
            "train its experiment.json again."
        )
    best = folder.best() if checkpoint == "best" else None
    snapshot = folder.newest() if best is None else folder.snapshot(best)
    if snapshot is None:
        raise ArtifactError(
            f"{folder.uri} has no complete checkpoint yet: run the same `gan-ray train` again, it "
            "goes on where it stopped."
        )
    state = TrainState(build_detector(experiment))
    state.restore(snapshot)
    state.adopt_averages()
    return state.detector.eval().requires_grad_(False).to(torch.float32), experiment, state.images


def identity(experiment: Experiment[Any]) -> dict[str, Any]:
    """Give what makes it this experiment, flat: not where the data are or how it is carried out.

    Data may move: the session compares what was read.
    """
    carried_out = {f"train.{name}" for name in EXECUTION} | {"data.root"}
    flat = flatten(to_dict(experiment))
    return {key: value for key, value in flat.items() if key not in carried_out}


def _complete(keys: Iterable[str]) -> list[int]:
    """Give the images of the checkpoints among `keys` that have their digest, oldest first."""
    parts = (key.split("/") for key in keys)
    return sorted(int(part[1]) for part in parts if part[-1] == DIGEST)
