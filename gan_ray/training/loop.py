"""The one training loop, a generator: it trains, and yields a report from time to time.

It knows no architecture, no loss formula and no Ray. What a report means (validate, write a
checkpoint, tell a cluster) is up to the caller; a test calls `list(fit(...))`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.profiler import record_function

from gan_ray.config import TrainConfig
from gan_ray.detector import Batch, Detector, Stage, Step
from gan_ray.errors import ConfigError, DivergedError, OutOfMemoryError
from gan_ray.seeds import derive_seed
from gan_ray.training import distributed, memory
from gan_ray.training.optim import learning_rate, set_learning_rate
from gan_ray.training.state import Snapshot, TrainState

PRECISIONS = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}
"""Type of weights and images by `train.precision`; bf16 is autocast over float32 weights."""


class Source(Protocol):
    """Where the rows of global batches come from: a pure function of its arguments."""

    def batch(
        self, *, stage: str, images: int, size: int, rank: int, world: int
    ) -> Mapping[str, Tensor]:
        """Give a rank's rows of the global batch that begins at `images`, on the device."""
        ...


@dataclass(frozen=True)
class Report:
    """A pause in training: figures since the last one, and the state as it is now."""

    stage: Stage
    images: int
    """Images of the whole training so far."""
    metrics: Mapping[str, float]
    """Raw loss terms, `step/term`: mean over the ticks since the last report and over ranks."""
    state: TrainState


Watch = Callable[[str], AbstractContextManager[Callable[[], None]]]
"""Surrounds the cycles of an interval, of the stage so called; gives what is called before each."""


@contextmanager
def unwatched(stage: str) -> Iterator[Callable[[], None]]:
    """Watch nothing."""
    yield lambda: None


def budgets(stages: tuple[Stage, ...], train: TrainConfig) -> list[int]:
    """Split `train.images` over the stages by their shares, in whole batches, at least one each."""
    ticks = [max(1, round(train.images * stage.share / train.batch_size)) for stage in stages]
    return [count * train.batch_size for count in ticks]


def fit(
    detector: Detector,
    source: Source,
    train: TrainConfig,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    resume: Snapshot | None = None,
    watch: Watch = unwatched,
) -> Generator[Report, Mapping[str, float] | None, None]:
    """Train `detector` stage by stage, yielding a `Report` every `train.report_every` images.

    Sending figures of held-out normals into the generator feeds `Stage.until`. Everything random
    follows from (seed, stage, images, step), so training resumed from a report's checkpoint equals
    training that never stopped, bit for bit. Reseeds torch's global generators. `watch` surrounds
    the cycles of each interval and is called before each, as a profiler wants it.

    Raises:
        DivergedError: a term stopped being finite, seen at the next report.
        OutOfMemoryError: a step did not fit; names the batch size that would.
    """
    device = torch.device(device)
    layout = torch.channels_last if train.channels_last else torch.preserve_format
    detector.to(device=device, dtype=PRECISIONS[train.precision])
    detector.to(memory_format=layout)  # type: ignore[call-overload]
    distributed.broadcast_(detector)
    state = TrainState(detector)
    limits = budgets(state.stages, train)
    interval = train.report_every or math.ceil(sum(limits) / 20)
    figures: Mapping[str, float] | None = None
    if resume is not None:
        state.restore(resume)
        figures = resume.figures
    while True:
        stage, limit = state.stage, limits[state.index]
        last = state.index + 1 == len(state.stages)
        stop = stage.until is not None and bool(figures) and stage.until(figures or {})
        if state.stage_images >= limit or stop:
            if last:
                return
            state.next_stage()
            figures = None
            continue
        with watch(stage.name) as cycle:
            metrics = _until_report(state, source, train, seed, limit, interval, cycle)
        figures = yield Report(stage, state.images, metrics, state)


