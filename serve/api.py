"""The HTTP application, put together; it knows no Ray and can run in any process."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from gan_ray.storage import AllowList
from serve import failures, guard, job_routes, routes
from serve.settings import AppArgs

STATIC = Path(__file__).parent / "static"


def api(
    args: AppArgs, models: Mapping[str, routes.Served], jobs: job_routes.JobDesk | None = None
) -> FastAPI:
    """Give the application that serves `models` by their names, and runs `jobs` if there are any.

    Raises:
        ConfigError: strangers could reach it.
    """
    args.check_exposure()
    # FastAPI's own documentation pages load scripts from elsewhere; the schema itself stays.
    app = FastAPI(title="gan-ray", version=version("gan-ray"), docs_url=None, redoc_url=None)
    app.state.args, app.state.models, app.state.jobs = args, dict(models), jobs
    app.state.allow, app.state.allow_sink = AllowList(args.allow), AllowList(args.allow_sink)
    failures.install(app)
    guard.install(app, args)
    app.include_router(routes.health)
    app.include_router(routes.protocol)
    app.include_router(job_routes.jobs)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def _page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    return app
