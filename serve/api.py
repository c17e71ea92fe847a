"""The HTTP application, put together; it knows no Ray and can run in any process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from gan_ray.storage import AllowList
from serve import failures, guard, job_routes, routes
from serve.line import Followed, Line, Served
from serve.settings import AppArgs

STATIC = Path(__file__).parent / "static"


def api(
    args: AppArgs,
    models: Mapping[str, Served],
    jobs: job_routes.JobDesk | None = None,
    *,
    followed: Mapping[str, Followed] | None = None,
) -> FastAPI:
    """Give the application that serves `models` by their names, and runs `jobs` if there are any.

    What is `followed` is looked up when the application starts, and again every `args.watch_s`.

    Raises:
        ConfigError: strangers could reach it.
    """
    args.check_exposure()
    watched = dict(followed or {})

    @asynccontextmanager
    async def watching(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.gather(*(line.look() for line in watched.values()))
        tasks = [asyncio.create_task(line.watch(args.watch_s)) for line in watched.values()]
        yield
        for task in tasks:
            task.cancel()

    # FastAPI's own documentation pages load scripts from elsewhere; the schema itself stays.
    app = FastAPI(
        title="gan-ray",
        version=version("gan-ray"),
        docs_url=None,
        redoc_url=None,
        lifespan=watching,
    )
    app.state.args, app.state.jobs = args, jobs
    app.state.models = {name: Line(model) for name, model in models.items()} | watched
    app.state.allow, app.state.allow_sink = AllowList(args.allow), AllowList(args.allow_sink)
    failures.install(app)
    app.add_middleware(guard.around(args))
    app.include_router(routes.health)
    app.include_router(routes.protocol)
    app.include_router(job_routes.jobs)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def _page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    return app
