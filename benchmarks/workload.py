"""What one training asks of its machines: arithmetic, operators, messages, draws, bytes.

Counted, not estimated: the loop's own step runs once over fake tensors (shapes without numbers)
in a process group that sends nothing, and every operator it calls is seen. A published size is
counted in seconds, without a GPU and without its memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gan_ray import experiment
from gan_ray.config import Experiment
from gan_ray.detector import Detector, Step
from gan_ray.training import distributed, loop
from gan_ray.training.state import TrainState

ROWS = 4
"""Images of the batch that is counted; costs per image are a share of it."""
_DRAWS = (torch.ops.aten.randn.generator, torch.ops.aten.rand.generator)


@dataclass(frozen=True)
class StepWork:
    """One run of one step, on one rank."""

    name: str
    every: int
    """Ticks from one run to the next."""
    flops: float
    """Per image of this rank, forward and backward."""
    launches: int
    """Operators that compute something: kernels on a GPU, whatever the batch."""
    messages: tuple[int, ...]
    """Bytes of each all-reduce, in their order."""
    draws: float
    """Random numbers per image of the *global* batch: every rank draws for all."""


@dataclass(frozen=True)
class Workload:
    """One stage of a system."""

    name: str
    batch: int
    """Images of the paper's batch."""
    smallest: int
    """Fewest rows that a rank can train on."""
    row_bytes: int
    """Prepared images of one row, all streams."""
    steps: tuple[StepWork, ...]
    images: int
    """Of the whole training."""
    interval: int
    """Images between two reports."""
    look: int
    """Held-out images of each part that a report scores at most; 0 is all."""
    look_flops: float
    """Per held-out image."""
    tensors: int
    """Parameters and buffers, which a report compares one by one."""
    tensor_bytes: int
    """Their bytes."""
    buffer_bytes: int
    """Of which a report averages so many: running statistics."""
    state_bytes: int
    """A checkpoint: weights, buffers, optimisers, moving averages."""

    def per_tick(self, field: str) -> float:
        """Give the mean of a number of `StepWork` over a cycle, per tick."""
        return float(sum(getattr(step, field) / step.every for step in self.steps))

    def messages(self) -> dict[int, float]:
        """Give how often a message of so many bytes is sent, per tick."""
        found: dict[int, float] = {}
        for step in self.steps:
            for size in step.messages:
                found[size] = found.get(size, 0.0) + 1 / step.every
        return found


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch is untyped here
    """Counts what passes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops, self.launches, self.draws = 0.0, 0, 0
        self.messages: list[int] = []

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        packet = operator._overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=result)
        if operator in _DRAWS:
            self.draws += result.numel()
        if operator is torch.ops.c10d.allreduce_.default:
            self.messages += [tensor.nbytes for tensor in args[0]]
        elif not _is_view(operator):
            self.launches += 1
        return result


def _is_view(operator: Any) -> bool:
    """Say whether an operator only describes memory or asks about it: no kernel runs."""
    aliases = [given.alias_info for given in operator._schema.returns]
    views = any(alias is not None and not alias.is_write for alias in aliases)
    return views or operator.namespace == "prim" or "empty" in operator._schema.name


@contextmanager
def _silent_group() -> Iterator[None]:
    """Make the loop believe in a second rank; nothing is sent."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def count(settings: Experiment[Any]) -> Workload:
    """Count the first stage of an experiment, which must not run inside a process group."""
    with FakeTensorMode(), _silent_group():
        detector = experiment.build_detector(settings)
        state = TrainState(detector)
        rows = _rows(detector, ROWS)
        state.set_modes()
        steps = tuple(_step(state, step, rows, settings) for step in state.stage.steps)
        with _Seen() as averaged:
            distributed.average_buffers_(detector)
        tensors = [*detector.parameters(), *detector.buffers()]
        return Workload(
            name=settings.architecture,
            batch=settings.train.batch_size,
            smallest=_smallest(state, settings),
            row_bytes=sum(_stored_bytes(tensor) for tensor in rows.values()) // ROWS,
            steps=steps,
            images=settings.train.images,
            interval=settings.train.report_every or math.ceil(settings.train.images / 20),
            look=settings.train.look,
            look_flops=_look(detector, steps[-1]),
            tensors=len(tensors),
            tensor_bytes=sum(tensor.nbytes for tensor in tensors),
            buffer_bytes=sum(averaged.messages),
            state_bytes=sum(tensor.nbytes for tensor in state.tensors().values()),
        )


def _rows(detector: Detector, count: int) -> Mapping[str, torch.Tensor]:
    image = detector.image
    shape = (count, image.channels, image.size, image.size)
    return {
        name: torch.zeros(count, dtype=torch.int64) if name == "class" else torch.zeros(shape)
        for name in detector.streams
    }


def _stored_bytes(tensor: torch.Tensor) -> int:
    """Give the bytes as they are kept: a byte per pixel, classes as they are."""
    return tensor.numel() if tensor.is_floating_point() else tensor.nbytes


def _step(
    state: TrainState, step: Step, rows: Mapping[str, torch.Tensor], settings: Experiment[Any]
) -> StepWork:
    with _Seen() as seen:
        terms = loop._update(state, step, [rows], settings.train, 0, 0.5)
    told = [8 * len(terms)] if step.after is not None else []
    return StepWork(
        name=step.name,
        every=step.every,
        flops=seen.flops / ROWS,
        launches=seen.launches,
        messages=(*seen.messages, *told),
        draws=seen.draws / (2 * ROWS),  # for both ranks
    )


def _smallest(state: TrainState, settings: Experiment[Any]) -> int:
    """Try one row: some systems pair the rows of a rank."""
    rows = _rows(state.detector, 1)
    try:
        for step in state.stage.steps:
            loop._update(state, step, [rows], settings.train, 0, 0.5)
    except ValueError:  # ConfigError, or torch's own of batch norm
        return 2
    return 1


def _look(detector: Detector, last: StepWork) -> float:
    """Give the arithmetic of one look at an image.

    A search cannot be followed without numbers: its passes are then taken to cost a sixth of the
    generator's step each, which goes forward and back through two networks.
    """
    images = _rows(detector, ROWS)[detector.streams[0]]
    classes = torch.zeros(ROWS, dtype=torch.int64) if detector.conditional else None
    try:
        with torch.no_grad(), _Seen() as seen:
            detector.eval().evidence(images, classes)
    except RuntimeError:
        return float(detector.passes_per_image * last.flops / 6)
    return float(seen.flops / ROWS)
