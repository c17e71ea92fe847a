"""What several trainings have in common is trained by one of them and taken over by the others.

That are the stages before a system can score, such as the GAN before its encoder: no score and no
choice of a checkpoint touches them. In the folder `train.stages` they lie under a key that names
all they depend on, so a training that takes them over ends with the bits it would have had:

    STAGES/<key>/<nnnn>/claim.json    who trains them, renewed while they do
    STAGES/<key>/<nnnn>/rows.jsonl    the reports of that training
    STAGES/<key>/<nnnn>/...           the checkpoint of their end, its digest last

Each numbered folder has one writer, the process whose claim was there first, so nothing can mix.
Who needs stages that are being trained waits; a claim that is no longer renewed, because its
process was killed or is stuck, is passed by with the next number.
"""

from __future__ import annotations

import importlib.metadata
import json
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from typing import Any, Self

import torch

from gan_ray.config import Experiment, fingerprint
from gan_ray.detector import Detector, Stage, stage_fingerprint
from gan_ray.errors import ArtifactError, StorageError
from gan_ray.storage.store import open_store
from gan_ray.training import distributed
from gan_ray.training.loop import Report, budgets
from gan_ray.training.run import RunFolder, identity
from gan_ray.training.state import DIGEST, Snapshot, TrainState, decode

CLAIM, ROWS = "claim.json", "rows.jsonl"
BEAT = 5.0
"""Seconds between two renewals of a claim."""
PATIENCE = 60.0
"""Seconds without a renewal, by the clock of who waits, after which a claim is passed by."""
_POLL = 1.0


