"""Bundles that are published under traffic, and an endpoint that is told to end under it.

The endpoint is the real command in a process of its own, with a Ray of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gan_ray.artifacts.bundle import load_bundle
from gan_ray.artifacts.store import publish
from gan_ray.scoring.scorer import Scorer
from tests.serve.conftest import flip_a_byte, png, shifted, write_bundle

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RATE = 20.0
LEAST_S = 20.0
MODEL = "/v2/models/film"
PNG = {"Content-Type": "image/png"}


@contextlib.contextmanager
def serving(*arguments: str, log: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """Run `gan-ray serve`; give its process and its URL once it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gan_ray", "serve", *arguments, "--port", str(port)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_ADDRESS")}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + 300
    try:
        while b"Ctrl-C" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield process, url
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(120)


class Traffic(threading.Thread):
    """Sends an image every 50 ms, whatever becomes of those before, until it is told to stop."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[float, int, dict]] = []
        """When each was sent, its status (0: none came) and what it told."""
        self.stop = threading.Event()
        self._url = url

    def run(self) -> None:
        asyncio.run(self._send())

    async def _send(self) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self._url, timeout=60, limits=limits) as client:
            tasks, begin = [], time.monotonic()
            while not self.stop.is_set():
                tasks.append(asyncio.create_task(self._one(client, time.monotonic() - begin)))
                await asyncio.sleep(max(0.0, begin + len(tasks) / RATE - time.monotonic()))
            await asyncio.gather(*tasks)

    async def _one(self, client: httpx.AsyncClient, sent: float) -> None:
        try:
            answer = await client.post(f"{MODEL}/score", content=png(), headers=PNG)
            self.answers.append((sent, answer.status_code, answer.json()))
        except httpx.HTTPError as error:
            self.answers.append((sent, 0, {"error": repr(error)}))

    @property
    def failed(self) -> list[tuple[float, int, dict]]:
        return [answer for answer in self.answers if answer[1] != 200]


def waited(condition, seconds: float = 120.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.2)
    return False


def put(registry: Path, version: str, *, broken: bool = False, **how) -> float:
    """Publish a version; give the score that it has for the image of the traffic."""
    folder = write_bundle(registry.parent / f"made-{version}", version=version, **how)
    (result,) = Scorer.from_bundle(load_bundle(folder)).score_files([("a", png())])
    publish(folder, str(registry.parent / "aside" if broken else registry))
    if broken:  # appears as a whole, as a careful copy would
        aside = registry.parent / "aside" / "film" / version
        flip_a_byte(aside / "weights.safetensors")
        aside.rename(registry / "film" / version)
    return result.score


def test_a_good_and_two_broken_versions_under_traffic_fail_no_request(tmp_path: Path):
    registry, log = tmp_path / "registry", tmp_path / "log"
    scores = {"1": put(registry, "1")}
    with (
        serving("film@newest", "--registry", str(registry), "--watch", "1", log=log) as (_, url),
        httpx.Client(base_url=url, timeout=60) as client,
    ):

        def refused() -> dict[str, str]:
            return client.get(MODEL).json()["parameters"]["refused"]

        traffic, begin = Traffic(url), time.monotonic()
        traffic.start()
        time.sleep(3)
        scores["2"] = put(registry, "2", seed=1)
        assert waited(lambda: traffic.answers[-1][2].get("model_version") == "2")
        put(registry, "3", broken=True, seed=2)
        assert waited(lambda: "3" in refused())
        put(registry, "4", golden=shifted, seed=3)
        assert waited(lambda: "4" in refused())
        time.sleep(max(3.0, begin + LEAST_S - time.monotonic()))
        traffic.stop.set()
        traffic.join(90)
        told = refused()
        old = client.post(f"{MODEL}/versions/1/score", content=png(), headers=PNG).json()
        assert client.post(f"{MODEL}/versions/3/score", content=png()).status_code == 404
        assert client.get("/v2/health/ready").status_code == 200
    assert not traffic.failed, traffic.failed[:3]
    assert len(traffic.answers) >= 0.8 * RATE * LEAST_S
    versions = [told["model_version"] for _, _, told in sorted(traffic.answers, key=lambda a: a[0])]
    assert set(versions) == {"1", "2"}
    assert versions[0] == "1"
    assert versions[-1] == "2"
    for _, _, answer in traffic.answers:  # each version's own score, never one of the other's
        (output,) = answer["outputs"]
        assert output["score"] == pytest.approx(scores[answer["model_version"]], abs=1e-6)
    assert old["outputs"][0]["score"] == pytest.approx(scores["1"], abs=1e-6)
    assert abs(scores["1"] - scores["2"]) > 1e-4
    assert "damaged" in told["3"]
    assert "golden" in told["4"]


def test_an_endpoint_that_is_told_to_end_answers_all_who_are_in(tmp_path: Path):
    folder, log = write_bundle(tmp_path / "film"), tmp_path / "log"

    async def ask(process: subprocess.Popen, url: str) -> list[httpx.Response]:
        release = asyncio.Event()

        async def body():  # whoever sends it is in, and has not even said what he wants
            yield png()[:20]
            await release.wait()
            yield png()[20:]

        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            sent = (client.post(f"{MODEL}/score", content=body(), headers=PNG) for _ in range(5))
            asked = [asyncio.create_task(one) for one in sent]
            await asyncio.sleep(3)
            process.send_signal(signal.SIGTERM)
            until = time.monotonic() + 60
            while (await client.get("/v2/health/ready")).status_code != 503:
                assert time.monotonic() < until, "who comes later must be sent away"
                await asyncio.sleep(0.1)
            late = await client.post(f"{MODEL}/score", content=png(), headers=PNG)
            assert (late.status_code, late.json()["code"]) == (503, "STOPPING")
            assert not any(task.done() for task in asked)
            release.set()
            return await asyncio.gather(*asked)

    with serving(str(folder), log=log) as (process, url):
        answers = asyncio.run(ask(process, url))
        assert process.wait(120) == 0, log.read_text()
    assert [answer.status_code for answer in answers] == [200] * 5
    assert all(answer.json()["outputs"][0]["score"] > 0 for answer in answers)
