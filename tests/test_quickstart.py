"""The main job from one end to the other, as `make quickstart` runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gan_ray.data.sources import load_training
from gan_ray.experiment import make
from gan_ray.quickstart import put_digits
from gan_ray.storage import open_store

pytestmark = pytest.mark.slow


@pytest.mark.timeout(900)
@pytest.mark.parametrize("place", ["directory", "bucket"])
def test_quickstart_keeps_its_contract(place: str, tmp_path: Path, s3):
    store = f"{s3.uri}/digits" if place == "bucket" else str(tmp_path / "store")
    done = subprocess.run(
        [sys.executable, "-m", "gan_ray", "quickstart", "--store", store, "--out", tmp_path / "q"],
        capture_output=True,
        text=True,
        timeout=800,
        env={**os.environ, "RAY_AUTH_MODE": "token"},
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "q" / "summary.json").read_text())
    assert summary["image_auroc"] >= 0.95
    low, high = summary["image_auroc_ci"]
    assert low <= summary["image_auroc"] <= high
    assert summary["served_images"] >= 300
    assert summary["max_score_difference"] <= 1e-4
    assert summary["trials"] == 4
    page = (tmp_path / "q" / "report.html").read_text()
    assert "https://" not in page.split("<body")[1]


def test_the_store_holds_a_data_set_that_trains(tmp_path: Path):
    uris = put_digits(open_store(str(tmp_path)))
    assert len(uris) == 710
    data = load_training(
        make("brainomaly", preset="tiny", changes={"data": {"root": str(tmp_path)}}).data
    )
    assert data.unlabeled is not None
    assert len(data.normal) > 30