def _until_report(
    state: TrainState,
    source: Source,
    train: TrainConfig,
    seed: int,
    limit: int,
    interval: int,
    cycle: Callable[[], None],
) -> dict[str, float]:
    stage, size = state.stage, train.batch_size
    device = next(state.detector.parameters()).device
    state.set_modes()
    _compile(state, train)
    totals = _Totals()
    while True:
        cycle()
        tick = state.stage_images // size + 1
        parts = memory.attempt(
            partial(_parts, state, source, train), device, partial(_rows_do_not_fit, train)
        )
        for number, step in enumerate(stage.steps):
            if tick % step.every == 0:
                draw = derive_seed(seed, stage.name, state.stage_images, number)
                with record_function(f"step {step.name}"):
                    terms = memory.attempt(
                        partial(
                            _update, state, step, parts, train, draw, state.stage_images / limit
                        ),
                        device,
                        partial(_does_not_fit, state, step, parts, train, state.images),
                    )
                totals.add(step.name, terms, state.stage_images + size)
                if step.after is not None and step.after(_averaged(terms)):
                    state.forget_optimizer(step.name)
        state.average.update(state.detector)
        before = state.images // interval
        state.stage_images += size
        state.images += size
        if state.images // interval > before or state.stage_images >= limit:
            distributed.average_buffers_(state.detector)
            return totals.means(stage.name)


def _parts(state: TrainState, source: Source, train: TrainConfig) -> list[Mapping[str, Tensor]]:
    """Give this rank's rows of the next global batch, in the parts that a step adds up."""
    return [
        source.batch(
            stage=state.stage.name,
            images=state.stage_images,
            size=train.batch_size,
            rank=distributed.rank() * train.accumulate + part,
            world=distributed.world_size() * train.accumulate,
        )
        for part in range(train.accumulate)
    ]


def _rows_do_not_fit(train: TrainConfig, seen: memory.Shortage) -> OutOfMemoryError:
    # Smaller ones are not tried: on a CPU the first that the system grants may be all it has.
    return seen.error(
        f"gathering a batch of {train.batch_size:,} images",
        "Lower --train.batch-size (another experiment: another --out, or --fresh).",
    )


def _update(
    state: TrainState,
    step: Step,
    parts: list[Mapping[str, Tensor]],
    train: TrainConfig,
    draw: int,
    progress: float,
) -> dict[str, Tensor]:
    """Run one optimiser step; give its raw terms, detached."""
    parameters = _begin(state, step)
    terms: dict[str, Tensor] = {}
    for part, rows in enumerate(parts):
        rank = distributed.rank() * len(parts) + part
        batch = Batch(
            rows,
            seed=draw,
            rank=rank,
            world=distributed.world_size() * len(parts),
            progress=progress,
            mean_over_ranks=distributed.mean_over_ranks if len(parts) == 1 else _not_in_parts,
        )
        # Dropout and whatever else draws by itself: repeatable, but not the same for N ranks as for
        # one; noise that belongs to the global batch comes from `Batch`.
        torch.manual_seed(derive_seed(draw, rank))
        raw = _backward(state.detector, step, batch, train, len(parts))
        for name, term in raw.items():
            terms[name] = terms.get(name, 0) + term.detach() / len(parts)
    distributed.average_gradients_(parameters)
    if train.clip_gradient > 0:
        torch.nn.utils.clip_grad_norm_(parameters, train.clip_gradient)
    optimizer = state.optimizers[step.name]
    set_learning_rate(optimizer, learning_rate(step.optimizer, progress))
    optimizer.step()
    if step.clip_weights:
        for parameter in parameters:
            parameter.data.clamp_(-step.clip_weights, step.clip_weights)
    _end(parameters)
    torch.manual_seed(draw)  # a hook that re-initialises networks must do so alike on all ranks
    return terms


