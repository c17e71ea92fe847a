"""The profiler looks on: what it writes, and that training does not notice."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import pytest

from gan_ray import experiment
from gan_ray.training.launch import train
from gan_ray.training.run import RunFolder


def settings(profile: bool, images: int = 160):
    return experiment.make(
        "f-anogan",
        preset="tiny",
        changes={
            "data": {"source": "digits", "normal_class": 1, "image_size": 16},
            "train": {
                "images": images, "report_every": 80, "batch_size": 8, "samples": 0,
                "profile": profile,
            },
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    return {on: train(settings(on), folder / f"{on}", local=True) for on in (False, True)}


def test_each_stage_leaves_a_trace_and_a_table(runs):
    folder = runs[True].directory / "profile"
    stages = [stage.name for stage in experiment.build_detector(settings(True)).stages()]
    assert len(stages) == 2
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        f"{stage}.{end}" for stage in stages for end in ("json.gz", "txt")
    )
    for stage, steps in zip(stages, (("critic", "generator"), ("encoder",)), strict=True):
        events = json.loads(gzip.decompress((folder / f"{stage}.json.gz").read_bytes()))
        names = [event.get("name") for event in events["traceEvents"]]
        for step in steps:
            assert f"step {step}" in names
        assert names.count(f"step {steps[-1]}") <= 3, "a few cycles, not all"
        table = (folder / f"{stage}.txt").read_text()
        for word in ("Self CPU", "CPU Mem", "convolution"):
            assert word in table


def test_the_weights_are_the_same_bit_for_bit_and_nothing_is_left_when_it_is_off(runs):
    def weights(run: RunFolder) -> bytes:
        return run.store.get(f"checkpoints/{run.checkpoints()[-1]:012d}/tensors.safetensors")

    assert weights(runs[True]) == weights(runs[False])
    assert not (Path(runs[False].directory) / "profile").exists()


def test_a_run_that_goes_on_may_be_profiled(tmp_path: Path):
    out = tmp_path / "run"
    plain, looked = settings(False), settings(True)
    train(plain, out, local=True)
    first = RunFolder(out).checkpoints()
    # The same training, its last checkpoint lost.
    RunFolder(out).store.delete(f"checkpoints/{first[-1]:012d}/digest.json")
    again = train(looked, out, local=True)
    assert again.checkpoints() == first
    assert (out / "profile" / "encoder.txt").exists()
    assert dataclasses.replace(looked.train, profile=False) == plain.train