class StageReuse:
    """The shared stages of one training: taken over, or trained and left to others.

    Does nothing without `train.stages`, or for a system that can score from its first stage on.
    Leaving the context gives up a claim whose stages did not come to their end.
    """

    rows: Sequence[dict[str, Any]] = ()
    """Reports of the stages that were taken over, whose `seconds` are `reused_seconds`."""
    key: str = ""
    """Folder of the shared stages in `train.stages`; empty where there are none."""

    def __init__(
        self,
        experiment: Experiment[Any],
        owner: str,
        detector: Detector,
        *,
        data: str,
        device: torch.device,
    ) -> None:
        """Name the stages by all they depend on; `data` is the fingerprint of the images.

        `owner` is the address of the run: a claim of its own is one of a process that died.
        """
        stages = detector.stages()
        self._detector, self._owner = detector, owner
        self._stages = shared_stages(stages) if experiment.train.stages else ()
        self._images = sum(budgets(stages, experiment.train)[: len(self._stages)])
        self._seen: tuple[bytes, float] = b"", 0.0
        self._spoiled: set[str] = set()
        self._place = ""
        self._over = threading.Event()
        if self._stages:
            self._store = open_store(experiment.train.stages)
            self.key = _key(experiment, detector, self._stages[-1], data, device)

    def begin(self, resume: Snapshot | None) -> Snapshot | None:
        """Give where to go on from: the end of the shared stages, or `resume` to train them here.

        Waits while another process trains them. All ranks call it.
        """
        if not self._stages or (resume is not None and resume.images >= self._images):
            return resume
        while True:
            answer = distributed.from_first_rank(self._ask() if distributed.rank() == 0 else {})
            if "trained" in answer:
                try:
                    return self._take_over(answer["trained"])
                except ArtifactError:  # what a disk has spoiled is as if it were not
                    self._spoiled.add(answer["trained"])
                    continue
            if "claimed" in answer:
                return resume
            time.sleep(_POLL)

    def put(
        self, report: Report, files: Mapping[str, bytes], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Leave the `files` of a report's checkpoint to others if the shared stages end with it.

        `rows` are the reports so far. For rank 0.
        """
        if not self._place:
            return
        if report.stage.scores:  # the shared ones ended before their budget was spent
            self._let_go()
        elif report.images == self._images:
            lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
            for name, data in {ROWS: lines, **files}.items():
                self._store.put(f"{self._place}/{name}", data)
            self._let_go()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what was claimed and did not come to its end: others need not wait."""
        self._let_go()

    def _ask(self) -> dict[str, Any]:
        """Say which folder holds the stages, that they were claimed for here, or neither yet."""
        entries = list(self._store.list(f"{self.key}/"))
        places = (e.key.removesuffix(f"/{DIGEST}") for e in entries if e.key.endswith(DIGEST))
        for place in places:
            if place not in self._spoiled:
                return {"trained": place}
        number = max((int(entry.key.split("/")[1]) for entry in entries), default=-1)
        if number >= 0 and self._is_held(f"{self.key}/{number:04d}/{CLAIM}"):
            return {}
        place = f"{self.key}/{number + 1:04d}"
        if not self._store.put(f"{place}/{CLAIM}", self._note(0), if_absent=True):
            return {}
        self._place = place
        self._over.clear()
        self._renewing = threading.Thread(target=self._renew, name="stage claim", daemon=True)
        self._renewing.start()
        return {"claimed": place}

    def _is_held(self, key: str) -> bool:
        """Tell whether somebody else holds a claim, as far as this process has seen it renewed."""
        try:
            note = self._store.get(key)
        except StorageError:
            note = b"{}"
        said = json.loads(note)
        if said.get("over") or said.get("run") == self._owner:
            return False
        if note != self._seen[0]:
            self._seen = note, time.monotonic()
        return time.monotonic() - self._seen[1] < PATIENCE

    def _note(self, beat: int, *, over: bool = False) -> bytes:
        return json.dumps({"run": self._owner, "beat": beat, "over": over}).encode()

    def _renew(self) -> None:
        beat = 0
        while not self._over.wait(BEAT):
            beat += 1
            with suppress(StorageError):  # the next one may come through
                self._store.put(f"{self._place}/{CLAIM}", self._note(beat))

    def _let_go(self) -> None:
        if self._place:
            self._over.set()
            self._renewing.join()
            with suppress(StorageError):  # then it is passed by after a while
                self._store.put(f"{self._place}/{CLAIM}", self._note(0, over=True))
            self._place = ""

    def _take_over(self, place: str) -> Snapshot:
        """Give the end of the stages, with this training's own beginning of what they leave."""
        snapshot, rows = self._read(place)
        self.rows = [{**row, "seconds": 0.0, "reused_seconds": row["seconds"]} for row in rows]
        trained = {name for stage in self._stages for name in stage.trains}
        others = set(self._detector.networks) - trained
        untouched = tuple(f"detector/networks.{name}." for name in others)
        own = {f"detector/{key}": value for key, value in self._detector.state_dict().items()}
        kept = {k: v for k, v in snapshot.tensors.items() if not k.startswith(untouched)}
        return replace(snapshot, tensors={**own, **kept})

    def _read(self, place: str) -> tuple[Snapshot, list[dict[str, Any]]]:
        found = self._store.list(f"{place}/")
        files = {entry.key.rpartition("/")[2]: self._store.get(entry.key) for entry in found}
        return decode(files), [json.loads(line) for line in files[ROWS].splitlines()]


def replay(
    detector: Detector,
    trained: RunFolder,
    resume: Snapshot | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Generator[Report, Mapping[str, float] | None, None]:
    """Yield the reports of a finished training whose checkpoints it has kept, to be judged anew.

    In place of `fit` where nothing but the score differs from that training; after `resume`.
    """
    detector.to(device=device, dtype=dtype)
    state = TrainState(detector)
    rows = {row["images"]: row for row in trained.metrics()}
    for images in trained.checkpoints():
        if resume is None or images > resume.images:
            state.restore(trained.snapshot(images))
            terms = {key: value for key, value in rows[images].items() if _is_term(key)}
            yield Report(state.stage, images, terms, state)


def _is_term(key: str) -> bool:
    kind, slash, _ = key.partition("/")
    return bool(slash) and kind not in ("val", "detector")


def shared_stages(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Give the stages that trainings can share: those before the first that can score."""
    return tuple(takewhile(lambda stage: not stage.scores, stages))


def _key(
    experiment: Experiment[Any], detector: Detector, last: Stage, data: str, device: torch.device
) -> str:
    """Name what the end of the stage `last` depends on, down to its last bits."""
    settings = identity(experiment).items()
    outcome = {
        "stage": stage_fingerprint(detector, last.name),
        "images": budgets(detector.stages(), experiment.train),
        "data": data,
        **{key: value for key, value in settings if key.startswith(("seed", "data.", "train."))},
        "workers": distributed.world_size(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "software": [importlib.metadata.version(name) for name in ("gan-ray", "torch")],
    }
    return fingerprint(outcome)
