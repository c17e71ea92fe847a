"""Seconds of one tick of training on N machines: a model, in pure functions.

    tick = compute + averaging + input + draws + report / (ticks between reports)

A tick is one global batch: all steps that run at it, averaged over a cycle. The terms are added
because the loop runs them one after the other: gradients are averaged after the whole backward pass
(`gan_ray.training.distributed`), rows are gathered when they are needed, and at a report all ranks
wait for rank 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from benchmarks.workload import Workload


@dataclass(frozen=True)
class Link:
    """A way between ranks."""

    bandwidth: float
    """Bytes per second, one direction."""
    latency: float
    """Seconds of a message of no length, with the software around it."""


@dataclass(frozen=True)
class Machine:
    """Nodes of equal ranks; all rates are what programs attain, not what is printed on boxes."""

    flops: float
    """Per second and rank, with enough rows."""
    launch: float
    """Seconds from one operator to the next when the operators themselves are short."""
    memory: float
    """Bytes per second of a rank's memory."""
    node_size: int
    """Ranks of a node."""
    inside: Link
    """Between the ranks of a node."""
    between: Link
    """Between nodes, shared by the ranks of a node."""
    feed: float
    """Bytes of prepared images per second: rows gathered, sent to the device, made floats."""
    draw: float
    """Random numbers per second."""
    encode: float
    """Bytes of state per second that are copied from the device, serialised and hashed."""
    store: float
    """Bytes per second into the store that keeps the checkpoints."""


@dataclass(frozen=True)
class Seconds:
    """Where a tick goes."""

    compute: float
    averaging: float
    input: float
    draws: float
    look: float
    """Rank 0 scores held-out images, all others wait; the report's share of one tick."""
    checkpoint: float
    """Rank 0 writes the state, all others wait; the report's share of one tick."""

    @property
    def tick(self) -> float:
        """All together."""
        return float(sum(getattr(self, field.name) for field in fields(self)))


def ring_bytes(size: float, ranks: int) -> float:
    """Give the bytes that each rank sends in a ring all-reduce of a buffer of `size` bytes.

    2 (N - 1) / N * size: N - 1 pieces of size / N are summed up, as many handed round (Patarasuk
    and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002).
    """
    return 2 * (ranks - 1) / ranks * size


def all_reduce_seconds(size: float, ranks: int, machine: Machine) -> float:
    """Give the seconds of an all-reduce, by the quicker of a ring and a tree, as NCCL chooses.

    The slowest link decides the bandwidth. A ring waits for 2 (N - 1) latencies in turn, a
    pipelined double tree for 2 log2 of the nodes, and of the ranks inside one.
    """
    if ranks == 1:
        return 0.0
    nodes = math.ceil(ranks / machine.node_size)
    local = min(ranks, machine.node_size)
    slowest = machine.inside.bandwidth
    if nodes > 1:
        slowest = min(slowest, machine.between.bandwidth)
    hops = 2 * (ranks - 1)
    across = min(hops, 2 * nodes) if nodes > 1 else 0
    ring = (
        ring_bytes(size, ranks) / slowest
        + (hops - across) * machine.inside.latency
        + across * machine.between.latency
    )
    depth_inside, depth_between = math.ceil(math.log2(local)), math.ceil(math.log2(nodes))
    tree = (
        2 * size / slowest
        + 2 * depth_inside * machine.inside.latency
        + 2 * depth_between * machine.between.latency
    )
    return min(ring, tree)


def flatten_seconds(size: float, machine: Machine) -> float:
    """Give the seconds in which `mean_` makes one buffer of many tensors, divides, copies back.

    Three passes, each of which reads and writes.
    """
    return 6 * size / machine.memory


def averaging_seconds(work: Workload, ranks: int, machine: Machine) -> float:
    """Give the seconds per tick in which gradients, and what losses ask for, become means."""
    if ranks == 1:
        return 0.0
    return sum(
        times * (all_reduce_seconds(size, ranks, machine) + flatten_seconds(size, machine))
        for size, times in work.messages().items()
    )


def compute_seconds(work: Workload, rows: float, machine: Machine) -> float:
    """Give the seconds of arithmetic per tick with `rows` images on a rank.

    Step by step the longer of the arithmetic and of the launching: rows shorten only the first.
    """
    return sum(
        max(step.flops * rows / machine.flops, step.launches * machine.launch) / step.every
        for step in work.steps
    )


def sync_seconds(work: Workload, ranks: int, machine: Machine) -> float:
    """Give the seconds in which a report averages buffers and compares all tensors of all ranks."""
    if ranks == 1:
        return 0.0
    one = all_reduce_seconds(8, ranks, machine)  # at small sizes a broadcast costs as much
    buffers = all_reduce_seconds(work.buffer_bytes, ranks, machine) if work.buffer_bytes else 0.0
    across = machine.inside if ranks <= machine.node_size else machine.between
    return buffers + (work.tensors + 1) * one + work.tensor_bytes / across.bandwidth


