"""How much at once and how long to wait, by what an image costs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from gan_ray.artifacts.bundle import read_verified
from gan_ray.artifacts.manifest import MANIFEST
from gan_ray.config import from_dict
from gan_ray.scoring import ledger
from gan_ray.scoring.batch import score_prefix
from gan_ray.scoring.pace import at_once, patience
from gan_ray.scoring.shards import ShardScorer
from tests.artifacts.conftest import make_bundle
from tests.scoring.test_score_prefix import fill


@pytest.mark.parametrize(
    ("passes", "images", "seconds"),
    [(1, 32, 30), (4, 32, 30), (100, 32, 30), (400, 8, 120), (1000, 3, 300), (10**6, 1, 300_000)],
)
def test_what_is_usual_is_cut_and_stretched_beyond_a_hundred_passes(passes, images, seconds):
    assert at_once(32, passes) == images
    assert patience(30, passes) == seconds


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system that searches, in ten passes."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", "anogan")


def costing(bundle: Path, passes: int) -> Path:
    """Let a bundle say that an image costs it so many passes."""
    file = bundle / MANIFEST
    manifest = dataclasses.replace(read_verified(bundle)[0], passes_per_image=passes)
    file.write_bytes(manifest.to_json())
    return bundle


@pytest.mark.parametrize(("passes", "shard", "together"), [(10, 256, 32), (1000, 25, 3)])
def test_a_search_is_scored_in_smaller_shards_and_batches(quick, tmp_path, passes, shard, together):
    costing(quick, passes)
    fill(str(tmp_path / "in"), 5)

    done = score_prefix(quick, str(tmp_path / "in"), str(tmp_path / "out"), workers=0)
    assert done["scored"] == 5
    written = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert written["job"]["shard_size"] == shard
    manifest, contents = read_verified(quick)
    files = {**contents, MANIFEST: manifest.to_json()}
    job = from_dict(ledger.Job, written["job"])
    assert ShardScorer(files, job, str(tmp_path / "out"))._model[1].batch_size == together
