"""The endpoint on Ray Serve, over real HTTP."""

from __future__ import annotations

import asyncio
import inspect
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import httpx
import pytest

from gan_ray.errors import ArtifactError, ClusterError, ConfigError
from gan_ray.storage import open_store
from serve.app import build
from serve.launch import Endpoint, launch
from serve.settings import AppArgs
from tests.serve.conftest import png, write_bundle

pytestmark = pytest.mark.ray

TOKEN = "correct-horse-battery"
SCORE = "/v2/models/film/score"
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def served(ray_cluster, s3_server, bundle, store, tmp_path_factory):
    """An endpoint with two models, batches of up to eight images and a token."""
    urlopen(Request(f"{s3_server}/films", method="PUT")).close()
    other = write_bundle(tmp_path_factory.mktemp("bundles") / "other", name="other", seed=1)
    with launch(
        [bundle, other], port=0, max_batch=8, allow=[str(store), "s3://films"], token=TOKEN
    ) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def client(served: Endpoint):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=60) as client:
        yield client


def scores(response: httpx.Response) -> list[float]:
    assert response.status_code == 200, response.text
    return [output["score"] for output in response.json()["outputs"]]


def test_the_endpoint_is_ready_when_launch_returns(client):
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["models"] == ["film", "other"]


def test_a_request_id_that_is_no_text_is_replaced_in_front_of_rays_proxy(client):
    response = client.get("/v2", headers=[(b"X-Request-ID", b"\xed\xa0\xbd")])
    assert response.status_code == 200, response.text
    assert response.headers["X-Request-ID"].isascii()


def test_an_image_body_gets_the_score_that_scorer_gives(client, scorer):
    (expected,) = scorer.score_files([("a", png(1))])
    found = scores(client.post(SCORE, content=png(1), headers=PNG))
    assert found == pytest.approx([expected.score], abs=1e-6)


def test_each_model_answers_under_its_own_name(client):
    film = scores(client.post(SCORE, content=png(1), headers=PNG))
    other = scores(client.post("/v2/models/other/score", content=png(1), headers=PNG))
    assert film != other


def test_a_list_larger_than_a_batch_is_scored_in_its_order(client, scorer, store):
    paths = sorted(store.glob("[0-9]*.png"), reverse=True)
    expected = [r.score for r in scorer.score_files([(p.name, p.read_bytes()) for p in paths])]
    found = scores(client.post(SCORE, json={"uris": [str(path) for path in paths]}))
    assert len(found) == 40
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_scoring_processes_reach_the_bucket_of_the_operator(client, scorer):
    open_store("s3://films").put("a.png", png(1))
    (expected,) = scorer.score_files([("a", png(1))])
    found = scores(client.post(SCORE, json={"uris": ["s3://films/a.png"]}))
    assert found == pytest.approx([expected.score], abs=1e-6)


def test_requests_that_come_together_share_batches(client):
    def infer_ms(seed: int) -> float:
        response = client.post(SCORE, content=png(seed), headers=PNG)
        return response.json()["timing_ms"]["infer"]

    with ThreadPoolExecutor(16) as threads:
        measured = list(threads.map(infer_ms, range(64)))
    # Requests of one batch carry the time of that one batch, to the microsecond.
    assert len(set(measured)) < 60


def test_a_bad_part_does_not_harm_the_others(client):
    files = [("image", ("a.png", png(1))), ("image", ("b.png", b"none"))]
    response = client.post(SCORE, files=files)
    assert response.status_code == 207
    good, bad = response.json()["outputs"]
    assert good["score"] > 0
    assert bad["code"] == "UNUSABLE_IMAGE"


@pytest.mark.parametrize(
    ("path", "sent", "status"),
    [
        (SCORE, {"json": {"uris": ["/etc/hostname"]}}, 403),
        ("/v2/models/none/score", {"content": png(), "headers": PNG}, 404),
        (SCORE, {"content": b"x" * (32 * 2**20 + 1), "headers": PNG}, 413),
        (SCORE, {"content": b"x", "headers": {"Content-Type": "text/csv"}}, 415),
        (SCORE, {"content": b"no image", "headers": PNG}, 422),
        (SCORE, {"json": {"uris": []}}, 400),
        (SCORE, {"content": png(), "headers": {**PNG, "Authorization": "Bearer no"}}, 401),
    ],
)
def test_a_refusal_has_its_status_and_the_one_shape(client, path, sent, status):
    response = client.post(path, **sent)
    assert response.status_code == status
    assert sorted(response.json()) == ["code", "error", "hint", "request_id"]


def test_more_requests_than_can_wait_are_shed_with_429(served, store):
    # Few images each: what is accepted must be done well before the deadline on a busy machine.
    paths = [str(path) for path in sorted(store.glob("[0-9]*.png"))][:12]

    async def flood() -> list[httpx.Response]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=served.url, headers=headers, timeout=60, limits=limits
        ) as client:
            sent = (client.post(SCORE, json={"uris": paths}) for _ in range(160))
            return await asyncio.gather(*sent)

    responses = asyncio.run(flood())
    assert {response.status_code for response in responses} == {200, 429}
    # Three batches of eight are room for two or three lists at a time; 80 requests could queue.
    assert sum(response.status_code == 429 for response in responses) > 100
    shed = next(response for response in responses if response.status_code == 429)
    assert shed.headers["Retry-After"] == "1"
    assert shed.json()["code"] == "OVERLOADED"


def test_a_second_endpoint_on_the_cluster_is_refused(served, bundle):
    with pytest.raises(ClusterError, match="runs on this cluster already"):
        launch([bundle], port=0)


def test_a_launch_that_cannot_work_is_refused_before_serve_starts(ray_cluster, bundle, tmp_path):
    with pytest.raises(ConfigError, match="GAN_RAY_TOKEN"):
        launch([bundle], host="0.0.0.0", port=0, token="")
    with pytest.raises(ConfigError, match="replicas"):
        launch([bundle], port=0, replicas=0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=f":{port}"):
            launch([bundle], port=port)


def test_a_bundle_that_is_damaged_or_named_twice_is_not_served(bundle, tmp_path):
    with pytest.raises(ConfigError, match="name 'film'"):
        build(AppArgs(bundles=[str(bundle)] * 2, host="127.0.0.1", token=""))
    damaged = write_bundle(tmp_path / "film")
    weights = damaged / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="sha256"):
        build(AppArgs(bundles=[str(damaged)], host="127.0.0.1", token=""))


def test_a_serve_config_needs_a_token_unless_it_says_loopback(bundle, monkeypatch):
    # Ray reads the arguments' class off the signature; a postponed annotation would hide it.
    assert inspect.signature(build).parameters["args"].annotation is AppArgs
    monkeypatch.delenv("GAN_RAY_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="GAN_RAY_TOKEN"):
        build(AppArgs.model_validate({"bundles": [str(bundle)]}))
    assert build(AppArgs.model_validate({"bundles": [str(bundle)], "host": "localhost"}))