def tick_seconds(
    work: Workload, ranks: int, batch: int, machine: Machine, held_out: int
) -> Seconds:
    """Give the parts of one tick of a global `batch` over `ranks`.

    `held_out` images are scored at each report, or as many as the system looks at.
    """
    rows = batch / ranks
    share = min(1.0, batch / work.interval)  # of a report, per tick
    seen = min(held_out, 2 * work.look) if work.look else held_out
    checkpoint = work.state_bytes * (1 / machine.encode + 1 / machine.store)
    return Seconds(
        compute=compute_seconds(work, rows, machine),
        averaging=averaging_seconds(work, ranks, machine),
        input=work.row_bytes * rows / machine.feed,
        draws=work.per_tick("draws") * batch / machine.draw,
        look=share * seen * work.look_flops / machine.flops,
        checkpoint=share * (checkpoint + sync_seconds(work, ranks, machine)),
    )


def rarer_reports(work: Workload, ranks: int) -> Workload:
    """Give the work with a report after as many ticks as one rank has, not as many images."""
    return replace(work, interval=work.interval * ranks)


def weak(
    work: Workload, ranks: int, machine: Machine, held_out: int, *, rarer: bool = False
) -> float:
    """Give the efficiency with the paper's batch on every rank: images/s over N times those of 1.

    `rarer` lets reports come after as many ticks as on one rank.

    It is a figure of throughput: a global batch N times as large is another optimisation.
    """
    alone = tick_seconds(work, 1, work.batch, machine, held_out).tick
    one = rarer_reports(work, ranks) if rarer else work
    return alone / tick_seconds(one, ranks, work.batch * ranks, machine, held_out).tick


def strong(work: Workload, ranks: int, machine: Machine, held_out: int) -> float | None:
    """Give the efficiency with the paper's batch over all ranks; None where they get no rows."""
    if work.batch % ranks or work.batch // ranks < work.smallest:
        return None
    alone = tick_seconds(work, 1, work.batch, machine, held_out).tick
    return alone / (ranks * tick_seconds(work, ranks, work.batch, machine, held_out).tick)


def mended(work: Workload, ranks: int, machine: Machine, held_out: int) -> dict[str, float]:
    """Give weak efficiency as it is, and with one or all of the model's terms made smaller."""
    alone = tick_seconds(work, 1, work.batch, machine, held_out)
    now = tick_seconds(work, ranks, work.batch * ranks, machine, held_out)
    rarer = tick_seconds(rarer_reports(work, ranks), ranks, work.batch * ranks, machine, held_out)
    backward = 2 / 3 * now.compute
    halved = replace(
        work,
        steps=tuple(
            replace(step, messages=tuple(size // 2 for size in step.messages))
            for step in work.steps
        ),
    )
    better = {
        "averaging": {"averaging": max(now.averaging - backward, 0.0)},
        "bf16": {"averaging": averaging_seconds(halved, ranks, machine)},
        "look": {"look": now.look / ranks},
        "reports": {"look": rarer.look, "checkpoint": rarer.checkpoint},
        "draws": {"draws": now.draws / ranks},
    }
    every = {**better["averaging"], **better["reports"], **better["draws"]}
    cases = {"as it is": {}, **better, "all": every}
    return {name: alone.tick / replace(now, **change).tick for name, change in cases.items()}


def most_ranks(work: Workload) -> int:
    """Give the most ranks that the paper's batch can be split over."""
    return max(
        ranks
        for ranks in range(1, work.batch + 1)
        if work.batch % ranks == 0 and work.batch // ranks >= work.smallest
    )


def first_to_break(
    work: Workload,
    machine: Machine,
    held_out: int,
    *,
    rarer: bool = False,
    limit: int = 512,
    below: float = 0.9,
) -> tuple[int, str] | None:
    """Give at how many ranks weak efficiency falls below `below`, and the part that grew most.

    `rarer` lets reports come after as many ticks as on one rank.
    """
    alone = tick_seconds(work, 1, work.batch, machine, held_out)
    ranks = 1
    while ranks < limit:
        ranks *= 2
        one = rarer_reports(work, ranks) if rarer else work
        now = tick_seconds(one, ranks, work.batch * ranks, machine, held_out)
        if alone.tick / now.tick < below:
            grown = {
                field.name: getattr(now, field.name) - getattr(alone, field.name)
                for field in fields(Seconds)
            }
            return ranks, max(grown, key=lambda name: grown[name])
    return None
