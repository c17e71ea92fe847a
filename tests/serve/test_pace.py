"""A model that searches gets smaller batches, a shorter queue and more time, or what is set."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.manifest import MANIFEST
from gan_ray.errors import ArtifactError
from serve import settings
from serve.model import Model
from serve.settings import AppArgs, Limits
from tests.serve.conftest import png, write_bundle

SCORE = "/v2/models/slow/score"
IMAGE = {"content": png(), "headers": {"Content-Type": "image/png"}}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says that an image costs it a thousand passes."""
    path = write_bundle(tmp_path_factory.mktemp("bundles") / "slow", name="slow")
    manifest = dataclasses.replace(load_bundle(path).manifest, passes_per_image=1000)
    (path / MANIFEST).write_bytes(manifest.to_json())
    return path


def test_a_search_waits_in_a_shorter_queue_for_longer():
    args = AppArgs(bundles=["a"], replicas=2)
    usual, search = args.pace(4), args.pace(1000)
    assert (usual.max_batch, usual.deadline_s, usual.ready_s) == (32, 30, 5)
    assert (search.max_batch, search.deadline_s, search.ready_s) == (3, 300, 50)
    assert (usual.ongoing, search.ongoing) == (64, 6)
    assert (usual.queued, search.queued) == (512, 48)
    assert (usual.room, search.room) == (192, 18)


def test_what_the_operator_sets_holds_for_every_model():
    args = AppArgs(bundles=["a"], max_batch=7, limits=Limits(deadline_s=11))
    for passes in (1, 1000):
        assert (args.pace(passes).max_batch, args.pace(passes).deadline_s) == (7, 11)


def test_a_model_tells_the_pace_that_it_is_served_at(endpoint, bundle, slow):
    client = endpoint(bundle, slow)

    def told(name: str) -> tuple[int, float]:
        parameters = client.get(f"/v2/models/{name}").json()["parameters"]
        return parameters["max_batch"], parameters["deadline_s"]

    assert told("film") == (32, 30.0)
    assert told("slow") == (3, 300.0)
    assert client.get("/v2").json()["limits"]["deadline_s"] == 30.0


def test_a_search_is_given_up_later_than_another_model(endpoint, bundle, slow, monkeypatch):
    monkeypatch.setattr(settings, "DEADLINE_S", 1.0)
    score = Model.score

    def slowly(self, jobs):
        time.sleep(1.5)
        return score(self, jobs)

    monkeypatch.setattr(Model, "score", slowly)
    client = endpoint(bundle, slow)
    assert client.post(SCORE, **IMAGE).status_code == 200
    late = client.post("/v2/models/film/score", **IMAGE)
    assert (late.status_code, late.json()["code"]) == (504, "DEADLINE")
    hurried = endpoint(slow, limits=Limits(deadline_s=1.0))
    assert hurried.post(SCORE, **IMAGE).status_code == 504


def test_a_probe_of_a_search_scores_one_golden_image_and_its_start_all(slow, monkeypatch):
    bundle = load_bundle(slow)
    model = Model(bundle)
    bundle.golden.scores[3] += 2e-4
    model.check_golden()
    with pytest.raises(ArtifactError, match="golden"):
        Model(bundle)
    bundle.golden.scores[0] += 2e-4
    with pytest.raises(ArtifactError, match="golden"):
        model.check_golden()
