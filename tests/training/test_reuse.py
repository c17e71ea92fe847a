"""Stages that trainings share: taken over bit for bit, by processes that may die."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gan_ray.config import Experiment, to_dict
from gan_ray.data.sources import load_training
from gan_ray.errors import DivergedError
from gan_ray.experiment import build_detector, make, parse
from gan_ray.training import reuse
from gan_ray.training.run import RunFolder
from gan_ray.training.session import run_session
from gan_ray.training.state import DIGEST, TENSORS
from tune_spaces.settings import with_settings

IMAGES, OF_GAN = 160, 96
CLOCK = ("seconds", "images_per_second", "look_seconds", "reused_seconds")


def tiny(stages: str | Path = "", **settings: Any) -> Experiment[Any]:
    changes = {
        "data": {"source": "digits", "normal_class": 1, "image_size": 16},
        "train": {"images": IMAGES, "report_every": 32, "samples": 0, "stages": str(stages)},
    }
    made = make("f-anogan", preset="tiny", changes=changes)
    return with_settings(made, {key.replace("__", "."): value for key, value in settings.items()})


OTHER_ENCODER = {"model__encoder_optimizer__lr": 1e-3, "model__mode": "izi"}


def trained(experiment: Experiment[Any], folder: Path) -> RunFolder:
    run = RunFolder(folder)
    run.claim(experiment)
    run_session(experiment, run)
    return run


def outcome(run: RunFolder) -> tuple[str, list[dict[str, Any]]]:
    """Digest of the last weights, and what was reported but for the clock."""
    digests = json.loads(run.store.get(f"checkpoints/{IMAGES:012d}/{DIGEST}"))
    rows = [{k: v for k, v in row.items() if k not in CLOCK} for row in run.metrics()]
    return digests[TENSORS], rows


def folders(stages: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(stages)) for path in stages.glob("*/*/claim.json"))


@pytest.fixture(params=["directory", "bucket"])
def stages(request, tmp_path) -> str:
    if request.param == "directory":
        return str(tmp_path / "stages")
    return f"{request.getfixturevalue('s3').uri}/stages"


def test_a_training_that_takes_a_gan_over_ends_with_the_bits_of_one_that_trained_it(
    stages, tmp_path
):
    first = trained(tiny(stages), tmp_path / "first")
    alone = trained(tiny(**OTHER_ENCODER), tmp_path / "alone")
    told: list[dict[str, Any]] = []
    run, settings = RunFolder(tmp_path / "second"), tiny(stages, **OTHER_ENCODER)
    run.claim(settings)
    run_session(settings, run, on_report=lambda row, written: told.append(row))
    assert outcome(run) == outcome(alone)
    assert outcome(run)[0] != outcome(first)[0], "the encoders differ"
    # Its GAN cost it nothing, and what it would have cost is told apart.
    assert [row["images"] for row in told] == [128, 160]
    gan, encoder = run.metrics()[:3], run.metrics()[3:]
    assert [row["seconds"] for row in gan] == [0.0] * 3
    assert [r["reused_seconds"] for r in gan] == [r["seconds"] for r in first.metrics()[:3]]
    assert all(row["seconds"] > 0 and "reused_seconds" not in row for row in encoder)
    assert f"took over {OF_GAN} images" in "".join(run.log())
    again = RunFolder(tmp_path / "second")
    run_session(settings, again)
    assert outcome(again) == outcome(alone), "and what is finished stays as it is"


def test_a_training_that_was_stopped_within_the_gan_goes_on_with_the_shared_one(tmp_path):
    stages = tmp_path / "stages"
    alone = trained(tiny(**OTHER_ENCODER), tmp_path / "alone")
    settings, run = tiny(stages, **OTHER_ENCODER), RunFolder(tmp_path / "stopped")
    run.claim(settings)

    def stop(row: dict[str, Any], _: Any) -> None:
        if row["images"] == 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_session(settings, run, on_report=stop)
    trained(tiny(stages), tmp_path / "first")
    run_session(settings, run)
    assert outcome(run) == outcome(alone)
    assert [row["seconds"] > 0 for row in run.metrics()] == [True, False, False, True, True]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"model__weights__gradient_penalty": 5.0},
        {"model__gan_optimizer__lr": 1e-3},
        {"model__latent_size": 16},
        {"train__batch_size": 16},
        {"train__images": 320},
        {"train__report_every": 16},
        {"train__threads": 2},
        {"train__precision": "bf16"},
        {"data__normal_class": 2},
        {"data__flip": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_gan_of_other_settings_is_not_shared(change, tmp_path):
    import torch

    def key(experiment: Experiment[Any]) -> str:
        torch.set_num_threads(experiment.train.threads)
        detector, data = build_detector(experiment), load_training(experiment.data)
        last = reuse.shared_stages(detector.stages())[-1]
        return reuse._key(experiment, detector, last, data.fingerprint, torch.device("cpu"))

    try:
        assert key(tiny()) == key(tiny(**OTHER_ENCODER, train__keep_checkpoints=1))
        assert key(tiny()) != key(tiny(**change))
    finally:
        torch.set_num_threads(1)


def test_a_finished_training_is_judged_by_another_score_without_being_repeated(tmp_path):
    other = {"score__feature_weight": 50.0}
    first = trained(tiny(train__keep_checkpoints=9), tmp_path / "first")
    alone = trained(tiny(**other, train__keep_checkpoints=9), tmp_path / "alone")
    settings, run = tiny(**other, train__keep_checkpoints=9), RunFolder(tmp_path / "again")
    run.claim(settings)
    run_session(settings, run, trained=first)
    assert outcome(run) == outcome(alone)
    assert run.get_json("selection.json") == alone.get_json("selection.json")
    figures = [[row.get("val/aucp") for row in each.metrics()] for each in (first, run)]
    assert figures[0] != figures[1]


def test_of_a_finished_training_the_checkpoints_that_are_left_are_judged(tmp_path):
    first = trained(tiny(train__keep_checkpoints=1), tmp_path / "first")
    settings, run = tiny(score__feature_weight=50.0), RunFolder(tmp_path / "again")
    run.claim(settings)
    run_session(settings, run, trained=first)
    assert [row["images"] for row in run.metrics()] == first.checkpoints()
    assert run.best() in first.checkpoints()
    rows = run.metrics()
    run_session(settings, run, trained=first)
    assert run.metrics() == rows, "what is finished stays as it is"


def test_a_system_that_scores_from_the_start_shares_nothing(tmp_path):
    assert reuse.shared_stages(build_detector(make("ganomaly", preset="tiny")).stages()) == ()


def test_what_a_disk_has_spoiled_is_trained_again(tmp_path):
    stages = tmp_path / "stages"
    first = trained(tiny(stages), tmp_path / "first")
    (tensors,) = stages.glob(f"*/0000/{TENSORS}")
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"?")
    second = trained(tiny(stages), tmp_path / "second")
    assert outcome(second) == outcome(first)
    assert all(row["seconds"] > 0 for row in second.metrics())
    assert [place.split("/")[1] for place in folders(stages)] == ["0000", "0001"]
    third = trained(tiny(stages), tmp_path / "third")
    assert sum("reused_seconds" in row for row in third.metrics()) == 3


def test_a_training_that_fails_keeps_nobody_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(reuse, "PATIENCE", float("inf"))
    broken = tiny(tmp_path / "stages", model__gan_optimizer__lr=1e30)
    for name in ("first", "second"):  # the second does not wait for the first's claim
        with pytest.raises(DivergedError):
            trained(broken, tmp_path / name)
    assert [place.split("/")[1] for place in folders(tmp_path / "stages")] == ["0000", "0001"]


class Other:
    """A training in a process of its own, which halts at its first report until told to go on."""

    def __init__(self, experiment: Experiment[Any], run: Path) -> None:
        words = [json.dumps(to_dict(experiment)), str(run)]
        code = "import sys; from tests.training.test_reuse import other; other(*sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def other(settings: str, folder: str) -> None:
    reuse.BEAT, reuse.PATIENCE, reuse._POLL = 0.1, 2.0, 0.1
    experiment, run = parse(json.loads(settings)), RunFolder(folder)
    run.claim(experiment)
    halts = iter([True])

    def report(row: dict[str, Any], _: Any) -> None:
        if next(halts, False):
            print(row["images"], flush=True)
            sys.stdin.readline()

    run_session(experiment, run, on_report=report)
    print("done", flush=True)


@pytest.fixture
def others():
    """Processes that are ended with the test."""
    started: list[Other] = []
    yield started
    for one in started:
        one.process.kill()
        one.process.wait()


def test_of_two_at_the_same_time_one_trains_and_the_other_waits(tmp_path, others):
    stages = tmp_path / "stages"
    first = Other(tiny(stages), tmp_path / "first")
    others.append(first)
    assert first.says() == "32\n"
    second = Other(tiny(stages, **OTHER_ENCODER), tmp_path / "second")
    others.append(second)
    claim = stages / folders(stages)[0] / "claim.json"
    while not (tmp_path / "second/experiment.json").exists():
        assert second.process.poll() is None
    beat = json.loads(claim.read_text())["beat"]
    while json.loads(claim.read_text())["beat"] < beat + 40:  # longer than the second's patience
        assert second.process.poll() is None
    assert RunFolder(tmp_path / "second").metrics() == []
    first.go_on()
    assert first.says() == "done\n"
    assert second.says() == "128\n", "its first own report is one of the encoder"
    second.go_on()
    assert second.says() == "done\n"
    assert len(folders(stages)) == 1


def test_a_killed_trainer_keeps_nobody_waiting_for_ever_and_itself_not_at_all(
    tmp_path, others, monkeypatch
):
    stages = tmp_path / "stages"
    settings = tiny(stages)
    dead = Other(settings, tmp_path / "dead")
    others.append(dead)
    assert dead.says() == "32\n"
    dead.process.kill()
    dead.process.wait()
    follower = Other(tiny(stages, **OTHER_ENCODER), tmp_path / "follower")
    others.append(follower)
    assert follower.says() == "32\n", "it trains the GAN itself"
    assert len(folders(stages)) == 2
    # The killed one, started again, finds the follower's claim and waits for it in turn.
    back = Other(settings, tmp_path / "dead")
    others.append(back)
    follower.go_on()
    assert follower.says() == "done\n"
    assert back.says() == "128\n"
    back.go_on()
    assert back.says() == "done\n"
    alone = trained(tiny(), tmp_path / "alone")
    assert outcome(RunFolder(tmp_path / "dead")) == outcome(alone)


def test_a_claim_of_an_earlier_process_of_the_same_run_is_its_own(tmp_path, others, monkeypatch):
    stages = tmp_path / "stages"
    settings = tiny(stages)
    dead = Other(settings, tmp_path / "run")
    others.append(dead)
    assert dead.says() == "32\n"
    dead.process.kill()
    dead.process.wait()
    monkeypatch.setattr(reuse, "PATIENCE", float("inf"))
    run_session(settings, RunFolder(tmp_path / "run"))
    assert all(row["seconds"] > 0 for row in RunFolder(tmp_path / "run").metrics())
