"""Versions of a model that come, break and go, in a real registry and without Ray."""

from __future__ import annotations

import asyncio
import shutil
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.store import candidates, publish
from gan_ray.errors import ArtifactError, ConfigError
from serve import line as lines
from serve.api import api
from serve.card import Card
from serve.line import Followed
from serve.model import Job, Model
from serve.replica import Replica, by_model
from serve.settings import AppArgs
from tests.serve.conftest import (
    Followable,
    flip_a_byte,
    nan_on_checkerboards,
    png,
    running,
    shifted,
    write_bundle,
)

SCORE = "/v2/models/film/score"
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def registry(bundle: Path, tmp_path: Path) -> Path:
    """A registry with version 1."""
    publish(bundle, str(tmp_path / "registry"))
    return tmp_path / "registry"


def publish_version(registry: Path, version: str, **how) -> None:
    folder = write_bundle(registry.parent / f"made-{version}", version=version, **how)
    publish(folder, str(registry))


def follow(registry: Path, **settings) -> tuple[Followed, AppArgs]:
    args = AppArgs(
        bundles=["film@newest"], registry=str(registry), host="127.0.0.1", token="", **settings
    )
    known = partial(candidates, "film@newest", str(registry))
    return Followed(known, Followable(Replica("film@newest", args)).load, args.versions), args


