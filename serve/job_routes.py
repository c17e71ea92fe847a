"""The routes of jobs: the extension `jobs`, which scores whole prefixes."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable
from typing import Annotated, Protocol, TypeVar

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from gan_ray.errors import StorageError
from gan_ray.storage.uris import parse
from serve import bodies
from serve.failures import Failure
from serve.guard import authorise
from serve.jobs import Cursor, Page
from serve.routes import REFUSALS, Settings, line
from serve.schemas import JobList, JobRequest, JobStatus, Refusal
from serve.settings import DEADLINE_S, AppArgs

T = TypeVar("T")

jobs = APIRouter(
    prefix="/v2/jobs",
    tags=["jobs"],
    dependencies=[Depends(authorise)],
    responses=REFUSALS,  # type: ignore[arg-type]
)

RETRY_AFTER_S = 60


class JobDesk(Protocol):
    """Where jobs are handed in and asked after, wherever they run; see `jobs.Jobs`."""

    async def submit(self, name: str, request: JobRequest, version: str) -> JobStatus | None:
        """Give the job `name`, made from the request if there was none; None: too many wait."""

    async def recent(self) -> list[JobStatus]:
        """Give the newest jobs, the newest first."""

    async def get(self, name: str) -> JobStatus | None:
        """Give a job; None when there is none of that name."""

    async def cancel(self, name: str) -> JobStatus | None:
        """End a job where it stands, unless it has ended; what is done stays."""

    async def results(self, name: str, start: Cursor, limit: int) -> Page | None:
        """Give up to `limit` of its rows, in the order of the objects' keys."""


async def desk(request: Request) -> JobDesk:
    """Give the place of jobs.

    Raises:
        Failure: the operator allows none (403).
    """
    found: JobDesk | None = request.app.state.jobs
    if found is None:
        hint = "the operator allows places to write to with `gan-ray serve --allow-sink PREFIX`"
        raise Failure(403, "NO_JOBS", "this endpoint runs no jobs", hint)
    return found


Desk = Annotated[JobDesk, Depends(desk)]
Name = Annotated[str, Path(max_length=64)]
Key = Annotated[str | None, Header(min_length=1, max_length=255)]


@jobs.post("", status_code=202, responses={409: {"model": Refusal}})
async def submit(
    request: Request, response: Response, desk: Desk, args: Settings, idempotency_key: Key = None
) -> JobStatus:
    """Score a whole prefix; `Location` is where to ask after it.

    Whoever sends an `Idempotency-Key` again with the same body gets the job that he has.
    """
    bodies.content_type(request, ("application/json",))
    wanted = bodies.document(await bodies.whole(request, args.limits), JobRequest)
    model = await line(request, wanted.model)
    version = model.version(wanted.version).card.manifest.version
    state = request.app.state
    bodies.check_allowed(wanted.source.uri, state.allow, "--allow")
    bodies.check_allowed(wanted.sink.uri, state.allow_sink, "--allow-sink")
    if parse(args.job_registry).contains(parse(wanted.sink.uri)):
        hint = "choose another sink"
        raise Failure(403, "URI_NOT_ALLOWED", "jobs are written down in this place", hint)
    name = hashlib.sha256(idempotency_key.encode()).hexdigest() if idempotency_key else None
    name = f"j-{(name or uuid.uuid4().hex)[:16]}"
    job = await _answered(args, desk.submit(name, wanted, version))
    if job is None:
        raise Failure(
            *(429, "OVERLOADED", "too many jobs are waiting", "try again when one has ended"),
            retry_after=RETRY_AFTER_S,
        )
    if job.request != wanted:
        hint = "choose another Idempotency-Key, or send the same body"
        raise Failure(409, "KEY_REUSED", f"another body had this key: it is job {job.id}", hint)
    response.headers["Location"] = f"{jobs.prefix}/{job.id}"
    return job


@jobs.get("")
async def recent(desk: Desk, args: Settings) -> JobList:
    """List recent jobs, the newest first."""
    return JobList(jobs=await _answered(args, desk.recent()))


@jobs.get("/{job}")
async def status(job: Name, desk: Desk, args: Settings) -> JobStatus:
    """Tell how far a job is."""
    return _known(job, await _answered(args, desk.get(job)))


@jobs.get(
    "/{job}/results",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {}}}},
)
async def results(
    job: Name,
    desk: Desk,
    args: Settings,
    cursor: Annotated[str, Query(pattern=r"^\d{1,9}\.\d{1,9}$")] = "0.0",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
) -> Response:
    """Give a page of rows as NDJSON; the header `Link` has the next page while there may be one."""
    start = Cursor(*map(int, cursor.split(".")))
    page = _known(job, await _answered(args, desk.results(job, start, limit)))
    headers = {}
    if page.following is not None:
        following = f"{jobs.prefix}/{job}/results?cursor={{}}.{{}}&limit={limit}"
        headers["Link"] = f'<{following.format(*page.following)}>; rel="next"'
    return Response(page.lines, media_type="application/x-ndjson", headers=headers)


@jobs.delete("/{job}", status_code=202)
async def cancel(job: Name, desk: Desk, args: Settings) -> JobStatus:
    """Cancel a job; what is done stays."""
    return _known(job, await _answered(args, desk.cancel(job)))


def _known(name: str, found: T | None) -> T:
    if found is None:
        raise Failure(404, "UNKNOWN_JOB", f"there is no job '{name}'", "see GET /v2/jobs")
    return found


async def _answered(args: AppArgs, answer: Awaitable[T]) -> T:
    seconds = args.limits.deadline_s or DEADLINE_S
    try:
        return await asyncio.wait_for(answer, seconds)
    except TimeoutError:
        hint = "try again: the jobs go on meanwhile"
        raise Failure(504, "DEADLINE", f"no answer within {seconds:g} s", hint) from None
    except StorageError:
        error = "the place of the jobs or of the rows cannot be reached"
        raise Failure(503, "UNREACHABLE", error, "try again later, or tell the operator") from None
