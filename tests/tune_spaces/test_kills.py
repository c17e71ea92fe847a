"""Sweeps whose driver is really killed, and trials whose processes are."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gan_ray.experiment import make
from gan_ray.training.run import RunFolder
from tune_spaces.record import read
from tune_spaces.sweep import sweep

ROOT = Path(__file__).resolve().parents[2]
SAMPLES, IMAGES = 20, 640
KILLS, SEED = 5, 20261122

pytestmark = pytest.mark.ray


def tiny(name: str, images: int = IMAGES, **changes: Any):
    digits = {"source": "digits", "normal_class": 0, "image_size": 16}
    train = {"images": images, "report_every": images // 5, "samples": 0, **changes}
    return make(name, preset="tiny", changes={"data": digits, "train": train})


def drive(out: str) -> None:
    """Run the sweep that gets killed, one trial at a time."""
    sweep([tiny("ganomaly")], samples=SAMPLES, out=out, concurrent=1)


@contextmanager
def driver(out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that runs the sweep on the tests' cluster; killed at the end."""
    import ray

    code = "import sys; from tests.tune_spaces.test_kills import drive; drive(sys.argv[1])"
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def reports(out: Path) -> int:
    """Count the reports of all trials so far."""
    files = out.glob("trials/*/metrics.jsonl")
    return sum(file.read_bytes().count(b"\n") for file in files)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep_killed_at_five_random_moments_is_the_one_that_was_never_killed(tmp_path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with driver(whole) as process:
        assert process.wait() == 0
    expected = read(str(whole))["trials"]
    draw = random.Random(SEED)
    moments = sorted(draw.sample(range(1, reports(whole)), KILLS))
    seen: dict[int, dict[str, Any]] = {}
    for moment in moments:  # after so many reports, and up to a third of a second more
        with driver(broken) as process:
            while reports(broken) < moment and process.poll() is None:
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.3))
            assert process.poll() is None, "the sweep was over before it could be killed"
        for row in read(str(broken))["trials"]:
            ended = seen.get(row["number"], {}).get("state", "running") != "running"
            if ended:
                assert row == seen[row["number"]], "a finished trial changed"
            seen[row["number"]] = row
    with driver(broken) as process:
        assert process.wait() == 0
    content = read(str(broken))
    rows = content["trials"]
    assert [row["number"] for row in rows] == list(range(SAMPLES))
    assert len({json.dumps(row["params"]) for row in rows}) == SAMPLES
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    assert content["queue"] == {"done": SAMPLES, "running": [], "waiting": {"ganomaly": 0}}
    restarts = 0
    for row in rows:
        run = RunFolder(row["run"])
        images = [report["images"] for report in run.metrics()]
        assert images == sorted(set(images)), "a report was lost or repeated"
        restarts += sum(" went on from " in line for line in run.log())
    assert restarts > 0, "no kill hit a training"
    for row, other in zip(rows, expected, strict=True):
        for key in ("state", "params", "value", "images", "stopped"):
            assert row[key] == other[key], (row["number"], key)
    assert content["best"] == read(str(whole))["best"]


def processes_of(parent: int) -> Iterator[tuple[int, str]]:
    """Give id and title of every process below one."""
    titles, children = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, ValueError):
            continue
        children.setdefault(above, []).append(int(folder.name))
    left = [parent]
    while left:
        pid = left.pop()
        yield pid, titles.get(pid, "")
        left += children.get(pid, [])


@pytest.mark.usefixtures("ray_cluster")
def test_a_trial_whose_process_is_killed_again_and_again_fails_and_the_next_one_runs(
    tmp_path,
) -> None:
    """Trial 0 is killed whenever it runs, as the kernel does when memory is short."""
    killed: set[int] = set()
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.05):
            first = RunFolder(tmp_path / "trials/0000-ganomaly")
            if not first.metrics() or _state(tmp_path, 0) != "running":
                continue
            for pid, title in processes_of(os.getpid()):
                if title.startswith("ray::ImplicitFunc") and pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        content = sweep([tiny("ganomaly", 3200, max_failures=1)], samples=2, out=str(tmp_path),
                        concurrent=1)  # fmt: skip
    finally:
        over.set()
        killer.join()
    first, second = content["trials"]
    assert len(killed) == 2, "one more attempt after a failure"
    assert first["state"] == "failed"
    assert "its process died (killed, out of memory" in first["reason"]
    assert first["images"] > 0
    assert second["state"] in ("complete", "pruned")
    assert content["best"] == content["selection"]["winner"] == 1


def _state(out: Path, number: int) -> str:
    rows = read(str(out))["trials"]
    return next((row["state"] for row in rows if row["number"] == number), "")
