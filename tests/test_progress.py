"""The progress line as it is read: its rate, its time left, its end."""

from __future__ import annotations

import io
import re

from gan_ray import experiment
from gan_ray.progress import ProgressLine
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