def test_the_index_tells_why_a_version_is_refused(registry):
    publish_version(registry, "2", seed=1)
    flip_a_byte(registry / "film" / "2" / "weights.safetensors")
    line, args = follow(registry)
    with (
        running(api(args, {}, followed={"film": line})) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        first, second = client.post("/v2/repository/index").json()
    assert (first["version"], first["state"], first["reason"]) == ("1", "READY", "")
    assert (second["version"], second["state"]) == ("2", "UNAVAILABLE")
    assert "damaged" in second["reason"]


def test_the_newest_is_the_largest_integer_and_names_are_never_followed(registry):
    publish_version(registry, "10", seed=1)
    publish_version(registry, "9", seed=2)
    publish_version(registry, "trial", seed=3)
    assert candidates("film@newest", str(registry)) == ["film@10", "film@9", "film@1"]
    assert candidates("film@trial", str(registry)) == ["film@trial"]
    with pytest.raises(ArtifactError, match="integer"):
        candidates("other@newest", str(registry))
    with pytest.raises(ConfigError, match="registry"):
        candidates("film@newest", None)


def test_a_published_version_takes_over_and_the_one_before_stays_reachable(registry):
    followed, args = follow(registry)
    with (
        running(api(args, {}, followed={"film": followed})) as url,
        httpx.Client(base_url=url) as client,
    ):

        def answer(path: str = SCORE) -> tuple[str, float]:
            told = client.post(path, content=png(), headers=PNG).json()
            return told["model_version"], told["outputs"][0]["score"]

        first = answer()
        publish_version(registry, "2", seed=1)
        asyncio.run(followed.look())
        second = answer()
        assert (first[0], second[0]) == ("1", "2")
        assert first[1] != second[1]
        assert answer("/v2/models/film/versions/1/score") == first
        assert client.get("/v2/models/film").json()["versions"] == ["2", "1"]
        publish_version(registry, "3", seed=2)
        asyncio.run(followed.look())
        gone = client.post("/v2/models/film/versions/1/score", content=png(), headers=PNG)
        assert (gone.status_code, gone.json()["hint"]) == (404, "versions here: 3, 2")


@pytest.mark.parametrize(
    "fault", ["a changed byte", "other golden scores", "golden images give NaN"]
)
def test_a_broken_version_never_takes_over_and_the_model_says_why(registry, fault, caplog):
    followed, args = follow(registry)
    how = {
        "other golden scores": {"golden": shifted},
        "golden images give NaN": {
            "weights": partial(nan_on_checkerboards, sign=1.0),
            "golden": np.nan_to_num,
        },
    }
    publish_version(registry, "2", seed=1, **how.get(fault, {}))
    if fault == "a changed byte":
        flip_a_byte(registry / "film" / "2" / "weights.safetensors")
    with (
        running(api(args, {}, followed={"film": followed})) as url,
        httpx.Client(base_url=url) as client,
    ):
        assert client.post(SCORE, content=png(), headers=PNG).json()["model_version"] == "1"
        (why,) = client.get("/v2/models/film").json()["parameters"]["refused"].values()
        assert ("golden" in why) == ("golden" in fault)
        assert str(registry) not in why
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v2/models/film/versions/2").status_code == 404
    assert "film@2 does not take over" in caplog.text


def test_a_refused_version_is_tried_again_and_takes_over_once_it_is_mended(registry, monkeypatch):
    followed, _ = follow(registry)
    publish_version(registry, "2", seed=1)
    weights = registry / "film" / "2" / "weights.safetensors"
    flip_a_byte(weights)
    asyncio.run(followed.look())
    flip_a_byte(weights)
    asyncio.run(followed.look())
    assert followed.versions == ["1"], "not at every look: it would be hashed all day"
    monkeypatch.setattr(lines.time, "monotonic", lambda: float("inf"))
    asyncio.run(followed.look())
    assert (followed.versions, followed.refused) == (["2", "1"], {})


def test_a_version_that_is_removed_hands_back_to_the_one_before(registry):
    followed, _ = follow(registry)
    publish_version(registry, "2", seed=1)
    asyncio.run(followed.look())
    shutil.rmtree(registry / "film" / "2")
    asyncio.run(followed.look())
    assert followed.versions == ["1"]
    shutil.rmtree(registry / "film")
    with pytest.raises(ArtifactError):
        asyncio.run(followed.look())
    assert followed.versions == ["1"], "an empty registry stops nothing"


def test_an_endpoint_that_starts_on_a_broken_version_serves_the_one_before(registry):
    publish_version(registry, "2", seed=1, golden=shifted)
    followed, _ = follow(registry)
    asyncio.run(followed.look())
    assert followed.versions == ["1"]
    flip_a_byte(registry / "film" / "2" / "golden.npz")
    assert Card.of("film@newest", str(registry)).manifest.version == "1"


def test_a_model_that_gives_nan_is_unready_and_its_other_scores_go_on(endpoint, tmp_path):
    path = write_bundle(tmp_path / "film", weights=nan_on_checkerboards)
    client = endpoint(path)
    board = {"content": png(checkerboard=True), "headers": PNG}
    assert client.get("/v2/health/ready").status_code == 200, "golden images pass"
    refused = client.post(SCORE, **board)
    assert (refused.status_code, refused.json()["code"]) == (500, "MODEL_FAULT")
    for place in ("/v2/health/ready", "/v2/models/film/ready"):
        answer = client.get(place)
        assert (answer.status_code, answer.json()["code"]) == (503, "NOT_READY")
        assert "film@1" in answer.json()["error"]
        assert "finite" in answer.json()["error"]
    assert client.get("/v2/health/live").status_code == 200
    files = [("image", ("a.png", png())), ("image", ("b.png", png(checkerboard=True)))]
    mixed = client.post(SCORE, files=files)
    assert mixed.status_code == 207
    assert "NaN" not in mixed.text
    good, bad = mixed.json()["outputs"]
    assert good["score"] > 0
    assert bad["code"] == "MODEL_FAULT"


def test_a_model_at_fault_is_ready_again_when_another_version_takes_over(registry):
    publish_version(registry, "2", weights=nan_on_checkerboards)
    followed, args = follow(registry)
    with (
        running(api(args, {}, followed={"film": followed})) as url,
        httpx.Client(base_url=url) as client,
    ):
        client.post(SCORE, content=png(checkerboard=True), headers=PNG)
        assert client.get("/v2/health/ready").status_code == 503
        publish_version(registry, "3", seed=1)
        asyncio.run(followed.look())
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v2/models/film/versions/2/ready").status_code == 503


def test_jobs_of_two_versions_in_one_batch_get_each_their_own_scores(registry, tmp_path):
    publish_version(registry, "2", seed=1)
    one, two = (Model(load_bundle(registry / "film" / version)) for version in "12")
    waiting = [(model, model.read(Job(files=(png(),)))) for model in (one, two, one)]
    found = [reply.cases[0].score for reply in by_model(waiting)]
    alone = [model.score([images])[0].cases[0].score for model, images in waiting]
    assert found == pytest.approx(alone, abs=1e-6)
    assert abs(found[0] - found[1]) > 1e-4
