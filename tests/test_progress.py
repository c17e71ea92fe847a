"""The progress line as it is read: its rate, its time left, its end."""

from __future__ import annotations

import io
import re

from gan_ray import experiment
from gan_ray.progress import ProgressLine, ShardLine
from gan_ray.training.launch import train


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def row(images: int, **changes):
    return {"stage": "gan", "images": images, "seconds": 10.0, "images_per_second": 10.0, **changes}


def test_a_training_that_goes_on_has_the_rate_of_what_it_did_itself(tmp_path):
    digits = {"source": "digits", "normal_class": 1, "image_size": 16}
    settings = experiment.make(
        "ganomaly",
        preset="tiny",
        changes={
            "data": digits,
            "train": {"images": 960, "report_every": 480, "batch_size": 16, "samples": 0},
        },
    )
    run = train(settings, tmp_path, local=True)
    run.store.delete(f"checkpoints/{960:012d}/digest.json")
    told = io.StringIO()
    train(settings, tmp_path, local=True, progress=ProgressLine(960, told))
    (line,) = told.getvalue().splitlines()
    assert "960/960 images" in line
    assert "ETA 0:00" in line
    rate = int(re.search(r"images  ([\d,]+)/s", line)[1].replace(",", ""))
    # Reports take their time, so at most the rate of training alone.
    assert 0 < rate <= run.metrics()[-1]["images_per_second"] * 1.01


def test_time_left_follows_the_rate_and_memory_is_told():
    told = io.StringIO()
    ProgressLine(1000, told)(row(400, gpu_peak_gib=1.5))  # 300 of them were there before
    assert re.search(r"400/1,000 images  10/s  ETA 1:(00|01)  gpu_peak_gib 1.5", told.getvalue())


def test_a_terminal_is_left_at_the_start_of_a_line_however_training_ends():
    told = Terminal()
    with ProgressLine(1000, told) as line:
        line(row(400))
        line(row(500))  # and no more: a stage ended early
    assert told.getvalue().count("\n") == 1
    assert told.getvalue().endswith("\n")
    silent = Terminal()
    with ProgressLine(1000, silent):
        pass
    assert silent.getvalue() == ""


def shard(objects: int, **changes):
    left = {"rate_per_s": 40.0, "eta_s": (1000 - objects) / 40}
    return {"objects": objects, "total": 1000, "failed": 3, **left, **changes}


def test_a_scoring_job_tells_rate_time_left_and_failures_after_each_shard():
    told = io.StringIO()
    with ShardLine(told) as line:
        line(shard(0, rate_per_s=0.0, eta_s=None))  # nothing is known yet
        line(shard(600))
        line(shard(1000))
    first, last = told.getvalue().splitlines()
    assert first == "600/1,000 images  40.0/s  ETA 0:10  failed 3"
    assert last == "1,000/1,000 images  40.0/s  ETA 0:00  failed 3"


def test_on_a_terminal_a_scoring_job_has_one_line():
    told = Terminal()
    with ShardLine(told) as line:
        line(shard(600))
        line(shard(1000))
    assert told.getvalue().count("\n") == 1
    assert told.getvalue().split("\r\x1b[2K")[1:] == [
        "600/1,000 images  40.0/s  ETA 0:10  failed 3",
        "1,000/1,000 images  40.0/s  ETA 0:00  failed 3\n",
    ]
