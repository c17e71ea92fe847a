"""The model of docs/scaling.md against arithmetic of its own, and against what is really sent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from benchmarks.ray_overhead import Turn, ratios, steady
from benchmarks.scaling import FAST, SLOW
from benchmarks.scaling_fit import Rows, line
from benchmarks.scaling_model import (
    Link,
    all_reduce_seconds,
    averaging_seconds,
    compute_seconds,
    first_to_break,
    mended,
    most_ranks,
    ring_bytes,
    strong,
    tick_seconds,
    weak,
)
from benchmarks.workload import StepWork, Workload, _Seen, count
from gan_ray import architectures, experiment
from gan_ray.training.loop import fit
from tests.training.ranks import on_two_ranks

WORK = Workload(
    name="made up", batch=16, smallest=2, row_bytes=4096, images=32_000, interval=1600,
    look=0, look_flops=1e9, tensors=10, tensor_bytes=4_000_000,
    buffer_bytes=400, state_bytes=12_000_000,
    steps=(
        StepWork("critic", 1, flops=3e9, launches=100, messages=(2_000_000, 8), draws=10),
        StepWork("generator", 2, flops=6e9, launches=300, messages=(2_000_000,), draws=0),
    ),
)  # fmt: skip


def tiny(name: str):
    return experiment.make(name, preset="tiny", changes={"train": {"batch_size": 8}})


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_a_ring_that_is_played_through_sends_the_bytes_of_the_formula(ranks):
    pieces = [[{(rank, piece)} for piece in range(ranks)] for rank in range(ranks)]
    sent = [0] * ranks
    for turn in range(2 * (ranks - 1)):
        moves = []
        for rank in range(ranks):
            piece = (rank - turn) % ranks if turn < ranks - 1 else (rank - turn + ranks) % ranks
            moves.append((rank, piece, set(pieces[rank][piece])))
        for rank, piece, content in moves:
            sent[rank] += 1
            pieces[(rank + 1) % ranks][piece] |= content
    everything = [{(rank, piece) for rank in range(ranks)} for piece in range(ranks)]
    assert all(held == everything for held in pieces)
    assert {count / ranks for count in sent} == {ring_bytes(1.0, ranks)}


def test_one_rank_is_as_efficient_as_itself_and_averages_nothing():
    assert weak(WORK, 1, SLOW, 1000) == strong(WORK, 1, SLOW, 1000) == 1
    assert averaging_seconds(WORK, 1, SLOW) == 0


def test_a_tick_by_hand():
    machine = replace(
        SLOW, flops=1e12, launch=1e-5, memory=6e9, feed=1e6, draw=1e6, encode=1e7, store=1e7,
        inside=Link(1e9, 0.0),
    )  # fmt: skip
    found = tick_seconds(WORK, 2, 32, machine, 100)
    # Critic: 16 x 3 GFLOP; generator: 16 x 6 GFLOP, at every second tick.
    assert found.compute == pytest.approx(0.048 + 0.096 / 2)
    # 2 MB each 1.5 times and 8 bytes: a ring of two sends them once, flattening moves six times.
    assert found.averaging == pytest.approx(3_000_008 / 1e9 + 6 * 3_000_008 / 6e9)
    assert found.input == pytest.approx(16 * 4096 / 1e6)
    assert found.draws == pytest.approx(32 * 10 / 1e6)
    # A report each 50 ticks.
    assert found.look == pytest.approx(100 * 1e9 / 1e12 / 50)
    synced = 11 * 8 / 1e9 + 400 / 1e9 + 4e6 / 1e9
    assert found.checkpoint == pytest.approx((2 * 1.2 + synced) / 50)


def test_more_bandwidth_never_makes_it_slower_and_more_ranks_never_quicker():
    seconds = [
        all_reduce_seconds(1e8, 64, replace(SLOW, between=Link(rate, 2e-5)))
        for rate in (1e8, 1e9, 1e10, 1e11, 1e12)
    ]
    assert seconds == sorted(seconds, reverse=True)
    assert weak(WORK, 64, FAST, 0) > weak(WORK, 64, SLOW, 0)
    for size in (8, 1e5, 1e9):
        grown = [all_reduce_seconds(size, ranks, SLOW) for ranks in (1, 2, 4, 8, 16, 64, 512)]
        assert grown == sorted(grown)


def test_rarer_reports_cost_what_they_cost_one_rank():
    quiet = replace(FAST, between=Link(1e15, 0.0), inside=Link(1e15, 0.0), memory=1e15, draw=1e15)
    assert weak(WORK, 64, quiet, 1000, rarer=True) == pytest.approx(1, rel=1e-4)
    assert weak(WORK, 64, quiet, 1000) < 0.99


def test_fewer_rows_do_not_shorten_the_launching():
    machine = replace(SLOW, flops=1e18)
    assert compute_seconds(WORK, 16, machine) == compute_seconds(WORK, 2, machine)
    assert compute_seconds(WORK, 2, machine) == pytest.approx(250 * machine.launch)


def test_the_batch_ends_strong_scaling():
    assert most_ranks(WORK) == 8
    assert strong(WORK, 8, FAST, 0) is not None
    assert strong(WORK, 16, FAST, 0) is None


def test_what_breaks_first_is_what_was_made_slow():
    calm = replace(FAST, launch=0.0, flops=1e10, encode=1e15, store=1e15)
    assert first_to_break(WORK, calm, 0) is None
    assert first_to_break(WORK, replace(calm, between=Link(1e6, 0)), 0) == (16, "averaging")
    assert (first_to_break(WORK, replace(calm, store=1e6), 0) or (0, ""))[1] == "checkpoint"
    assert (first_to_break(WORK, replace(calm, draw=1e3), 0) or (0, ""))[1] == "draws"
    assert (first_to_break(WORK, calm, 10**7) or (0, ""))[1] == "look"


def test_every_mend_helps_and_all_of_them_most():
    found = mended(WORK, 64, SLOW, 1000)
    now = found.pop("as it is")
    assert now == weak(WORK, 64, SLOW, 1000)
    assert all(value >= now for value in found.values())
    assert found["all"] >= max(found["averaging"], found["reports"], found["draws"])


def test_arithmetic_is_counted_forward_and_back():
    images, weights = torch.rand(5, 3), torch.rand(3, 7, requires_grad=True)
    with _Seen() as seen:
        (images @ weights).sum().backward()
    assert seen.flops == 2 * (2 * 5 * 3 * 7)


@pytest.mark.parametrize("name", architectures.names())
def test_each_step_is_counted_to_send_four_bytes_for_each_weight_it_trains(name):
    settings = tiny(name)
    detector, work = experiment.build_detector(settings), count(settings)
    assert not dist.is_initialized()
    for step, counted in zip(detector.stages()[0].steps, work.steps, strict=True):
        weights = sum(p.numel() for n in step.trains for p in detector.networks[n].parameters())
        small = [size for size in counted.messages if size != 4 * weights]
        assert len(small) == len(counted.messages) - 1
        assert sum(small) <= 64
        assert counted.flops > 0
        assert counted.launches > 50


def test_a_checkpoint_is_counted_as_it_is_written():
    settings = tiny("ganomaly")
    detector = experiment.build_detector(settings)
    report = next(
        fit(detector, Rows(("normal",), 8, 1, detector.image.size), settings.train, seed=0)
    )
    size = sum(tensor.nbytes for tensor in report.state.tensors().values())
    assert count(settings).state_bytes == size


def send(rank: int, names: tuple[str, ...], folder: Path) -> None:
    """Train one cycle of each; rank 0 notes the bytes of what went through the group."""
    sent: list[int] = []
    real = dist.all_reduce

    def noted(tensor, *arguments, **options):
        sent.append(tensor.nbytes)
        return real(tensor, *arguments, **options)

    dist.all_reduce = noted
    for name in names:
        settings = tiny(name)
        detector = experiment.build_detector(settings)
        ticks = max(step.every for step in detector.stages()[0].steps)
        train = replace(settings.train, report_every=8 * ticks, images=10**5)
        image = detector.image
        sent.clear()
        next(fit(detector, Rows(detector.streams, 4, image.channels, image.size), train, seed=0))
        if rank == 0:
            (folder / name).write_text(json.dumps([ticks, sent]))


def test_two_ranks_send_what_was_counted(tmp_path):
    names = ("ganomaly", "healthygan", "f-anogan")
    on_two_ranks(send, tmp_path, names, tmp_path)
    for name in names:
        ticks, sent = json.loads((tmp_path / name).read_text())
        work = count(tiny(name))
        expected = [
            size
            for tick in range(1, ticks + 1)
            for step in work.steps
            if tick % step.every == 0
            for size in step.messages
        ]
        assert sent[: len(expected)] == expected
        # Then the report: buffers, sums of the terms, and where each stopped being finite.
        rest = sent[len(expected) :]
        assert len(rest) == bool(work.buffer_bytes) + 1 + len(work.steps)
        assert not work.buffer_bytes or rest[0] == work.buffer_bytes


def test_a_line_is_found_again():
    sizes = [1e3, 1e5, 1e7]
    latency, rate = line(sizes, [2e-4 + size / 5e8 for size in sizes])
    assert (latency, rate) == pytest.approx((2e-4, 5e8))


def test_the_price_of_ray_is_taken_from_intervals_after_the_warm_up():
    rows = [{"images": 100 * (n + 1), "seconds": s} for n, s in enumerate((50.0, 9.0, 2.0, 3.0))]
    training, whole = steady(rows, [60.0, 70.0, 73.0, 78.0], 2)
    assert (training, whole) == (200 / 5, 200 / 8)
    turns = {
        kind: [Turn(rate, rate, 0, 1, 1), Turn(2 * rate, rate, 0, 1, 1)]
        for kind, rate in (
            ("local", 10.0),
            ("1 worker", 9.0),
            ("2 workers", 18.0),
            ("2 local", 19.0),
        )
    }
    assert ratios(turns, "training") == {
        "1 worker / local": [0.9, 0.9], "2 workers / 1 worker": [2.0, 2.0],
        "2 local / local": [1.9, 1.9],
    }  # fmt: skip