def _begin(state: TrainState, step: Step) -> list[nn.Parameter]:
    networks = (state.detector.networks[name] for name in step.trains)
    parameters = [p for network in networks for p in network.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
        parameter.grad = None
    return parameters


def _end(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None


def _backward(
    detector: Detector, step: Step, batch: Batch, train: TrainConfig, parts: int
) -> Mapping[str, Tensor]:
    """Add one of `parts` parts to the gradients; give its raw terms."""
    device = batch["normal"].device
    with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bf16"):
        raw = step.loss(batch)
        total = sum(detector.weights[name] * term for name, term in raw.items())
    (total / parts).backward()  # type: ignore[union-attr]
    return raw


def _does_not_fit(
    state: TrainState,
    step: Step,
    parts: list[Mapping[str, Tensor]],
    train: TrainConfig,
    images: int,
    seen: memory.Shortage,
) -> OutOfMemoryError:
    """Try what would have fitted and give the error that says so; the weights are lost by it."""
    streams, divisible = parts[0], True
    rows = len(streams["normal"])

    def whole(tensor: Tensor) -> Tensor:
        nonlocal divisible
        divisible = False
        return tensor

    def cycle(count: int) -> None:
        for each in state.stage.steps:
            few = {name: tensor[:count] for name, tensor in streams.items()}
            parameters = _begin(state, each)
            _backward(state.detector, each, Batch(few, mean_over_ranks=whole), train, 1)
            state.forget_optimizer(each.name)  # it may be half made
            state.optimizers[each.name].step()
            _end(parameters)

    fits = memory.largest_that_fits(cycle, rows, streams["normal"].device)
    remedy = memory.smaller_batch(
        fits, rows, batch=train.batch_size, accumulate=train.accumulate, parts=divisible
    )
    return seen.error(
        f"in step '{step.name}' of stage '{state.stage.name}' after {images:,} images", remedy
    )


def _not_in_parts(_: Tensor) -> Tensor:
    raise ConfigError(
        "a loss term of this architecture is not a mean over images, so a batch cannot be cut into "
        "parts: set --train.accumulate 1."
    )


def _averaged(terms: Mapping[str, Tensor]) -> dict[str, float]:
    values = torch.stack([term.double() for term in terms.values()])
    distributed.mean_([values])
    return dict(zip(terms, values.tolist(), strict=True))


def _compile(state: TrainState, train: TrainConfig) -> None:
    """Compile what the stage runs, except what a compiler cannot follow.

    That is: networks that a step differentiates twice, and spectral norm, whose power iteration
    changes buffers between two passes of one graph.
    """
    if train.compile:
        twice = {name for step in state.stage.steps if step.second_order for name in step.trains}
        for name, network in state.detector.networks.items():
            moving = any(is_parametrized(module) for module in network.modules())
            if name not in twice and not moving:
                network.compile()


class _Totals:
    """Sums of the terms since the last report; they stay on the device until it."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._bad: dict[str, Tensor] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, step: str, terms: Mapping[str, Tensor], images: int) -> None:
        """Add a step's terms; remember the images at which each first stopped being finite."""
        values = torch.stack([term.double() for term in terms.values()])
        never = torch.full_like(values, torch.inf)
        if step not in self._sums:
            self._names[step], self._counts[step] = list(terms), 0
            self._sums[step], self._bad[step] = torch.zeros_like(values), never
        self._sums[step] += values
        self._counts[step] += 1
        first = torch.where(values.isfinite(), never, torch.full_like(values, images))
        self._bad[step] = torch.minimum(self._bad[step], first)

    def means(self, stage: str) -> dict[str, float]:
        """Give the mean of every term over ticks and ranks, or raise `DivergedError`."""
        distributed.mean_(self._sums.values())
        metrics: dict[str, float] = {}
        faults: list[tuple[float, str, str, float]] = []
        for step, names in self._names.items():
            distributed.minimum_(self._bad[step])
            means = (self._sums[step] / self._counts[step]).tolist()
            for term, mean, bad in zip(names, means, self._bad[step].tolist(), strict=True):
                metrics[f"{step}/{term}"] = mean
                if math.isfinite(bad):
                    faults.append((bad, step, term, mean))
        if faults:
            images, step, term, value = min(faults, key=lambda fault: fault[0])
            raise DivergedError(stage=stage, step=step, term=term, images=int(images), value=value)
        return metrics
