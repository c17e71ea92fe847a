"""Ten thousand objects, 3 % of them poison, and a command whose processes are killed at work."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.scoring.batch import read_rows
from gan_ray.scoring.ledger import done
from gan_ray.scoring.scorer import Scorer
from gan_ray.storage import open_store
from tests.artifacts.conftest import make_bundle
from tests.data.dicoms import dicom
from tests.data.test_readers import header_only
from tests.data.trees import noise, png
from tests.tune_spaces.test_kills import processes_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OBJECTS, POISON_EACH, KINDS = 10_000, 33, 64
"""Objects of all kinds; poisonous ones of each sort; sound images that differ."""
WORKER_KILLS, DRIVER_KILL = (2, 6, 10, 24, 28), 16
"""After so many finished shards, of 40."""


def array(pixels: np.ndarray) -> bytes:
    """Give an npy file, pickled where the array holds objects."""
    file = io.BytesIO()
    np.save(file, pixels, allow_pickle=True)
    return file.getvalue()


def poison() -> dict[str, tuple[bytes, str]]:
    """Give a file of each sort, by its ending after the number, with what its row must say."""
    sound = png(noise(1))
    return {
        "-empty.png": (b"", "is empty"),
        "-cut.png": (sound[: len(sound) // 2], "is truncated"),
        "-text.jpg": (b"Dear colleague, see the film attached.", "is not a PNG"),
        "-bomb.png": (header_only(50_000, 50_000), "40 million"),
        "-pixelless.dcm": (dicom(noise(2), PixelData=None), "without an image"),
        "-lying.dcm": (dicom(noise(3), Rows=4096, Columns=4096), "fewer pixels"),
        "-objects.npy": (array(np.array([{"a": 1}], dtype=object)), "never loaded"),
        "-zipped.png": (b"PK\x03\x04" + bytes(50), "archive"),
        "-webp.png": (b"RIFF\0\0\0\0WEBP" + bytes(20), "WebP"),
    }


def fill(source: str) -> dict[str, bytes]:
    """Put them all, poison among the sound; give the contents by their keys."""
    sorts, sound = poison(), [png(noise(seed, 20)) for seed in range(KINDS)]
    poisonous = [ending for ending in sorts for _ in range(POISON_EACH)]
    every = OBJECTS // len(poisonous)
    contents = {}
    for number in range(OBJECTS):
        turn, rest = divmod(number, every)
        name = f"patient-{number % 97:02}/{number:05}"
        if rest == 0 and turn < len(poisonous):
            contents[name + poisonous[turn]] = sorts[poisonous[turn]][0]
        else:
            contents[f"{name}.png"] = sound[number % KINDS]
    store = open_store(source)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.put, contents, contents.values()))
    return contents


def started(bundle: Path, source: str, sink: str) -> subprocess.Popen[bytes]:
    """Begin the command, with a Ray of its own, as a user does."""
    command = [sys.executable, "-m", "gan_ray", "score", str(bundle), source, sink, "--json"]
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(command, env=clean, stdout=subprocess.PIPE)


def kill_at_work(driver: subprocess.Popen[bytes], sink: str, moments: list[int]) -> list[int]:
    """Kill a worker of the command after each of so many finished shards; give who died."""
    killed: list[int] = []
    for moment in moments:
        wait_for(driver, sink, moment)
        alive: list[int] = []
        while not alive:  # those that died are being replaced
            time.sleep(0.05)
            assert driver.poll() is None, "the command ended before all kills"
            below = processes_of(driver.pid)
            alive = [p for p, title in below if title.startswith("ray::ShardScorer.score")]
            alive = [pid for pid in alive if pid not in killed]
        os.kill(alive[0], signal.SIGKILL)
        killed.append(alive[0])
    return killed


def wait_for(driver: subprocess.Popen[bytes], sink: str, shards: int) -> None:
    """Return once so many shards are finished."""
    while len(done(open_store(sink))) < shards:
        assert driver.poll() is None, "the command ended too early"
        time.sleep(0.05)


@pytest.mark.timeout(900)
def test_ten_thousand_objects_have_one_row_each_whatever_is_killed_or_poisonous(
    s3, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle", "brainomaly")
    source, sink = f"{s3.uri}/in", f"{s3.uri}/out"
    contents = fill(source)
    began = time.monotonic()
    before = [moment for moment in WORKER_KILLS if moment < DRIVER_KILL]
    with started(bundle, source, sink) as driver:
        killed = kill_at_work(driver, sink, before)
        wait_for(driver, sink, DRIVER_KILL)
        driver.kill()
    resumed_from = len(done(open_store(sink)))
    with started(bundle, source, sink) as driver:
        killed += kill_at_work(driver, sink, [m for m in WORKER_KILLS if m > DRIVER_KILL])
        answer, _ = driver.communicate()
    assert driver.returncode == 0
    assert len(set(killed)) == 5
    summary = json.loads(answer)
    print(f"\n{time.monotonic() - began:.0f} s, resumed at shard {resumed_from}: {summary}")
    poisonous = {key for key in contents if not key[:-4].rpartition("/")[2].isdigit()}
    assert len(poisonous) == POISON_EACH * len(poison())
    assert (summary["objects"], summary["left"]) == (OBJECTS, 0)
    assert summary["resumed"] >= 256 * DRIVER_KILL

    rows = read_rows(sink).to_pylist()
    keys = Counter(row["uri"].removeprefix(f"{source}/") for row in rows)
    assert keys == Counter(list(contents)), "an object is missing or has two rows"
    reasons = {ending: told for ending, (_, told) in poison().items()}
    scorer = Scorer.from_bundle(load_bundle(bundle))
    distinct = list({content: None for key, content in contents.items() if key not in poisonous})
    scored = scorer.score_files([(str(n), content) for n, content in enumerate(distinct)])
    scores = {content: found.score for content, found in zip(distinct, scored, strict=True)}
    for row in rows:
        key = row["uri"].removeprefix(f"{source}/")
        if key in poisonous:
            ending = key[key.rindex("-") :]
            assert row["score"] is None
            assert row["error"], key
            assert reasons[ending] in row["error"], row["error"]
        else:
            assert row["error"] is None
            assert row["score"] == pytest.approx(scores[contents[key]], rel=1e-5)
