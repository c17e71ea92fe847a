"""The state of a training, and the one checkpoint format that holds it.

A checkpoint is a folder of three files: `tensors.safetensors` (weights, optimiser state, moving
averages), `state.json` (counters, figures) and `digest.json` (the sha256 of the other two), written
last. It is valid when every digest matches; anything else is as if it did not exist. No pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from gan_ray.detector import Detector, Stage
from gan_ray.errors import ArtifactError
from gan_ray.training.ema import MovingAverage
from gan_ray.training.optim import make_optimizers

TENSORS, STATE, DIGEST = "tensors.safetensors", "state.json", "digest.json"


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds, read back; tensors on the CPU."""

    tensors: Mapping[str, Tensor]
    stage: str
    stage_images: int
    images: int
    figures: Mapping[str, float] = field(default_factory=dict)

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Give the tensors below `prefix/`, without it."""
        start = len(prefix) + 1
        return {k[start:]: v for k, v in self.tensors.items() if k.startswith(prefix + "/")}


class TrainState:
    """A training at one moment, alive: what it refers to changes when training goes on."""

    def __init__(self, detector: Detector) -> None:
        """Stand before the first stage of `detector`, which is already on its device."""
        self.detector = detector
        self.stages = detector.stages()
        self.images = 0
        self._begin(0)

    def _begin(self, index: int) -> None:
        self.index, self.stage_images = index, 0
        stage = self.stages[index]
        self.optimizers = make_optimizers(self.detector, stage)
        self.average = MovingAverage(self.detector, stage.ema, stage.ema_decay)

    def next_stage(self) -> None:
        """Begin the next stage with new optimisers; averaged weights become the weights."""
        self.adopt_averages()
        self._begin(self.index + 1)

    def adopt_averages(self) -> None:
        """Make the averaged weights, where the stage has them, the weights."""
        with torch.no_grad():
            self._load_networks(self.average.averages)

    @property
    def stage(self) -> Stage:
        """The stage that is being trained."""
        return self.stages[self.index]

    def forget_optimizer(self, step: str) -> None:
        """Drop an optimiser's state after its networks were re-initialised."""
        self.optimizers[step].state.clear()

    def set_modes(self) -> None:
        """Put what the stage trains in train mode; freeze everything else, in eval mode."""
        for name, network in self.detector.networks.items():
            network.train(name in self.stage.trains)
            network.requires_grad_(False)

    @contextmanager
    def scoring(self) -> Iterator[Detector]:
        """Lend the detector as it is scored: eval mode, averaged weights where the stage has them.

        Weights and modes of training are back afterwards, bit for bit.
        """
        live = dict(self.detector.networks.named_parameters())
        kept = {key: live[key].detach().clone() for key in self.average.averages}
        try:
            self.adopt_averages()
            yield self.detector.eval()
        finally:
            with torch.no_grad():
                self._load_networks(kept)
            self.set_modes()

    def _load_networks(self, values: Mapping[str, Tensor]) -> None:
        live = dict(self.detector.networks.named_parameters())
        for key, value in values.items():
            live[key].copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """Give every tensor that training needs to go on, by path."""
        tensors = {f"detector/{k}": v for k, v in self.detector.state_dict().items()}
        tensors |= {f"average/{k}": v for k, v in self.average.averages.items()}
        for step, optimizer in self.optimizers.items():
            for number, slots in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{step}/{number}/{k}": v for k, v in slots.items()}
        return tensors

    def restore(self, snapshot: Snapshot) -> None:
        """Continue where `snapshot` was taken.

        Raises:
            ArtifactError: it belongs to other networks or stages.
        """
        names = [stage.name for stage in self.stages]
        if snapshot.stage not in names:
            raise ArtifactError(
                f"checkpoint of stage '{snapshot.stage}' does not fit stages {names}: it belongs "
                "to another architecture. Choose another --out, or start over with --fresh."
            )
        try:
            self.detector.load_state_dict(snapshot.group("detector"))
        except RuntimeError as error:
            raise ArtifactError(
                f"checkpoint does not fit the networks: {error}. Train with the settings it was "
                "made with, or start over with --fresh."
            ) from None
        self._begin(names.index(snapshot.stage))
        self.images, self.stage_images = snapshot.images, snapshot.stage_images
        for key, value in snapshot.group("average").items():
            self.average.averages[key].copy_(value)
        for step, optimizer in self.optimizers.items():
            slots: dict[int, dict[str, Tensor]] = {}
            for path, value in snapshot.group(f"optimizer/{step}").items():
                number, _, slot = path.partition("/")
                slots.setdefault(int(number), {})[slot] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": slots, "param_groups": groups})


def encode(state: TrainState, figures: Mapping[str, float] | None = None) -> dict[str, bytes]:
    """Give a checkpoint's files by name, in the order in which they must be written."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.tensors().items()}
    counters = {
        "schema": 1,
        "stage": state.stage.name,
        "stage_images": state.stage_images,
        "images": state.images,
        "figures": dict(figures or {}),
    }
    files = {
        TENSORS: safetensors.torch.save(tensors),
        STATE: json.dumps(counters, indent=1).encode(),
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {**files, DIGEST: json.dumps(digests, indent=1).encode()}


def decode(files: Mapping[str, bytes]) -> Snapshot:
    """Read a checkpoint's files back.

    Raises:
        ArtifactError: a file is missing or its digest does not match: a torn checkpoint.
    """
    try:
        digests: dict[str, str] = json.loads(files[DIGEST])
        for name in (TENSORS, STATE):
            if hashlib.sha256(files[name]).hexdigest() != digests[name]:
                raise ArtifactError(f"checkpoint file {name} does not match its digest")
        counters: dict[str, Any] = json.loads(files[STATE])
        if counters.pop("schema") != 1:
            raise ArtifactError("checkpoint has an unknown schema; this version reads schema 1")
        return Snapshot(tensors=safetensors.torch.load(files[TENSORS]), **counters)
    except (KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"checkpoint is torn or not one of ours: {error!r}") from None
