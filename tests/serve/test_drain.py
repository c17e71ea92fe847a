"""Ending without cutting anybody off, over real HTTP and without Ray."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
import uvicorn

from gan_ray.artifacts.bundle import load_bundle
from serve.api import api
from serve.card import Card
from serve.drain import Drain
from serve.model import Model
from serve.settings import AppArgs
from tests.serve.conftest import InProcess, png

SCORE = "/v2/models/film/score"
PNG = {"Content-Type": "image/png"}


def test_whoever_is_in_is_answered_and_who_comes_later_is_sent_away(bundle: Path):
    drain = Drain()
    args = AppArgs(bundles=[str(bundle)], host="127.0.0.1", token="")
    app = api(args, {"film": InProcess(Card.read(bundle), Model(load_bundle(bundle)))})
    app.add_middleware(drain.around)

    async def ask() -> None:
        release, listener = asyncio.Event(), socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))

        async def body():  # whoever sends it is in, and has not even said what he wants
            yield png()[:20]
            await release.wait()
            yield png()[20:]

        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            sent = (client.post(SCORE, content=body(), headers=PNG) for _ in range(5))
            asked = [asyncio.create_task(one) for one in sent]
            while drain._inside < len(asked):
                await asyncio.sleep(0.01)
            closing = asyncio.create_task(drain.close())
            await asyncio.sleep(0.1)
            late = await client.post(SCORE, content=png(), headers=PNG)
            assert (late.status_code, late.json()["code"]) == (503, "STOPPING")
            assert late.headers["Retry-After"] == "10"
            assert (await client.get("/v2/health/ready")).status_code == 503
            assert not closing.done()
            release.set()
            answers = await asyncio.gather(*asked)
            await closing
        assert [answer.status_code for answer in answers] == [200] * 5
        server.should_exit = True
        await serving

    asyncio.run(ask())
